"""Batch norms that another tool has folded into the kernels before them: equal up to a bound, which is computed.

A batch norm in inference multiplies each channel by s = scale / sqrt(variance + epsilon), and adds offset - mean * s.
Folded, the kernel is w * s and the bias offset + (bias - mean) * s, each rounded by the tool (fold_batch_norms of
optimize_for_inference_lib.py). They are computed here in float64, and a constant of the candidate is taken for them if
it differs by no more than the roundings of float32 make: four, each of half a unit in the last place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pipeline.graph.protos import DataType
from pipeline.signature import Array

from .rules import Rules, attribute, attributes_of, dtype_of
from .terms import Term, TermTable

_NORMS = frozenset({"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"})
_CONVOLUTIONS = frozenset({"Conv2D", "DepthwiseConv2dNative"})
_DT_FLOAT = DataType.Value("DT_FLOAT")
_UNIT = 2.0**-23  # of float32
_MOST_UNITS = 4
_TINY = 2.0**-126


class Rounding(NamedTuple):
    """By how much constants of a candidate differ from what the checkpoint computes.

    Args:
        units: the largest difference of an element, in units of 2**-23 of what it is summed from.
    """

    units: float

    def __str__(self) -> str:
        return (
            "up to rounding: batch norms are folded into kernels, whose constants are within "
            f"{max(self.units, 0.01):.2g} * 2**-23 of the exact products"
        )


def folded_batch_norm(rules: Rules, table: TermTable, term: Term) -> int | None:
    """A batch norm in inference behind a convolution is a convolution and a bias, with other constants."""
    norm = table[term.inputs[0]]
    is_training = attribute(norm, "is_training") if norm.op in _NORMS and term.attributes == 0 else None
    if is_training is None or is_training.b or len(norm.inputs) != 5 or dtype_of(norm, "T") != _DT_FLOAT:
        return None
    before, bias = table[norm.inputs[0]], np.zeros(1)
    if before.op == "AddV2":
        terms = [(number, _value(rules, table, number)) for number in before.inputs]
        conv = [number for number, value in terms if value is None]
        known = [value for _, value in terms if value is not None and value.ndim == 1]
        if len(conv) != 1 or len(known) != 1:
            return None
        before, bias = table[conv[0]], known[0]
    scale, offset, mean, variance = (_value(rules, table, number) for number in norm.inputs[1:])
    kernel = _value(rules, table, before.inputs[1]) if before.op in _CONVOLUTIONS else None
    layout, epsilon = attribute(before, "data_format"), attribute(norm, "epsilon")
    if kernel is None or kernel.ndim != 4 or (layout is not None and layout.s != b"NHWC"):
        return None
    if scale is None or offset is None or mean is None or variance is None:
        return None
    factor = scale / np.sqrt(variance + np.float32(1e-4 if epsilon is None else epsilon.f))
    own = factor if before.op == "Conv2D" else factor.reshape(kernel.shape[2:])
    exact = (kernel * own, offset + (bias - mean) * factor)
    summed = (np.abs(exact[0]), np.abs(offset) + (np.abs(bias) + np.abs(mean)) * np.abs(factor))
    constants = [_nearest(rules, wanted, size) for wanted, size in zip(exact, summed, strict=True)]
    found = [one for one in constants if one is not None]
    if len(found) < len(constants):
        return None
    rules.roundings += [units for _, units in found]
    folded, added = (table.make("const", number) for number, _ in found)
    conv_term = table.make(before.op, before.attributes, [before.inputs[0], folded])
    return table.make("AddV2", attributes_of(T=_DT_FLOAT), [conv_term, added])


def _value(rules: Rules, table: TermTable, number: int) -> Array | None:
    """Returns a float32 constant of any size, as float64."""
    content = table[number].content
    if content is None or (own := rules.contents.contents[content]).dtype != _DT_FLOAT:
        return None
    return np.frombuffer(bytes(own.read()), "<f4").reshape(own.shape).astype(np.float64)


def _nearest(rules: Rules, wanted: Array, summed: Array) -> tuple[int, float] | None:
    """Returns the first content that is a rounded array, with the largest difference in units; None if there is none.

    Args:
        summed: the sum of the sizes of what each element is summed from.
    """
    if not np.isfinite(wanted).all():
        return None
    for number, given in _alike(rules, wanted.shape):
        units = np.abs(given - wanted) / (summed * _UNIT + _TINY)
        if np.isfinite(units).all() and units.max(initial=0.0) <= _MOST_UNITS / 2:
            return number, float(units.max(initial=0.0))
    return None


def _alike(rules: Rules, shape: tuple[int, ...]) -> Iterator[tuple[int, Array]]:
    for number, content in enumerate(rules.contents.contents):
        if content.dtype == _DT_FLOAT and content.shape == shape:
            yield number, np.frombuffer(bytes(content.read()), "<f4").reshape(shape).astype(np.float64)


ROUNDED = {"output": folded_batch_norm}
