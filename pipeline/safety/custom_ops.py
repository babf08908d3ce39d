"""Ops that libraries bring and TensorFlow itself lacks: which library, and what to do about a model that needs one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_IDS = (
    "Export the model again from what follows them: numbers as its inputs, and the text turned into them by its callers"
)


@dataclass(frozen=True)
class Library:
    """A library with ops of its own.

    Args:
        name: as people install it.
        ops: a pattern of their names.
        cure: what to do with a model that has them, as an imperative.
    """

    name: str
    ops: str
    cure: str


_LIBRARIES = (
    Library(
        "TensorRT (TF-TRT)",
        r"TRTEngineOp|\w+TRT(Resource|Engine)\w*|GetCalibrationDataOp",
        "Give the model as it was before TF-TRT converted it",
    ),
    Library(
        "tensorflow_decision_forests",
        r"SimpleML\w+|YggdrasilDecisionForests\w*",
        "Serve the SavedModel where that library is loaded: its trees are files that no .pb carries",
    ),
    Library(
        "tensorflow_addons",
        r"Addons>\w+",
        "Write the model with Keras's own layers in place of those of Addons, load the weights, and save it again",
    ),
    Library(
        "tensorflow_text",
        r"TFText>\w+|(Fast)?(White|Word|Sentence|Phrase|UnicodeScript|SplitMerge|Byte|Regex|BertNormalize|FastBert)\w*"
        r"(Tokeniz|Detokeniz|Split|piece|Normaliz)\w*|Sentencepiece\w*|CaseFoldUTF8|NormalizeUTF8\w*|FindSourceOffsets"
        r"|ConstrainedSequence|MaxSpanningTree|RougeL",
        _IDS,
    ),
    Library(
        "horovod",
        r"Horovod\w+",
        "Save the model from its graph of inference, without the distributed optimizer; or give its code and this "
        "checkpoint: --model FILE.py:CLASS --checkpoint PREFIX",
    ),
    Library(
        "tensorflow_recommenders_addons",
        r"TFRA>\w+",
        "Export its tables as tf.Variable, and the model again with tf.nn.embedding_lookup in their place",
    ),
    Library("tensorflow_io", r"IO>\w+", "Export the model again from the tensors that are read"),
    Library("scann", r"Scann>\w+", "Freeze the model that computes the vectors, without the search behind it"),
    Library("tensorflow_quantum", r"Tfq\w+", "Freeze the part behind the circuits, with their results as its inputs"),
    Library("DeepRec", r"Kv(Var|Resource)\w+", "Export its tables as tf.Variable, and the model again with them"),
)


def library_of(ops: Iterable[str]) -> Library | None:
    """Returns the library that brings the first op of which one is known."""
    for op in ops:
        for library in _LIBRARIES:
            if re.fullmatch(library.ops, op):
                return library
    return None
