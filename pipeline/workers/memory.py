"""Memory: what processes of this machine, or of its container, may take together, and what this process takes."""

from __future__ import annotations

import os
import re
import resource
import sys
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


def peak_bytes() -> int:
    """Return the peak memory of this process in bytes.

    On Linux not from getrusage, which starts with the memory of the parent process.
    """
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None  # proc(5)
    if found is not None:
        return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


_MAPPING = re.compile(
    r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ [1-9]\d* +(/.*)\n(?:\w+: .*\n)*?Rss: +(\d+) kB\n", re.MULTILINE
)


def resident_files() -> dict[str, int]:
    """Return the bytes of each mapped file that are in memory; none where the system does not tell (proc_pid_smaps(5)).

    Pages that this process has changed, such as a library's variables, count too.
    """
    found: dict[str, int] = {}
    with suppress(OSError):
        for path, kilobytes in _MAPPING.findall(Path("/proc/self/smaps").read_text(errors="replace")):
            found[path] = found.get(path, 0) + int(kilobytes) * 1024
    return found
