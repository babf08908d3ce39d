"""Models whose inputs are the outputs of a data set's iterator: made-up rows, what is asked, and rows by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from pipeline.data.npz import load_arrays, of_kind
from pipeline.errors import FreezeError
from pipeline.formats import checkpoint as checkpoint_format
from pipeline.inputs import DataSource, ImportedCheckpoint
from pipeline.signature import Signature
from pipeline.store.file_names import SIGNATURE_FILE, VALIDATION_ROWS_FILE
from pipeline.training.import_checkpoint import import_checkpoint

v1 = tf.compat.v1
ROWS = {
    "zone": np.int32([1, 3, 2]),  # the order of a Python dictionary is another than that of its names
    "amount": np.float32([1.5, 2.5, 4]),
    "country": np.int32([2, 0, 1]),
    "history": np.float32([[1, 2], [3, 4], [5, 6]]),
    "shop": np.array([b"a", b"bc", b"a"], object),
}
PORTS = ("IteratorGetNext", *(f"IteratorGetNext:{port}" for port in range(1, 5)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A checkpoint of a model that reads a dictionary from an iterator, and what it answers for ROWS."""
    prefix = tmp_path_factory.mktemp("trained") / "model.ckpt"
    with tf.Graph().as_default(), v1.Session() as session:
        data = tf.data.Dataset.from_tensor_slices((ROWS, np.float32([0, 1, 0]))).repeat().batch(3)
        iterator = v1.data.make_initializable_iterator(data)
        features, _ = iterator.get_next()
        draw = np.random.default_rng(5)
        table = v1.get_variable("table", initializer=draw.normal(size=(3, 2)).astype(np.float32))
        words = v1.get_variable("words", initializer=draw.normal(size=(7, 2)).astype(np.float32))
        shop = tf.strings.to_hash_bucket_fast(features["shop"], 7)
        y = tf.gather(table, features["country"]) + tf.gather(words, shop) * features["amount"][:, None]
        zone = tf.raw_ops.GatherV2(params=table, indices=features["zone"] - 1, axis=0)
        tf.add(y + zone, features["history"], name="y")
        session.run([v1.global_variables_initializer(), iterator.initializer])
        v1.train.Saver().save(session, str(prefix))
        return prefix, session.run("y:0")


def imported(prefix: Path, folder: Path, data: Any = None) -> tuple[Signature, dict[str, Any]]:
    """The signature and the rows of the artifact."""
    folder.mkdir()
    import_checkpoint(ImportedCheckpoint(str(prefix), outputs=("y",), inputs=PORTS), data, 1, folder)
    return Signature.read(folder / SIGNATURE_FILE), of_kind("input", load_arrays(folder / VALIDATION_ROWS_FILE))


def test_made_up_rows_are_what_the_graph_takes_at_each_output_of_an_iterator(
    trained: tuple[Path, Any], tmp_path: Path
) -> None:
    signature, rows = imported(trained[0], tmp_path / "checkpoint")
    answer = checkpoint_format.open_runner(tmp_path / "checkpoint", signature, 1).run(rows)["y"]
    assert np.isfinite(answer).all()
    assert set(rows["IteratorGetNext:1"].tolist()) == {0, 1, 2}
    assert set(rows["IteratorGetNext:4"].tolist()) == {1, 2, 3}


def test_the_outputs_of_one_iterator_are_told_once(trained: tuple[Path, Any], tmp_path: Path) -> None:
    with pytest.raises(FreezeError) as caught:
        import_checkpoint(ImportedCheckpoint(str(trained[0]), outputs=("y",)), None, 1, tmp_path)
    assert "(IteratorGetNext gives rows: its 5 outputs become inputs)" in str(caught.value)
    assert str(caught.value).count("gives rows") == 1
    assert f"--inputs {','.join(PORTS)}" in str(caught.value)


def test_rows_under_the_names_of_the_features_are_answered_as_the_session_answers_them(
    trained: tuple[Path, Any], tmp_path: Path
) -> None:
    np.savez(tmp_path / "rows.npz", **ROWS)
    signature, rows = imported(trained[0], tmp_path / "checkpoint", DataSource(tmp_path / "rows.npz"))
    answer = checkpoint_format.open_runner(tmp_path / "checkpoint", signature, 1).run(rows)["y"]
    np.testing.assert_array_equal(answer, trained[1])
