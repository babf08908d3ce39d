"""Writes pipeline/graph/ops_table.txt: `python tests/helpers/op_table.py`, after another TensorFlow was installed."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf  # noqa: F401  the ops are registered by loading it
from tensorflow.python.client import pywrap_tf_session

from pipeline.graph.ops import TABLE, declared_outputs
from pipeline.graph.protos import OpDef, OpList


def registered_ops() -> list[OpDef]:
    """All ops of the installed TensorFlow, by name."""
    buffer = pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList())
    return sorted(OpList.FromString(bytes(buffer)).op, key=lambda op: op.name)


def table() -> str:
    """The file's content."""
    return "".join(f"{op.name} {declared_outputs(op)}".strip() + "\n" for op in registered_ops())


if __name__ == "__main__":
    TABLE.write_text(table(), encoding="utf-8")
    print(f"{TABLE}: {table().count(chr(10))} ops")
