"""Install the packages of a requirements file into the virtual environment whose Python runs this.

    .venv/bin/python tools/install.py .venv requirements.txt "make run"

uv installs them: the one on the PATH, else one from the package index. Where there is none, or with INSTALLER=pip in
the environment, pip does. uv does not read pip's settings, so they are given to it as options.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

UV = "uv==0.13.9"
OLDEST_UV = (0, 5)  # has the options that are used here
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")

# The stamps that the Makefile looks for. What requirements-dev.txt installs contains requirements.txt.
STAMPS = {"requirements.txt": (".installed",), "requirements-dev.txt": (".installed", ".installed-dev")}
UNFINISHED = ".unfinished"

_DISK = ("No space left", "Disk quota exceeded")
_PERMISSION = ("Permission denied", "Read-only file system")
_NETWORK = (
    *("error sending request", "dns error", "tcp connect error", "NewConnectionError", "Failed to establish"),
    *("name resolution", "Network is unreachable", "Connection refused", "ProxyError", "ConnectTimeout", "ReadTimeout"),
    *("timed out", "CERTIFICATE_VERIFY_FAILED", "SSLError", "invalid peer certificate"),
)
# pip's settings that uv takes as an option, and the variables of uv that go before them.
_OPTIONS = {
    "index-url": ("--default-index", ("UV_DEFAULT_INDEX", "UV_INDEX_URL")),
    "extra-index-url": ("--index", ("UV_INDEX", "UV_EXTRA_INDEX_URL")),
    "find-links": ("--find-links", ("UV_FIND_LINKS",)),
    "constraint": ("--constraint", ("UV_CONSTRAINT",)),
    "trusted-host": ("--allow-insecure-host", ("UV_INSECURE_HOST",)),
}
# And those that it takes as a variable.
_VARIABLES = {
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "proxy": "ALL_PROXY",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "timeout": "UV_HTTP_TIMEOUT",
    "retries": "UV_HTTP_RETRIES",
    "keyring-provider": "UV_KEYRING_PROVIDER",
}
_TRUE = ("1", "true", "yes", "on")


class SetupError(Exception):
    """Installing failed: a sentence, and what to do next."""

    def __init__(self, sentence: str, next_step: str) -> None:
        super().__init__(sentence)
        self.next_step = next_step


def main(venv: Path, requirements: str, again: str) -> None:
    """Install, and write the stamps last, so that nothing half-made counts as finished."""
    started = float(os.environ.get("SETUP_STARTED", time.time()))
    try:
        uv = None if os.environ.get("INSTALLER") == "pip" else find_uv(again)
        if uv is None or not install_with_uv(uv, venv, requirements, again):
            install_with_pip(venv, requirements, again)
        for stamp in STAMPS[Path(requirements).name]:
            (venv / stamp).write_text(f"{venv.resolve()}\n")
    except SetupError as exc:
        fail(str(exc), exc.next_step)
    except OSError as exc:
        fail(*explain(str(exc), again))
    except KeyboardInterrupt:
        fail("stopped before it was finished.", again)
    print(f"Set-up: finished in {time.time() - started:.0f} s. To type commands such as luigi and python yourself:")
    print(f"    . {venv}/bin/activate", flush=True)


def find_uv(again: str) -> str | None:
    """Return the uv on the PATH, or install one into the environment; None where there is none to be had.

    Raises:
        SetupError: the package index cannot be reached.
    """
    own = Path(sys.executable).with_name("uv")
    for found in (shutil.which("uv"), str(own)):
        if found and version_of(found) >= OLDEST_UV:
            return found
    print(f"Set-up: installing {UV}, which installs the rest.", flush=True)
    done = captured(*PIP, "install", "--quiet", "--no-compile", "--retries", "1", UV)
    if done.returncode == 0 and version_of(str(own)) >= OLDEST_UV:
        return str(own)
    if is_any_in(_NETWORK + _DISK + _PERMISSION, done.stderr):
        raise SetupError(*explain(done.stderr, again))
    print("Set-up: uv is not to be had here. pip installs instead, in about three minutes.", flush=True)
    return None


def version_of(uv: str) -> tuple[int, ...]:
    """Return the version of a uv, such as (0, 13, 9); () if it does not run."""
    try:
        words = captured(uv, "--version").stdout.split()
    except OSError:
        return ()
    return tuple(int(part) for part in re.findall(r"\d+", words[1])) if len(words) > 1 else ()


def install_with_uv(uv: str, venv: Path, requirements: str, again: str) -> bool:
    """Install with uv; return False if it cannot resolve the requirements, so that pip has to be tried.

    Raises:
        SetupError: the package index cannot be reached, or installing broke off.
    """
    settings = pip_settings()
    environment = uv_variables(settings, os.environ)
    command = (uv, "pip", "install", "--python", sys.executable, *uv_options(settings, os.environ), "-r", requirements)
    # Resolved first, which changes nothing: a missing network is noticed here, and said in one sentence.
    resolved = captured(*command, "--dry-run", "--quiet", environment={"UV_HTTP_RETRIES": "1"} | environment)
    if resolved.returncode != 0:
        if is_any_in(_NETWORK + _DISK + _PERMISSION, resolved.stderr):
            raise SetupError(*explain(resolved.stderr, again))
        print(resolved.stderr, file=sys.stderr)
        print("Set-up: uv cannot install this, see above. pip is tried instead, in about three minutes.", flush=True)
        return False
    install(venv, again, *command, environment=environment)
    return True


def install_with_pip(venv: Path, requirements: str, again: str) -> None:
    """Install with pip.

    Raises:
        SetupError: installing broke off.
    """
    # pip shows its progress on standard output, and says on standard error what is wrong. A variable, for pip starts
    # another pip to build this package.
    few = {} if "PIP_RETRIES" in os.environ else {"PIP_RETRIES": "2"}
    install(venv, again, *PIP, "install", "--no-compile", "-r", requirements, environment=few, stderr=subprocess.PIPE)


def install(
    venv: Path, again: str, *command: str, environment: Mapping[str, str] | None = None, stderr: int | None = None
) -> None:
    """Run a command that installs, its progress shown. While it runs, the environment counts as unfinished.

    Raises:
        SetupError: it ended with an error.
    """
    for stamp in STAMPS["requirements-dev.txt"]:
        (venv / stamp).unlink(missing_ok=True)
    (venv / UNFINISHED).touch()
    variables = os.environ | dict(environment or {})
    done = subprocess.run(command, env=variables, stderr=stderr, text=True, check=False)
    if done.returncode != 0:
        text = _DISK[0] if shutil.disk_usage(venv).free < 100_000_000 else done.stderr or ""
        if not is_any_in(_DISK + _PERMISSION + _NETWORK, text):
            print(text, file=sys.stderr)
        raise SetupError(*explain(text, again))
    (venv / UNFINISHED).unlink()


def pip_settings() -> dict[str, str]:
    """Return pip's settings from its files and variables: by name, as `extra-index-url`."""
    found: dict[str, dict[str, str]] = {}
    for line in captured(*PIP, "config", "list").stdout.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        found.setdefault(section, {})[key] = str(ast.literal_eval(value))
    # The later ones are stronger, as they are for pip.
    return found.get("global", {}) | found.get("install", {}) | found.get(":env:", {})


