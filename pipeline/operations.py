"""How work is done: sections of tasks.cfg that decide no byte of what a chain makes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from .settings import require, setting

ENGINES = ("local", "dask")


@dataclass(frozen=True)
class EngineSettings:
    """`[engine]`: what does the heavy work of a batch. It decides no byte of what is made."""

    kind: str = setting("local", "local: processes of this machine; dask: the workers of a Dask cluster")
    address: str = setting("", "with dask: its scheduler, such as tcp://host:8786; empty: one of this machine")
    shard_rows: int = setting(
        50_000, "with dask: validation rows to one shard, about; no more rows than this are not divided; 0: none are"
    )

    def __post_init__(self) -> None:
        require(self, "shard_rows", self.shard_rows >= 0, "0, or a number of rows")
        require(self, "kind", self.kind in ENGINES, f"one of {', '.join(ENGINES)}")


@dataclass(frozen=True)
class BatchSettings:
    """`[batch]`: what a model of a batch may take, and how a batch is divided. It decides no byte of what is made."""

    limit_seconds: float = setting(900.0, "seconds that one model may take; 0 for any time")
    limit_memory_gb: float = setting(0.0, "GB that a process at work on a model may take; 0 for all that there is")
    shard_models: int = setting(
        0, "models to one task of Luigi, so that several hosts can share a batch; 0: one task, but 50 with a luigid"
    )

    def __post_init__(self) -> None:
        require(self, "limit_seconds", 0 <= self.limit_seconds < math.inf, "0, or seconds")
        require(self, "limit_memory_gb", 0 <= self.limit_memory_gb < math.inf, "0, or GB")
        require(self, "shard_models", self.shard_models >= 0, "0, or a number of models")


@dataclass(frozen=True)
class NightlySettings:
    """`[nightly]`: where a night's data is, what fails a night, how many stay, who is told. It decides no model."""

    data: str = setting(
        "", "the data file of a night, such as data/{date}/messages.tsv; empty: --data, or the model's own"
    )
    changed_share: float = setting(
        0.05,
        "most decisions, as a share, that may differ from those of the night before; 1: any, and another signature",
    )
    rows: int = setting(4096, "validation rows whose answers a night keeps for the next one to be compared with")
    keep: int = setting(14, "how many of the newest nights stay, and the one that current names; 0 for all")
    hook: str = setting("", "a command that is run when a night is over; PIPELINE_EVENT and others tell it what was")
    hook_seconds: float = setting(60.0, "seconds that the hook may take")
    metrics_file: str = setting(
        "", "a file for Prometheus's textfile collector, such as /var/lib/node_exporter/{name}.prom; empty for none"
    )

    def __post_init__(self) -> None:
        require(self, "changed_share", 0 <= self.changed_share <= 1, "from 0 to 1")
        require(self, "rows", self.rows >= 1, "at least 1")
        require(self, "keep", self.keep >= 0, "0, or a number of nights")
        require(self, "hook_seconds", 0 < self.hook_seconds < math.inf, "above 0")


@dataclass(frozen=True)
class StorageSettings:
    """`[storage]`: artifacts on object storage. It decides no byte of what is made."""

    mirror: str = setting("", "folder of the local copies of an output root that is a URL; empty: in the user's cache")


@dataclass(frozen=True)
class Operations:
    """The sections that say how work is done, and decide no byte of what a chain makes."""

    engine: EngineSettings = field(default_factory=EngineSettings)
    batch: BatchSettings = field(default_factory=BatchSettings)
    nightly: NightlySettings = field(default_factory=NightlySettings)
    storage: StorageSettings = field(default_factory=StorageSettings)
