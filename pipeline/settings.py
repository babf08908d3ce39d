"""Settings: one frozen class for each section of tasks.cfg, with the default and the description of each key.

The classes are the source: tasks.cfg, `luigi --help-all` and the documentation are generated from them. A section
holds exactly what its stage depends on, so a changed setting reruns that stage and everything downstream of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from .errors import SettingError, nearest
from .inputs import split_list

PASSED, FAILED = "passed", "failed"  # verdicts
AUTO, AUTO_SHARE = "auto", 0.8  # the limit that is a share of the machine's memory
# The words for a candidate: the same function for every input; agrees on all rows tried; or not.
PROVED, TESTED, DIFFERS = "proved", "tested", "differs"
# The checks whose rows look where those of the others do not; not made of a candidate that is proved, or has failed.
SEARCHES = ("sizes", "ladders", "boundary", "repeated")
CHECKS = ("graph", "weights", "equal", "decisions", "edge", "generated", "stable", "golden", *SEARCHES, "runtime")
LADDERS = ("magnitudes", "lengths", "ids", "tables", "unicode")  # kinds of rows of the check ladders


def setting(default: Any, description: str) -> Any:
    """Declare a key: its default, and its description for `--help`, tasks.cfg and the documentation."""
    return field(default=default, metadata={"description": description})


def read_number(value: float | str) -> float:
    """Parse a number; NaN for another text."""
    try:
        return float(value)
    except ValueError:
        return math.nan


@dataclass(frozen=True)
class SplitSettings:
    """`[split]`: how rows are divided into training and validation rows."""

    seed: int = setting(7, "seed of the split")
    validation_share: float = setting(0.2, "share of rows for validation, between 0 and 1")

    def __post_init__(self) -> None:
        require(self, "validation_share", 0 < self.validation_share < 1, "between 0 and 1")


@dataclass(frozen=True)
class GraphSettings:
    """`[graph]`: how graphs are built."""

    seed: int = setting(7, "seed of the initial weights and of random ops")
    learning_rate: float = setting(0.001, "learning rate of Adam, for models without an optimizer of their own")
    moving_average: float = setting(
        0.0,
        "decay of the moving averages of the weights, which are then deployed; 0 for none, and for Keras models, whose "
        "optimizers have their own (use_ema)",
    )

    def __post_init__(self) -> None:
        require(self, "learning_rate", 0 < self.learning_rate < math.inf, "above 0")
        require(self, "moving_average", 0 <= self.moving_average < 1, "from 0 to below 1")


@dataclass(frozen=True)
class TrainingSettings:
    """`[training]`: how long a model is trained, and which checkpoints are kept."""

    steps: int = setting(600, "number of training steps")
    batch_size: int = setting(64, "rows per training step")
    threads: int = setting(2, "TensorFlow threads; another number can change the last bits of the weights")
    evaluate_every_steps: int = setting(100, "steps between two evaluations on the validation rows")
    save_every_steps: int = setting(200, "steps between two checkpoints; 0 for none")
    save_every_minutes: float = setting(10.0, "minutes between two checkpoints, independent of the steps; 0 for none")
    keep: int = setting(5, "number of newest checkpoints to keep; 0 for all")
    keep_every_hours: float = setting(
        0.0, "hours between two checkpoints that are kept in addition to the newest ones; 0 for none"
    )
    goldens: int = setting(
        64, "validation rows whose outputs are recorded when training ends; the check golden compares with them"
    )

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "threads", "evaluate_every_steps", "goldens"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        for name in ("save_every_steps", "save_every_minutes", "keep", "keep_every_hours"):
            require(self, name, 0 <= getattr(self, name) < math.inf, "0 or more")


@dataclass(frozen=True)
class ExportSettings:
    """`[export]`: which checkpoint is deployed, and what it holds."""

    step: str = setting(
        "last",
        "the step to export: last, or best (lowest validation loss). The rows that select the best step also give the "
        "report's metrics, so only last gives unbiased metrics",
    )
    variables: str = setting(
        "all",
        "the variables to export: all that inference needs, or a comma-separated list of name patterns "
        "(dense*,embedding) and of name=key pairs, which rename variables in the checkpoint",
    )

    def __post_init__(self) -> None:
        require(self, "step", self.step in ("last", "best"), "last or best")
        require(self, "variables", bool(self.variables.strip()), "all, name patterns, or name=key pairs")


@dataclass(frozen=True)
class FreezingSettings:
    """`[freezing]`: how the weights of a frozen graph are stored."""

    weights: str = setting(
        "exact",
        "precision of the stored weights: exact, or float16 (half the size of float32, with a Cast behind each "
        "weight; then the bounds half_rtol and half_atol apply)",
    )

    def __post_init__(self) -> None:
        require(self, "weights", self.weights in ("exact", "float16"), "exact or float16")


@dataclass(frozen=True)
class ValidationSettings:
    """`[validation]`: how the checkpoint and a candidate are compared.

    A candidate passes if |candidate - reference| <= atol + rtol * |reference|. Other values than floats must be equal.
    """

    checks: str = setting(
        "all",
        f"checks to run: all that apply, or a comma-separated list of {', '.join(CHECKS)}. A check that is listed must "
        "apply: golden fails if no outputs were recorded",
    )
    require: str = setting(
        "tested",
        "what a candidate must be: tested (it agrees on all rows that were tried) or proved (its graph is the same "
        "function of the inputs as the checkpoint's, for every input; formats that are no graph of TensorFlow's fail)",
    )
    ladders: str = setting(
        "all",
        f"kinds of rows of the check ladders: all, or a comma-separated list of {', '.join(LADDERS)}",
    )
    search_rows: int = setting(
        4096, "most rows that the checks sizes and boundary, and each kind of ladders, feed to both sides"
    )
    repeated_calls: int = setting(
        1000,
        "calls with one batch, one after the other, of the check repeated; fewer where a row takes much of batch_mb",
    )
    batch_size: int = setting(256, "rows per session run; fewer where batch_mb says so")
    batch_mb: float = setting(
        256.0,
        "memory in MB for one batch: its inputs, its outputs, and the largest node's tensors between them, as far as "
        "their shapes are known. A batch has fewer rows than batch_size if those would take more, and all rows that "
        "are kept for comparisons (those asked again, made up or kept as the worst) obey the same bound",
    )
    time_limit_seconds: float = setting(
        600.0, "time limit in seconds for a candidate to answer one batch; it fails if it takes longer; 0 for no limit"
    )
    memory_limit_gb: float | str = setting(
        AUTO,
        "memory limit in GB for a candidate's process; it fails if it takes more; auto for 0.8 of the memory of the "
        "machine, or of its container if that has less; 0 for no limit",
    )
    runtimes: str = setting(
        "none",
        "other interpreters that open each candidate too, as production does: comma-separated paths of Pythons (3.8 or "
        "newer, with NumPy and TensorFlow, LiteRT or onnxruntime), or commands that start one (docker run --rm -i "
        "IMAGE python), or none. They need nothing of this package",
    )
    runtime_rows: int = setting(1000, "validation rows that each of them answers, the first ones; and the edge cases")
    flipped_share: float = setting(
        0.0,
        "share of rows whose decision (at the threshold, or by argmax) may differ from the checkpoint's. Rounding "
        "alone flips a decision only where both sides were almost equal",
    )
    half_flipped_share: float = setting(
        0.002, "the same share for weights stored as float16: rounding flips decisions close to the threshold"
    )
    int8_flipped_share: float = setting(0.01, "the same share for weights stored as int8")
    class_flipped_share: float = setting(
        0.2,
        "share of the rows of one class that may be lost to other classes, or come from them: a rare class can be lost "
        "within the share of all rows. With labels, also of the rows that the checkpoint decides rightly. One row may "
        "always; a larger share of all rows counts instead",
    )
    tolerances: str = setting(
        "none",
        "bounds for single outputs, instead of the bounds for their dtype: comma-separated entries of output rtol atol "
        "(probability 1e-4 1e-5, logits 1e-3 1e-3), or none",
    )
    float64_rtol: float = setting(
        1e-12, "relative bound for float64: a few thousand ULP, the effect of another order of a sum"
    )
    float64_atol: float = setting(1e-12, "absolute bound for float64")
    float32_rtol: float = setting(
        1e-5, "relative bound for float32: about 80 ULP, the effect of another order of a sum or of a fused kernel"
    )
    float32_atol: float = setting(1e-6, "absolute bound for float32")
    float16_rtol: float = setting(1e-3, "relative bound for float16: 1 ULP at 11 bits of mantissa")
    float16_atol: float = setting(1e-3, "absolute bound for float16")
    bfloat16_rtol: float = setting(1e-2, "relative bound for bfloat16: about 1 ULP at 8 bits of mantissa")
    bfloat16_atol: float = setting(1e-2, "absolute bound for bfloat16")
    runtime_rtol: float = setting(
        1e-4,
        "relative bound for float32 in another runtime than TensorFlow (tflite, onnx), whose kernels add in another "
        "order and fold constants differently: logits of a convolutional network differed by up to 2e-5 at "
        "a magnitude of 10",
    )
    runtime_atol: float = setting(1e-5, "absolute bound for another runtime")
    half_rtol: float = setting(
        5e-3,
        "relative bound for weights stored as float16 (tflite_float16, onnx_float16, or [freezing] weights = float16): "
        "each weight is off by up to 1/2048, a sum by a part of that. Probabilities differed by up to 0.0033",
    )
    half_atol: float = setting(5e-3, "absolute bound for weights stored as float16: half a point of a probability")
    int8_rtol: float = setting(
        5e-2,
        "relative bound for weights stored as int8 (tflite_int8, onnx_int8): each weight is off by up to 1/254 of the "
        "largest of its channel. Probabilities differed by up to 0.023 on validation rows and 0.048 on random rows; "
        "logits need bounds of their own (tolerances)",
    )
    int8_atol: float = setting(5e-2, "absolute bound for weights stored as int8: five points of a probability")

    def __post_init__(self) -> None:
        require(self, "require", self.require in (TESTED, PROVED), f"{TESTED} or {PROVED}")
        for name in ("batch_size", "search_rows", "repeated_calls", "runtime_rows"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        require(self, "batch_mb", 0 < self.batch_mb < math.inf, "above 0")
        for key, what, chosen, known in (
            ("checks", "check", self.chosen_checks, CHECKS),
            ("ladders", "kind of rows", self.chosen_ladders, LADDERS),
        ):
            for name in chosen:
                if name not in known:
                    raise SettingError(
                        f"unknown {what}", where=f"[validation] {key}", got=repr(name), next_step=nearest(name, known)
                    )
        if not self.is_every_check and "runtime" in self.chosen_checks and not self.other_runtimes:
            raise SettingError(
                "no other interpreter was named",
                where="[validation] checks",
                got="runtime",
                next_step="Name one in [validation] runtimes, or leave runtime out",
            )
        require(self, "time_limit_seconds", 0 <= self.time_limit_seconds < math.inf, "0 or more")
        if self.memory_limit_gb != AUTO:  # "2", 2 and 2.0 are one setting, and have one fingerprint
            limit = read_number(self.memory_limit_gb)
            require(self, "memory_limit_gb", 0 <= limit < math.inf, f"a number of GB, {AUTO}, or 0")
            object.__setattr__(self, "memory_limit_gb", limit)
        self.output_tolerances  # noqa: B018  # parsed once, to report errors before anything runs
        for item in fields(self):
            if item.name.endswith("flipped_share"):
                require(self, item.name, 0 <= getattr(self, item.name) < 1, "from 0 to below 1")
            if item.name.endswith(("_rtol", "_atol")):
                # NaN compares false, so it is rejected here. Otherwise every difference would pass later.
                require(self, item.name, 0 <= getattr(self, item.name) < math.inf, "a finite number, 0 or more")

    @property
    def chosen_checks(self) -> tuple[str, ...]:
        """The names of the checks to run."""
        return CHECKS if self.is_every_check else tuple(name.strip() for name in self.checks.split(","))

    @property
    def chosen_ladders(self) -> tuple[str, ...]:
        """The kinds of rows that the check `ladders` makes."""
        return LADDERS if self.ladders.strip() == "all" else tuple(name.strip() for name in self.ladders.split(","))

    @property
    def other_runtimes(self) -> tuple[str, ...]:
        """The commands of `runtimes`."""
        return () if self.runtimes.strip() == "none" else tuple(split_list(self.runtimes))

    @property
    def is_every_check(self) -> bool:
        """True if all checks that apply are run, False if checks were selected by name."""
        return self.checks.strip() == "all"

    @property
    def limits(self) -> tuple[float, int, float]:
        """Limits of a candidate's process: seconds for an answer, bytes and share of memory; 0 for no limit."""
        if isinstance(self.memory_limit_gb, str):
            return self.time_limit_seconds, 0, AUTO_SHARE
        return self.time_limit_seconds, int(self.memory_limit_gb * 1e9), 0.0

    @property
    def output_tolerances(self) -> dict[str, tuple[float, float]]:
        """Relative and absolute bound of single outputs, by output.

        Raises:
            SettingError: an entry is not an output and two finite numbers, 0 or more.
        """
        bounds = {}
        for entry in split_list("" if self.tolerances.strip() == "none" else self.tolerances):
            output, *numbers = entry.rsplit(maxsplit=2)
            try:
                rtol, atol = (float(number) for number in numbers)
            except ValueError:
                rtol = atol = math.nan
            if not (0 <= rtol < math.inf and 0 <= atol < math.inf):
                raise SettingError(
                    "not an output and its bounds",
                    where="[validation] tolerances",
                    got=entry,
                    wanted="output rtol atol, each a finite number, 0 or more",
                )
            bounds[output] = (rtol, atol)
        return bounds


