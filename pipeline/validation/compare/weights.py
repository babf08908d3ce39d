"""Compares the weights of a frozen model with those in its checkpoint, byte for byte, without running either.

A variable is in the checkpoint under the key that restoring would read, and in the candidate as the constant of its
name: a Const, or in the format mmap an ImmutableConst that names a file. Stored as float16 it stands behind a Cast,
and is to be the checkpoint's value rounded to float16. Protobuf alone reads the file here, nothing that wrote it.

A candidate that the pipeline did not make may name its constants otherwise: there a variable without a constant of its
name is looked for by its bits (see `tracing`), and one that is not found is told apart from those that differ.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from pipeline.checkpoint.artifact import open_artifact, read_origin
from pipeline.checkpoint.bundle import Bundle
from pipeline.checkpoint.source import Source
from pipeline.errors import DataError
from pipeline.freezing.freeze import prepare
from pipeline.graph.dtypes import DTYPES
from pipeline.graph.lazy import LazyGraph, load_lazily
from pipeline.graph.nodes import data_inputs, node_of
from pipeline.graph.protos import DecodeError, NodeDef, SavedModel
from pipeline.graph.tensors import content_of, shape_of, strings_of
from pipeline.graph.variables import VARIABLE_OPS, Saved, Variable, variable_of
from pipeline.signature import Array, Signature
from pipeline.store.files import FROZEN_FILE, GRAPH_FILE, SAVED_MODEL_FILE, SIGNATURE_FILE

from .constants import trace
from .differences import Difference, difference

SMALLEST_WEIGHTS = 256  # elements; smaller constants are taken for sizes, axes and the like
_FLOATS, _HALF = (1, 2), 19  # DataType's numbers


@dataclass(frozen=True)
class Weights:
    """What was found of one variable.

    Args:
        elements: how many it has.
        is_halved: the candidate stores it as float16.
        constant: what the candidate calls it, where that is not the variable's name.
        problem: why it could not be compared value by value.
        difference: where the values differ.
    """

    name: str
    dtype: str
    elements: int = 0
    is_halved: bool = False
    problem: str | None = None
    difference: Difference | None = None
    constant: str = ""

    @property
    def is_equal(self) -> bool:
        return self.problem is None and self.difference is None

    def sentence(self) -> str:
        """What is wrong with it."""
        if self.difference is None:
            return f"{self.name} {self.problem}"
        found = self.difference
        largest = "" if found.largest[0] is None else f"; the largest difference is {found.largest[0]:g}"
        place = f" at {found.first}" if found.first else ""
        called = f" (nearly the constant {self.constant})" if self.constant else ""
        return (
            f"{self.name}{called} differs in {found.elements} of {self.elements} elements, first{place}: "
            f"checkpoint {found.reference}, candidate {found.candidate}{largest}"
        )


@dataclass(frozen=True)
class WeightsFinding:
    """What was found of all variables that the outputs need.

    Args:
        weights: by variable.
        others: how many constants of the size of weights the candidate has that are of no variable.
        problem: why nothing could be compared.
        absent: variables that a candidate of somebody else's has neither by name nor by their bits.
    """

    weights: Sequence[Weights]
    others: int = 0
    problem: str | None = None
    absent: Sequence[str] = ()


def compare_weights(checkpoint: Path, candidate: Path) -> WeightsFinding:
    """Compares the constants of a candidate with the variables of its checkpoint.

    Args:
        checkpoint: the artifact with `signature.json`, and `model.ckpt.*` or `saved_model/`.
        candidate: the artifact with `model.pb`, or `graph.pb` and `weights/`; what is wrong with it is a finding.

    Raises:
        CheckpointError: the checkpoint is damaged, or lacks a variable.
        FreezeError: the checkpoint's graph cannot become a .pb at all.
    """
    signature, told = Signature.read(checkpoint / SIGNATURE_FILE), read_origin(checkpoint / SIGNATURE_FILE)
    source = open_artifact(checkpoint, told.get("signature"))
    try:
        constants = _Constants(candidate)
    except DataError as exc:
        return WeightsFinding((), problem=str(exc))
    fed = {node_of(spec.tensor_name) for spec in signature.inputs}
    variables = [variable_of(node) for node in source.graph.node if node.op in VARIABLE_OPS and node.name not in fed]
    needed = {variable.name for variable in variables if variable.name in constants.nodes}
    if len(needed) < len(variables):  # an optimizer's, and those of branches that are never taken: or they are missing
        needed |= _frozen_names(source, signature, told.get("pins", {}))
    values = _Values(source.bundle)
    saved = {
        variable: source.keys.get(variable.identity, Saved(variable.identity[1]))
        for variable in variables
        if variable.name in needed
    }
    if constants.is_foreign:
        return _traced(saved, values, constants)
    weights = [_weighed(variable, place, values, constants) for variable, place in saved.items()]
    return WeightsFinding(weights, len(constants.sizeable - constants.used))


def _traced(saved: Mapping[Variable, Saved], values: _Values, constants: _Constants) -> WeightsFinding:
    """The weights of a candidate that the pipeline did not make."""
    named = {variable for variable in saved if constants.has(variable)}
    free = constants.names - {variable.name for variable in named}
    found: list[Weights] = []
    absent: list[str] = []
    for variable, place in saved.items():
        if variable in named:
            found.append(_weighed(variable, place, values, constants))
            continue
        tensor, shape = values.bundle.tensor(place.key), values.shape(place)
        value = values.array(place)
        alike = constants.of_kind(tensor.dtype, shape)
        traced = trace(value, alike, free, partial(constants.value, like=value))
        if traced is None:
            absent.append(variable.name)
            continue
        constants.used.add(traced.name)
        gap = None if traced.is_same else difference(value.reshape(-1), traced.value.reshape(-1), shape)
        elements, constant = math.prod(shape), traced.name
        found.append(Weights(variable.name, tensor.dtype_name, elements, difference=gap, constant=constant))
    return WeightsFinding(found, len(constants.sizeable - constants.used), absent=absent)


def read_candidate(folder: Path) -> LazyGraph:
    """The graph of a candidate: of `model.pb`, of `graph.pb`, or the first one of `saved_model.pb`.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    names = (GRAPH_FILE, SAVED_MODEL_FILE, FROZEN_FILE)
    path = next((folder / name for name in names if (folder / name).is_file()), folder / names[-1])
    if path.name != SAVED_MODEL_FILE:
        return load_lazily(path)
    try:
        return LazyGraph(SavedModel.FromString(path.read_bytes()).meta_graphs[0].graph_def, {})
    except (OSError, DecodeError, IndexError) as exc:
        raise DataError("the candidate's graph cannot be read", where=path, got=exc) from exc


