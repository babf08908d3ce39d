"""The value that switches a dropout off is told by the graph, whatever its placeholder is called."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import commands as typed
import numpy as np
import pytest
import small_graphs
import tensorflow as tf

import pipeline
from pipeline import cli
from pipeline.errors import FreezeError
from pipeline.freezing.inspection import inspect

v1 = tf.compat.v1


def drawn(x: Any) -> Any:
    return tf.random.uniform(tf.shape(x))


def as_float(mask: Any) -> Any:
    return tf.cast(mask, tf.float32)


def one_constant(x: Any, keep: Any) -> Any:
    dropped = 1 - keep
    return tf.divide(x, 1 - dropped) * as_float(drawn(x) >= dropped)


# By the form: the dropout, and the value that switches it off.
FORMS: Mapping[str, tuple[Callable[[Any, Any], Any], str]] = {
    "floor of keep + u": (lambda x, keep: tf.divide(x, keep) * tf.floor(keep + drawn(x)), "1"),
    "u below keep": (lambda x, keep: x * as_float(drawn(x) < keep) / keep, "1"),
    "keep, 1 - keep is the rate": (one_constant, "1"),
    "keep, as the library writes it": (lambda x, keep: v1.nn.dropout(x, keep_prob=keep), "1"),
    "keep, selected": (lambda x, keep: tf.where(drawn(x) < keep, x / keep, tf.zeros_like(x)), "1"),
    "keep of another dtype": (
        lambda x, keep: x * as_float(drawn(x) < tf.cast(tf.cast(keep, tf.float64), tf.float32)) * (1 / keep),
        "1",
    ),
    "u at least the rate": (lambda x, rate: x * as_float(drawn(x) >= rate) / (1 - rate), "0"),
    "rate, as the library writes it": (lambda x, rate: tf.nn.dropout(x, rate=rate), "0"),
    "rate, negated": (lambda x, rate: x * as_float(~(drawn(x) < rate)) * (1 / (1 - rate)), "0"),
    "rate, selected the other way": (
        lambda x, rate: tf.where(drawn(x) < rate, tf.zeros_like(x), x / (1 - rate)),
        "0",
    ),
    "rate, from a keep": (lambda x, rate: tf.divide(x, 1 - rate) * tf.floor((1 - rate) + drawn(x)), "0"),
    "rate, a mask per row": (
        lambda x, rate: x / (1 - rate) * as_float(tf.random.uniform([tf.shape(x)[0], 1]) >= rate),
        "0",
    ),
}


def save(prefix: Path, build: Callable[[], None]) -> None:
    """Saves a graph, of which nothing is computed."""
    with tf.Graph().as_default(), v1.Session() as session:
        build()
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(prefix))


def chain(name: str) -> None:
    """A layer, one dropout after another, each with a placeholder of that name, and a layer."""
    h = small_graphs.product(v1.placeholder(tf.float32, [None, 3], name="x"))
    for number, (drop, _) in enumerate(FORMS.values()):
        with v1.name_scope(f"form{number}"):
            h = drop(h, v1.placeholder(tf.float32, [], name=name))
    tf.nn.softmax(tf.matmul(h, v1.get_variable("last", [2, 2])), name="probs")


@pytest.mark.parametrize("name", ["dropout", "keep_prob", "rate", "kp"])
def test_a_dropout_is_pinned_to_what_keeps_all_and_never_by_its_name(name: str, tmp_path: Path) -> None:
    save(tmp_path / "model.ckpt", lambda: chain(name))
    with pytest.raises(FreezeError) as caught:
        pipeline.freeze(tmp_path, to=tmp_path / "model.pb")
    [command] = typed.asked(caught.value)
    pins = dict(one.split("=") for one in shlex.split(command)[-1].split(","))
    assert pins == {f"form{number}/{name}": right for number, (_, right) in enumerate(FORMS.values())}
    assert cli.main([*shlex.split(command)[3:], "-o", str(tmp_path / "model.pb")]) == 0
    given = np.random.default_rng(3).normal(size=(5, 3)).astype(np.float32)
    w, b, last = (tf.train.load_variable(str(tmp_path), of) for of in ("w", "b", "last"))
    wanted = np.exp((given @ w + b) @ last)
    answer = small_graphs.answer(tmp_path / "model.pb", {"x:0": given}, "probs:0")
    assert np.allclose(answer, wanted / wanted.sum(1, keepdims=True), rtol=1e-5, atol=1e-6)
    wrong = {**pins, "form2/" + name: "0", "form6/" + name: "1"}
    with pytest.raises(FreezeError, match="drop everything") as caught:
        pipeline.freeze(tmp_path, ["probs"], pins=wrong, to=tmp_path / "wrong.pb")
    [told] = typed.asked(caught.value)
    assert dict(one.split("=") for one in shlex.split(told)[-1].split(",")) == pins


def test_what_the_graph_does_not_tell_is_asked_with_a_command_for_each_value(tmp_path: Path) -> None:
    """Either of two layers may be the one for use: which of them a draw takes does not say."""

    def build() -> None:
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        a, b = small_graphs.product(x), tf.matmul(x, v1.get_variable("other", [3, 2]))
        rate = v1.placeholder(tf.float32, [], name="drop_rate")
        tf.nn.softmax(tf.where(drawn(a) < rate, a, b), name="probs")

    save(tmp_path / "model.ckpt", build)
    with pytest.raises(FreezeError, match="graph does not tell which value of drop_rate") as caught:
        pipeline.freeze(tmp_path, to=tmp_path / "model.pb")
    commands = typed.asked(caught.value)
    assert {command.rpartition("drop_rate=")[2] for command in commands} == {"0", "1"}
    assert commands == [*inspect(tmp_path).commands]
    assert any("drop_rate=VALUE" in line for line in inspect(tmp_path).inputs)
    for command in commands:
        assert cli.main([*shlex.split(command)[3:], "-o", str(tmp_path / "model.pb")]) == 0


def test_a_dropout_in_a_loop_whose_rate_a_cond_gives_is_off_after_the_pin(tmp_path: Path) -> None:
    def build(x: Any) -> None:
        is_training = v1.placeholder(tf.bool, [], name="is_training")
        rate = v1.cond(is_training, lambda: tf.constant(0.5), lambda: tf.constant(0.0))
        z = small_graphs.product(x)

        def turn(i: Any, state: Any) -> tuple[Any, Any]:
            return i + 1, v1.nn.dropout(tf.tanh(state + z), rate=rate)

        tf.identity(v1.while_loop(lambda i, _: i < 3, turn, [0, tf.zeros_like(z)])[1], name="end")

    with small_graphs.control_flow(False), tf.Graph().as_default(), v1.Session() as session:
        build(v1.placeholder(tf.float32, [None, 3], name="x"))
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(tmp_path / "model.ckpt"))
        wanted = session.run("end:0", {"x:0": small_graphs.X, "is_training:0": False})
    done = pipeline.freeze(tmp_path, ["end"], to=tmp_path / "model.pb", pins={"is_training": "false"})
    assert np.array_equal(small_graphs.answer(done.path, {"x:0": small_graphs.X}, "end:0"), wanted)
