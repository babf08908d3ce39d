"""Generated rows: seeded, and with what a model looks up in its tables."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.data.generated import generate_rows, refused_rows
from pipeline.signature import Signature, TensorSpec


def signature(*shape: int | None, dtype: str = "string") -> Signature:
    return Signature((TensorSpec("x", dtype, shape, "x:0"),), (TensorSpec("y", "float32", (None,), "y:0"),))


@pytest.mark.parametrize("shape", [(None,), (None, 3), (16, 2)])
@pytest.mark.parametrize("count", [3, 48, 500])
@pytest.mark.parametrize("dtype", ["string", "int64"])
def test_rows_hold_every_key_of_a_table_and_values_that_it_lacks(
    shape: tuple[int | None, ...], count: int, dtype: str
) -> None:
    keys: list[Any] = [1000 + number for number in range(count)]
    keys = [str(key).encode() for key in keys] if dtype == "string" else keys
    rows = generate_rows(signature(*shape, dtype=dtype), 64, 7, {dtype: keys, "int32": [5]})["x"]
    assert len(rows) >= 64
    assert len(rows) % (shape[0] or 1) == 0
    found = set(rows.ravel().tolist())
    assert set(keys) < found


def test_without_keys_of_their_dtype_rows_are_what_they_were() -> None:
    rows = [generate_rows(signature(None), 64, 7, keys)["x"] for keys in (None, {}, {"int64": [1]})]
    assert all(np.array_equal(rows[0], other) for other in rows)


@pytest.mark.parametrize("names", [["x", "words"], ["Next", "Next:1"], ["class", "a b"], ["it's"]])
def test_the_command_that_is_offered_for_rows_of_one_s_own_writes_them(
    names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = [TensorSpec(name, dtype, (None, 2)) for name, dtype in zip(names, ("float32", "string"), strict=False)]
    offered = str(refused_rows(Signature(tuple(specs), (TensorSpec("y", "float32"),)), "no").next_step)
    code = shlex.split(offered[offered.index("python -c ") : offered.index(" writes, with")].rstrip(","))[2]
    monkeypatch.chdir(tmp_path)
    exec(code)
    with np.load(tmp_path / "rows.npz") as written:
        assert {name: written[name].shape for name in written.files} == dict.fromkeys(names, (8, 2))
