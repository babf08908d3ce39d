"""Edge rows: what they hold, and that they fit the signature."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from pipeline.data.edge_cases import edge_batches
from pipeline.signature import DTYPES, Signature, TensorSpec


def signature(*inputs: TensorSpec) -> Signature:
    return Signature(inputs, (TensorSpec("y", "float32", (None,)),))


def sample(dtype: str, shape: tuple[int, ...] = (3,)) -> np.ndarray:
    kind = object if dtype == "string" else dtype.removeprefix("q")
    return np.zeros(shape, dtype=getattr(ml_dtypes, str(kind), kind))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_every_dtype_has_edge_rows_of_its_own_dtype_and_one_row(dtype: str) -> None:
    batches = edge_batches(signature(TensorSpec("x", dtype, (None, 2))), {"x": sample(dtype, (3, 2))})
    assert len(batches) >= 2
    for batch in batches.values():
        assert (batch["x"].dtype, batch["x"].shape) == (sample(dtype).dtype, (1, 2))
        assert len({repr(value) for value in batch["x"].ravel().tolist()}) == 1


@pytest.mark.parametrize("dtype", ["int8", "int64", "uint8", "uint64"])
def test_integers_go_to_their_limits(dtype: str) -> None:
    batches = edge_batches(signature(TensorSpec("x", dtype, (None,))), {"x": sample(dtype)})
    limits = np.iinfo(dtype)
    assert {label: int(batch["x"][0]) for label, batch in batches.items()} == {
        "zero": 0,
        "one": 1,
        "largest": limits.max,
        "smallest": limits.min,
    }


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_floats_are_large_and_small_and_not_finite(dtype: str) -> None:
    batches = edge_batches(signature(TensorSpec("x", dtype, (None,))), {"x": sample(dtype)})
    values = {label: float(batch["x"][0]) for label, batch in batches.items()}
    assert np.isnan(values["not a number"])
    assert (values["infinite"], values["minus infinite"]) == (np.inf, -np.inf)
    assert np.isfinite(values["largest"])
    assert values["largest"] >= 0.96 * float(ml_dtypes.finfo(sample(dtype).dtype).max)
    assert values["smallest"] == -values["largest"]
    assert values["minus one"] == -1


def test_strings_are_of_every_troublesome_kind() -> None:
    batches = edge_batches(signature(TensorSpec("text", "string", (None,))), {"text": sample("string")})
    texts = {label: batch["text"][0] for label, batch in batches.items()}
    assert all(isinstance(text, bytes) for text in texts.values())
    assert texts["empty"] == b""
    assert texts["blank"].strip() == b""
    assert texts["zero bytes"].endswith(b"\0")
    assert len(texts["very long"]) > 50_000
    with pytest.raises(UnicodeDecodeError):
        texts["invalid UTF-8"].decode()
    assert any(len(char.encode()) == 4 for char in texts["emoji"].decode())


def test_every_batch_has_every_input() -> None:
    inputs = (TensorSpec("text", "string", (None,)), TensorSpec("x", "float32", (None, None, 4)))
    batches = edge_batches(signature(*inputs), {"text": sample("string", (5,)), "x": sample("float32", (5, 7, 4))})
    assert {"empty", "emoji", "zero", "not a number"} <= batches.keys()
    for batch in batches.values():
        assert list(batch) == ["text", "x"]
        assert batch["text"].shape == (1,)
        assert batch["x"].shape == (1, 7, 4)
    assert np.isnan(batches["not a number"]["x"]).all()
    assert batches["emoji"]["text"][0] != b""


def test_inputs_that_share_an_edge_are_at_it_together() -> None:
    inputs = (TensorSpec("a", "int8", (None,)), TensorSpec("b", "float32", (None,)))
    batch = edge_batches(signature(*inputs), {"a": sample("int8"), "b": sample("float32")})["largest"]
    assert int(batch["a"][0]) == 127
    assert float(batch["b"][0]) > 1e38


def test_the_sample_is_not_changed() -> None:
    rows = np.arange(3.0)
    edge_batches(signature(TensorSpec("x", "float64", (None,))), {"x": rows})
    assert rows.tolist() == [0, 1, 2]
