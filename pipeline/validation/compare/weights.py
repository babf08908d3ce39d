"""Compares the weights of a frozen model with those in its checkpoint, byte for byte, without running either.

The checkpoint holds a variable under the key that restoring would read. The candidate holds it as the constant of the
same name: a Const, or in the format mmap an ImmutableConst that names a file. If it is stored as float16, a Cast reads
it, and it must be the checkpoint's value rounded to float16. Only protobuf reads the file here, no code that wrote it.

A third-party candidate may rename its constants: a variable without a constant of its name is searched for by its bits
(see `constants`), and variables that are not found are reported separately from those that differ.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from pipeline.checkpoint.bundle import Bundle
from pipeline.checkpoint.savedmodel import read_meta_graphs
from pipeline.checkpoint.source import open_artifact
from pipeline.data.npz import object_array
from pipeline.errors import CheckpointError, DataError, UnsafeModel
from pipeline.freezing.freeze import prepare
from pipeline.graph.dtypes import DTYPES
from pipeline.graph.lazy import LazyGraph, load_lazily
from pipeline.graph.nodes import data_inputs, node_of
from pipeline.graph.protos import NodeDef
from pipeline.graph.tensors import content_of, shape_of, strings_of
from pipeline.graph.variables import VARIABLE_OPS, Saved, Variable, variable_of
from pipeline.safety.models import require_mapped
from pipeline.signature import Array, Signature, read_origin
from pipeline.store.file_names import FROZEN_FILE, GRAPH_FILE, SAVED_MODEL_FILE, SIGNATURE_FILE

from .constants import find_constant
from .differences import BitDifference, find_bit_difference

SMALLEST_WEIGHTS = 256  # elements; smaller constants are assumed to be sizes, axes and the like
_FLOATS, _HALF = (1, 2), 19  # DataType's numbers


@dataclass(frozen=True)
class VariableComparison:
    """Result of comparing one variable.

    Args:
        is_float16: the candidate stores it as float16.
        problem: the reason why values could not be compared.
        difference: the elements that differ; None if there are none.
        constant: the candidate's name for it, if other than the variable's.
    """

    name: str
    dtype: str
    elements: int = 0
    is_float16: bool = False
    problem: str | None = None
    difference: BitDifference | None = None
    constant: str = ""

    @property
    def is_equal(self) -> bool:
        return self.problem is None and self.difference is None

    def sentence(self) -> str:
        """Describes the difference."""
        if self.difference is None:
            return f"{self.name} {self.problem}"
        found = self.difference
        largest = "" if found.largest[0] is None else f"; the largest difference is {found.largest[0]:g}"
        position = f" at {found.first}" if found.first else ""
        called = f" (nearly the constant {self.constant})" if self.constant else ""
        return (
            f"{self.name}{called} differs in {found.elements} of {self.elements} elements, first{position}: "
            f"checkpoint {found.reference}, candidate {found.candidate}{largest}"
        )


@dataclass(frozen=True)
class WeightsComparison:
    """Result of comparing all variables that the outputs need.

    Args:
        unmatched: number of constants in the candidate that are large enough for weights and belong to no variable.
        problem: the reason why nothing could be compared.
        absent: variables that a third-party candidate holds neither by name nor by value.
    """

    variables: Sequence[VariableComparison]
    unmatched: int = 0
    problem: str | None = None
    absent: Sequence[str] = ()


def compare_weights(checkpoint: Path, candidate: Path) -> WeightsComparison:
    """Compares the constants of a candidate with the variables of its checkpoint.

    Args:
        checkpoint: the artifact with `signature.json`, and `model.ckpt.*` or `saved_model/`.
        candidate: the artifact with `model.pb`, or `graph.pb` and `weights/`; its faults are findings.

    Raises:
        CheckpointError: the checkpoint is damaged, or lacks a variable.
        FreezeError: the checkpoint's graph cannot become a .pb at all.
    """
    signature, origin = Signature.read(checkpoint / SIGNATURE_FILE), read_origin(checkpoint / SIGNATURE_FILE)
    source = open_artifact(checkpoint, origin.get("signature"))
    try:
        constants = _CandidateConstants(candidate)
    except DataError as exc:
        return WeightsComparison((), problem=str(exc))
    fed = {node_of(spec.tensor_name) for spec in signature.inputs}
    variables = [variable_of(node) for node in source.graph.node if node.op in VARIABLE_OPS and node.name not in fed]
    needed = {variable.name for variable in variables if variable.name in constants.nodes}
    if len(needed) < len(variables):  # the rest belongs to an optimizer or a branch never taken, or is missing
        sides = (signature.outputs, signature.inputs)
        outputs, inputs = ([spec.tensor or spec.name for spec in specs] for specs in sides)
        frozen = prepare(source, outputs, inputs, origin.get("pins", {})).graph
        needed |= {node.name for node in frozen.nodes if not isinstance(node, NodeDef)}
    values = _CheckpointValues(source.bundle)
    saved = {
        variable: source.keys.get(variable.identity, Saved(variable.identity[1]))
        for variable in variables
        if variable.name in needed
    }
    if constants.is_third_party:
        return _compare_third_party(saved, values, constants)
    compared = [_compare_variable(variable, saved_as, values, constants) for variable, saved_as in saved.items()]
    return WeightsComparison(compared, len(constants.weight_sized - constants.used))


def _compare_third_party(
    saved: Mapping[Variable, Saved], values: _CheckpointValues, constants: _CandidateConstants
) -> WeightsComparison:
    named = {variable for variable in saved if constants.has(variable)}
    free = constants.names - {variable.name for variable in named}
    found: list[VariableComparison] = []
    absent: list[str] = []
    for variable, saved_as in saved.items():
        if variable in named:
            found.append(_compare_variable(variable, saved_as, values, constants))
            continue
        tensor, shape = values.bundle.tensor(saved_as.key), values.shape(saved_as)
        value = values.array(saved_as)
        alike = constants.by_shape.get((tensor.dtype, shape), [])
        match = find_constant(value, alike, free, partial(constants.value, like=value))
        if match is None:
            absent.append(variable.name)
            continue
        constants.used.add(match.name)
        gap = None if match.is_same else find_bit_difference(value.reshape(-1), match.value.reshape(-1), shape)
        elements, constant = math.prod(shape), match.name
        found.append(VariableComparison(variable.name, tensor.dtype_name, elements, difference=gap, constant=constant))
    return WeightsComparison(found, len(constants.weight_sized - constants.used), absent=absent)


def read_candidate(folder: Path) -> LazyGraph:
    """Reads a candidate's graph from `model.pb`, `graph.pb`, or the one for serving in `saved_model.pb`.

    Raises:
        DataError: none of them exists, or it cannot be read.
    """
    names = (GRAPH_FILE, SAVED_MODEL_FILE, FROZEN_FILE)
    path = next((folder / name for name in names if (folder / name).is_file()), folder / names[-1])
    if path.name != SAVED_MODEL_FILE:
        return load_lazily(path)
    try:
        return LazyGraph(read_meta_graphs(folder)[1][0].graph, {})
    except CheckpointError as exc:
        raise DataError("the candidate's graph cannot be read", where=path, got=exc) from exc


@dataclass(frozen=True)
class VariablePair:
    """Variable that differs, with both values.

    Args:
        key: the variable's key in the checkpoint.
        reference, candidate: the values, each in its own dtype and shape.
    """

    name: str
    key: str
    reference: Array
    candidate: Array


def read_differing(checkpoint: Path, candidate: Path, names: Collection[str]) -> Iterator[VariablePair]:
    """Reads variables from both sides, one at a time; skips those that are not numeric constants in the candidate.

    Args:
        checkpoint, candidate: as in `compare_weights`.
        names: the variables.

    Raises:
        CheckpointError, FreezeError, DataError: one of the sides cannot be read.
    """
    source = open_artifact(checkpoint, read_origin(checkpoint / SIGNATURE_FILE).get("signature"))
    constants, values = _CandidateConstants(candidate), _CheckpointValues(source.bundle)
    constants.is_float16 = True  # so that a constant is found behind a Cast too, whatever the origin says
    variables = [variable_of(node) for node in source.graph.node if node.op in VARIABLE_OPS and node.name in names]
    for variable in variables:
        saved = source.keys.get(variable.identity, Saved(variable.identity[1]))
        try:
            node, _ = constants.resolve(variable)
            content = constants.content(node)
        except DataError:
            continue
        dtype, shape = DTYPES.get(node.attr["dtype"].type), _shape(node)
        if dtype is None or not dtype.code or math.prod(shape) * dtype.size_bytes != len(content):
            continue
        value = np.frombuffer(content, dtype.numpy()).reshape(shape)
        yield VariablePair(variable.name, saved.key, values.array(saved), value)


class _CheckpointValues:
    """Values in the checkpoint. The last partitioned variable is cached while its parts are read."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._last: tuple[str, Array] | None = None

    def array(self, saved: Saved) -> Array:
        """Reads a variable's value."""
        if not saved.part:
            return self.bundle.read(saved.key)
        if self._last is None or self._last[0] != saved.key:
            self._last = saved.key, self.bundle.read(saved.key)
        return self._last[1][_slices(saved.part)]

    def chunks(self, saved: Saved) -> Iterator[bytes]:
        """Reads its bytes, in pieces unless it is one part of a partitioned variable."""
        return iter([self.array(saved).tobytes()]) if saved.part else self.bundle.stream(saved.key)

    def shape(self, saved: Saved) -> tuple[int, ...]:
        """Returns its shape."""
        whole = self.bundle.tensor(saved.key).shape
        if not saved.part:
            return whole
        cuts = zip(_slices(saved.part), whole, strict=True)
        return tuple(size if cut.start is None else cut.stop - cut.start for cut, size in cuts)


