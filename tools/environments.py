"""Make environments of other versions, beside the one of this project.

    .venv/bin/python tools/environments.py runtimes             # TensorFlow 2.15, 2.18, 2.20 for [validation] runtimes
    .venv/bin/python tools/environments.py runtimes 2.15.1      # one of them, or another version
    .venv/bin/python tools/environments.py matrix               # this package under each Python and TensorFlow
    .venv/bin/python tools/environments.py matrix 3.12/2.20.0   # one cell

`runtimes` prints the line for tasks.cfg. `matrix` runs the chain in each cell, prints a table, and ends with exit code
1 if a cell fails. What is there already is kept; a Python that the machine lacks is named.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from pathlib import Path

from install import UNFINISHED, SetupError, captured, fail, find_uv, pip_settings, uv_options, uv_variables

RUNTIMES = ("2.15.1", "2.18.1", "2.20.0")
CELLS = tuple(f"{python}/{tensorflow}" for python in ("3.11", "3.12", "3.13") for tensorflow in ("2.20.0", "2.21.0"))
NEWEST_PYTHON = {"2.15": "3.11", "2.16": "3.12", "2.17": "3.12", "2.18": "3.12", "2.19": "3.12"}
FOLDER = Path(".environments")
_SMOKE = (
    ("WriteReport", "--model", "multiply_add", "--formats", "frozen,mmap,savedmodel,tflite,onnx"),
    ("ValidateModel", "--model", "spam"),
)


def make(folder: Path, python: str, packages: list[str], again: str) -> None:
    """Make an environment, if it is not there.

    Args:
        python: its version, such as `3.11`.
        packages: what to install.
        again: the command to type after a failure.

    Raises:
        SetupError: there is no such Python, or a package cannot be installed.
    """
    if (folder / "bin" / "python").exists() and not (folder / UNFINISHED).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / UNFINISHED).touch()
    uv, settings = find_uv(again), pip_settings()
    found = None if uv is None else find_python(uv, python)
    if not found:
        raise SetupError(f"there is no Python {python} here.", f"install it (pyenv install {python}), then: {again}")
    assert uv is not None
    variables = uv_variables(settings, os.environ)
    options = uv_options(settings, os.environ)
    for command in (
        (uv, "venv", "--quiet", "--no-project", "--allow-existing", "--python", found, str(folder)),
        (uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), *options, *packages),
    ):
        done = captured(*command, environment=variables)
        if done.returncode != 0:
            print(done.stderr, file=sys.stderr)
            raise SetupError("installing broke off; the lines above say why.", again)
    (folder / UNFINISHED).unlink()


def find_python(uv: str, version: str) -> str | None:
    """Return the path of a Python on the PATH, or of one that pyenv has; None if there is none.

    Args:
        version: such as `3.12`.
    """
    found = captured(uv, "python", "find", "--no-project", version)
    if found.returncode == 0:
        return found.stdout.strip()
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    return next((str(path) for path in sorted(versions.glob(f"{version}.*/bin/python"), reverse=True)), None)


def tensorflow(version: str) -> str:
    """Return the requirement of a TensorFlow; the one without GPU where there is one."""
    name = "tensorflow-cpu" if platform.machine() == "x86_64" and sys.platform == "linux" else "tensorflow"
    return f"{name}=={version}"


def runtimes(versions: tuple[str, ...]) -> None:
    """Make an environment with each TensorFlow, and print the setting that names them."""
    folders = []
    for version in versions:
        folder = FOLDER / f"tensorflow-{version}"
        python = NEWEST_PYTHON.get(".".join(version.split(".")[:2]), "3.12")
        print(f"{folder}: TensorFlow {version} ...", flush=True)
        make(folder, python, [tensorflow(version)], f"make runtimes VERSIONS={version}")
        folders.append(folder.absolute() / "bin" / "python")
    print("\nIn tasks.cfg:\n\n[validation]")
    print(f"runtimes = {', '.join(map(str, folders))}")


def matrix(cells: tuple[str, ...]) -> None:
    """Install this package under each Python and TensorFlow, run the chain there, and print a table."""
    print("| Python | TensorFlow | installed | chain | seconds |\n|---|---|---|---|---|", flush=True)
    has_failed = False
    for cell in cells:
        python, version = cell.split("/")
        started, folder = time.time(), FOLDER / f"python-{python}-tensorflow-{version}"
        try:
            packages = [f"tensorflow=={version}", "--editable", ".[tflite,onnx]"]
            make(folder, python, packages, f"make matrix CELLS={cell}")
            word = "yes"
            result = smoke(folder)
        except SetupError as exc:
            word, result = f"no: {exc}", ""
        has_failed |= word != "yes" or result != "passed"
        print(f"| {python} | {version} | {word} | {result} | {time.time() - started:.0f} |", flush=True)
    if has_failed:
        fail("a cell failed.", f"look at its log in {FOLDER}, then: make matrix CELLS=PYTHON/TENSORFLOW")


def smoke(folder: Path) -> str:
    """Run the chain with an environment; return `passed`, or the last line of what it said."""
    with tempfile.TemporaryDirectory() as root:
        for words in _SMOKE:
            command = (str(folder / "bin" / "luigi"), "--module", "pipeline", *words, "--output-root", root)
            done = captured(*command)
            (folder / "smoke.log").write_text(done.stdout + done.stderr)
            if done.returncode != 0:
                return (done.stdout + done.stderr).strip().splitlines()[-1].replace("|", " ")
    return "passed"


def main(words: list[str]) -> None:
    try:
        if words[:1] == ["runtimes"]:
            runtimes(tuple(words[1:]) or RUNTIMES)
        elif words[:1] == ["matrix"]:
            matrix(tuple(words[1:]) or CELLS)
        else:
            fail("no such command.", "make runtimes, or make matrix")
    except SetupError as exc:
        fail(str(exc), exc.next_step)


if __name__ == "__main__":
    main(sys.argv[1:])
