"""The wheel holds all that the package needs, and works from a folder without a checkout.

The long form installs it with all that it requires into a new environment, as users do.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from commands import BIN, PROJECT, run
from jobs import model_file

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


@pytest.mark.parametrize("has_file", [True, False])
def test_an_installed_package_is_as_strict_as_a_checkout(installed: Path, tmp_path: Path, has_file: bool) -> None:
    settings = installed / "pipeline/project/tasks.cfg"
    text = settings.read_text()
    if not has_file:
        settings.unlink()
    command = ("--module", "pipeline", "FreezeModel", "--checkpoint", "nothere")
    done = run(str(BIN / "luigi"), *command, cwd=tmp_path, PYTHONPATH=str(installed))
    settings.write_text(text)
    assert done.returncode == 20
    assert "nothere: no such checkpoint. " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment with the wheel, what it requires, and Luigi's reader of TOML."""
    folder = tmp_path_factory.mktemp("environment")
    python = folder / "bin/python"
    uv = shutil.which("uv", path=str(BIN)) or shutil.which("uv")
    install = [uv, "pip", "install", "--python", str(python)] if uv else [str(python), "-m", "pip", "install"]
    for command in ([sys.executable, "-m", "venv", str(folder)], [*install, "--quiet", str(wheel), "luigi[toml]"]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, done.stderr
    return folder / "bin"


@pytest.mark.stress
@pytest.mark.tensorflow
def test_in_a_new_environment_a_chain_passes_or_fails_as_in_a_checkout(environment: Path, tmp_path: Path) -> None:
    def luigi(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = (str(environment / "luigi"), "--module", "pipeline", *arguments)
        return run(*command, cwd=tmp_path, PYTHONPATH="", PIPELINE_TEST_FORK_SERVER="", **more)

    passed = luigi("WriteReport", "--model", "multiply_add", "--formats", "frozen,mmap")
    assert passed.returncode == 0, passed.stderr
    report = tmp_path / "output/multiply_add/report"
    assert {path.name for path in report.iterdir()} >= {"report.html", "summary.md", "junit.xml", "manifest.json"}
    (tmp_path / "luigi.toml").write_text("[core]\nworkers = 2\n[training]\nsteps = 600\n")
    again = luigi("WriteReport", "--model", "multiply_add", "--formats", "frozen,mmap", LUIGI_CONFIG_PARSER="toml")
    assert again.returncode == 0
    assert "Running Worker with 2 processes" in again.stderr
    assert "1 complete ones were encountered" in again.stderr

    missing = luigi("FreezeModel", "--checkpoint", "nothere")
    assert missing.returncode == 20
    assert "nothere: no such checkpoint. " in missing.stderr

    model = model_file(tmp_path, TWO_PRODUCTS)
    failed = luigi(
        "ValidateModel", "--model", model, "--validation-float64-rtol", "0", "--validation-float64-atol", "0"
    )
    assert failed.returncode == 30, failed.stderr
    assert "is not proven equal to its checkpoint" in failed.stdout
    assert "Traceback" not in failed.stderr
    verdict = run(str(environment / "freeze-pipeline"), "verify", str(report), cwd=tmp_path, PYTHONPATH="")
    assert verdict.returncode == 0, verdict.stderr


# TensorFlow multiplies constants with each other first, and variables not: with no tolerance that is another value.
TWO_PRODUCTS = """
    class M:
        signature = Signature([TensorSpec("x", "float64", [None])], [TensorSpec("y", "float64", [None])])
        data = "rows.csv"
        def forward(self, inputs, training):
            w = tf.compat.v1.get_variable("w", initializer=tf.constant(0.1, tf.float64))
            v = tf.compat.v1.get_variable("v", initializer=tf.constant(0.3, tf.float64))
            return {"y": (inputs["x"] * w) * v}
        def examples(self, path):
            return Examples({"x": np.arange(100.0) / 7})
    """
