"""Sharding: the bytes are those of one process, whichever worker compares a shard and in whatever order."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from pipeline.data.npz import add_kind, save_arrays
from pipeline.errors import StageCrashed, StoreError
from pipeline.freezing.freeze import freeze_checkpoint
from pipeline.settings import ValidationSettings
from pipeline.signature import Decision, Signature, TensorSpec
from pipeline.validation.checks.passes import SEGMENT_BATCHES
from pipeline.validation.sharding import ShardContext, Sharding, ShardResult, compare_shard
from pipeline.validation.validate import validate
from pipeline.workers.child import keep_processes
from pipeline.workers.executor.interface import Ended, Started

v1 = tf.compat.v1

BATCH = 4
SHARD = BATCH * SEGMENT_BATCHES
ROWS = 3 * SHARD + 101
X = np.random.default_rng(8).uniform(-1, 1, size=(ROWS, 3)).astype(np.float32)
X[SHARD + 7, 0] = np.nan
LABELS = (np.nan_to_num(X).sum(axis=1) > 0).astype(np.int64)
STOP = 2 * SHARD + 30  # the row at which some candidates stop
X[STOP, 1] = 7.0
X[5, 2] = 3.0  # a row that one candidate answers otherwise
SIGNATURE = Signature(
    (TensorSpec("x", "float32", (None, 3)),),
    (TensorSpec("p", "float32", (None,)), TensorSpec("scaled", "float32", (None, 2))),
    Decision("p", 0.5, ("no", "yes")),
)
SETTINGS = ValidationSettings(checks="equal,decisions,stable", batch_size=BATCH)


def model(x: Any, shift: Any = 0.0, added: Any = 0.0) -> None:
    """A probability; and two numbers of which one is what is left of large ones: kernels round it otherwise.

    Args:
        shift: of the logits; added: to the small one of the two numbers.
    """
    w = v1.get_variable("w", initializer=tf.constant([[1.5], [-0.5], [0.25]]))
    tf.identity(tf.sigmoid((x @ w + shift)[:, 0]), name="p")
    third, many = (v1.get_variable(name, initializer=tf.constant(v)) for name, v in (("t", 1 / 3), ("m", 3333.3)))
    large = ((x[:, 0] + 2.0) * third) * many
    small = large - (x[:, 0] + 2.0) * 1111.1
    tf.identity(tf.stack([large, small + added], axis=1), name="scaled")


def refusing(x: Any) -> None:
    with tf.control_dependencies([v1.assert_less(tf.reduce_max(x[:, 1]), 7.0)]):
        checked = tf.identity(x)
    model(checked)


def dying(x: Any) -> None:
    def die() -> Any:
        with tf.control_dependencies([tf.raw_ops.Abort(error_msg="planted")]):
            return tf.constant(0.0)

    model(x, shift=tf.cond(tf.reduce_any(x[:, 1] >= 7.0), die, lambda: tf.constant(0.0)))


CANDIDATES: dict[str, Callable[[Any], None]] = {
    "equal": model,
    "other decisions": lambda x: model(x, shift=0.05),
    # In the first stretch it is of no use to look again with the optimizer off, and in the others it is.
    "one other row": lambda x: model(x, added=tf.where(x[:, 2] > 2.0, 0.002, 0.0)),
    "refuses": refusing,
    "dies": dying,
}


def artifact(folder: Path, build: Callable[[Any], None]) -> Path:
    """Makes a checkpoint's artifact."""
    folder.mkdir(parents=True)
    with tf.Graph().as_default(), v1.Session() as session:
        build(v1.placeholder(tf.float32, [None, 3], name="x"))
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(folder / "model.ckpt"))
    SIGNATURE.write(folder / "signature.json")
    save_arrays(folder / "validation.npz", {**add_kind("input", {"x": X}), "labels": LABELS})
    return folder


def pair_of(folder: Path, candidate: str) -> tuple[Path, dict[str, Path]]:
    """Makes a checkpoint, and a candidate that is one of `CANDIDATES`."""
    checkpoint = artifact(folder / "checkpoint", model)
    frozen = folder / "frozen"
    frozen.mkdir()
    freeze_checkpoint(artifact(folder / "other", CANDIDATES[candidate]), frozen)
    return checkpoint, {"frozen": frozen}


