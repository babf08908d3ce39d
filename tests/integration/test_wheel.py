"""The wheel holds all that the package needs, and works from a folder without a checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from commands import PROJECT, run

BUILT_FROM = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "tasks.cfg", "data", "pipeline")
PROJECT_FILES = ("tasks.cfg", "data/spam.tsv", "data/multiply_add.csv")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the tree: setuptools writes beside the sources, and takes up what lies there."""
    tree, built = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in BUILT_FROM:
        copy = shutil.copytree if (PROJECT / name).is_dir() else shutil.copy
        copy(PROJECT / name, tree / name)
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(built)!r})"
    done = subprocess.run([sys.executable, "-c", build], cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel was unpacked into, as an installer does it."""
    folder = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_every_file_of_the_package_is_in_the_wheel(installed: Path) -> None:
    package = PROJECT / "pipeline"
    sources = {path.relative_to(package): path for path in package.rglob("*") if "__pycache__" not in path.parts}
    files = {name: path for name, path in sources.items() if path.is_file()}
    assert Path("py.typed") in files
    assert [str(name) for name in files if not (installed / "pipeline" / name).is_file()] == []
    packed = {
        path.relative_to(installed / "pipeline") for path in (installed / "pipeline").rglob("*") if path.is_file()
    }
    assert packed - set(files) == {Path("project") / name for name in PROJECT_FILES}


@pytest.mark.parametrize("name", PROJECT_FILES)
def test_the_projects_files_are_in_the_wheel_byte_by_byte(installed: Path, name: str) -> None:
    assert (installed / "pipeline/project" / name).read_bytes() == (PROJECT / name).read_bytes()


def test_the_bundled_models_data_is_all_packed() -> None:
    assert {f"data/{path.name}" for path in (PROJECT / "data").iterdir() if path.suffix != ".md"} <= set(PROJECT_FILES)


def test_the_wheel_has_version_licence_and_console_script(installed: Path) -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    about = installed / f"freeze_pipeline-{project['version']}.dist-info"
    assert "License-Expression: Apache-2.0" in (about / "METADATA").read_text()
    assert (about / "licenses/LICENSE").read_bytes() == (PROJECT / "LICENSE").read_bytes()
    assert "freeze-pipeline = pipeline.__main__:main" in (about / "entry_points.txt").read_text()
    assert f"\n## [{project['version']}]" in (PROJECT / "CHANGELOG.md").read_text()


def test_the_console_script_is_python_m_pipeline(installed: Path, tmp_path: Path) -> None:
    script = "import sys; from pipeline.__main__ import main; sys.exit(main())"
    shown, same = (
        run(sys.executable, *start, "--help", cwd=tmp_path, PYTHONPATH=str(installed))
        for start in (("-c", script), ("-m", "pipeline"))
    )
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout == same.stdout
    assert "verify" in shown.stdout


@pytest.mark.parametrize("model", ["spam", "multiply_add"])
def test_a_bundled_model_and_the_settings_are_found_in_an_empty_folder(
    installed: Path, tmp_path: Path, model: str
) -> None:
    command = ("-m", "pipeline", "why", "FreezeModel", "--model", model)
    done = run(sys.executable, *command, cwd=tmp_path, PYTHONPATH=str(installed))
    assert done.returncode == 1, done.stderr  # something would run
    assert done.stdout.startswith("graph ")


def test_settings_are_the_packed_ones(installed: Path, tmp_path: Path) -> None:
    settings = installed / "pipeline/project/tasks.cfg"
    text = settings.read_text()
    settings.write_text(text + "\n[no_such_section]\nkey = 1\n")
    command = ("-m", "pipeline", "why", "FreezeModel", "--model", "multiply_add")
    done = run(sys.executable, *command, cwd=tmp_path, PYTHONPATH=str(installed))
    settings.write_text(text)
    assert done.returncode == 3
    assert "pipeline/project/tasks.cfg" in done.stderr
