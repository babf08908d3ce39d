"""The memory that there is: the machine's, or what its container or batch job leaves of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.settings import AUTO_SHARE, ValidationSettings
from pipeline.workers.child import Limits
from pipeline.workers.memory import machine_memory, memory_below

INSTALLED = 64 << 30


def groups(root: Path, line: str, **limits: str) -> Path:
    """A root with one control group: its line in /proc, and files of limits by their path, `__` for a slash."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(f"12:cpu,cpuacct:/x\n{line}\n", encoding="utf-8")
    for path, limit in limits.items():
        place = root / "sys/fs/cgroup" / path.replace("__", "/").replace("_max", ".max").replace("y_l", "y.l")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"{limit}\n", encoding="ascii")
    return root


@pytest.mark.parametrize(
    ("line", "limits", "wanted"),
    [
        ("0::/", {"memory_max": "2147483648"}, 2 << 30),  # a container of Docker or Kubernetes
        ("0::/", {"memory_max": "max"}, INSTALLED),
        ("0::/job/step", {"job__step__memory_max": "max", "job__memory_max": "4294967296"}, 4 << 30),  # SLURM
        ("0::/job/step", {"job__step__memory_max": "1073741824", "job__memory_max": "4294967296"}, 1 << 30),
        ("4:memory:/docker/ab", {"memory__memory_limit_in_bytes": "2147483648"}, 2 << 30),  # seen from the inside
        ("4:cpu,memory:/job", {"memory__job__memory_limit_in_bytes": "2147483648"}, 2 << 30),
        ("4:memory:/", {"memory__memory_limit_in_bytes": "9223372036854771712"}, INSTALLED),  # none
        ("4:cpu:/job", {"memory__job__memory_limit_in_bytes": "1"}, INSTALLED),
        ("nonsense", {"memory_max": "1"}, INSTALLED),
        ("0::/../..", {}, INSTALLED),
    ],
)
def test_a_container_or_batch_job_has_its_own_memory(
    line: str, limits: dict[str, str], wanted: int, tmp_path: Path
) -> None:
    assert memory_below(groups(tmp_path, line, **limits), INSTALLED) == wanted


def test_without_control_groups_it_is_the_machines(tmp_path: Path) -> None:
    assert memory_below(tmp_path, INSTALLED) == INSTALLED


def test_a_candidate_may_take_a_share_of_it_unless_somebody_says_otherwise() -> None:
    assert Limits(*ValidationSettings().limits).most_memory == int(AUTO_SHARE * machine_memory()) > 0
    assert Limits(*ValidationSettings(memory_limit_gb=0).limits).most_memory == 0
    assert Limits(*ValidationSettings(memory_limit_gb="1.5").limits).most_memory == 1_500_000_000
    assert Limits(memory_bytes=5, memory_share=1.0).most_memory == 5


def test_what_luigi_passes_as_text_is_the_number_of_python() -> None:
    assert ValidationSettings(memory_limit_gb="2") == ValidationSettings(memory_limit_gb=2.0)
