"""What holds for all tests."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from importlib.util import find_spec
from multiprocessing import forkserver
from pathlib import Path

import pytest
from commands import clean, sharing_module
from hypothesis import settings
from loading import loads_tensorflow

from pipeline.workers import child
from pipeline.workers.child import keep_processes

# The machines that run these are shared: how long an example takes says nothing.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")

FORK_SERVER = "PIPELINE_TEST_FORK_SERVER"
HERE = Path(__file__).parent
# The folders of the files that take longest, or wait most: begun last, they would keep one process at work alone.
LONGEST = ("integration", "faults", "unit/workers", "unit/training", "unit/validation", "corpus", "redteam")
_kept_alive: dict[str, int] = {}


def pytest_configure(config: pytest.Config) -> None:
    """Makes ready what all tests share, before any worker of pytest-xdist starts."""
    # Without its cache, Python would compile the whole package anew in each of the processes that tests start.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # Commands that the product prints begin with `python` and `luigi`: those of this environment, activated or not.
    own, path = str(Path(sys.executable).parent), os.environ.get("PATH", "")
    if not path.startswith(f"{own}{os.pathsep}"):  # once: processes of one environment share a server
        os.environ["PATH"] = f"{own}{os.pathsep}{path}"
    sharing = sharing_module()
    if not hasattr(config, "workerinput"):
        folder = tempfile.mkdtemp(prefix="fork-")
        # Those of this process, of commands, and of commands for models that need oneDNN.
        environments = [dict(os.environ), clean({}), clean({"TF_ENABLE_ONEDNN_OPTS": "1"})]
        sharing.describe(folder, str(HERE.parent / "pipeline" / "__init__.py"), environments)
        # Open as long as this process lives, and the server with it.
        _kept_alive[folder] = os.open(f"{folder}/alive", os.O_RDWR)
        os.environ[sharing.FOLDER] = folder
        os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE / "helpers" / "shared_server"), *_python_path()])
        if getattr(config.option, "numprocesses", None) and not _is_quick(config):
            _compile_what_is_new()
    sharing.share(forkserver, os.environ[sharing.FOLDER])


def _compile_what_is_new() -> None:
    """Collects the tests once beforehand where TensorFlow is new here, and so has no bytecode.

    The workers of pytest-xdist start at once and import the same: each would compile all of it, and the tests.
    """
    spec = find_spec("tensorflow")
    if spec is not None and spec.cached is not None and not Path(spec.cached).exists():
        collect = [sys.executable, "-m", "pytest", "--collect-only", "-qq"]
        subprocess.run(collect, cwd=HERE.parent, stdout=subprocess.DEVNULL, check=False)


def pytest_collection_finish() -> None:
    """Leaves what is loaded by now, TensorFlow above all, out of every collection of garbage to come."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _processes_serve_one_test_after_the_other() -> Iterator[None]:
    """Keeps those that only open artifacts, as a batch does: a new one costs a tenth of a second of a processor."""
    with keep_processes():
        yield


@pytest.fixture
def no_kept_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets each process end with its call: for tests that count processes, or that need a new one."""
    monkeypatch.setattr(child, "_idle", None)


def _is_quick(config: pytest.Config) -> bool:
    """Whether the tests that load TensorFlow are left out."""
    return "not tensorflow" in config.option.markexpr


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves out the files whose import would load TensorFlow, where no test of theirs is wanted."""
    is_test = collection_path.suffix == ".py" and collection_path.name.startswith("test_")
    return True if is_test and _is_quick(config) and loads_tensorflow(collection_path) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Puts first what takes long, and marks what loads TensorFlow, as far as imports tell, where somebody asks.

    The rest is marked by hand.
    """
    items.sort(key=lambda item: _turn(item.path))
    if "tensorflow" not in config.option.markexpr:
        return  # every process of a whole run would read all imports
    for item in items:
        if loads_tensorflow(item.path):
            item.add_marker(pytest.mark.tensorflow)


def _turn(path: Path) -> int:
    """The number of a test's turn: of its folder among those that begin, after which all others come."""
    folder = path.parent.relative_to(HERE).as_posix()
    return LONGEST.index(folder) if folder in LONGEST else len(LONGEST)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Fails a test that loads TensorFlow, here or in a process that it starts, and is not marked so."""
    was_loaded = _is_loaded()
    yield
    if _is_quick(item.config) and not was_loaded and _is_loaded():
        pytest.fail("this test loads TensorFlow: mark it with @pytest.mark.tensorflow", pytrace=False)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails a session without tests that load TensorFlow, in which it is loaded all the same."""
    if _is_quick(session.config) and _is_loaded() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _is_loaded() -> bool:
    """Whether TensorFlow is loaded in this process, or was in one that a test started."""
    return "tensorflow" in sys.modules or Path(os.environ[FORK_SERVER], "tensorflow").exists()


def _python_path() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def pytest_unconfigure() -> None:
    """Ends the fork server."""
    for folder, alive in _kept_alive.items():
        os.close(alive)
        shutil.rmtree(folder, ignore_errors=True)
    _kept_alive.clear()
