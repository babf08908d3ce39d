"""Names in a data file stand for inputs whose last parts they are, where nothing else could be meant."""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.data.table import read_rows
from pipeline.errors import DataError
from pipeline.signature import Array, Signature, TensorSpec

HISTORY, STOCK = TensorSpec("obs/history", "float32", (None, 2)), TensorSpec("obs/stock", "int32", (None,))
VALUES = {"history": np.float32([[1, 2], [3, 4.5]]), "stock": np.int32([7, 8])}


def of(*specs: TensorSpec) -> Signature:
    return Signature(specs, [TensorSpec("y", "float32", (None,))])


def write_npz(path: Path, rows: dict[str, Array]) -> Path:
    np.savez(path.with_suffix(".npz"), **rows)
    return path.with_suffix(".npz")


def write_csv(path: Path, rows: dict[str, Array]) -> Path:
    flat = {name: values for name, values in rows.items() if values.ndim == 1}
    parts = {f"{name}_{at}": v[:, at] for name, v in rows.items() if v.ndim == 2 for at in range(v.shape[1])}
    pd.DataFrame(flat | parts).to_csv(path.with_suffix(".csv"), index=False)
    return path.with_suffix(".csv")


def write_jsonl(path: Path, rows: dict[str, Array]) -> Path:
    lists = {name: values.tolist() for name, values in rows.items()}
    lines = [json.dumps(dict(zip(lists, row, strict=True))) for row in zip(*lists.values(), strict=True)]
    path.with_suffix(".jsonl").write_text("\n".join(lines))
    return path.with_suffix(".jsonl")


def write_parquet(path: Path, rows: dict[str, Array]) -> Path:
    pd.DataFrame({name: list(values) for name, values in rows.items()}).to_parquet(path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


KINDS = [write_npz, write_csv, write_jsonl, write_parquet]
Writer = Callable[[Path, dict[str, Array]], Path]


@pytest.mark.parametrize("write", KINDS)
def test_the_last_parts_of_an_inputs_name_are_enough(
    write: Writer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="pipeline")
    rows = read_rows(write(tmp_path / "rows", VALUES), of(HISTORY, STOCK))
    assert {name: values.tolist() for name, values in rows.items()} == {
        "obs/history": [[1, 2], [3, 4.5]],
        "obs/stock": [7, 8],
    }
    told = [message for message in caplog.messages if "paired" in message]
    assert len(told) == 1
    assert "stock is obs/stock" in told[0]


@pytest.mark.parametrize(
    ("name", "tensor", "column"),
    [
        ("a/b/x", None, "b/x"),  # several parts
        ("x", None, "x:0"),  # the tensor's name
        ("a/x", None, "a/x:0"),
        ("x", None, "scope/x"),  # the file has more of them
        ("images", "serving/in:0", "serving/in"),  # the placeholder of a signature's name
        ("images", "serving/in:0", "in"),
    ],
)
def test_parts_suffixes_and_the_placeholder_are_names_of_an_input(
    name: str, tensor: str | None, column: str, tmp_path: Path
) -> None:
    signature = of(TensorSpec(name, "int32", (None,), tensor), STOCK)
    rows = read_rows(write_csv(tmp_path / "r", {"stock": np.int32([1, 2]), column: np.int32([3, 4])}), signature)
    assert rows[name].tolist() == [3, 4]


@pytest.mark.parametrize(
    ("specs", "columns"),
    [
        (["obs/x", "next/x"], ["x", "next/x"]),  # x may be either
        (["obs/x", "next/x"], ["x"]),
        (["a/x"], ["x", "a/x:0"]),  # two for one input
        (["b/label"], ["label"]),  # labels are the rows' classes
        (["a/max"], ["x"]),  # parts are whole
        (["a/x"], ["x", "a/x"]),  # x is a further array
    ],
)
def test_names_that_could_mean_two_things_are_not_paired(specs: list[str], columns: list[str], tmp_path: Path) -> None:
    signature = of(*(TensorSpec(name, "int32", (None,)) for name in specs))
    for write in (write_npz, write_csv):
        with pytest.raises(DataError):
            read_rows(write(tmp_path / "r", dict.fromkeys(columns, np.int32([1, 2]))), signature)


@pytest.mark.parametrize("write", KINDS)
@pytest.mark.parametrize(
    "given",
    [
        {"sales": VALUES["history"], "stock_left": VALUES["stock"]},
        {"unrelated": VALUES["stock"], "day": VALUES["stock"], "stock": VALUES["stock"], "hist": VALUES["history"]},
    ],
    ids=["as many", "too many"],
)
def test_a_copy_with_the_names_of_the_inputs_is_offered_with_the_next_command(
    write: Writer, given: dict[str, Array], tmp_path: Path
) -> None:
    signature = of(HISTORY, STOCK)
    with pytest.raises(DataError, match="an input is missing") as refused:
        read_rows(write(tmp_path / "rows", given), signature)
    command, _, then = (refused.value.next_step or "").partition(", and then: ")
    copy = next(tmp_path.glob("rows.*")).name.replace("rows.", "rows.named.")
    assert then.startswith("luigi")
    assert then.endswith(f"--data {copy}")
    subprocess.run(["sh", "-c", command.partition(": ")[2]], check=True, cwd=tmp_path)
    rows = read_rows(tmp_path / copy, signature)
    assert rows["obs/history"].tolist() == [[1, 2], [3, 4.5]]
    assert rows["obs/stock"].tolist() == [7, 8]


def test_an_npz_with_further_arrays_gets_the_line_that_leaves_them_out(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "rows", {**VALUES, "reward": np.zeros(2), "label": np.int64([0, 1])})
    with pytest.raises(DataError, match=r"arrays that are not inputs .got reward") as refused:
        read_rows(path, of(HISTORY, STOCK))
    command = (refused.value.next_step or "").partition(", and then: ")[0].partition(": ")[2]
    subprocess.run(["sh", "-c", command], check=True, cwd=tmp_path)
    assert read_rows(tmp_path / "rows.named.npz", of(HISTORY, STOCK))["labels"].tolist() == [0, 1]
