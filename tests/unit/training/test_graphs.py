"""The graphs of a model, checked with TensorFlow sessions and by their bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from jobs import job_for, model_file, run

from pipeline.data.npz import load_arrays, of_kind
from pipeline.errors import ModelError

v1 = tf.compat.v1

LINE = """
class M:
    signature = Signature([TensorSpec("x", "float32", [None, 2])], [TensorSpec("y", "float32", [None])])
    data = "rows.csv"
    labels = TensorSpec("labels", "float32", [None])

    def forward(self, inputs, training):
        w = tf.compat.v1.get_variable("w", [2], initializer=tf.compat.v1.constant_initializer([3.0, -1.0]))
        return {"y": tf.reduce_sum(inputs["x"] * w, axis=1)}

    def loss(self, outputs, labels):
        return tf.reduce_mean((outputs["y"] - labels) ** 2)

    def examples(self, path):
        x = np.random.default_rng(1).normal(size=(40, 2)).astype(np.float32)
        return Examples({"x": x}, (x @ [1.0, 2.0]).astype(np.float32))
"""


def changed(*replacements: tuple[str, str]) -> str:
    """Returns the line model with some source lines replaced."""
    body = LINE
    for old, new in replacements:
        assert old in body
        body = body.replace(old, new)
    return body


WITHOUT_LOSS = changed(
    ("    def loss(self, outputs, labels):\n        return", "    def unused(self, outputs, labels):\n        return")
)
Y = 'return {"y": tf.reduce_sum(inputs["x"] * w, axis=1)}'
SQUARES = 'tf.reduce_mean((outputs["y"] - labels) ** 2)'


def meta(path: Path) -> Any:
    found = v1.MetaGraphDef()
    found.ParseFromString(path.read_bytes())
    return found


def goldens_of(root: Path, body: str, **sections: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Reads input x and output y of the goldens after one training step."""
    job = job_for(root / "output", model_file(root, body), **{"training": {"steps": 1}, **sections})
    run(job, "training")
    arrays = load_arrays(job.folder("training") / "deploy" / "last" / "goldens.npz")
    return of_kind("input", arrays)["x"], of_kind("output", arrays)["y"]


@pytest.mark.parametrize(
    ("replacement", "words"),
    [
        ((Y, 'return {"yy": inputs["x"][:, 0] * w[0]}'), ["y: ", "got yy", "mean 'yy'?"]),
        ((Y, "return {}"), ["y: ", "got nothing"]),
        (
            (Y, "import keras; keras.layers.Dense(-1)"),
            ["the method forward fails", ".py:", "ValueError", "build in its place"],
        ),
        ((Y, 'return {"y": tf.cast(inputs["x"][:, 0], tf.float64)}'), ["y: ", "float64", "wanted y float32 [?]"]),
        ((Y, 'return {"y": inputs["x"] * w}'), ["y: ", "float32 (None, 2)", "wanted y float32 [?]"]),
        ((SQUARES, '(outputs["y"] - labels) ** 2'), ["loss", "float32 (None,)", "wanted a float of shape []"]),
        ((SQUARES, 'tf.size(outputs["y"])'), ["loss", "int32 ()", "wanted a float of shape []"]),
        (('get_variable("w"', 'get_variable("w" if training else "wt"'), ["wt: ", "mean 'w'?"]),
        (
            ('get_variable("w", [2], initializer=tf.compat.v1.constant_initializer([3.0, -1.0]))',
             'get_variable("w", [2 if training else 1])'),
            ["w: ", "(1,)", "(2,)"],
        ),
    ],
)  # fmt: skip
def test_a_broken_promise_is_named(tmp_path: Path, replacement: tuple[str, str], words: list[str]) -> None:
    job = job_for(tmp_path / "output", model_file(tmp_path, changed(replacement)))
    with pytest.raises(ModelError) as caught:
        run(job, "graph")
    sentence = str(caught.value)
    assert [word for word in words if word not in sentence] == [], sentence
    assert not job.folder("graph").exists()


def test_a_model_without_a_loss_has_an_inference_graph_only(tmp_path: Path) -> None:
    job = job_for(tmp_path / "output", model_file(tmp_path, WITHOUT_LOSS))
    run(job, "graph")
    assert {path.name for path in job.folder("graph").iterdir()} == {
        "inference.meta",
        "signature.json",
        "manifest.json",
    }


def test_the_inference_graph_holds_nothing_of_the_training(tmp_path: Path) -> None:
    job = job_for(tmp_path / "output", model_file(tmp_path, LINE))
    run(job, "graph")
    nodes = {
        name: list(meta(job.folder("graph") / f"{name}.meta").graph_def.node) for name in ("inference", "training")
    }
    assert [node.name for node in nodes["inference"] if node.op == "Placeholder"] == ["x"]
    assert not [node.name for node in nodes["inference"] if "gradients" in node.name or "Adam" in node.name]
    assert [node.name for node in nodes["training"] if "gradients" in node.name]
    assert "pipeline/labels" in {node.name for node in nodes["training"] if node.op == "Placeholder"}


def test_the_loss_may_use_what_the_signature_does_not_promise(tmp_path: Path) -> None:
    body = changed((Y, 'y = tf.reduce_sum(inputs["x"] * w, axis=1)\n        return {"y": y, "twice": 2 * y}'),
                   ("outputs[\"y\"] - labels", "outputs[\"twice\"] - 2 * labels"))  # fmt: skip
    job = job_for(tmp_path / "output", model_file(tmp_path, body))
    run(job, "graph")
    x = np.array([[1, 2], [3, 4]], np.float32)  # y is 1 and 5, so that the loss for labels 0 and 1 is (2² + 8²) / 2
    with tf.Graph().as_default() as graph, v1.Session() as session:
        v1.train.import_meta_graph(str(job.folder("graph") / "evaluation.meta"))
        session.run(v1.global_variables_initializer())
        [loss] = graph.get_collection("pipeline/loss")
        assert session.run(loss, {"x:0": x, "pipeline/labels:0": np.array([0, 1], np.float32)}) == 34


