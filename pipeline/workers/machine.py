"""The machine that works, and the state of the code that a user keeps in git."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from functools import cache
from pathlib import Path

_SECONDS = 5  # for git: a repository may be large, or on a slow disk
# What a repository's own configuration could run, and a lock that a question must not take.
_GIT = ("git", "-c", "core.fsmonitor=false", "--no-optional-locks")


def cpu_model() -> str:
    """Return the processor's name."""
    cpus = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", cpus.read_text(), re.MULTILINE) if cpus.exists() else None
    return model[1] if model else platform.processor() or platform.machine()


def core_count() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def describe_machine() -> str:
    """Return host, processor and cores as one phrase."""
    return f"{platform.node() or 'unnamed host'}, {cpu_model()}, {core_count()} cores"


@cache
def describe_commit(folder: Path) -> str:
    """Return the git commit of a folder, with `-dirty` if a tracked file was changed since; empty if it has none."""
    command = [*_GIT, "-C", str(folder), "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
