"""Finds the constant that holds a variable's value in a third-party graph, whose constants may have other names.

Other tools rename constants, share one between variables of equal value, or fold a variable into others, as batch norms
into kernels. So the value is first searched for by its bits. If no constant has them, the first one that is nearly
equal and belongs to no other variable is taken as the changed variable: a folded one would be scaled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.graph.protos import NodeDef
from pipeline.signature import Array

_NEAR = 1e-3  # of the value's own norm
_MOSTLY = 0.5  # of the elements have the same bits


@dataclass(frozen=True)
class MatchedConstant:
    """Constant that holds a variable's value.

    Args:
        is_same: every bit is equal; else nearly all.
    """

    name: str
    value: Array
    is_same: bool


def find_constant(
    value: Array, constants: Iterable[NodeDef], free: Iterable[str], read: Callable[[NodeDef], Array | None]
) -> MatchedConstant | None:
    """Finds the constant that holds a value.

    Args:
        value: of any dtype; strings as `object` arrays of `bytes`.
        constants: candidates of the same dtype and shape.
        free: names of constants that match no variable by name.
        read: reads a constant's value, in the same dtype and shape; None if unreadable.

    Returns:
        The constant with the same bits, or else the first free one that is nearly equal; None if there is neither.
    """
    unclaimed, near = set(free), None
    for node in constants:
        other = read(node)
        if other is None:
            continue
        if _bits(other) == _bits(value):
            return MatchedConstant(node.name, other, True)
        if near is None and node.name in unclaimed and is_near(value, other):
            near = MatchedConstant(node.name, other, False)
    return near


def _bits(value: Array) -> Any:
    return value.tolist() if value.dtype == object else value.tobytes()


def is_near(value: Array, other: Array) -> bool:
    """Returns True if two values of one dtype and shape are equal in most elements, or in all but the last digits."""
    if not value.size:
        return True
    if value.dtype == object:
        return bool((value == other).mean() >= _MOSTLY)
    if value.size > 1 and (_elements(value) == _elements(other)).mean() >= _MOSTLY:
        return True
    if value.dtype.kind not in "fcV":
        return False
    with np.errstate(all="ignore"):
        wide = np.complex128 if value.dtype.kind == "c" else np.float64
        one, two = (side.astype(wide).ravel() for side in (value, other))
        return bool(np.linalg.norm(one - two) <= _NEAR * np.linalg.norm(one))  # NaN is near to nothing


def _elements(value: Array) -> Array:
    """Views each element as its bits."""
    return np.frombuffer(value.tobytes(), f"V{value.dtype.itemsize}")