def _slices(part: str) -> tuple[slice, ...]:
    """Parses a partition: `start,length` or `-` for each axis, joined by `:`."""
    sides = (side.split(",") for side in part.split(":"))
    return tuple(slice(None) if side == ["-"] else slice(int(side[0]), int(side[0]) + int(side[1])) for side in sides)


class _CandidateConstants:
    """Constants in the candidate's graph; raises a DataError if the graph is missing or cannot be read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        lean = read_candidate(folder)
        self.graph, self._contents = lean.graph, lean.contents
        self.nodes = self.graph.nodes
        self.used: set[str] = set()
        origin = read_origin(folder / SIGNATURE_FILE)
        self.is_float16, self.is_third_party = origin.get("weights") == "float16", "candidate" in origin

    @cached_property
    def weight_sized(self) -> set[str]:
        """Names of the constants that are large enough for weights."""
        return {
            node.name
            for node in self.graph.node
            if node.op == "ImmutableConst" or (node.op == "Const" and math.prod(_shape(node)) >= SMALLEST_WEIGHTS)
        }

    @cached_property
    def names(self) -> set[str]:
        """Names of all constants."""
        return {node.name for node in self.graph.node if node.op in ("Const", "ImmutableConst")}

    def has(self, variable: Variable) -> bool:
        """Returns True if a constant has the variable's name."""
        try:
            self.resolve(variable)
        except DataError:
            return False
        return True

    @cached_property
    def by_shape(self) -> dict[tuple[int, tuple[int, ...]], list[NodeDef]]:
        """The constants of each dtype and shape."""
        found: dict[tuple[int, tuple[int, ...]], list[NodeDef]] = {}
        for node in self.graph.node:
            if node.name in self.names:
                found.setdefault((node.attr["dtype"].type, _shape(node)), []).append(node)
        return found

    def value(self, node: NodeDef, like: Array) -> Array | None:
        """Reads a constant's value; None if it cannot be read.

        Args:
            like: any value of the constant's dtype and shape.
        """
        try:
            if like.dtype == object:
                flat = object_array(strings_of(node.attr["value"].tensor))
            else:
                flat = np.frombuffer(self.content(node), like.dtype)
            return flat.reshape(like.shape)
        except (DataError, ValueError):  # such a file does not import either
            return None

    def resolve(self, variable: Variable) -> tuple[NodeDef, bool]:
        """Finds the constant of a variable behind Casts and copies, and whether it is stored as float16.

        Raises:
            DataError: there is none.
        """
        if variable.name not in self.nodes:
            raise DataError("is needed, and the candidate lacks it")
        node, is_float16 = self.nodes[variable.name], False
        for _ in range(3):  # at most a Cast, a copy, and the constant
            given = data_inputs(node)
            is_rounded = self.is_float16 and variable.dtype in _FLOATS and node.op == "Cast"
            if is_rounded and (node.attr["SrcT"].type, node.attr["DstT"].type) == (_HALF, variable.dtype):
                is_float16 = True
            elif node.op != "DeepCopy":
                break
            node = self.nodes.get(node_of(given[0]) if given else "", NodeDef(op="node that is not there"))
        if node.op not in ("Const", "ImmutableConst"):
            raise DataError(f"is no constant in the candidate but a {node.op}")
        self.used.add(node.name)
        return node, is_float16

    def content(self, node: NodeDef) -> bytes | memoryview:
        """Reads a constant's bytes."""
        if node.op == "Const":
            return content_of(node.attr["value"].tensor, self._contents.get(node.name))
        try:
            return require_mapped(self._folder, node).read_bytes()
        except (OSError, UnsafeModel) as exc:
            raise DataError("stands in a file that cannot be read", got=exc) from exc