@dataclass(frozen=True)
class Pair:
    """A variable that differs, with both its values.

    Args:
        key: the checkpoint's key of it.
        ours: the checkpoint's value; theirs: the candidate's, in its own dtype and shape.
    """

    name: str
    key: str
    ours: Array
    theirs: Array


def differing_pairs(checkpoint: Path, candidate: Path, names: Collection[str]) -> Iterator[Pair]:
    """The values of variables on both sides, one variable at a time; those that have no numbers there are left out.

    Args:
        checkpoint, candidate: as `compare_weights`.
        names: the variables.

    Raises:
        CheckpointError, FreezeError, DataError: as `compare_weights`; one of the sides cannot be read.
    """
    source = open_artifact(checkpoint, read_origin(checkpoint / SIGNATURE_FILE).get("signature"))
    constants, values = _Constants(candidate), _Values(source.bundle)
    constants.is_halved = True  # whether that was told or not, a Cast is looked behind
    variables = [variable_of(node) for node in source.graph.node if node.op in VARIABLE_OPS and node.name in names]
    for variable in variables:
        saved = source.keys.get(variable.identity, Saved(variable.identity[1]))
        try:
            node, _ = constants.behind(variable)
            content = constants.content(node)
        except DataError:
            continue
        dtype, lengths = DTYPES.get(node.attr["dtype"].type), _lengths(node)
        if dtype is None or not dtype.code or math.prod(lengths) * dtype.size_bytes != len(content):
            continue
        theirs = np.frombuffer(content, dtype.numpy()).reshape(lengths)
        yield Pair(variable.name, saved.key, values.array(saved), theirs)