@dataclass(frozen=True)
class CostsSettings:
    """`[costs]`: how the cost of each format is measured, in a process of its own, on validation rows."""

    processes: str = setting(
        "shared",
        "where the process of a format comes from: shared (a copy of one that has loaded TensorFlow: its import is "
        "timed once for all formats that need it) or own (a new interpreter for each, which imports it again)",
    )
    seconds: float = setting(
        0.25,
        "longest measurement in seconds for each format and batch size; it ends earlier when the times are stable; "
        "0 to measure only sizes on disk",
    )
    batch_sizes: str = setting(
        "1,64",
        "comma-separated batch sizes; the first answer is measured on the smallest. A model with a fixed batch size is "
        "measured only at that size",
    )
    batch_mb: float = setting(
        256.0,
        "memory in MB for one batch: its inputs, its outputs, and the largest node's tensors between them, as far as "
        "their shapes are known. A size whose batch would take more is measured with fewer rows",
    )
    threads: int = setting(2, "threads that each format computes with")
    limit_seconds: float = setting(
        600.0, "time limit in seconds for one format from start to end; a format that takes longer has no figures"
    )

    def __post_init__(self) -> None:
        require(self, "processes", self.processes in ("shared", "own"), "shared or own")
        require(self, "seconds", 0 <= self.seconds < math.inf, "0 or more")
        require(self, "threads", self.threads >= 1, "at least 1")
        require(self, "limit_seconds", 0 < self.limit_seconds < math.inf, "above 0")
        require(self, "batch_mb", 0 < self.batch_mb < math.inf, "above 0")
        are_sizes = all(part.isdecimal() and int(part) >= 1 for part in split_list(self.batch_sizes))
        require(self, "batch_sizes", are_sizes and bool(split_list(self.batch_sizes)), "whole numbers, at least 1")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Batch sizes, smallest first."""
        return tuple(sorted({int(part) for part in split_list(self.batch_sizes)}))


@dataclass(frozen=True)
class Settings:
    """All sections that the bytes of artifacts depend on."""

    split: SplitSettings = field(default_factory=SplitSettings)
    graph: GraphSettings = field(default_factory=GraphSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    export: ExportSettings = field(default_factory=ExportSettings)
    freezing: FreezingSettings = field(default_factory=FreezingSettings)
    validation: ValidationSettings = field(default_factory=ValidationSettings)
    costs: CostsSettings = field(default_factory=CostsSettings)


def require(section: Any, name: str, is_right: bool, wanted: str) -> None:
    """Reject a setting that is out of its range.

    Raises:
        SettingError: `is_right` is False.
    """
    if not is_right:
        title = type(section).__name__.removesuffix("Settings").lower()
        raise SettingError("out of range", where=f"[{title}] {name}", got=getattr(section, name), wanted=wanted)


ENGINES = ("local", "dask")


@dataclass(frozen=True)
class EngineSettings:
    """`[engine]`: which processes do the heavy work of a batch, and of validations with many rows."""

    kind: str = setting(
        "local", "where work runs: local (processes of this machine) or dask (workers of a Dask cluster)"
    )
    address: str = setting(
        "", "with dask: address of the scheduler, such as tcp://host:8786; empty to start a cluster on this machine"
    )
    shard_rows: int = setting(
        50_000,
        "with dask: approximate number of validation rows per shard; validations with fewer rows are not divided; "
        "0 to divide none",
    )

    def __post_init__(self) -> None:
        require(self, "shard_rows", self.shard_rows >= 0, "0, or a number of rows")
        require(self, "kind", self.kind in ENGINES, f"one of {', '.join(ENGINES)}")


@dataclass(frozen=True)
class BatchSettings:
    """`[batch]`: limits of each model of a batch, and how a batch is divided into Luigi tasks."""

    limit_seconds: float = setting(
        900.0, "time limit in seconds for one model; only that model fails if it takes longer; 0 for no limit"
    )
    limit_memory_gb: float = setting(0.0, "memory limit in GB for each process that works on a model; 0 for no limit")
    shard_models: int = setting(
        0,
        "models per Luigi task; several hosts can share a batch that has several tasks. 0 for one task, or, with a "
        "central scheduler (luigid), for 50 models per task",
    )

    def __post_init__(self) -> None:
        require(self, "limit_seconds", 0 <= self.limit_seconds < math.inf, "0, or seconds")
        require(self, "limit_memory_gb", 0 <= self.limit_memory_gb < math.inf, "0, or GB")
        require(self, "shard_models", self.shard_models >= 0, "0, or a number of models")


@dataclass(frozen=True)
class NightlySettings:
    """`[nightly]`: the data of a night, when a night fails, how many nights are kept, who is notified."""

    data: str = setting(
        "",
        "the data file of a night, with {date} (2026-11-25) or {year}, {month} and {day} in it: "
        "data/{date}/messages.tsv. Empty to use --data, with the same placeholders or without, or the model's own data",
    )
    changed_share: float = setting(
        0.05,
        "share of decisions that may differ from the night before, on the validation rows of that night; the night "
        "fails if more do. 1 accepts any share and another signature, for a night that changes the model on purpose",
    )
    rows: int = setting(4096, "validation rows whose outputs are stored for the comparison with the next night")
    keep: int = setting(
        14, "number of newest nights to keep, in addition to the one that the link current names; 0 for all"
    )
    hook: str = setting(
        "",
        "command to run after each night, with PIPELINE_EVENT (passed, failed, recovered), PIPELINE_NAME, "
        "PIPELINE_DATE, PIPELINE_VERDICT, PIPELINE_REASON and PIPELINE_REPORT in its environment; empty for none",
    )
    hook_seconds: float = setting(60.0, "time limit in seconds for the hook")
    metrics_file: str = setting(
        "",
        "file for the textfile collector of Prometheus, with {name} for the folder's name: "
        "/var/lib/node_exporter/{name}.prom; empty for none",
    )

    def __post_init__(self) -> None:
        require(self, "changed_share", 0 <= self.changed_share <= 1, "from 0 to 1")
        require(self, "rows", self.rows >= 1, "at least 1")
        require(self, "keep", self.keep >= 0, "0, or a number of nights")
        require(self, "hook_seconds", 0 < self.hook_seconds < math.inf, "above 0")


@dataclass(frozen=True)
class StorageSettings:
    """`[storage]`: artifacts on object storage."""

    mirror: str = setting(
        "",
        "folder for local copies of the artifacts if the output root is a URL (s3://bucket/path); empty for the user's "
        "cache folder",
    )


VERIFY = ("changed", "always")


@dataclass(frozen=True)
class StoreSettings:
    """`[store]`: finished artifacts."""

    verify: str = setting(
        "changed",
        "which files of finished artifacts are hashed before a run takes them for complete: changed (those whose size "
        "or time stamp is not that of the finished file) or always (all, once in each process). With always, damaged "
        "artifacts are named in the log and made again; a night does so in any case",
    )

    def __post_init__(self) -> None:
        require(self, "verify", self.verify in VERIFY, f"one of {', '.join(VERIFY)}")

    @property
    def is_full(self) -> bool:
        """True if all files are hashed."""
        return self.verify == "always"


@dataclass(frozen=True)
class Operations:
    """All sections that the bytes of artifacts do not depend on: how and where the work is done."""

    engine: EngineSettings = field(default_factory=EngineSettings)
    batch: BatchSettings = field(default_factory=BatchSettings)
    nightly: NightlySettings = field(default_factory=NightlySettings)
    storage: StorageSettings = field(default_factory=StorageSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
