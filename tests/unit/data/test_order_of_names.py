"""Names in a data file stand for the numbered outputs of an iterator: sorted, where nothing else could be meant."""

from __future__ import annotations

import json
import logging
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.data.table import read_rows
from pipeline.errors import DataError
from pipeline.signature import Signature, TensorSpec

HOUR, CARD, ZONE = np.float32([7.5, 8]), np.int32([1, 0]), np.float32([0.5, 2])


def iterator(*dtypes: str, node: str = "IteratorGetNext") -> Signature:
    """A signature whose inputs are the outputs of a node, as they are named when they become inputs."""
    names = [node if port == 0 else f"{node}:{port}" for port in range(len(dtypes))]
    specs = [
        TensorSpec(name, dtype, (None,), None if name == node else name)
        for name, dtype in zip(names, dtypes, strict=True)
    ]
    return Signature(specs, [TensorSpec("y", "float32", (None,))])


def written(folder: Path, kind: str, rows: dict[str, Any]) -> Path:
    path = folder / f"rows.{kind}"
    lists = {name: values.tolist() for name, values in rows.items()}
    lines = list(zip(*lists.values(), strict=True))
    if kind == "npz":
        np.savez(path, **rows)
    elif kind == "csv":
        path.write_text("\n".join(",".join(map(str, line)) for line in [tuple(lists), *lines]) + "\n")
    else:
        path.write_text("\n".join(json.dumps(dict(zip(lists, line, strict=True))) for line in lines))
    return path


KINDS = ["npz", "csv", "jsonl"]


@pytest.mark.parametrize("kind", KINDS)
def test_sorted_names_are_the_outputs_where_the_order_of_the_file_does_not_fit(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="pipeline")
    path = written(tmp_path, kind, {"zone": ZONE, "card": CARD, "hour": HOUR, "label": np.int64([0, 1])})
    rows = read_rows(path, iterator("int32", "float32", "float32", node="in/Next"))
    assert rows.keys() == {"in/Next", "in/Next:1", "in/Next:2", "labels"}
    for name, values in zip(("in/Next", "in/Next:1", "in/Next:2"), (CARD, HOUR, ZONE), strict=True):
        np.testing.assert_array_equal(rows[name], values)
    assert "card is in/Next, hour is in/Next:1, zone is in/Next:2" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_where_both_orders_fit_the_user_is_asked_and_both_commands_work(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With floats alone nothing would tell that the columns were exchanged."""
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, kind, {"zone": ZONE, "hour": HOUR})
    signature = iterator("float32", "float32", node="in/Next")
    with pytest.raises(DataError, match="not clear") as caught:
        read_rows(path, signature)
    told = str(caught.value)
    assert told.index("If in/Next gives a dictionary") < told.index("If it gives a tuple")
    commands = re.findall(r"\): (.*?), and then: luigi .*?--data (\S*?)(?=\. If|$)", told)
    assert len(commands) == 2
    for (command, copy), first in zip(commands, (HOUR, ZONE), strict=True):
        subprocess.run(command, shell=True, check=True)
        np.testing.assert_array_equal(read_rows(Path(copy), signature)["in/Next"], first)


def test_where_only_the_order_of_the_file_fits_it_is_offered_and_not_taken(tmp_path: Path) -> None:
    path = written(tmp_path, "csv", {"zone": ZONE, "card": CARD})
    with pytest.raises(DataError, match=r"zone has .0\.5., and is no IteratorGetNext:1 int32") as caught:
        read_rows(path, iterator("float32", "int32"))
    assert "dictionary" not in str(caught.value)
    assert "sed '1s/.*/IteratorGetNext,IteratorGetNext:1/'" in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_no_order_is_offered_that_the_dtypes_contradict(kind: str, tmp_path: Path) -> None:
    path = written(tmp_path, kind, {"zone": ZONE, "hour": HOUR})
    with pytest.raises(DataError, match="neither in the sorted order of their names nor in that of the file") as caught:
        read_rows(path, iterator("float32", "int32"))
    assert "and then" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_columns_beside_the_outputs_are_left_out_by_a_command_that_works(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, kind, {"zone": ZONE, "card": CARD, "fraud": np.float32([0, 1])})
    signature = iterator("int32", "float32")
    with pytest.raises(DataError, match="If fraud is no input, and IteratorGetNext gives a dictionary") as caught:
        read_rows(path, signature)
    [command] = re.findall("are sorted: (.*), and then: ", str(caught.value))
    subprocess.run(command, shell=True, check=True)
    np.testing.assert_array_equal(read_rows(Path(f"rows.named.{kind}"), signature)["IteratorGetNext"], CARD)


def test_numbered_columns_are_one_output_of_several_values(tmp_path: Path) -> None:
    path = written(tmp_path, "csv", {"past_1": ZONE, "past_0": HOUR, "card": CARD})
    signature = iterator("int32", "float32")
    wide = TensorSpec("IteratorGetNext:1", "float32", (None, 2), "IteratorGetNext:1")
    rows = read_rows(path, Signature((signature.inputs[0], wide), signature.outputs))
    np.testing.assert_array_equal(rows["IteratorGetNext:1"], np.stack([HOUR, ZONE], 1))


def test_a_placeholder_beside_the_outputs_keeps_its_name_and_one_command_casts_all(tmp_path: Path) -> None:
    wide = {"keep": HOUR, "zone": ZONE.astype("float64"), "card": CARD.astype("int64")}
    signature = iterator("int32", "float32")
    signature = Signature((*signature.inputs, TensorSpec("keep", "float32", (None,))), signature.outputs)
    with pytest.raises(DataError, match=r"wrong dtype \(got int64; and IteratorGetNext:1 float64") as caught:
        read_rows(written(tmp_path, "npz", wide), signature)
    [command] = re.findall("counts: (.*), and name", str(caught.value))
    subprocess.run(command, shell=True, check=True)
    rows = read_rows(tmp_path / "rows.cast.npz", signature)
    for name, values in (("IteratorGetNext", CARD), ("IteratorGetNext:1", ZONE), ("keep", HOUR)):
        np.testing.assert_array_equal(rows[name], values)
