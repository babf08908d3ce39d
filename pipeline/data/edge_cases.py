"""Edge cases: rows with unusual values, which a data file rarely contains and a deployed model can receive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.graph.demands import NOTHING, Demand, Demands
from pipeline.signature import Array, Signature, TensorSpec, batch_size_of

_STRINGS = {
    "empty": b"",
    "blank": b"   \t ",
    "very long": b"a very long message that does not end " * 2_000,
    "one long word": b"x" * 20_000,
    "accents": "Ça coûte 3 €, naïve Ærøskøbing".encode(),
    "other scripts": "Здравствуйте 你好 مرحبا नमस्ते".encode(),
    "emoji": "👩‍👩‍👧 🎉 ok 👍🏽".encode(),
    "invalid UTF-8": b"caf\xe9 \xff\xfe \xc3(",
    "zero bytes": b"a\x00b\x00",
    "control characters": b"line\r\nbreak\x1b[31m\x07",
    "digits and punctuation": b"0123456789 !?.,;:'\"()[]{}<>/\\|@#$%^&*~`",
}


_HALF_BYTES = {"int4": (-8, 7), "uint4": (0, 15)}  # NumPy has no such dtypes


def edge_batches(
    signature: Signature, sample: Mapping[str, Array], demands: Demands = NOTHING
) -> dict[str, dict[str, Array]]:
    """Build a batch of one row for each edge case; of several equal rows if the batch size is fixed.

    Args:
        sample: arrays `[rows, ...]` by input name, for the sizes that the signature leaves open.
        demands: what the graph demands of its inputs. An index goes from the first to the last row of its table, and
            what is parsed is a row of the sample where another input has the unusual value.

    Returns:
        By edge case, an array `[1, ...]` for each input.
    """
    size = batch_size_of(signature) or 1
    by_input = {spec.name: _values(spec, demands.inputs.get(spec.name)) for spec in signature.inputs}
    parsed = {name for name, demand in demands.inputs.items() if demand.content is not None or demand.is_known}
    labels = list(dict.fromkeys(label for values in by_input.values() for label in values))
    return {
        label: {
            name: _usual(sample[name], size)
            if label not in values and name in parsed
            else _repeat_value(sample[name], size, values.get(label, next(iter(values.values()))))
            for name, values in by_input.items()
        }
        for label in labels
    }


def _values(spec: TensorSpec, demand: Demand | None = None) -> Mapping[str, Any]:
    """Return the values of the edge cases of an input."""
    if spec.dtype == "string":
        return _STRINGS
    if spec.dtype == "bool":
        return {"zero": False, "one": True}
    if "int" in spec.dtype:
        kind = spec.dtype.removeprefix("q")  # a quantized integer has the same range
        low, high = _HALF_BYTES.get(kind) or (int(np.iinfo(kind).min), int(np.iinfo(kind).max))
        if demand is not None:
            low = max(low, low if demand.low is None else int(demand.low))
            high = min(high, high if demand.high is None else int(demand.high))
        usual = {"zero": 0, "one": 1, "largest": high, "smallest": low}
        return {label: min(max(value, low), high) for label, value in usual.items()}
    largest = {"float16": 65504.0, "float64": np.finfo(np.float64).max}.get(spec.dtype, 3.3e38)
    return {
        "zero": 0.0,
        "one": 1.0,
        "minus one": -1.0,
        "largest": largest,
        "smallest": -largest,
        "tiny": 1e-40,
        "not a number": np.nan,
        "infinite": np.inf,
        "minus infinite": -np.inf,
    }


def _usual(sample: Array, size: int) -> Array:
    """Return a row of the sample, as often as a batch needs it."""
    return np.repeat(sample[:1], size, axis=0)


def _repeat_value(sample: Array, size: int, value: Any) -> Array:
    row = np.empty((size, *sample.shape[1:]), dtype=sample.dtype)
    row.fill(value)
    return row
