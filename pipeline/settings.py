"""The settings of each stage: one section of tasks.cfg, and one frozen class here, for each.

A section holds exactly what decides its stage, so a changed setting redoes that stage and what hangs on it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from .errors import SettingError, nearest

PASSED, FAILED = "passed", "failed"  # verdicts
CHECKS = ("weights", "equal", "decisions", "edge", "generated", "stable", "golden")


def setting(default: Any, description: str) -> Any:
    """A key of a section, with what `--help` says of it."""
    return field(default=default, metadata={"description": description})


def listed(text: str | None) -> list[str]:
    """The parts of a comma-separated list."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def paired(flag: str, text: str | None) -> dict[str, str]:
    """The pairs of a comma-separated list `name=value,name=value`.

    Args:
        flag: the option that it was given by, for the message.

    Raises:
        SettingError: a part is no pair.
    """
    pairs = [part.partition("=") for part in listed(text)]
    for name, equals, value in pairs:
        if not (name.strip() and equals and value.strip()):
            raise SettingError("not a pair", where=flag, got=name + equals + value, wanted="NAME=VALUE")
    return {name.strip(): value.strip() for name, _, value in pairs}


@dataclass(frozen=True)
class SplitSettings:
    """`[split]`: how rows are divided."""

    seed: int = setting(7, "seed of the split into training and validation rows")
    validation_share: float = setting(0.2, "share of rows kept for validation, between 0 and 1")

    def __post_init__(self) -> None:
        require(self, "validation_share", 0 < self.validation_share < 1, "between 0 and 1")


@dataclass(frozen=True)
class GraphSettings:
    """`[graph]`: what is built into the graphs."""

    seed: int = setting(7, "seed of the initial weights and of random ops")
    learning_rate: float = setting(0.001, "learning rate of Adam, for models that bring no optimizer of their own")
    moving_average: float = setting(
        0.0, "decay of moving averages of the weights, which are then deployed; 0 for none, and for Keras models"
    )

    def __post_init__(self) -> None:
        require(self, "learning_rate", 0 < self.learning_rate < math.inf, "above 0")
        require(self, "moving_average", 0 <= self.moving_average < 1, "from 0 to below 1")


@dataclass(frozen=True)
class TrainingSettings:
    """`[training]`: how long, in what portions, and what is saved on the way."""

    steps: int = setting(600, "number of training steps")
    batch_size: int = setting(64, "rows per training step")
    threads: int = setting(2, "TensorFlow threads; other numbers may give other last bits")
    evaluate_every_steps: int = setting(100, "steps between two looks at the validation rows")
    save_every_steps: int = setting(200, "steps between two checkpoints; 0 for none")
    save_every_minutes: float = setting(10.0, "minutes between two checkpoints, whatever the steps; 0 for none")
    keep: int = setting(5, "how many of the newest checkpoints stay; 0 for all")
    keep_every_hours: float = setting(0.0, "one checkpoint for every so many hours stays besides; 0 for none")
    goldens: int = setting(64, "validation rows whose outputs are recorded when training ends")

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "threads", "evaluate_every_steps", "goldens"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        for name in ("save_every_steps", "save_every_minutes", "keep", "keep_every_hours"):
            require(self, name, 0 <= getattr(self, name) < math.inf, "0 or more")


@dataclass(frozen=True)
class ExportSettings:
    """`[export]`: which checkpoint is deployed."""

    step: str = setting("last", "which step is exported: last, or best (lowest validation loss)")
    variables: str = setting(
        "all",
        "which variables are exported: all that inference holds, or a comma-separated list of name patterns "
        "and of name=key pairs, which rename them in the checkpoint",
    )

    def __post_init__(self) -> None:
        require(self, "step", self.step in ("last", "best"), "last or best")
        require(self, "variables", bool(self.variables.strip()), "all, name patterns, or name=key pairs")


@dataclass(frozen=True)
class FreezingSettings:
    """`[freezing]`: how weights are stored in what is frozen."""

    weights: str = setting(
        "exact", "how weights are stored in what is frozen: exact, or float16 (half the size, behind Casts)"
    )

    def __post_init__(self) -> None:
        require(self, "weights", self.weights in ("exact", "float16"), "exact or float16")


