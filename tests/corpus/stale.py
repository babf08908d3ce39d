"""Attributes that are no longer so."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from .cases import BOTH, EQUAL, case, weight


def _stale_shapes(meta: Any) -> None:
    for one in [*meta.graph_def.node, *(n for f in meta.graph_def.library.function for n in f.node_def)]:
        shapes = one.attr["_output_shapes"].list.shape
        shapes.add().dim.add(size=99)


def _stale_class(meta: Any) -> None:
    for one in meta.graph_def.node:
        one.attr["_class"].list.s.append(b"loc:@somewhere/else")


@case("Stale graphs", EQUAL, "_output_shapes that are not so", edit=_stale_shapes, flow=BOTH)
def stale_output_shapes(x: Any) -> Any:
    w = weight("w", [3])
    return tf.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, a * w), [0, x])[1]


@case("Stale graphs", EQUAL, "_class that names a node that is gone", edit=_stale_class, res=BOTH)
def stale_class(x: Any, res: bool) -> Any:
    return x * weight("w", [3], res)


def _other_machines(meta: Any) -> None:
    for one in [*meta.graph_def.node, *(n for f in meta.graph_def.library.function for n in f.node_def)]:
        one.device = "/job:worker/task:7/device:GPU:3"
        one.attr["_tpu_replicate"].s = b"cluster"
        one.attr["_XlaCompile"].b = False


@case("Stale graphs", EQUAL, "devices of other machines, and marks of compilers", edit=_other_machines, flow=BOTH)
def other_machines(x: Any) -> Any:
    w = weight("w", [3])

    def turn(i: Any, a: Any) -> Any:
        return i + 1, tf.cond(tf.reduce_sum(a) > 0, lambda: a * w, lambda: a - w)

    return tf.while_loop(lambda i, a: i < 2, turn, [0, x])[1]


def _without_shared_names(meta: Any) -> None:
    for one in meta.graph_def.node:
        if one.op == "VarHandleOp":
            one.attr["shared_name"].s = b""


@case("Stale graphs", EQUAL, "a resource variable that goes by its node's name", edit=_without_shared_names)
def without_shared_name(x: Any) -> Any:
    return x * weight("w", [3])
