"""Set-up: what it says when it cannot go on, and that nothing half-made counts as finished."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pip
import pytest
from commands import PROJECT, run

SYSTEM = "/usr/bin:/bin"
AGAIN = "make run"


@pytest.fixture(scope="module")
def installer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install", PROJECT / "tools/install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project's folder with the set-up, a Python that makes environments quickly, and a uv that installs nothing."""
    folder = tmp_path / "project"
    (folder / "bin").mkdir(parents=True)
    for name in ("tools", "requirements.txt", "requirements-dev.txt", "pyproject.toml", "Makefile"):
        (folder / name).symlink_to(PROJECT / name)
    script(
        folder / "bin/python3.11",
        f"""
        if [ "$1 $2" != "-m venv" ]; then exec {sys.executable} "$@"; fi
        {sys.executable} -m venv --without-pip "$3" && printf '#!%s/bin/python\\n' "$(cd "$3" && pwd -P)" > "$3/bin/pip"
        """,
    )
    script(folder / "bin/uv", f'if [ "$1" = --version ]; then echo "uv 0.13.9"; else echo "$@" >> {folder}/asked; fi')
    return folder


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def set_up(project: Path, requirements: str = "requirements.txt", **variables: str) -> subprocess.CompletedProcess[str]:
    return run(
        *("sh", "tools/setup.sh", ".venv", requirements, AGAIN),
        cwd=project,
        **{"PATH": f"{project}/bin:{SYSTEM}", "PIP_CONFIG_FILE": "/dev/null", **variables},
    )


def stamps(project: Path) -> set[str]:
    return {path.name for path in (project / ".venv").glob(".*installed*")}


def test_a_python_that_is_too_old_is_one_sentence(project: Path) -> None:
    script(project / "bin/old", 'case "$2" in *print*) echo "is 3.10" ;; *) exit 1 ;; esac')
    done = set_up(project, PYTHON=f"{project}/bin/old")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"setup: Python 3.11, 3.12 or 3.13 is needed; {project}/bin/old is 3.10.",
        "  next: install Python 3.11, then: make run PYTHON=/path/to/python3.11",
    ]
    assert not (project / ".venv").exists()


def test_a_python_that_is_missing_is_one_sentence(project: Path) -> None:
    done = set_up(project, PYTHON="/no/python")
    assert done.returncode == 1
    assert done.stderr.startswith("setup: Python 3.11, 3.12 or 3.13 is needed; /no/python was not found.\n  next: ")


def test_a_python_without_venv_is_one_sentence(project: Path) -> None:
    script(project / "bin/bare", f'case "$2" in *ensurepip*) exit 1 ;; *) exec {sys.executable} "$@" ;; esac')
    done = set_up(project, PYTHON=f"{project}/bin/bare")
    assert done.returncode == 1
    assert "has no modules venv and ensurepip.\n  next: sudo apt-get install python3-venv" in done.stderr


@pytest.mark.parametrize("installer_name", ["uv", "pip"])
def test_a_missing_network_is_one_sentence(project: Path, installer_name: str) -> None:
    (project / "bin/uv").unlink()
    (project / "real").mkdir()
    (project / "real/pip").symlink_to(Path(pip.__file__).parent)
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1"}
    done = set_up(project, INSTALLER=installer_name, PYTHONPATH=str(project / "real"), **nowhere)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "setup: the package index cannot be reached.",
        "  next: check the network, the proxy and pip's settings, then: make run",
    ]
    assert not stamps(project)


def test_it_says_first_what_it_does_and_last_what_to_type(project: Path) -> None:
    done = set_up(project)
    assert done.returncode == 0, done.stderr
    first, *_, last = done.stdout.splitlines()
    assert first.startswith("Set-up: making .venv with TensorFlow")
    assert last == "    . .venv/bin/activate"
    assert stamps(project) == {".installed"}
    assert (project / ".venv/.installed").read_text() == f"{(project / '.venv').resolve()}\n"


def test_what_developing_needs_contains_what_running_needs(project: Path) -> None:
    assert set_up(project, "requirements-dev.txt").returncode == 0
    assert stamps(project) == {".installed", ".installed-dev"}


