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
    assert words == "class (ArgMax of logits), only_seen, yield_loss_pct"
    assert inspect(prefix).beside == f"{words}: {command.replace(f' -o {pb}', '')}"
    run_printed(command)
    with tf.Graph().as_default(), v1.Session() as session:
        v1.train.import_meta_graph(f"{prefix}.meta").restore(session, str(prefix))
        names = [f"{name}:0" for name in ("prob", "class", "only_seen", "yield_loss_pct")]
        wanted = session.run(names, {"x:0": small_graphs.X})
    for own, right in zip(small_graphs.answer(pb, fetch=names), wanted, strict=True):
        assert np.array_equal(own, right)


def test_a_refusal_that_prints_a_command_names_the_other_answers_too(tmp_path: Path) -> None:
    prefix = save(tmp_path / "model.ckpt", lambda: classifier(lambda: v1.placeholder(tf.float32, [], name="keep_prob")))
    with pytest.raises(FreezeError, match="draws random numbers") as caught:
        pipeline.freeze(prefix)
    *_, command, also = str(caught.value).splitlines()
    assert "also there: class (ArgMax of logits), only_seen, yield_loss_pct: --outputs" in also
    command = command.partition("The whole command: ")[2]
    run_printed(f"{command} -o {tmp_path / 'model.pb'}")
    options = also.rpartition(": ")[2]
    assert options == "--outputs prob,class,only_seen,yield_loss_pct"
    run_printed(f"{re.sub('--outputs [^ ]+', options, command)} -o {tmp_path / 'model.pb'}")
    assert inspect(prefix).beside.endswith(f"{options} --pin keep_prob=1")


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
        "also there   class (ArgMax of logits), only_seen, yield_loss_pct: luigi --module pipeline WriteReport"
        f" --checkpoint {job.imported.path} --name own --outputs prob,class,only_seen,yield_loss_pct"
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
    assert is_v2 or "no .pb can be proved equal" in str(caught.value)
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
