"""What may be wanted beside the outputs that were found, and what stands inside of loops and functions."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jobs
import numpy as np
import pytest
import small_graphs
import tensorflow as tf

import pipeline
from pipeline import cli
from pipeline.errors import FreezeError
from pipeline.freezing.inspection import inspect
from pipeline.tasks.chain.plan import Chain
from pipeline.tasks.summary import summary_lines

v1 = tf.compat.v1


def classifier(keep: Callable[[], Any] | None = None) -> None:
    """Trains by labels; a class, a share and an explored class are computed beside the probabilities."""
    x, label = v1.placeholder(tf.float32, [None, 3], name="x"), v1.placeholder(tf.int64, [None], name="label")
    h = x if keep is None else v1.nn.dropout(x, keep())
    scores = tf.reduce_sum(tf.exp(h[:, :, None] @ v1.get_variable("query", [1, 2])), 2)
    focus = tf.divide(scores, tf.reduce_sum(scores, 1, keepdims=True), name="focus")  # an attention without a Softmax
    h = h * focus
    logits = tf.identity(small_graphs.product(h), name="logits")
    tf.nn.softmax(logits, name="prob")
    chosen = tf.argmax(logits, 1, name="class")
    again = tf.argmax(logits, 1)  # what somebody computed twice
    tf.multiply(tf.reduce_mean(x, 1), 100.0, name="yield_loss_pct")
    v1.where(
        tf.random.uniform(tf.shape(chosen)) < 0.1,
        tf.random.uniform(tf.shape(chosen), 0, 2, tf.int64),
        chosen,
        "explored",
    )
    v1.summary.histogram("copy", tf.matmul(x, v1.get_variable("other", [3, 2], trainable=False), name="target"))
    v1.summary.histogram("seen", tf.nn.relu(logits, name="only_seen"))
    tf.reduce_mean(tf.cast(tf.equal(again, label), tf.float32), name="accuracy")
    tf.math.confusion_matrix(label, chosen, 2, name="table")
    rows = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=label, logits=logits)
    v1.train.GradientDescentOptimizer(0.1).minimize(tf.reduce_mean(rows, name="loss"))


def save(prefix: Path, build: Callable[[], Any]) -> Path:
    with tf.Graph().as_default(), v1.Session() as session:
        build()
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(prefix))
    return prefix


def run_printed(command: str) -> None:
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "pipeline"]
    assert cli.main(words[3:]) == 0


def test_other_answers_of_the_same_inputs_are_named_with_the_command_that_takes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix, pb = save(tmp_path / "model.ckpt", classifier), tmp_path / "model.pb"
    run_printed(f"python -m pipeline freeze {prefix} --outputs prob -o {pb}")
    assert "also there" not in capsys.readouterr().out  # outputs that were named are all that is wanted
    run_printed(f"python -m pipeline freeze {prefix} -o {pb}")
    [line] = re.findall("^also there   (.*)$", capsys.readouterr().out, re.MULTILINE)
    words, _, command = line.partition(": ")
    assert words == "class (ArgMax of logits), only_seen, logits, focus"
    assert inspect(prefix).beside == f"{words}: {command.replace(f' -o {pb}', '')}"
    run_printed(command)
    with tf.Graph().as_default(), v1.Session() as session:
        v1.train.import_meta_graph(f"{prefix}.meta").restore(session, str(prefix))
        names = [f"{name}:0" for name in ("prob", "yield_loss_pct", "class", "only_seen", "logits", "focus")]
        wanted = session.run(names, {"x:0": small_graphs.X})
    for own, right in zip(small_graphs.answer(pb, fetch=names), wanted, strict=True):
        assert np.array_equal(own, right)


def test_a_refusal_that_prints_a_command_names_the_other_answers_too(tmp_path: Path) -> None:
    prefix = save(tmp_path / "model.ckpt", lambda: classifier(lambda: v1.placeholder(tf.float32, [], name="keep_prob")))
    with pytest.raises(FreezeError, match="draws random numbers") as caught:
        pipeline.freeze(prefix)
    *_, command, also = str(caught.value).splitlines()
    command, (words, whole) = command.partition("The whole command: ")[2], also.split(": ")[1:]
    assert words == "class (ArgMax of logits), only_seen, logits, focus"
    assert command.endswith("--outputs prob,yield_loss_pct --pin keep_prob=1")  # what feeds nothing is taken untold
    for one in (command, whole):
        run_printed(f"{one} -o {tmp_path / 'model.pb'}")
    assert whole == command.replace("yield_loss_pct", "yield_loss_pct,class,only_seen,logits,focus")
    assert inspect(prefix).beside == f"{words}: {whole}"


def named_on_the_way(is_wide: bool) -> None:
    """Of what the author named, a layer, an activation or a concatenation takes all but the place in the picture."""
    x = v1.placeholder(tf.float32, [None, 3], name="x")
    weights = v1.get_variable("w", [3, 6])
    first = tf.nn.relu(tf.matmul(x, weights, name="scores"), name="first")
    place = tf.add(tf.matmul(first, v1.get_variable("v", [6, 4])), v1.get_variable("b", [4]), name="place")
    looked = tf.matmul(tf.reshape(place, [-1, 2, 2]), tf.tile(x[:, None, :2], [1, 2, 1]), transpose_b=True)
    joined = tf.concat([tf.identity(tf.reshape(looked, [-1, 4]), name="seen"), first], 1)
    last = tf.matmul(joined, v1.get_variable("u", [10, 2]))
    for letter in "klmno" if is_wide else "":
        turned = tf.add(tf.matmul(first, v1.get_variable(letter, [6, 2])), 1.0, name=f"turned_{letter}")
        last += tf.reduce_sum(turned * turned, 1, keepdims=True)
    tf.nn.softmax(last, name="prob")


@pytest.mark.parametrize("is_wide", [False, True])
def test_what_is_named_on_the_way_and_is_no_layer_is_offered_where_it_is_little(is_wide: bool, tmp_path: Path) -> None:
    save(tmp_path / "model.ckpt", lambda: named_on_the_way(is_wide))
    words = inspect(tmp_path).beside.partition(":")[0]
    assert re.fullmatch(r"add\w*" if is_wide else r"MatMul_2, place", words)  # the logits, and what is named


@pytest.mark.parametrize("squash", [tf.nn.softmax, tf.sigmoid])
def test_the_logits_of_an_output_are_named_and_a_decision_is_told_by_the_named_output(
    squash: Callable[..., Any], tmp_path: Path
) -> None:
    def build() -> None:
        logits = small_graphs.product(v1.placeholder(tf.float32, [None, 3], name="x"))
        one = tf.constant(1.0)
        twice = [logits + one, logits + one]
        v1.summary.histogram("copy", tf.argmax(twice[1], 1, name="class"))
        labels = tf.one_hot(v1.placeholder(tf.int64, [None], name="label"), 2)
        loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=twice[0]))
        squash(twice[1], name="prob")
        v1.train.GradientDescentOptimizer(0.1).minimize(loss)

    words, _, command = inspect(save(tmp_path / "model.ckpt", build)).beside.partition(": ")
    assert words == "class (ArgMax of prob), add"
    assert command.endswith("--outputs prob,class,add")


def test_scores_that_a_found_decision_is_made_on_are_taken_in_a_graph_without_training(tmp_path: Path) -> None:
    def build() -> None:
        ratios = tf.reshape(small_graphs.product(v1.placeholder(tf.float32, [None, 3], name="x")), [-1, 2], name="llr")
        tf.cast(ratios > 0, tf.int8, name="bits")
        tf.reduce_max(tf.sin(ratios), 1, name="slope")

    save(tmp_path / "model.ckpt", build)
    assert "--outputs llr,bits,slope" in inspect(tmp_path).commands[0]


def test_a_model_with_nothing_beside_its_output_says_nothing_of_it(tmp_path: Path) -> None:
    small_graphs.save(tmp_path / "model.ckpt")
    assert pipeline.freeze(tmp_path, to=tmp_path / "model.pb").beside == ""
    assert inspect(tmp_path).beside == ""


def test_a_run_closes_with_what_else_is_there_and_the_options_that_were_given(tmp_path: Path) -> None:
    job = jobs.imported_job(tmp_path / "out", save(tmp_path / "model.ckpt", classifier), options=("--name", "own"))
    chain = Chain(job)
    chain.build("checkpoint")
    [line] = [line for line in summary_lines(chain, "checkpoint") if line.startswith("also there ")]
    assert line == (
        "also there   class (ArgMax of logits), only_seen, logits, focus: luigi --module pipeline WriteReport"
        f" --checkpoint {job.imported.path} --name own --outputs prob,yield_loss_pct,class,only_seen,logits,focus"
    )


def sampled() -> None:
    """Draws in each turn of a loop, from what it drew before."""
    y = small_graphs.product(v1.placeholder(tf.float32, [None, 3], name="x"))

    def turn(at: Any, state: Any) -> Any:
        drawn = v1.multinomial(tf.tanh(state), 1, name="drawn")
        return at + 1, state + tf.cast(drawn, tf.float32)

    _, last = tf.while_loop(lambda at, _: at < 3, turn, [0, y], [tf.TensorShape([]), tf.TensorShape([None, 2])])
    tf.identity(last, name="sampled")


@pytest.mark.parametrize("is_v2", [False, True], ids=["nodes", "functions"])
def test_what_is_inside_of_a_loop_is_neither_fed_nor_fetched_nor_offered(is_v2: bool, tmp_path: Path) -> None:
    with small_graphs.control_flow(is_v2):
        prefix = save(tmp_path / "model.ckpt", sampled)
    with pytest.raises(FreezeError, match="draws random numbers") as caught:
        pipeline.freeze(prefix, ["sampled"])
    assert "freezes it" not in str(caught.value)
    assert "in each turn of a loop" in str(caught.value)
    assert "no .pb can be proved equal" in str(caught.value)
    [drawn] = re.findall("node ([^: ]+)", str(caught.value))
    inside = "inside of a function" if is_v2 else "inside of a loop, which has a new one in each turn"
    with pytest.raises(FreezeError, match=f"{inside}.*cannot be fed"):
        pipeline.freeze(prefix, ["sampled"], [drawn])
    with pytest.raises(FreezeError, match=f"{inside}.*cannot be fetched"):
        pipeline.freeze(prefix, [drawn])
    done = pipeline.freeze(prefix, ["y"], to=tmp_path / "y.pb")  # in front of it, as the message says
    assert small_graphs.answer(done.path).shape == (2, 2)


def noisy() -> None:
    y = small_graphs.product(v1.placeholder(tf.float32, [None, 3], name="x"))
    tf.identity(y + tf.random.normal(tf.shape(y), name="noise"), name="z")


@pytest.mark.parametrize("has_rows", [False, True])
def test_a_command_that_makes_draws_inputs_repeats_no_data_that_lacks_them(has_rows: bool, tmp_path: Path) -> None:
    rows = {"x": small_graphs.X, **({"noise/RandomStandardNormal": small_graphs.X[:, :2]} if has_rows else {})}
    np.savez(tmp_path / "rows.npz", **rows)
    options = ("--data", str(tmp_path / "rows.npz"), "--name", "own")
    job = jobs.imported_job(tmp_path / "out", save(tmp_path / "model.ckpt", noisy), outputs=("z",), options=options)
    with pytest.raises(FreezeError, match="draws random numbers") as caught:
        Chain(job).build("checkpoint")
    *_, words, command = str(caught.value).splitlines()
    assert command.endswith("--outputs z --inputs noise/RandomStandardNormal")
    assert ("--data" in command) == has_rows
    assert ("would need noise/RandomStandardNormal too" in words) != has_rows
    assert "--name own" in command
