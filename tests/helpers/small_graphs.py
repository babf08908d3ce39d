"""Small trained graphs, saved as people save them, and what TensorFlow's session gives for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
Array = np.ndarray[Any, Any]
X = np.arange(6, dtype=np.float32).reshape(2, 3) - 2


@contextmanager
def control_flow(is_v2: bool) -> Iterator[None]:
    """Control flow as functions or as nodes."""
    before = v1.control_flow_v2_enabled()
    (v1.enable_control_flow_v2 if is_v2 else v1.disable_control_flow_v2)()
    try:
        yield
    finally:
        (v1.enable_control_flow_v2 if before else v1.disable_control_flow_v2)()


def product(x: Any) -> Any:
    """x @ w + b, with weights that follow from a seed."""
    draw = np.random.default_rng(3)
    w = v1.get_variable("w", initializer=tf.constant(draw.normal(size=(3, 2)).astype(np.float32)))
    b = v1.get_variable("b", initializer=tf.constant(draw.normal(size=2).astype(np.float32)))
    return tf.add(x @ w, b, name="y")


def save(
    prefix: str | Path,
    build: Callable[[Any], Any] = product,
    feeds: Mapping[str, Any] | None = None,
    x: Array = X,
    **options: Any,
) -> Array:
    """Saves a model of one input `x` and one output `y`.

    Args:
        prefix: what the Saver is given.
        feeds: what else is fed for the answer, by tensor.
        options: of `Saver.save`.

    Returns:
        What the session gives for `x`.
    """
    with tf.Graph().as_default(), v1.Session() as session:
        build(v1.placeholder(tf.as_dtype(x.dtype), [None, *x.shape[1:]], name="x"))
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(prefix), **options)
        return np.asarray(session.run("y:0", {"x:0": x, **(feeds or {})}))


def answer(pb: Path, feeds: Mapping[str, Any] | None = None, fetch: str = "y:0") -> Any:
    """What a .pb gives."""
    with tf.Graph().as_default(), v1.Session() as session:
        tf.import_graph_def(v1.GraphDef.FromString(pb.read_bytes()), name="")
        return session.run(fetch, {"x:0": X} if feeds is None else feeds)


def graph_of(prefix: str | Path) -> Any:
    """The GraphDef in a `.meta`."""
    return v1.MetaGraphDef.FromString(Path(f"{prefix}.meta").read_bytes()).graph_def
