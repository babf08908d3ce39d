"""Models that keep state between calls: refused, with the way in which the caller can keep it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from pipeline.errors import FreezeError
from pipeline.freezing.freeze import Frozen, freeze
from pipeline.freezing.inspection import inspect

v1 = tf.compat.v1
W = np.array([[0.5, -1.0], [0.25, 0.75]], np.float32)
ROWS = np.random.default_rng(3).normal(size=(5, 2)).astype(np.float32)
KEYS = np.array([1, 1, 0, 1, 0], np.int32)


def by_key(key: Any, x: Any, is_resource: bool) -> dict[str, Any]:
    """Reads the row's state and mean, and writes the next ones: outputs wait for that."""
    hidden = v1.get_variable("state/hidden", initializer=tf.constant(W + 1), use_resource=is_resource)
    mean = v1.get_variable("state/mean", initializer=tf.constant([0.5, 2.0]), use_resource=is_resource)
    old = tf.gather(hidden, key)
    new = tf.tanh(x @ v1.get_variable("w", initializer=tf.constant(W)) + old, name="new")
    level = tf.add(0.5 * tf.gather(mean, key), tf.reduce_sum(new, 1), name="next_level")
    with tf.control_dependencies([old, level]):
        updates = [v1.scatter_update(hidden, key, new, name="update"), v1.scatter_update(mean, key, level)]
    with tf.control_dependencies(updates):
        return {"y": tf.reduce_sum(new * old, 1, name="y"), "level": tf.identity(level, name="level")}


def whole(key: Any, x: Any, is_resource: bool) -> dict[str, Any]:
    """Reads the whole state, and assigns the next one."""
    hidden = v1.get_variable("state/hidden", initializer=tf.constant(W[:1]), use_resource=is_resource)
    old = hidden.read_value()
    new = tf.tanh(x @ v1.get_variable("w", initializer=tf.constant(W)) + old, name="new")
    change = tf.reduce_sum(new - old, 1)
    with tf.control_dependencies([change]):
        update = v1.assign(hidden, new, name="update")
    with tf.control_dependencies([update]):
        return {"y": tf.identity(change, name="y")}


def unordered(key: Any, x: Any, is_resource: bool) -> dict[str, Any]:
    """Uses what it reads after the update: of an old variable that is the new value already."""
    hidden = v1.get_variable("state/hidden", initializer=tf.constant(W[:1]), use_resource=is_resource)
    old = hidden.read_value()
    with tf.control_dependencies([v1.assign(hidden, tf.tanh(x @ tf.constant(W)), name="update")]):
        return {"y": tf.reduce_sum(x + old, 1, name="y")}


def counting(key: Any, x: Any, is_resource: bool) -> dict[str, Any]:
    """Adds to what it reads: no tensor holds what is written."""
    count = v1.get_variable("state/count", initializer=1.0, use_resource=is_resource)
    now = count.read_value()
    y = x @ v1.get_variable("w", initializer=tf.constant(W)) + now
    with tf.control_dependencies([v1.assign_add(count, 1.0, name="update")]):
        return {"y": tf.identity(y, name="y")}


def save(folder: Path, build: Callable[..., dict[str, Any]], is_resource: bool) -> list[dict[str, Any]]:
    """Saves a model as a SavedModel; returns its answers to one row a call, of a session that keeps the state."""
    with tf.Graph().as_default(), v1.Session() as session:
        key, x = v1.placeholder(tf.int32, [None], name="key"), v1.placeholder(tf.float32, [None, 2], name="x")
        outputs = build(key, x, is_resource)
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(folder), {"key": key, "x": x}, outputs)
        calls = ({key: KEYS[row : row + 1], x: ROWS[row : row + 1]} for row in range(len(ROWS)))
        return [session.run(outputs, call) for call in calls]


def refused(folder: Path, outputs: list[str], inputs: list[str]) -> str:
    with pytest.raises(FreezeError, match="changes state on the way to an output") as caught:
        freeze(folder, outputs, inputs, folder.parent / "wrong.pb")
    assert not (folder.parent / "wrong.pb").exists()
    return str(caught.value)


def type_command(told: str, to: Path) -> Frozen:
    """Does what the last line of a message says."""
    words = shlex.split(told.splitlines()[-1])
    assert words[:4] == ["python", "-m", "pipeline", "freeze"]
    options = dict(zip(words[5::2], words[6::2], strict=True))
    return freeze(words[4], options["--outputs"].split(","), options["--inputs"].split(","), to)


