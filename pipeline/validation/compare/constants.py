"""Finds where a value went in a graph that somebody else froze, and whose constants may go by other names.

Whoever prepares a graph for production may rename its constants, share one between variables of equal value, or fold a
variable into others, as with batch norms into kernels. So a value is looked for by its bits; and one that is nearly a
constant that stands for no other variable is taken for that one, changed: what is folded is multiplied by something.
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
class Trace:
    """The constant that a value was found as.

    Args:
        name: the constant's.
        is_same: every bit is the same; else it is nearly so.
    """

    name: str
    value: Array
    is_same: bool


def trace(
    value: Array, constants: Iterable[NodeDef], free: Iterable[str], read: Callable[[NodeDef], Array | None]
) -> Trace | None:
    """Finds the constant that a value is.

    Args:
        value: of any dtype; strings as `object` arrays of `bytes`.
        constants: those of its dtype and shape.
        free: the names of those that stand for no variable by their own names.
        read: gives a constant's value, in the same dtype and shape; None where it has none.

    Returns:
        The constant of the same bits, or else a free one that is nearly the same; None where there is neither.
    """
    unclaimed, near = set(free), None
    for node in constants:
        other = read(node)
        if other is None:
            continue
        if _bits(other) == _bits(value):
            return Trace(node.name, other, True)
        if near is None and node.name in unclaimed and is_near(value, other):
            near = Trace(node.name, other, False)
    return near


def _bits(value: Array) -> Any:
    return value.tolist() if value.dtype == object else value.tobytes()


def is_near(value: Array, other: Array) -> bool:
    """Whether two values of one dtype and shape are the same but for little: a few elements, or a last digit."""
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
    """The bits of each element."""
    return np.frombuffer(value.tobytes(), f"V{value.dtype.itemsize}")
