"""Signature of a model: its inputs and outputs with name, dtype and shape, and the output that decides.

Every artifact that can be run contains its signature as `signature.json`, so a runner needs neither the
model's code nor a search through the graph.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from .errors import ModelError

if TYPE_CHECKING:
    import numpy as np

# An array of any dtype and shape; and arrays `[rows, ...]` by input or output. NumPy is not imported here at run time.
Array: TypeAlias = "np.ndarray[Any, Any]"
Batch: TypeAlias = "Mapping[str, Array]"
Shape = tuple[int | None, ...]

DTYPES = frozenset(
    [f"{sign}int{bits}" for sign in ("", "u") for bits in (4, 8, 16, 32, 64)]
    + ["float16", "bfloat16", "float32", "float64", "bool", "string", "complex64", "complex128"]
    + ["qint8", "quint8", "qint16", "quint16", "qint32", "float8_e4m3fn", "float8_e5m2"]
)


@dataclass(frozen=True)
class TensorSpec:
    """One named input or output.

    Args:
        name: its name; in a graph that the pipeline built, the tensor's name without `:0`.
        dtype: TensorFlow's name of the dtype, `string` for bytes.
        shape: one entry per dimension, None if it varies; None for any rank. The first dimension is the batch.
        tensor: the tensor's name in the graph, if it is not `name:0`.
    """

    name: str
    dtype: str
    shape: Shape | None = None
    tensor: str | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ModelError(
                "unknown dtype", where=self.name, got=self.dtype, wanted=f"one of {', '.join(sorted(DTYPES))}"
            )
        if self.shape is not None:
            object.__setattr__(self, "shape", tuple(self.shape))
        dims = self.shape or ()
        if not isinstance(self.name, str) or not all(d is None or type(d) is int for d in dims):
            raise ModelError(
                "not a tensor's name and shape", got=(self.name, self.shape), wanted="text, and whole numbers"
            )

    def of_length(self, length: int) -> TensorSpec:
        """Return the same spec with one length for all open dimensions but the batch."""
        if not self.shape:
            return self
        return replace(self, shape=(self.shape[0], *(length if size is None else size for size in self.shape[1:])))

    @property
    def tensor_name(self) -> str:
        """The name with which a session feeds or fetches it."""
        return self.tensor or f"{self.name}:0"

    def __str__(self) -> str:
        dims = "..." if self.shape is None else ", ".join("?" if d is None else str(d) for d in self.shape)
        return f"{self.name} {self.dtype} [{dims}]" + (f", tensor {self.tensor}" if self.tensor else "")


@dataclass(frozen=True)
class Decision:
    """The output that the model's user acts on.

    Args:
        output: name of the output.
        threshold: a row is positive if the output is at or above it (output `float [batch]`);
            None if the decision is the argmax over the last dimension (`float [batch, classes]`).
        labels: names of the classes by index, for reports; with a threshold, the negative class first.
    """

    output: str
    threshold: float | None = None
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.labels, str) or not isinstance(self.threshold, float | int | None):
            raise ModelError("not a decision", where=self.output, got=(self.threshold, self.labels))
        object.__setattr__(self, "labels", tuple(self.labels))


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a model, in a fixed order, and its decision if it has one.

    Args:
        is_whole: the inputs are one value together, such as a sparse or ragged tensor, or a graph.

    Raises:
        ModelError: there is no output, a name occurs twice, or the decision names an unknown output.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    decision: Decision | None = None
    is_whole: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", tuple(self.inputs))
        object.__setattr__(self, "outputs", tuple(self.outputs))
        for kind, specs in (("input", self.inputs), ("output", self.outputs)):
            names = [spec.name for spec in specs]
            if not names and kind == "output":
                raise ModelError("a signature needs at least one output", got="none")
            doubled = sorted({name for name in names if names.count(name) > 1})
            if doubled:
                raise ModelError(f"an {kind} is named twice in the signature", got=", ".join(doubled))
        if self.decision is not None and self.decision.output not in {spec.name for spec in self.outputs}:
            raise ModelError(
                "the decision names an output that the signature lacks",
                got=self.decision.output,
                wanted=f"one of {', '.join(spec.name for spec in self.outputs)}",
            )

    def of_batch(self, rows: int) -> Signature:
        """Return the same signature with a fixed batch size, if it leaves the size open."""
        if self.is_whole:
            return self
        return replace(self, inputs=_of_rows(self.inputs, rows), outputs=_of_rows(self.outputs, rows))

    def of_length(self, length: int) -> Signature:
        """Return the same signature with one length for all dimensions of inputs that it leaves open, but the batch."""
        return replace(self, inputs=tuple(spec.of_length(length) for spec in self.inputs))

    def to_dict(self) -> dict[str, Any]:
        """Return the signature as plain JSON values."""
        values = asdict(self)
        for spec in (*values["inputs"], *values["outputs"]):
            if spec["tensor"] is None:
                del spec["tensor"]
        if not self.is_whole:
            del values["is_whole"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Signature:
        """Read the result of `to_dict`.

        Raises:
            ModelError: a key is missing or a value has the wrong type.
        """
        try:
            decision = values.get("decision")
            return cls(
                inputs=tuple(TensorSpec(**value) for value in values["inputs"]),
                outputs=tuple(TensorSpec(**value) for value in values["outputs"]),
                decision=None if decision is None else Decision(**decision),
                is_whole=bool(values.get("is_whole", False)),
            )
        except (KeyError, TypeError, AttributeError) as exc:
            raise ModelError("not a signature", got=exc, wanted="inputs, outputs and decision") from exc

    def write(self, path: Path, **more: Any) -> None:
        """Write `signature.json`; the same signature gives the same bytes.

        Args:
            more: further entries, as plain JSON values; `read` ignores them.
        """
        path.write_text(json.dumps({**self.to_dict(), **more}, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Signature:
        """Read `signature.json`.

        Raises:
            ModelError: the file is missing, is not JSON, or holds no signature.
        """
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError) as exc:
            raise ModelError("no readable signature", where=path, got=exc) from exc


def shapes_fit(one: Shape | None, other: Shape | None) -> bool:
    """Return True if two shapes can be equal: open dimensions and open ranks fit any other."""
    if one is None or other is None:
        return True
    return len(one) == len(other) and all(a is None or b is None or a == b for a, b in zip(one, other, strict=True))


def read_origin(path: Path) -> dict[str, Any]:
    """Read what a `signature.json` says besides the signature; empty if it says nothing, or if there is no file."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    origin: dict[str, Any] = content.get("origin", {})
    return origin


