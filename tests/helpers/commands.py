"""Runs the commands that users type, as they type them."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

QUICK = [
    *("--training-steps", "40"),
    *("--training-batch-size", "16"),
    *("--training-evaluate-every-steps", "10"),
    *("--training-save-every-steps", "20"),
    *("--costs-seconds", "0"),
]


def asked(refusal: BaseException) -> list[str]:
    """The commands `python -m …` that a refusal prints, without those that take what else is there."""
    return re.findall("python -m .*", str(refusal).partition("also there:")[0])


def luigi(*arguments: str, cwd: Path = PROJECT, **environment: str) -> subprocess.CompletedProcess[str]:
    """`luigi --module pipeline …`, from the project's root."""
    return run(str(BIN / "luigi"), "--module", "pipeline", *arguments, cwd=cwd, **environment)


def pipeline(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m pipeline …`, from the project's root."""
    return run(sys.executable, "-m", "pipeline", *arguments)


def run(*command: str, cwd: Path = PROJECT, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in an environment without anything of ours."""
    return subprocess.run(
        command, cwd=cwd, env=clean(environment), capture_output=True, text=True, timeout=300, check=False
    )


def clean(more: Mapping[str, str]) -> dict[str, str]:
    """An environment without anything of ours but `more`, and the fork server that the tests share: see `conftest`."""
    kept = {"PATH", "HOME", "LANG", "TMPDIR", "PIPELINE_TEST_FORK_SERVER"}
    environment = {name: value for name, value in os.environ.items() if name in kept}
    return {**environment, "PYTHONPATH": SHARED_SERVER, **more}


SHARED_SERVER = str(Path(__file__).parent / "shared_server")


def sharing_module() -> Any:
    """The file of the shared fork server as a module."""
    spec = importlib.util.spec_from_file_location("sharing", Path(SHARED_SERVER, "sitecustomize.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
