"""What holds for all tests."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from commands import clean
from hypothesis import settings

# The machines that run these are shared: how long an example takes says nothing.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")

HERE = Path(__file__).parent
_kept_alive: dict[str, int] = {}


def pytest_configure(config: pytest.Config) -> None:
    """Makes ready what all tests share, before any worker of pytest-xdist starts."""
    # Without its cache, Python would compile the whole package anew in each of the processes that tests start.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sharing = _sharing()
    if not hasattr(config, "workerinput"):
        folder = tempfile.mkdtemp(prefix="fork-")
        sharing.describe(folder, str(HERE.parent / "pipeline" / "__init__.py"), [dict(os.environ), clean({})])
        # Open as long as this process lives, and the server with it.
        _kept_alive[folder] = os.open(f"{folder}/alive", os.O_RDWR)
        os.environ[sharing.FOLDER] = folder
        os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE / "one_server"), *_python_path()])
    from multiprocessing import forkserver

    sharing.share(forkserver, os.environ[sharing.FOLDER])


def _python_path() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def _sharing() -> Any:
    spec = importlib.util.spec_from_file_location("sharing", HERE / "one_server" / "sitecustomize.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pytest_unconfigure() -> None:
    """Ends the fork server."""
    for folder, alive in _kept_alive.items():
        os.close(alive)
        shutil.rmtree(folder, ignore_errors=True)
    _kept_alive.clear()