@pytest.fixture
def fake_pip(project: Path) -> str:
    """The folder of a pip that has a mirror in its settings, knows no uv, and installs nothing."""
    (project / "fake/pip").mkdir(parents=True)
    (project / "fake/pip/__main__.py").write_text(
        f"""
import sys
said = " ".join(sys.argv[1:])
if "config list" in said:
    print("global.index-url='https://mirror/simple'")
elif "uv==" in said:
    sys.exit("ERROR: No matching distribution found for uv")
else:
    open({str(project / "asked")!r}, "a").write(said + "\\n")
"""
    )
    return str(project / "fake")


def test_uv_is_asked_to_install_from_the_index_that_pip_has(project: Path, fake_pip: str) -> None:
    assert set_up(project, PYTHONPATH=fake_pip).returncode == 0
    resolved, installed = (project / "asked").read_text().splitlines()
    assert installed.startswith("pip install --python ")
    assert installed.endswith("/.venv/bin/python --default-index https://mirror/simple -r requirements.txt")
    assert resolved == f"{installed} --dry-run --quiet"


def test_pip_installs_where_there_is_no_uv(project: Path, fake_pip: str) -> None:
    (project / "bin/uv").unlink()
    done = set_up(project, PYTHONPATH=fake_pip)
    assert done.returncode == 0, done.stderr
    assert "uv is not to be had here. pip installs instead" in done.stdout
    assert (project / "asked").read_text() == "--disable-pip-version-check install --no-compile -r requirements.txt\n"
    assert stamps(project) == {".installed"}


def test_pip_installs_what_uv_cannot_resolve(project: Path, fake_pip: str) -> None:
    script(
        project / "bin/uv", 'if [ "$1" = --version ]; then echo "uv 0.13.9"; else echo "no such index" >&2; exit 2; fi'
    )
    done = set_up(project, PYTHONPATH=fake_pip)
    assert done.returncode == 0, done.stderr
    assert "no such index" in done.stderr
    assert "pip is tried instead" in done.stdout
    assert "install --no-compile -r requirements.txt" in (project / "asked").read_text()


@pytest.mark.parametrize("version", ["uv 0.4.30", "something else", ""])
def test_a_uv_that_is_too_old_or_does_not_run_is_not_used(project: Path, fake_pip: str, version: str) -> None:
    script(project / "bin/uv", f"echo {version}")
    assert "uv is not to be had here" in set_up(project, PYTHONPATH=fake_pip).stdout


def test_what_broke_off_is_not_finished_and_is_made_again(project: Path) -> None:
    uv = (project / "bin/uv").read_text()
    assert set_up(project).returncode == 0
    script(project / "bin/uv", 'case "$*" in *--version) echo "uv 0.13.9" ;; *--dry-run*) ;; *) kill -9 $$ ;; esac')
    done = set_up(project)
    assert done.returncode == 1
    assert done.stderr == (
        "\nsetup: installing broke off; the lines above say why.\n  next: make run (what was downloaded is kept)\n"
    )
    assert not stamps(project)
    (project / "bin/uv").write_text(uv)
    done = set_up(project)
    assert done.stdout.startswith("Set-up: making .venv again, for its set-up was not finished.")
    assert stamps(project) == {".installed"}


def test_a_moved_folder_is_noticed_and_its_environment_made_again(project: Path) -> None:
    assert set_up(project).returncode == 0
    moved = project.rename(project.with_name("moved"))
    (moved / "bin/uv").write_text((moved / "bin/uv").read_text().replace(str(project), str(moved)))
    shown = run("make", "-n", "run", cwd=moved)
    assert "tools/setup.sh .venv requirements.txt" in shown.stdout
    done = set_up(moved)
    assert done.stdout.startswith("Set-up: making .venv again, for the folder was moved or copied since.")
    assert (moved / ".venv/.installed").read_text() == f"{(moved / '.venv').resolve()}\n"
    assert "setup.sh" not in run("make", "-n", "run", cwd=moved).stdout


