"""Batches for tests: small checkpoints made in a moment, ways to break them, and what a batch left behind."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1


def make_checkpoints(folder: Path, count: int, first: int = 0) -> list[Path]:
    """So many small classifiers that differ in their weights; the prefix of each.

    `folder/mNNNN/model.ckpt`, each with its .meta, which names its inputs and outputs by their ops alone.
    """
    prefixes = []
    for number in range(first, first + count):
        rng = np.random.default_rng(number)
        prefix = folder / f"m{number:04d}" / "model.ckpt"
        prefix.parent.mkdir(parents=True, exist_ok=True)
        with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
            hidden = v1.placeholder(tf.float32, [None, 8], "x")
            for layer, (rows, columns) in enumerate([(8, 16), (16, 3)]):
                weights = v1.get_variable(f"w{layer}", initializer=rng.normal(0, 0.3, (rows, columns)).astype("f4"))
                bias = v1.get_variable(f"b{layer}", initializer=np.zeros(columns, "f4"))
                hidden = tf.matmul(tf.nn.relu(hidden) if layer else hidden, weights) + bias
            tf.nn.softmax(hidden, name="probabilities")
            session.run(v1.global_variables_initializer())
            v1.train.Saver().save(session, str(prefix), write_state=False)
        prefixes.append(prefix)
    return prefixes


def write_list(path: Path, rows: Iterable[Mapping[str, object]]) -> Path:
    """A list of models; its columns are those of the rows."""
    rows = [dict(row) for row in rows]
    columns = list(dict.fromkeys(["name", "checkpoint", *(name for row in rows for name in row)]))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def results_of(root: Path, stem: str = "models") -> dict[str, dict[str, str]]:
    """The lines of a batch's results.csv by name."""
    with (root / "batch" / stem / "results.csv").open(newline="", encoding="utf-8") as file:
        return {line["name"]: line for line in csv.DictReader(file)}


def cut(path: Path, share: float = 0.5) -> None:
    """Truncates a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def flip(path: Path, share: float = 0.5) -> None:
    """Flips a bit of a byte."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * share)] ^= 1
    path.write_bytes(content)
