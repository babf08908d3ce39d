"""The settings of each stage: one section of tasks.cfg, and one frozen class here, for each.

A section holds exactly what decides its stage, so a changed setting redoes that stage and what hangs on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
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

    def most_flipped(self, coarser: str = "") -> float:
        """The share of rows that may be decided otherwise; see `tolerance` for `coarser`."""
        return float(getattr(self, f"{coarser}_flipped_share" if coarser else "flipped_share", self.flipped_share))

    def tolerance(self, dtype: str, coarser: str = "", output: str = "") -> tuple[float, float]:
        """The relative and absolute bound for a dtype; (0, 0), that is exactly equal, for all but floats.

        Args:
            coarser: whose bounds hold for float32 and float64 instead, where weights were stored with less precision;
                of `runtime` for float32 alone: in float64 another runtime has room enough.
            output: one that may have bounds of its own.
        """
        if output in self.output_tolerances:
            return self.output_tolerances[output]
        kind = {"complex64": "float32", "complex128": "float64"}.get(dtype, dtype)
        if "float" not in kind:  # of int8, say, which is a dtype too, and no bound of one
            return 0.0, 0.0
        if coarser and kind in ("float32", "float64") and (coarser, kind) != ("runtime", "float64"):
            kind = coarser
        return float(getattr(self, f"{kind}_rtol", 0.0)), float(getattr(self, f"{kind}_atol", 0.0))


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


@dataclass(frozen=True)
class WarmStart:
    """Where a training takes its first weights from.

    Args:
        prefix: a checkpoint, as `prefix.find_prefix` takes it; for a Keras model, a file of Keras's too.
        keys: the checkpoint's key by the variable's name, where the two differ.
    """

    prefix: Path
    keys: Mapping[str, str]


@dataclass(frozen=True)
class Adopted:
    """An existing checkpoint that a chain starts at, in the place of a training of its own.

    Args:
        place: a Saver's checkpoint, a SavedModel or a GraphDef, as `freezing.freeze` takes it; or a Keras model's file.
        inputs, outputs: names of tensors; empty where they are to be found.
        pins: placeholders that become constants.
        graph: the graph's file, where it does not stand beside the checkpoint.
        signature: of a SavedModel with several, which one.
        allow_ops: ops that may stand in its graph though they could do more than compute.
    """

    place: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    pins: Mapping[str, str] = field(default_factory=dict)
    graph: Path | None = None
    signature: str | None = None
    allow_ops: tuple[str, ...] = ()

    @property
    def is_keras(self) -> bool:
        """Whether it is a file that Keras wrote, by its name."""
        return is_keras_file(self.place)


def is_keras_file(place: Path | str) -> bool:
    """Whether a file is one that Keras writes, by its name: a model, or weights alone."""
    return str(place).lower().endswith((".keras", ".h5", ".hdf5"))


@dataclass(frozen=True)
class Candidate:
    """An existing file or folder that is compared with the checkpoint, in the place of formats that are made of it.

    Args:
        place: the file, or the folder of a SavedModel or of the format mmap.
        format: the format that it is in.
        names: the candidate's tensor by the signature's name, where the two are not to be found by themselves.
        signature: of a SavedModel or a TFLite file with several, which one.
        allow_ops: ops that may stand in it though they could do more than compute.
    """

    place: Path
    format: str
    names: Mapping[str, str] = field(default_factory=dict)
    signature: str | None = None
    allow_ops: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """What the file is: of its format, whatever the precision of its weights."""
        return self.format.partition("_")[0]


def require(section: Any, name: str, is_right: bool, wanted: str) -> None:
    """Refuses a setting that is out of its range.

    Raises:
        SettingError: it is.
    """
    if not is_right:
        title = type(section).__name__.removesuffix("Settings").lower()
        raise SettingError("out of range", where=f"[{title}] {name}", got=getattr(section, name), wanted=wanted)
