"""The reference never waits: what no branch that is taken observes is not run, and what it cannot get it names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from small_graphs import control_flow
from tensorflow.compat import v1

from pipeline.errors import RunnerError
from pipeline.formats.checkpoint import open_runner
from pipeline.signature import Signature, TensorSpec

pytestmark = pytest.mark.tensorflow
WEIGHTS = np.array([[1.0], [2.0], [-3.0]], np.float32)
ROWS = np.array([[1, 0, 1], [2, 1, 0]], np.float32)
SIGNATURE = Signature(
    [TensorSpec("batch", "float32", [None, 3], "batch:0")], [TensorSpec("out", "float32", [None, 1], "out:0")]
)


def from_queue() -> tuple[Any, Any]:
    queue = v1.FIFOQueue(8, [tf.float32, tf.float32], [[3], [1]])
    return tuple(queue.dequeue_many(4, name="batch"))


def from_iterator() -> tuple[Any, Any]:
    rows = v1.data.Dataset.from_tensor_slices((ROWS, ROWS[:, :1])).batch(2)
    return v1.data.make_initializable_iterator(rows).get_next(name="batch")


def in_a_branch(mode: Any, y: Any, p: Any) -> Any:
    return v1.cond(mode, lambda: p + 0 * y, lambda: p)


def in_a_branch_of_a_branch(mode: Any, y: Any, p: Any) -> Any:
    return v1.cond(mode, lambda: p, lambda: v1.cond(v1.logical_not(mode), lambda: p + 0, lambda: p + y))


def worked_on_before(mode: Any, y: Any, p: Any) -> Any:
    one_hot = tf.gather(tf.eye(4), tf.cast(y[:, 0], tf.int32))  # of labels from 0 to 3
    return v1.cond(mode, lambda: p * one_hot[:, :1], lambda: p)


def checked(mode: Any, y: Any, p: Any) -> Any:
    with v1.control_dependencies([v1.assert_less(y, 9.0)]):
        return v1.cond(mode, lambda: p + y, lambda: tf.identity(p))


def save(folder: Path, source: Callable[[], Any], head: Callable[..., Any], is_v2: bool = False) -> Path:
    """A checkpoint whose rows and labels come together, in a folder like an artifact's."""
    with control_flow(is_v2), tf.Graph().as_default(), v1.Session() as session:
        x, y = source()
        mode = v1.placeholder_with_default(True, [], "is_training")
        p = x @ v1.get_variable("w", initializer=WEIGHTS)
        tf.identity(head(mode, y, p), "out")
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(folder / "model.ckpt"))
    SIGNATURE.write(folder / "signature.json", origin={"pins": {"is_training": "false"}})
    return folder


@pytest.mark.parametrize("is_v2", [False, True], ids=["switches", "functions"])
@pytest.mark.parametrize("source", [from_queue, from_iterator])
@pytest.mark.parametrize("head", [in_a_branch, in_a_branch_of_a_branch, worked_on_before, checked])
def test_labels_that_only_training_reads_are_not_waited_for(
    tmp_path: Path, source: Callable[[], Any], head: Callable[..., Any], is_v2: bool
) -> None:
    if is_v2 and head is in_a_branch_of_a_branch:
        pytest.skip("a function inside a function is refused by freezing")
    folder = save(tmp_path, source, head, is_v2)
    answers = open_runner(folder, SIGNATURE, threads=1).run({"batch": ROWS})
    assert answers["out"].tolist() == (ROWS @ WEIGHTS).tolist()


def test_a_label_that_is_read_is_named_and_not_waited_for(tmp_path: Path) -> None:
    folder = save(tmp_path, from_queue, lambda mode, y, p: p + y)
    with pytest.raises(RunnerError, match=r"^batch \(QueueDequeueManyV2\): .* nobody brings any"):
        open_runner(folder, SIGNATURE, threads=1)
    whole = Signature([*SIGNATURE.inputs, TensorSpec("y", "float32", [None, 1], "batch:1")], SIGNATURE.outputs)
    answers = open_runner(folder, whole, threads=1).run({"batch": ROWS, "y": ROWS[:, :1]})
    assert answers["out"].tolist() == (ROWS @ WEIGHTS + ROWS[:, :1]).tolist()