def _of_rows(specs: Iterable[TensorSpec], rows: int) -> tuple[TensorSpec, ...]:
    """Set the first dimension to the number of rows, if it is open."""
    return tuple(replace(s, shape=(rows, *s.shape[1:])) if s.shape and s.shape[0] is None else s for s in specs)


def whole_inputs(signature: Signature) -> frozenset[str]:
    """Return the names of inputs that have one value for all rows of a batch.

    These are scalars, such as `temperature`; and inputs whose fixed first dimensions differ, such as class weights
    `[2]` and a mask `[4]`, because at most one of them could be the batch. Of inputs that are one value together, all.
    """
    if signature.is_whole:
        return frozenset(spec.name for spec in signature.inputs)
    sizes = {spec.shape[0] for spec in signature.inputs if spec.shape}
    is_one_batch = len(sizes - {None}) < 2
    return frozenset(
        spec.name
        for spec in signature.inputs
        if spec.shape is not None
        and (not spec.shape or (not is_one_batch and spec.shape[0] is not None and spec.shape[0] != 1))
    )


def by_rows(signature: Signature) -> Signature:
    """Return the signature of the rows: each input, and each output with an answer for each row, has them first.

    An input with one value for all rows has that value in each row. If there is no other input, a row is a whole run,
    with all outputs.
    """
    whole = whole_inputs(signature)
    are_runs = len(whole) == len(signature.inputs)
    first = 1 if are_runs else None
    inputs = [_with_rows(spec, first) if spec.name in whole else spec for spec in signature.inputs]
    outputs = [_with_rows(spec, first) if are_runs else spec for spec in signature.outputs]
    return replace(signature, inputs=tuple(inputs), outputs=tuple(outputs), is_whole=False)


def _with_rows(spec: TensorSpec, rows: int | None) -> TensorSpec:
    return replace(spec, shape=None if spec.shape is None else (rows, *spec.shape))


def as_fed(batch: Batch, signature: Signature) -> dict[str, Array]:
    """Return the arrays that a model is fed for rows: an input with one value for all rows gets the first row's."""
    whole = whole_inputs(signature)
    return {name: values[0, ...] if name in whole else values for name, values in batch.items()}


def batch_size_of(signature: Signature) -> int | None:
    """Return the number of rows that every batch must have; None for any number.

    Without an input that has rows, each row is a run, so a batch is one row.
    """
    whole = whole_inputs(signature)
    if len(whole) == len(signature.inputs):
        return 1
    specs = [spec for spec in signature.inputs if spec.name not in whole]
    sizes = {spec.shape[0] for spec in specs if spec.shape and spec.shape[0] is not None}
    return max(sizes) if sizes else None