def test_a_changed_list_is_installed_into_the_environment_that_is_there(project: Path) -> None:
    assert set_up(project).returncode == 0
    (project / ".venv/kept").touch()
    (project / "requirements.txt").unlink()
    (project / "requirements.txt").write_text("tqdm\n")
    assert "setup.sh" in run("make", "-n", "run", cwd=project).stdout
    assert set_up(project).stdout.startswith("Set-up: bringing .venv up to date.")
    assert (project / ".venv/kept").exists()


def test_uv_installs_from_where_pip_would(installer: ModuleType) -> None:
    settings = {
        "index-url": "https://one/simple",
        "extra-index-url": "https://two/simple\nfile:///three",
        "find-links": "/ /no/such/folder https://wheels",
        "constraint": "/c.txt",
        "trusted-host": "one",
        "cert": "/ca.pem",
        "default-timeout": "180",
        "keyring-provider": "import",
    }
    assert installer.uv_options(settings, {}) == [
        *("--default-index", "https://one/simple"),
        *("--index", "https://two/simple", "--index", "file:///three"),
        *("--find-links", "/", "--find-links", "https://wheels"),
        *("--constraint", "/c.txt", "--allow-insecure-host", "one", "--index-strategy", "unsafe-best-match"),
    ]
    assert installer.uv_variables(settings, {}) == {
        "SSL_CERT_FILE": "/ca.pem",
        "UV_HTTP_TIMEOUT": "180",
        "UV_SYSTEM_CERTS": "1",
    }
    assert installer.uv_options({"no-index": "true"}, {}) == ["--no-index"]
    assert installer.uv_options({}, {}) == []


def test_settings_of_uv_are_stronger_than_those_of_pip(installer: ModuleType) -> None:
    settings = {"index-url": "https://one", "extra-index-url": "https://two", "cert": "/ca.pem"}
    own = {
        "UV_INDEX_URL": "https://mine",
        "UV_INDEX": "https://mine",
        "SSL_CERT_FILE": "/my.pem",
        "UV_SYSTEM_CERTS": "0",
    }
    assert installer.uv_options(settings, own) == []
    assert installer.uv_variables(settings, own) == {}


def test_pips_settings_are_read_with_their_order(installer: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = "global.cert='/a'\nglobal.index-url='https://a'\ninstall.cert='/b'\n:env:.cert='/c'\n:env:.x='1'\n"
    monkeypatch.setattr(installer, "captured", lambda *_: subprocess.CompletedProcess((), 0, listed, ""))
    assert installer.pip_settings() == {"cert": "/c", "index-url": "https://a", "x": "1"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("cause: No space left on device (os error 28)", "the disk is full; 3 GB are needed."),
        (
            "[Errno 13] Permission denied: '/x'",
            "a file or folder cannot be written ([Errno 13] Permission denied: '/x').",
        ),
        ("cause: dns error", "the package index cannot be reached."),
        ("something else", "installing broke off; the lines above say why."),
    ],
)
def test_a_failure_is_one_sentence_and_a_next_step(installer: ModuleType, text: str, sentence: str) -> None:
    said, next_step = installer.explain(text, AGAIN)
    assert said == sentence
    assert AGAIN in next_step


def test_everything_that_the_package_may_need_is_pinned_once() -> None:
    run_lines, dev_lines = (
        [line for line in (PROJECT / name).read_text().splitlines() if line and not line.startswith("#")]
        for name in ("requirements.txt", "requirements-dev.txt")
    )
    assert run_lines[-1] == "-e ."
    assert dev_lines[0] == "-r requirements.txt"
    pins = run_lines[:-1] + dev_lines[1:]
    assert all(re.fullmatch(r"[\w.\[\]-]+==[\w.]+", pin) for pin in pins)
    names = [re.split(r"[\[=]", pin)[0].lower() for pin in pins]
    assert len(names) == len(set(names))
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    needed = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    # TensorFlow decides which protobuf fits.
    assert {re.split(r"[\[<>=]", name)[0].lower() for name in needed} - {"protobuf"} <= set(names)
