"""Finds tensors of a TFLite model that hold real numbers as small integers, by a scale and a zero point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

_STORED = ("int8", "uint8", "int16")


def is_float(dtype: str) -> bool:
    """Returns True for a dtype whose values integers with a scale can stand for."""
    return dtype in ("float16", "float32", "float64")


def count_integers(interpreter: Any) -> int:
    """Counts the computed tensors that hold real numbers as small integers: 0 where only weights are stored so."""
    stored = {details["index"] for details in interpreter.get_tensor_details() if quantization_of(details)}
    return len(stored & {int(index) for each in interpreter._get_ops_details() for index in each["outputs"]})


def quantization_of(details: Mapping[str, Any]) -> tuple[float, int] | None:
    """Returns the scale and the zero point of a tensor of integers that stand for real numbers; None for another one.

    Args:
        details: as the interpreter gives them.
    """
    scale, zero = details["quantization"]
    return (float(scale), int(zero)) if np.dtype(details["dtype"]).name in _STORED and scale > 0 else None