@dataclass(frozen=True)
class ValidationSettings:
    """`[validation]`: how reference and candidate are compared."""

    checks: str = setting("all", f"which checks are made: all, or a comma-separated list of {', '.join(CHECKS)}")
    batch_size: int = setting(256, "rows per run of a session")
    time_limit_seconds: float = setting(600.0, "seconds that a candidate may take for one batch; 0 for any time")
    memory_limit_gb: float = setting(0.0, "GB that a candidate's process may take; 0 for all that there is")
    flipped_share: float = setting(0.0, "share of rows that may be decided otherwise than by the checkpoint")
    half_flipped_share: float = setting(0.002, "the same where weights are stored as float16")
    int8_flipped_share: float = setting(0.01, "the same where weights are stored as int8")
    tolerances: str = setting(
        "none",
        "bounds of single outputs, before those of their dtype: output rtol atol, separated by commas "
        "(probability 1e-4 1e-5, logits 1e-3 1e-3)",
    )
    float64_rtol: float = setting(1e-12, "float64: a few thousand ULP, what a reordered sum may cost")
    float64_atol: float = setting(1e-12, "float64: absolute bound near zero")
    float32_rtol: float = setting(1e-5, "float32: about 80 ULP, what a reordered sum or a fused kernel may cost")
    float32_atol: float = setting(1e-6, "float32: absolute bound near zero")
    float16_rtol: float = setting(1e-3, "float16: 1 ULP at 11 bits of mantissa")
    float16_atol: float = setting(1e-3, "float16: absolute bound near zero")
    bfloat16_rtol: float = setting(1e-2, "bfloat16: about 1 ULP at 8 bits of mantissa")
    bfloat16_atol: float = setting(1e-2, "bfloat16: absolute bound near zero")
    runtime_rtol: float = setting(1e-4, "float32 in another runtime (tflite, onnx): its kernels add in other orders")
    runtime_atol: float = setting(1e-5, "another runtime: absolute bound near zero")
    half_rtol: float = setting(
        5e-3, "weights stored as float16: each is off by up to 1/2048, and a sum by some of that"
    )
    half_atol: float = setting(5e-3, "weights stored as float16: half a point of a probability")
    int8_rtol: float = setting(5e-2, "weights stored as int8: each is off by up to 1/254 of its channel's largest")
    int8_atol: float = setting(5e-2, "weights stored as int8: five points of a probability")

    def __post_init__(self) -> None:
        require(self, "batch_size", self.batch_size >= 1, "at least 1")
        for name in self.chosen_checks:
            if name not in CHECKS:
                raise SettingError(
                    "unknown check", where="[validation] checks", got=repr(name), next_step=nearest(name, CHECKS)
                )
        for name in ("time_limit_seconds", "memory_limit_gb"):
            require(self, name, 0 <= getattr(self, name) < math.inf, "0 or more")
        self.output_tolerances  # noqa: B018  # read once, so that what is wrong is said before anything runs
        for item in fields(self):
            if item.name.endswith("flipped_share"):
                require(self, item.name, 0 <= getattr(self, item.name) < 1, "from 0 to below 1")
            if item.name.endswith(("_rtol", "_atol")):
                # NaN compares false, so it is refused here rather than letting every difference pass later.
                require(self, item.name, 0 <= getattr(self, item.name) < math.inf, "a finite number, 0 or more")

    @property
    def chosen_checks(self) -> tuple[str, ...]:
        """The names of the checks to make."""
        return CHECKS if self.is_every_check else tuple(name.strip() for name in self.checks.split(","))

    @property
    def is_every_check(self) -> bool:
        """Whether every check that applies is made, rather than some that were asked for by name."""
        return self.checks.strip() == "all"

    @property
    def limits(self) -> tuple[float, int]:
        """What a candidate's process may take: seconds for an answer, and bytes of memory; 0 for no limit."""
        return self.time_limit_seconds, int(self.memory_limit_gb * 1e9)

    @property
    def output_tolerances(self) -> dict[str, tuple[float, float]]:
        """The bounds of single outputs, relative and absolute, by output.

        Raises:
            SettingError: an entry is not an output and two finite numbers, 0 or more.
        """
        bounds = {}
        for entry in listed("" if self.tolerances.strip() == "none" else self.tolerances):
            output, *numbers = entry.rsplit(maxsplit=2)
            try:
                rtol, atol = (float(number) for number in numbers)
            except ValueError:
                rtol = atol = math.nan
            if not (0 <= rtol < math.inf and 0 <= atol < math.inf):
                raise SettingError(
                    "not the bounds of an output",
                    where="[validation] tolerances",
                    got=entry,
                    wanted="output rtol atol, each a finite number, 0 or more",
                )
            bounds[output] = (rtol, atol)
        return bounds


@dataclass(frozen=True)
class CostsSettings:
    """`[costs]`: how long what each format costs is measured, and on what."""

    seconds: float = setting(
        0.5, "most seconds of runs for each format and batch size; 0 to measure nothing but sizes on disk"
    )
    batch_sizes: str = setting("1,64", "comma-separated rows per run; the first answer is to a batch of the smallest")
    threads: int = setting(2, "threads that each format computes with")
    limit_seconds: float = setting(
        600.0, "most seconds for one format from its start to its end; one that takes longer has no numbers"
    )

    def __post_init__(self) -> None:
        require(self, "seconds", 0 <= self.seconds < math.inf, "0 or more")
        require(self, "threads", self.threads >= 1, "at least 1")
        require(self, "limit_seconds", 0 < self.limit_seconds < math.inf, "above 0")
        are_sizes = all(part.isdecimal() and int(part) >= 1 for part in listed(self.batch_sizes))
        require(self, "batch_sizes", are_sizes and bool(listed(self.batch_sizes)), "whole numbers, at least 1")

    @property
    def sizes(self) -> tuple[int, ...]:
        """The batch sizes, the smallest first."""
        return tuple(sorted({int(part) for part in listed(self.batch_sizes)}))


@dataclass(frozen=True)
class Settings:
    """All sections."""

    split: SplitSettings = field(default_factory=SplitSettings)
    graph: GraphSettings = field(default_factory=GraphSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    export: ExportSettings = field(default_factory=ExportSettings)
    freezing: FreezingSettings = field(default_factory=FreezingSettings)
    validation: ValidationSettings = field(default_factory=ValidationSettings)
    costs: CostsSettings = field(default_factory=CostsSettings)


def require(section: Any, name: str, is_right: bool, wanted: str) -> None:
    """Refuses a setting that is out of its range.

    Raises:
        SettingError: it is.
    """
    if not is_right:
        title = type(section).__name__.removesuffix("Settings").lower()
        raise SettingError("out of range", where=f"[{title}] {name}", got=getattr(section, name), wanted=wanted)


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
