"""Vocabularies that a checkpoint's graph names by a path: found, carried along, and told if missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from pipeline.errors import FreezeError
from pipeline.formats import frozen
from pipeline.formats.checkpoint import open_runner
from pipeline.freezing.freeze import freeze, freeze_checkpoint
from pipeline.inputs import ImportedCheckpoint
from pipeline.signature import Signature
from pipeline.training.import_checkpoint import import_checkpoint, imported_files

v1 = tf.compat.v1
ALLOWED = ("InitializeTableFromTextFileV2",)


def save(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Saves a model that was trained in `home` with `lists/words.txt`, and has a dropout."""
    (home / "lists").mkdir(parents=True)
    (home / "lists" / "words.txt").write_text("red\ngreen\n")
    monkeypatch.chdir(home)
    with tf.Graph().as_default(), v1.Session() as session:
        words = v1.placeholder(tf.string, [None], name="words")
        known = tf.lookup.TextFileInitializer("lists/words.txt", tf.string, -2, tf.int64, -1)
        ids = tf.lookup.StaticVocabularyTable(known, 1).lookup(words)
        values = tf.gather(v1.get_variable("values", initializer=[1.0, 2.0, 4.0]), ids)
        keep = v1.placeholder_with_default(1.0, [], "keep")
        tf.identity(v1.nn.dropout(values, keep_prob=keep), name="y")
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        return Path(v1.train.Saver().save(session, str(home / "saved" / "model.ckpt")))


def adopt(imported: ImportedCheckpoint, folder: Path) -> Path:
    folder.mkdir()
    import_checkpoint(imported, None, 7, folder)
    return folder


@pytest.mark.parametrize("place", ["in the working folder", "beside the checkpoint"])
def test_a_vocabulary_of_a_relative_path_reaches_both_sides(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = save(tmp_path / "home", monkeypatch)
    words = tmp_path / "home" / "lists" / "words.txt"
    if place == "beside the checkpoint":
        words = words.rename(prefix.with_name("words.txt"))
        monkeypatch.chdir(tmp_path)
    imported = ImportedCheckpoint(str(prefix), outputs=("y",), allow_ops=ALLOWED)
    assert words in imported_files(imported).values()  # so its bytes decide the stage
    artifact = adopt(imported, tmp_path / "artifact")
    words.unlink()
    monkeypatch.chdir(tmp_path)  # as the process that runs the reference, which is elsewhere
    artifact = artifact.rename(tmp_path / "moved")
    (tmp_path / "frozen").mkdir()
    freeze_checkpoint(artifact, tmp_path / "frozen")
    signature, batch = (
        Signature.read(artifact / "signature.json"),
        {"words": np.array([b"green", b"red", b"?"], object)},
    )
    for runner in (open_runner(artifact, signature, 1), frozen.open_runner(tmp_path / "frozen", signature, 1)):
        np.testing.assert_array_equal(runner.run(batch)["y"], [2.0, 1.0, 4.0])


def test_a_missing_vocabulary_is_told_first_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = save(tmp_path / "home", monkeypatch)
    (tmp_path / "home" / "lists" / "words.txt").unlink()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FreezeError, match=f"is filled from {tmp_path}/lists/words.txt, which cannot be read"):
        freeze(prefix, ["y"], to=tmp_path / "model.pb", allow_ops=ALLOWED)


def test_a_path_that_leads_out_is_not_looked_for_beside_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = save(tmp_path / "home", monkeypatch)
    graph = prefix.with_name("model.ckpt.meta")
    graph.write_bytes(graph.read_bytes().replace(b"lists/words.txt", b"../secrets/word"))
    (tmp_path / "home" / "secrets").mkdir()
    (tmp_path / "home" / "secrets" / "word").write_text("red\n")
    with pytest.raises(FreezeError, match=f"is filled from {tmp_path}/secrets/word, which cannot be read"):
        freeze(prefix, ["y"], to=tmp_path / "model.pb", allow_ops=ALLOWED)