def _frozen_names(source: Source, signature: Signature, pins: Mapping[str, str]) -> set[str]:
    """The variables that freezing makes constants."""
    outputs, inputs = ([spec.tensor or spec.name for spec in specs] for specs in (signature.outputs, signature.inputs))
    return {node.name for node in prepare(source, outputs, inputs, pins).graph.nodes if not isinstance(node, NodeDef)}


class _Values:
    """The checkpoint's values. The whole of a partitioned variable is kept while its parts are asked for."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._last: tuple[str, Array] | None = None

    def array(self, saved: Saved) -> Array:
        """A variable's value."""
        if not saved.part:
            return self.bundle.read(saved.key)
        if self._last is None or self._last[0] != saved.key:
            self._last = saved.key, self.bundle.read(saved.key)
        return self._last[1][_slices(saved.part)]

    def chunks(self, saved: Saved) -> Iterator[bytes]:
        """Its bytes, a piece at a time where it is no part of a whole."""
        return iter([self.array(saved).tobytes()]) if saved.part else self.bundle.stream(saved.key)

    def shape(self, saved: Saved) -> tuple[int, ...]:
        """Its lengths, by axis."""
        whole = self.bundle.tensor(saved.key).shape
        if not saved.part:
            return whole
        cuts = zip(_slices(saved.part), whole, strict=True)
        return tuple(size if cut.start is None else cut.stop - cut.start for cut, size in cuts)


def _slices(part: str) -> tuple[slice, ...]:
    """A part of a whole, from `start,length` or `-` per axis, joined by `:`."""
    sides = (side.split(",") for side in part.split(":"))
    return tuple(slice(None) if side == ["-"] else slice(int(side[0]), int(side[0]) + int(side[1])) for side in sides)


class _Constants:
    """The candidate's graph and its constants.

    Raises:
        DataError: as `read_candidate`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        lean = read_candidate(folder)
        self.graph, self._contents = lean.graph, lean.contents
        self.nodes: dict[str, NodeDef] = {node.name: node for node in self.graph.node}
        self.used: set[str] = set()
        origin = read_origin(folder / SIGNATURE_FILE) if (folder / SIGNATURE_FILE).is_file() else {}
        self.is_halved, self.is_foreign = origin.get("weights") == "float16", "candidate" in origin

    @cached_property
    def sizeable(self) -> set[str]:
        """The constants of the size of weights."""
        return {
            node.name
            for node in self.graph.node
            if node.op == "ImmutableConst" or (node.op == "Const" and _elements(node) >= SMALLEST_WEIGHTS)
        }

    @cached_property
    def names(self) -> set[str]:
        """The names of all constants."""
        return {node.name for node in self.graph.node if node.op in ("Const", "ImmutableConst")}

    def has(self, variable: Variable) -> bool:
        """Whether there is a constant of a variable's name."""
        try:
            self.behind(variable)
        except DataError:
            return False
        return True

    def of_kind(self, dtype: int, shape: tuple[int, ...]) -> list[NodeDef]:
        """The constants of a dtype and shape that can be read."""
        return self._by_kind.get((dtype, shape), [])

    @cached_property
    def _by_kind(self) -> dict[tuple[int, tuple[int, ...]], list[NodeDef]]:
        found: dict[tuple[int, tuple[int, ...]], list[NodeDef]] = {}
        for node in self.graph.node:
            if node.name in self.names:
                found.setdefault((node.attr["dtype"].type, _lengths(node)), []).append(node)
        return found

    def value(self, node: NodeDef, like: Array) -> Array | None:
        """A constant's value; None where it cannot be read.

        Args:
            like: a value of the constant's dtype and shape.
        """
        try:
            if like.dtype == object:
                flat = _of_objects(strings_of(node.attr["value"].tensor))
            else:
                flat = np.frombuffer(self.content(node), like.dtype)
            return flat.reshape(like.shape)
        except (DataError, ValueError):  # such a file does not import either
            return None

    def behind(self, variable: Variable) -> tuple[NodeDef, bool]:
        """The constant of a variable, and whether it is stored as float16.

        Raises:
            DataError: there is none.
        """
        if variable.name not in self.nodes:
            raise DataError("is needed, and the candidate lacks it")
        node, is_halved = self.nodes[variable.name], False
        for _ in range(3):  # at most a Cast, a copy, and the constant
            given = data_inputs(node)
            is_rounded = self.is_halved and variable.dtype in _FLOATS and node.op == "Cast"
            if is_rounded and (node.attr["SrcT"].type, node.attr["DstT"].type) == (_HALF, variable.dtype):
                is_halved = True
            elif node.op != "DeepCopy":
                break
            node = self.nodes.get(node_of(given[0]) if given else "", NodeDef(op="node that is not there"))
        if node.op not in ("Const", "ImmutableConst"):
            raise DataError(f"is no constant in the candidate but a {node.op}")
        self.used.add(node.name)
        return node, is_halved

    def content(self, node: NodeDef) -> bytes | memoryview:
        """A constant's bytes."""
        if node.op == "Const":
            return self._contents.get(node.name) or content_of(node.attr["value"].tensor)
        try:
            path: Path = self._folder / node.attr["memory_region_name"].s.decode()
            return path.read_bytes()
        except (OSError, UnicodeDecodeError) as exc:
            raise DataError("stands in a file that cannot be read", got=exc) from exc


