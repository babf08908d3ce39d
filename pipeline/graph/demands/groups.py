"""Rules of sparse and ragged tensors: several inputs that are one value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from .step import Made, Rules, Step
from .tensors import UNKNOWN, Dims, Leaf, Open, Value, anything

# Ops by the numbers of the inputs that are indices, values and shape.
_SPARSE = {
    "SparseTensorDenseMatMul": (0, 1, 2),
    "SparseToDense": (0, 2, 1),
    "SparseReorder": (0, 1, 2),
    "SparseFillEmptyRows": (0, 1, 2),
    "SparseReduceSum": (0, 1, 2),
    "SparseReduceMax": (0, 1, 2),
    "SparseSoftmax": (0, 1, 2),
    "SparseTensorDenseAdd": (0, 1, 2),
    "SparseDenseCwiseMul": (0, 1, 2),
    "SparseDenseCwiseDiv": (0, 1, 2),
    "SparseDenseCwiseAdd": (0, 1, 2),
    "SparseSlice": (0, 1, 2),
}


def group_sparse(step: Step) -> tuple[Leaf, ...] | None:
    """Notes that three inputs are a sparse tensor; returns their leaves."""
    _note_places(step)
    indices, values, shape = (step.sole_origin(number) for number in _SPARSE[step.node.op])
    if indices is None or values is None or shape is None or indices is values:
        return None
    length = (indices.dims or (None, None))[-1] if indices.dims and len(indices.dims) == 2 else None
    rank = length if isinstance(length, int) else (shape.dims or (2,))[0]
    dims: Dims = (anything(),) * (rank if isinstance(rank, int) else 2)
    step.facts.groups.setdefault((indices, values, shape), ("sparse", dims))
    return indices, values, shape


def _note_places(step: Step) -> None:
    """Notes that the indices of parsed values are parsed themselves, each within its dimension."""
    at_indices, at_values, at_shape = _SPARSE[step.node.op]
    values, places = step.sole_origin(at_values), [origin.leaf for origin in step.value(at_indices).origins]
    if values is None or not places or values in places or any("int" not in place.dtype for place in places):
        return
    values.places = tuple(places)
    for place, size in zip(places, (step.value(at_shape).numbers or ())[-len(places) :], strict=False):
        place.at_least(0)
        if isinstance(size, int):
            place.at_most(size - 1)


def sparse_matmul(step: Step) -> Value:
    found, kernel = group_sparse(step), step.dims(3)
    width = None if kernel is None else kernel[0 if not step.flag("adjoint_b") else -1]
    if found is not None and width is not None:
        step.facts.groups[found] = ("sparse", (Open(step.facts.batch), width))
    numbers = step.value(2).numbers
    if numbers and len(numbers) == 2 and width is not None:
        step.facts.equal(numbers[1] if isinstance(numbers[1], int | tuple) else None, width)
    own = numbers[-1 if step.flag("adjoint_a") else 0] if numbers and len(numbers) == 2 else None
    rows = own if isinstance(own, int) else Open(step.facts.batch)
    return Value((rows, kernel[-1] if kernel else anything()))


def fill_empty_rows(step: Step) -> Made:
    group_sparse(step)
    indices, values = step.value(0), step.value(1)
    return {
        "output_indices": [Value(indices.dims)],
        "output_values": [Value(values.dims, origins=values.origins, looked=values.looked)],
        "empty_row_indicator": [UNKNOWN],
        "reverse_index_map": [UNKNOWN],
    }


def reorder(step: Step) -> Made:
    group_sparse(step)
    return {"output_indices": [step.value(0)], "output_values": [step.value(1)]}


def sparse(step: Step) -> Value:
    group_sparse(step)
    return UNKNOWN


def ragged(step: Step) -> Made:
    """Values, and where the rows of them begin and end."""
    values = step.sole_origin(1)
    for number in range(3, len(step.given)):
        splits = step.sole_origin(number)
        if splits is not None and values is not None and splits is not values:
            step.facts.groups.setdefault((values, splits), ("ragged", ()))
    return Value(origins=step.value(1).origins, looked=step.value(1).looked)


def sparse_inputs(leaves: Sequence[Leaf], found: Iterable[tuple[Leaf, ...]]) -> Iterator[tuple[tuple[Leaf, ...], Dims]]:
    """Yields the sparse tensors that the names of inputs tell: NAME/indices and NAME/values, mostly with NAME/shape.

    Args:
        found: the groups that ops tell; the inputs of sparse and ragged ones are left alone.
    """
    names, known = {leaf.name: leaf for leaf in leaves}, {leaf for group in found if len(group) > 1 for leaf in group}
    for leaf in leaves:
        prefix = leaf.name.removesuffix("/indices")
        parts = [names[name] for name in (leaf.name, f"{prefix}/values", f"{prefix}/shape") if name in names]
        if prefix != leaf.name and len(parts) > 1 and parts[1].name.endswith("/values") and known.isdisjoint(parts):
            rank = leaf.dims[-1] if leaf.dims and len(leaf.dims) == 2 else None
            yield tuple(parts), (anything(),) * (rank if isinstance(rank, int) else 2)


def ragged_inputs(slices: set[tuple[Leaf, str]], leaves: Sequence[Leaf]) -> list[tuple[Leaf, Leaf]]:
    """Finds the ragged tensors among the inputs: values, and `NAME_1`, `NAME_2` … whose neighbours are subtracted."""
    names = {leaf.name: leaf for leaf in leaves}
    return [
        (names[name], leaf)
        for leaf in leaves
        if {(leaf, "behind"), (leaf, "before")} <= slices and (name := re.sub(r"_\d$", "", leaf.name)) in names
        if name != leaf.name
    ]


RULES: Rules = {
    **dict.fromkeys(_SPARSE, sparse),
    "SparseTensorDenseMatMul": sparse_matmul,
    "SparseFillEmptyRows": fill_empty_rows,
    "SparseReorder": reorder,
    **dict.fromkeys(("RaggedTensorToTensor",), ragged),
}