def bytes_of(
    folder: Path, pair: tuple[Path, dict[str, Path]], sharding: Sharding | None, settings: ValidationSettings = SETTINGS
) -> dict[str, bytes]:
    """Validates; returns the bytes of the written files, by name."""
    folder.mkdir()
    validate("m", *pair, settings, 1, folder, sharding=sharding)
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
    return {name: (folder / name).read_bytes() for name in ("verdict.json", "results.csv")}


class Backwards:
    """Executor in this process that runs the last item first, and pickles arguments and results."""

    def __init__(self) -> None:
        self.done = 0

    def map(self, function: str, items: Sequence[tuple[Any, ...]]) -> Iterator[Started | Ended]:
        assert function == "pipeline.validation.sharding:compare_shard"
        with keep_processes():  # as the workers of an executor do
            for number, item in reversed(list(enumerate(items))):
                yield Started(number)
                self.done += 1
                yield Ended(number, pickle.loads(pickle.dumps(compare_shard(*pickle.loads(pickle.dumps(item))))))

    def __enter__(self) -> Backwards:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass


@pytest.mark.parametrize("candidate", CANDIDATES)
def test_shards_give_the_bytes_of_one_process(candidate: str, tmp_path: Path) -> None:
    pair, engine = pair_of(tmp_path, candidate), Backwards()
    whole = bytes_of(tmp_path / "whole", pair, None)
    assert bytes_of(tmp_path / "parts", pair, Sharding(lambda: engine, SHARD)) == whole
    assert engine.done == 4
    verdict = json.loads(whole["verdict.json"])
    assert verdict["verdict"] == ("passed" if candidate == "equal" else "failed")
    assert (verdict["notes"] != {}) == (candidate != "other decisions")
    lines = STOP // BATCH * BATCH + 1 if candidate in ("refuses", "dies") else ROWS
    assert whole["results.csv"].count(b",equal,p,") == lines


def test_decisions_alone_are_counted_in_shards_too(tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, checks="decisions")
    pair = pair_of(tmp_path, "other decisions")
    whole = bytes_of(tmp_path / "whole", pair, None, settings)
    assert bytes_of(tmp_path / "parts", pair, Sharding(Backwards, 2 * SHARD), settings) == whole
    assert json.loads(whole["verdict.json"])["decisions"]["frozen"]["flipped"] > 0


def test_few_rows_are_not_divided(tmp_path: Path) -> None:
    def refuse() -> Backwards:
        raise AssertionError("an engine was opened")

    assert bytes_of(tmp_path / "whole", pair_of(tmp_path, "equal"), Sharding(refuse, ROWS))


class Losing(Backwards):
    """Executor that gives up on an item."""

    def map(self, function: str, items: Sequence[tuple[Any, ...]]) -> Iterator[Started | Ended]:
        yield Ended(1, StageCrashed("every worker that ran it crashed"))


def test_a_shard_that_is_lost_is_nobodys_fault_and_no_verdict(tmp_path: Path) -> None:
    pair = pair_of(tmp_path, "equal")
    with pytest.raises(StageCrashed, match="every worker that ran it crashed"):
        bytes_of(tmp_path / "parts", pair, Sharding(Losing, SHARD))
    assert not (tmp_path / "parts" / "verdict.json").exists()


def test_a_worker_that_does_not_see_the_artifacts_says_so(tmp_path: Path) -> None:
    pair = ShardContext("m", tmp_path / "gone", {"frozen": tmp_path}, SETTINGS, {}, 1, None)
    with pytest.raises(StoreError, match=r"does not see this artifact.*folder that all workers share"):
        compare_shard(pair, "frozen", "equal", 0, 4, None)


def test_a_part_says_whose_fault_it_was(tmp_path: Path) -> None:
    checkpoint, candidates = pair_of(tmp_path, "refuses")
    for paths, is_reference_error in ((candidates, False), ({"frozen": candidates["frozen"]}, True)):
        place = checkpoint if not is_reference_error else tmp_path / "other"
        pair = ShardContext("m", place, paths, SETTINGS, {"frozen": ""}, 1, None)
        part: ShardResult = compare_shard(pair, "frozen", "equal", 2 * SHARD, 3 * SHARD, None)
        assert part.error is not None
        assert (part.is_reference_error, part.has_ended) == (is_reference_error, False)
