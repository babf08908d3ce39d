"""Rules of lists of tensors: what a loop takes out of one is what was put into it."""

from __future__ import annotations

from dataclasses import replace

from .step import Made, Rules, Step
from .tensors import UNKNOWN, Value, anything


def spread(step: Step) -> Value:
    """A tensor becomes a list of its rows."""
    return _list_of(step.value(2 if step.node.op.startswith("TensorArray") else 0))


def _list_of(value: Value) -> Value:
    item = replace(value, rank_of=None, numbers=None, dims=value.dims[1:] if value.dims else None)
    return Value(items=item)


def write(step: Step) -> Value:
    return Value(items=step.value(2))


def take(step: Step) -> Value:
    """An element of a list: the first input has the list, or the third."""
    value = step.value(2 if step.node.op.startswith("TensorArray") else 0)
    return value.items or UNKNOWN


def stack(step: Step) -> Made:
    value = step.value(2 if step.node.op.startswith("TensorArray") else 0)
    item = value.items
    if item is None:
        return UNKNOWN
    return replace(item, numbers=None, dims=None if item.dims is None else (anything(), *item.dims))


def reserve(step: Step) -> Value:
    return UNKNOWN


RULES: Rules = {
    **dict.fromkeys(("TensorArrayScatterV3", "TensorArrayUnpackV3", "TensorListFromTensor"), spread),
    **dict.fromkeys(("TensorArrayWriteV3", "TensorListSetItem"), write),
    **dict.fromkeys(("TensorArrayReadV3", "TensorListGetItem"), take),
    **dict.fromkeys(("TensorArrayGatherV3", "TensorListStack"), stack),
    "TensorListReserve": reserve,
}
