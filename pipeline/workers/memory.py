"""The memory that processes of this machine, or of the container that this is, may take together."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path, PurePosixPath


@lru_cache(maxsize=1)
def machine_memory() -> int:
    """Return the bytes of memory of this machine or, if that is less, of its container or batch job."""
    return memory_below(Path("/"), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def memory_below(root: Path, installed: int) -> int:
    """Return the least of the installed memory and of the limits of all control groups around this process.

    Both versions of control groups are read (docs.kernel.org/admin-guide/cgroup-v2.html, and cgroup-v1/memory.html).

    Args:
        root: where `proc` and `sys` are.
        installed: bytes of memory that are installed.
    """
    return min([installed, *_group_limits(root)])


def _group_limits(root: Path) -> Iterator[int]:
    groups, text = root / "sys/fs/cgroup", ""
    with suppress(OSError, ValueError):
        text = (root / "proc/self/cgroup").read_text(encoding="utf-8")
    for line in text.splitlines():
        number, kinds, path = (*line.split(":", 2), "", "")[:3]
        if number == "0" and not kinds:
            yield from _limits_upwards(groups, path, "memory.max")
        elif "memory" in kinds.split(","):
            yield from _limits_upwards(groups / "memory", path, "memory.limit_in_bytes")


def _limits_upwards(groups: Path, path: str, name: str) -> Iterator[int]:
    """Yield the limits of a control group and of all around it; a container may see only those at the top."""
    inner = PurePosixPath(path.lstrip("/"))
    for place in (inner, *inner.parents):
        with suppress(OSError, ValueError):  # missing, or `max`
            if (limit := int((groups / place / name).read_text(encoding="ascii"))) > 0:
                yield limit