def uv_options(settings: Mapping[str, str], variables: Mapping[str, str]) -> list[str]:
    """Return what uv needs on its command line to install from where pip would.

    Args:
        settings: pip's.
        variables: of the environment; those of uv itself are stronger than pip's settings.
    """
    options = []
    for key, (option, ours) in _OPTIONS.items():
        if not any(name in variables for name in ours):
            values = settings.get(key, "").split()
            # pip passes over a folder that is not there, uv does not.
            options += [word for value in values if key != "find-links" or is_there(value) for word in (option, value)]
    if "--index" in options and "UV_INDEX_STRATEGY" not in variables:
        options += ["--index-strategy", "unsafe-best-match"]  # pip's own: the best version of all indexes
    if settings.get("no-index", "").lower() in _TRUE:
        options += ["--no-index"]
    return options


def uv_variables(settings: Mapping[str, str], variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that uv needs to reach the package index as pip does; those that are set stay as they are.

    Args:
        settings: pip's.
        variables: of the environment.
    """
    wanted = {name: settings[key] for key, name in _VARIABLES.items() if settings.get(key)}
    if wanted.get("UV_KEYRING_PROVIDER") not in (None, "disabled", "subprocess"):
        del wanted["UV_KEYRING_PROVIDER"]
    wanted |= {"UV_SYSTEM_CERTS": "1"}  # the certificates of the machine, as for pip
    return {name: value for name, value in wanted.items() if name not in variables}


def is_there(location: str) -> bool:
    """Return True for a URL, and for a path that exists."""
    return "://" in location or Path(location).exists()


def is_any_in(signs: tuple[str, ...], text: str) -> bool:
    """Return True if a text has one of the signs in it."""
    return any(sign in text for sign in signs)


def explain(text: str, again: str) -> tuple[str, str]:
    """Return the sentence and the next step for what a tool wrote when it failed."""
    if is_any_in(_DISK, text):
        return "the disk is full; 3 GB are needed.", f"free some space, then: {again}"
    if is_any_in(_PERMISSION, text):
        last = text.strip().splitlines()[-1].strip()
        return f"a file or folder cannot be written ({last}).", f"correct its permissions, then: {again}"
    if is_any_in(_NETWORK, text):
        return "the package index cannot be reached.", f"check the network, the proxy and pip's settings, then: {again}"
    return "installing broke off; the lines above say why.", f"{again} (what was downloaded is kept)"


def fail(sentence: str, next_step: str) -> NoReturn:
    """End with exit code 1, a sentence and what to do next."""
    print(f"setup: {sentence}\n  next: {next_step}", file=sys.stderr)
    sys.exit(1)


def captured(*command: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command whose output is read here."""
    variables = os.environ | dict(environment or {})
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