def test_labels_are_of_the_dtype_and_shape_that_the_model_names(tmp_path: Path) -> None:
    dtypes = {}
    for name, body in {
        "float": LINE,
        "default": changed(('    labels = TensorSpec("labels", "float32", [None])\n', ""),
                           ("- labels", "- tf.cast(labels, tf.float32)")),
    }.items():  # fmt: skip
        job = job_for(tmp_path / "output", model_file(tmp_path, body, f"{name}.py"))
        run(job, "graph")
        nodes = {node.name: node for node in meta(job.folder("graph") / "training.meta").graph_def.node}
        dtypes[name] = tf.dtypes.as_dtype(nodes["pipeline/labels"].attr["dtype"].type).name
    assert dtypes == {"float": "float32", "default": "int64"}


def test_the_seed_of_the_settings_decides_the_initial_weights(tmp_path: Path) -> None:
    body = changed((", initializer=tf.compat.v1.constant_initializer([3.0, -1.0])", ""))
    outputs = [
        goldens_of(tmp_path, body, training={"steps": 1}, graph={"seed": seed, "learning_rate": 1e-30})[1]
        for seed in (7, 7, 8)
    ]
    assert np.array_equal(outputs[0], outputs[1])
    assert not np.array_equal(outputs[0], outputs[2])


def test_a_scope_may_have_the_name_of_an_output(tmp_path: Path) -> None:
    body = changed(
        ("        w = tf", '        with tf.compat.v1.variable_scope("y"):\n            w = tf'),
        ("def loss", "def unused"),
    )
    x, y = goldens_of(tmp_path, body)
    assert np.allclose(y, x @ [3.0, -1.0], atol=1e-5)


@pytest.mark.parametrize(
    "inner",
    ['tf.reduce_sum(inputs["x"] * w, axis=1, name="y")', 'tf.split(inputs["x"] * w, 2, axis=1, name="y")[1][:, 0]'],
)
def test_another_node_of_an_output_s_name_is_never_taken_for_the_output(tmp_path: Path, inner: str) -> None:
    body = changed((Y, f'inner = {inner}\n        return {{"y": -inner}}'), ("def loss", "def unused"))
    try:
        x, y = goldens_of(tmp_path, body)
    except ModelError as exc:
        assert "y" in str(exc.where)  # noqa: PT017 - refusing is as good as giving the right output
        return
    expected = -(x @ [3.0, -1.0]) if "sum" in inner else x[:, 1]
    assert np.allclose(y, expected, atol=1e-5)


CONTROL = """
class M:
    signature = Signature([TensorSpec("x", "float32", [None, 2])], [TensorSpec("y", "float32", [None, 2])])
    data = "rows.csv"
    labels = TensorSpec("labels", "float32", [None, 2])

    def forward(self, inputs, training):
        w = tf.compat.v1.get_variable("w", [2, 2])
        x = inputs["x"]
        x = tf.cond(tf.reduce_sum(x) > 0, lambda: x @ w, lambda: x - tf.reduce_sum(w))
        x = tf.while_loop(lambda i, v: i < 3, lambda i, v: (i + 1, tf.tanh(v @ w)), [0, x])[1]
        if training:
            x = tf.nn.dropout(x, 0.2)
        return {"y": tf.map_fn(lambda row: row * w[0], x)}

    def loss(self, outputs, labels):
        return tf.reduce_mean((outputs["y"] - labels) ** 2)

    def examples(self, path):
        x = np.random.default_rng(1).normal(size=(40, 2)).astype(np.float32)
        return Examples({"x": x}, x)
"""


def test_two_fresh_processes_give_the_same_bytes_for_a_model_with_branches_and_loops(tmp_path: Path) -> None:
    """Including the checkpoint; only TensorBoard events contain the time.

    One runs as the other tests do, with TensorFlow from the server that they share, the other with a server of its own.
    """
    model = model_file(tmp_path, CONTROL)
    processes = []
    for number, seed in {"1": {}, "2": {"PYTHONHASHSEED": "2"}}.items():
        command = [str(Path(sys.executable).parent / "luigi"), "--module", "pipeline", "SaveCheckpoint"]
        command += ["--model", model, "--output-root", number, "--training-steps", "6"]
        environment = {**os.environ, **seed}
        processes.append(subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True))
    for process in processes:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
    first, second = (
        {
            f"{stage}/{path.relative_to(tmp_path / number / 'model' / stage)}": path.read_bytes()
            for stage in ("graph", "training", "checkpoint")
            for path in (tmp_path / number / "model" / stage).rglob("*")
            if path.is_file() and path.name != "manifest.json" and path.parent.name != "tensorboard"
        }
        for number in ("1", "2")
    )
    assert set(first) == set(second)
    assert "checkpoint/model.ckpt.meta" in first
    assert [name for name in first if first[name] != second[name]] == []


def test_a_model_without_variables_is_refused(tmp_path: Path) -> None:
    model = model_file(
        tmp_path,
        """
        class M:
            signature = Signature([TensorSpec("x", "float32", [None])], [TensorSpec("y", "float32", [None])])
            data = "rows.csv"
            def forward(self, inputs, training):
                return {"y": inputs["x"] * 2}
            def examples(self, path):
                return Examples({"x": np.arange(4, dtype=np.float32)})
        """,
    )
    with pytest.raises(ModelError, match="M: the model has no variables"):
        run(job_for(tmp_path / "out", model), "graph")
