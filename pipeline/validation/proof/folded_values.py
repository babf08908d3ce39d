"""What constant folding needs of TensorFlow, in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from .contents import join_strings
from .folding import Folded

_v1 = tf.compat.v1


def compute(graph: bytes, tensors: Sequence[str]) -> list[Folded | None]:
    """Returns the values of tensors of a GraphDef, None for each that has none: an op fails, or gives no array."""
    with tf.Graph().as_default() as own:
        try:
            tf.import_graph_def(_v1.GraphDef.FromString(graph), name="")
        except (tf.errors.OpError, ValueError):
            return [None] * len(tensors)
        config = _v1.ConfigProto()
        config.graph_options.rewrite_options.disable_meta_optimizer = True
        config.graph_options.optimizer_options.opt_level = -1
        with _v1.Session(graph=own, config=config) as session:
            fetched = [own.get_tensor_by_name(name if ":" in name else f"{name}:0") for name in tensors]
            return [_value(session, tensor) for tensor in fetched]


def _value(session: Any, tensor: Any) -> Folded | None:
    if tensor.dtype.base_dtype in (tf.resource, tf.variant):
        return None
    try:
        value = session.run(tensor)
    except (tf.errors.OpError, TypeError):
        return None
    if tensor.dtype.base_dtype == tf.string:
        strings = [value] if isinstance(value, bytes) else value.reshape(-1).tolist()
        return Folded(tf.string.as_datatype_enum, getattr(value, "shape", ()), join_strings(strings))
    return Folded(tensor.dtype.base_dtype.as_datatype_enum, value.shape, value.tobytes())