def _compare_variable(
    variable: Variable, saved: Saved, values: _CheckpointValues, constants: _CandidateConstants
) -> VariableComparison:
    tensor, shape = values.bundle.tensor(saved.key), values.shape(saved)
    elements, is_float16 = math.prod(shape), False
    try:
        node, is_float16 = constants.resolve(variable)
        _require_same_kind(node, _HALF if is_float16 else tensor.dtype, shape)
        if tensor.is_string:
            found = find_bit_difference(
                values.array(saved).ravel(), object_array(strings_of(node.attr["value"].tensor)), shape
            )
        else:
            found = _compare_bytes(saved, values, constants.content(node), is_float16)
    except DataError as exc:
        return VariableComparison(variable.name, tensor.dtype_name, elements, is_float16, str(exc))
    return VariableComparison(variable.name, tensor.dtype_name, elements, is_float16, None, found)


def _shape(node: NodeDef) -> tuple[int, ...]:
    if node.op == "Const":
        return shape_of(node.attr["value"].tensor)
    return tuple(dim.size for dim in node.attr["shape"].shape.dim)


def _require_same_kind(node: NodeDef, dtype: int, shape: tuple[int, ...]) -> None:
    is_message = node.op == "Const"
    found = {node.attr["dtype"].type, *([node.attr["value"].tensor.dtype] if is_message else ())}
    lengths = _shape(node)
    if found != {dtype} or lengths != shape:
        names = " and ".join(DTYPES[each].name if each in DTYPES else str(each) for each in sorted(found))
        raise DataError(
            "is of another dtype or shape", got=f"{names} {list(lengths)}", wanted=f"{DTYPES[dtype].name} {list(shape)}"
        )


def _compare_bytes(
    saved: Saved, values: _CheckpointValues, content: bytes | memoryview, is_float16: bool
) -> BitDifference | None:
    """Finds the bits that differ. Equal bytes, the usual case, are never loaded as an array."""
    if not is_float16 and _is_same(values.chunks(saved), content):
        return None
    reference = values.array(saved)
    if is_float16:
        with np.errstate(all="ignore"):
            reference = reference.astype("<f2")
    if len(content) != reference.nbytes:
        raise DataError("is of another size than its shape", got=len(content), wanted=reference.nbytes)
    return find_bit_difference(reference.reshape(-1), np.frombuffer(content, reference.dtype), reference.shape)


def _is_same(chunks: Iterator[bytes], content: bytes | memoryview) -> bool:
    view, at, is_same = memoryview(content), 0, True
    for chunk in chunks:  # to the end, even after a difference: the checksum follows the last one
        is_same = is_same and bytes(view[at : at + len(chunk)]) == chunk
        at += len(chunk)
    return is_same and at == len(content)
