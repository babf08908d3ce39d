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