def _elements(node: NodeDef) -> int:
    return math.prod(shape_of(node.attr["value"].tensor))


def _weighed(variable: Variable, saved: Saved, values: _Values, constants: _Constants) -> Weights:
    tensor, shape = values.bundle.tensor(saved.key), values.shape(saved)
    elements, is_halved = math.prod(shape), False
    try:
        node, is_halved = constants.behind(variable)
        _require_same_kind(node, _HALF if is_halved else tensor.dtype, shape)
        if tensor.is_string:
            found = difference(values.array(saved).ravel(), _of_objects(strings_of(node.attr["value"].tensor)), shape)
        else:
            found = _of_bytes(saved, values, constants.content(node), is_halved)
    except DataError as exc:
        return Weights(variable.name, tensor.dtype_name, elements, is_halved, str(exc))
    return Weights(variable.name, tensor.dtype_name, elements, is_halved, None, found)


def _lengths(node: NodeDef) -> tuple[int, ...]:
    """A constant's lengths, by axis."""
    if node.op == "Const":
        return shape_of(node.attr["value"].tensor)
    return tuple(dim.size for dim in node.attr["shape"].shape.dim)


def _require_same_kind(node: NodeDef, dtype: int, shape: tuple[int, ...]) -> None:
    is_message = node.op == "Const"
    found = {node.attr["dtype"].type, *([node.attr["value"].tensor.dtype] if is_message else ())}
    lengths = _lengths(node)
    if found != {dtype} or lengths != shape:
        names = " and ".join(DTYPES[each].name if each in DTYPES else str(each) for each in sorted(found))
        raise DataError(
            "is of another dtype or shape",
            got=f"{names} {list(lengths)}",
            wanted=f"{DTYPES[dtype].name} {list(shape)}",
        )


def _of_bytes(saved: Saved, values: _Values, content: bytes | memoryview, is_halved: bool) -> Difference | None:
    """Where the bytes differ; what is equal, nearly always everything, is never an array."""
    if not is_halved and _is_same(values.chunks(saved), content):
        return None
    ours = values.array(saved)
    if is_halved:
        with np.errstate(all="ignore"):
            ours = ours.astype("<f2")
    if len(content) != ours.nbytes:
        raise DataError("is of another size than its shape", got=len(content), wanted=ours.nbytes)
    return difference(ours.reshape(-1), np.frombuffer(content, ours.dtype), ours.shape)


def _is_same(chunks: Iterator[bytes], content: bytes | memoryview) -> bool:
    view, at, is_same = memoryview(content), 0, True
    for chunk in chunks:  # all of them: the checksum comes after the last
        is_same = is_same and bytes(view[at : at + len(chunk)]) == chunk
        at += len(chunk)
    return is_same and at == len(content)


def _of_objects(strings: list[bytes]) -> Array:
    array = np.empty(len(strings), object)
    array[:] = strings
    return array
