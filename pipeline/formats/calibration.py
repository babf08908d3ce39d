"""Ranges that a quantized .tflite was calibrated for: beyond them its inputs are cut off, whatever the model computes.

The layout is that of tensorflow/lite/schema/schema.fbs.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.inputs import read_file
from pipeline.safety.flatbuffer import Table, read
from pipeline.safety.growth.tflite_graphs import code_of
from pipeline.signature import Array, Batch

_QUANTIZE = 114  # BuiltinOperator
_LEVELS = {3: (0, 255), 7: (-(1 << 15), (1 << 15) - 1), 9: (-128, 127)}  # of TensorType uint8, int16, int8
# Fields by their numbers in the schema.
_OPS, _SUBGRAPHS, _SIGNATURES = 1, 2, 7  # of the model
_TENSORS, _INPUTS, _STEPS = 0, 1, 3  # of a subgraph
_TYPE, _NAME, _QUANTIZATION, _SCALE, _ZERO = 1, 3, 4, 2, 3  # of a tensor, and of its quantization
_STEP_CODE, _STEP_INPUTS, _STEP_OUTPUTS = 0, 1, 2
_MAP_INPUTS, _MAP_NAME, _MAP_TENSOR, _MAP_SUBGRAPH = 0, 0, 1, 4

Range = tuple[float, float]


def calibrated_ranges(path: Path) -> dict[str, Range]:
    """Returns the smallest and the largest number that each input can have, by name; only of inputs that are quantized.

    Raises:
        ValueError: the file is damaged.
    """
    data = read_file(path)
    model = Table(data, read(data, "<I", 0))
    codes, subgraphs = [code_of(op) for op in model.tables(_OPS)], list(model.tables(_SUBGRAPHS))
    if not subgraphs:
        return {}
    by_tensor = _ranges(subgraphs[0], codes)
    tensors = list(subgraphs[0].tables(_TENSORS))
    names = {tensors[number].text(_NAME): number for number in subgraphs[0].numbers(_INPUTS)}
    for signature in model.tables(_SIGNATURES):
        if signature.number(_MAP_SUBGRAPH, "<I") == 0:
            for entry in signature.tables(_MAP_INPUTS):
                names[entry.text(_MAP_NAME)] = entry.number(_MAP_TENSOR, "<I")
    return {name: by_tensor[number] for name, number in names.items() if number in by_tensor}


def _ranges(subgraph: Table, codes: list[int]) -> dict[int, Range]:
    """Returns the ranges of inputs by the number of the tensor: their own, or of what they are quantized to first."""
    tensors, found = list(subgraph.tables(_TENSORS)), dict[int, Range]()
    steps = [step for step in subgraph.tables(_STEPS) if codes[step.number(_STEP_CODE, "<I")] == _QUANTIZE]
    quantized = {step.numbers(_STEP_INPUTS)[0]: step.numbers(_STEP_OUTPUTS)[0] for step in steps}
    for number in subgraph.numbers(_INPUTS):
        found_range = _range(tensors[quantized.get(number, number)])
        if found_range is not None:
            found[number] = found_range
    return found


def _range(tensor: Table) -> Range | None:
    quantization, levels = tensor.table(_QUANTIZATION), _LEVELS.get(tensor.number(_TYPE, "<b"))
    scales = quantization.numbers(_SCALE, "<I") if quantization is not None else []
    if quantization is None or levels is None or len(scales) != 1:
        return None
    scale = struct.unpack("<f", struct.pack("<I", scales[0]))[0]
    zero = (quantization.numbers(_ZERO, "<q") or [0])[0]
    return (levels[0] - zero) * scale, (levels[1] - zero) * scale


def rows_within(ranges: Mapping[str, Range], batch: Batch, count: int) -> Array:
    """Finds the rows of which all numbers are in the ranges, up to half a step: bool `[rows]`."""
    found = np.ones(count, bool)
    for name, (low, high) in ranges.items():
        values = batch.get(name)
        if values is None or values.dtype.kind != "f" or values.shape[:1] != (count,):
            continue
        step = (high - low) / 510
        with np.errstate(invalid="ignore"):
            inside = (values >= low - step) & (values <= high + step)
        found &= inside.reshape(count, -1).all(axis=1)
    return found
