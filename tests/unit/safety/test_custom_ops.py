"""Ops that TensorFlow lacks: the message names the library that brings them, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import UnsafeModel
from pipeline.freezing.freeze import freeze
from pipeline.graph.protos import GraphDef, NodeDef
from pipeline.safety import dangers, safe_ops
from pipeline.safety.custom_ops import library_of


@pytest.mark.parametrize(
    ("op", "library", "cure"),
    [
        ("TRTEngineOp", "TensorRT", "as it was before TF-TRT converted it"),
        ("SimpleMLInferenceOpWithHandle", "tensorflow_decision_forests", "Serve the SavedModel where"),
        ("Addons>Gelu", "tensorflow_addons", "Keras's own layers"),
        ("WordpieceTokenizeWithOffsets", "tensorflow_text", "numbers as its inputs"),
        ("SentencepieceOp", "tensorflow_text", "numbers as its inputs"),
        ("HorovodBroadcast", "horovod", "--model FILE.py:CLASS"),
        ("TFRA>CuckooHashTableFind", "tensorflow_recommenders_addons", "tf.Variable"),
        ("SpamOp", "", "TensorFlow lacks SpamOp: write that part"),
    ],
)
def test_the_library_of_an_op_is_named_with_what_to_do(tmp_path: Path, op: str, library: str, cure: str) -> None:
    path = tmp_path / "model.pb"
    path.write_bytes(GraphDef(node=[NodeDef(name="y", op=op)]).SerializeToString())
    with pytest.raises(UnsafeModel) as caught:
        freeze(path)
    said = str(caught.value)
    assert f"op {op} in node y" in said
    assert cure in said
    assert not library or f"TensorFlow lacks {op}, which {library}" in said
    assert said.rpartition(". ")[2].startswith(f"With --allow-ops {op}, a file that needs it opens only in a runtime")


def test_no_op_of_tensorflow_is_taken_for_that_of_a_library() -> None:
    assert [op for op in (*safe_ops(), *dangers()) if library_of([op])] == []