@pytest.mark.parametrize("is_resource", [False, True])
@pytest.mark.parametrize("build", [by_key, whole])
def test_the_caller_can_keep_the_state_by_the_command_that_is_told(
    build: Callable[..., dict[str, Any]], is_resource: bool, tmp_path: Path
) -> None:
    wanted = save(tmp_path / "m", build, is_resource)
    told = refused(tmp_path / "m", [], [])
    assert "The model keeps state between calls (state/hidden" in told
    assert "serve the SavedModel" in told
    assert inspect(tmp_path / "m").commands == tuple(line.strip() for line in [told.partition("freezes it:\n")[2]])
    frozen = type_command(told, tmp_path / "model.pb")
    taken = re.findall(r"(\S+) is what (\S+) takes next \((\S+)\)", told)
    first = {"state/hidden": (W + 1)[None] if build is by_key else W[None, :1], "state/mean": np.array([[0.5, 2.0]])}
    state = {name: list(first[name][0]) if build is by_key else first[name][0] for _, _, name in taken}
    with tf.Graph().as_default(), v1.Session() as session:
        tf.import_graph_def(v1.GraphDef.FromString(frozen.path.read_bytes()), name="")
        assert frozen.signature is not None
        tensors = {spec.name: spec.tensor_name for spec in (*frozen.signature.inputs, *frozen.signature.outputs)}
        for row, answers in enumerate(wanted):
            of_row = {name: [one[KEYS[row]]] if build is by_key else one for name, one in state.items()}
            feeds = {"key": KEYS[row : row + 1], "x": ROWS[row : row + 1]}
            feeds |= {read: of_row[name] for _, read, name in taken}
            got = session.run(
                {one: tensors[one] for one in (*answers, *(new for new, _, _ in taken))},
                {tensors[name]: value for name, value in feeds.items()},
            )
            for name, value in answers.items():
                np.testing.assert_allclose(got[name], value, rtol=1e-6)
            for new, _, name in taken:
                if build is by_key:
                    state[name][KEYS[row]] = got[new][0]
                else:
                    state[name] = got[new]


def test_an_update_that_is_named_as_an_input_does_not_take_the_state_away(tmp_path: Path) -> None:
    save(tmp_path / "m", by_key, False)
    told = refused(tmp_path / "m", ["y"], ["update"])
    assert told.startswith("node update: ")
    assert "--inputs update" not in told
    freeze_again = type_command(told, tmp_path / "model.pb")
    assert freeze_again.signature is not None
    assert "update" not in {spec.name for spec in freeze_again.signature.inputs}
    save(tmp_path / "n", lambda *given: _waits_for_passed(*given), False)
    refused(tmp_path / "n", ["y"], ["passed"])


def _waits_for_passed(key: Any, x: Any, is_resource: bool) -> dict[str, Any]:
    w = v1.get_variable("w", initializer=tf.constant(W), use_resource=is_resource)
    with tf.control_dependencies([tf.identity(v1.assign_add(w, W), name="passed")]):
        return {"y": tf.matmul(x, w, name="y")}


@pytest.mark.parametrize("is_resource", [False, True])
@pytest.mark.parametrize("build", [counting, unordered])
def test_no_command_is_told_where_it_is_not_clear_what_is_read_and_written(
    build: Callable[..., dict[str, Any]], is_resource: bool, tmp_path: Path
) -> None:
    save(tmp_path / "m", build, is_resource)
    told = refused(tmp_path / "m", [], [])
    assert "is read and written at each call): no .pb can hold that; serve the SavedModel" in told
    assert "--inputs" not in told


def test_the_result_of_an_update_can_be_an_input_where_nothing_else_reads_the_variable(tmp_path: Path) -> None:
    def counts(key: Any, x: Any, reads: bool) -> dict[str, Any]:
        count = v1.get_variable("count", initializer=1.0, use_resource=False)
        y = x @ v1.get_variable("w", initializer=tf.constant(W)) * v1.assign_add(count, 1.0, name="update")
        return {"y": tf.identity(y + count.read_value() if reads else y, name="y")}

    [first, *_] = save(tmp_path / "m", counts, False)
    frozen = type_command(refused(tmp_path / "m", [], []), tmp_path / "model.pb")
    with tf.Graph().as_default(), v1.Session() as session:
        tf.import_graph_def(v1.GraphDef.FromString(frozen.path.read_bytes()), name="")
        got = session.run("y:0", {"x:0": ROWS[:1], "update:0": 2.0})
    np.testing.assert_array_equal(got, first["y"])
    save(tmp_path / "n", counts, True)
    assert "--inputs" not in refused(tmp_path / "n", [], [])
    refused(tmp_path / "n", [], ["update"])


def test_updates_that_are_left_out_are_told_and_a_model_of_nothing_else_is_refused(tmp_path: Path) -> None:
    def counts(key: Any, x: Any, _: bool) -> dict[str, Any]:
        calls = v1.get_variable("calls", initializer=tf.zeros([2]), use_resource=False)
        w = v1.get_variable("w", initializer=tf.constant(W))
        with tf.control_dependencies([v1.scatter_add(calls, key, x[:, 0], name="count")]):
            return {"y": tf.matmul(x, w, name="y"), "done": tf.identity(key, name="done")}

    save(tmp_path / "m", counts, False)
    frozen = freeze(tmp_path / "m", to=tmp_path / "model.pb")
    left_out = "1 update of a variable is left out (count): nothing that the outputs read is changed by them"
    assert left_out in frozen.notes
    with pytest.raises(FreezeError, match=r"done: all that it does is to update variables \(calls\)"):
        freeze(tmp_path / "m", ["done"], to=tmp_path / "none.pb")
