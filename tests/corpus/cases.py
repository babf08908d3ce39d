"""What a case is, and the register of all."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

v1, raw = tf.compat.v1, tf.raw_ops
Array = np.ndarray[Any, Any]

X = np.arange(6, dtype=np.float32).reshape(2, 3) - 2
IDS = np.array([0, 2, 1], np.int32)
WORDS = np.array([b"a", b"b", b"zz", b"c"], object)
EQUAL, REFUSED = "equal", "refused"
BOTH = (False, True)
FLOW: dict[str, Any] = {"res": BOTH, "flow": BOTH}


@dataclass(frozen=True)
class Case:
    """A model, and what must become of it.

    Args:
        name: unique, in words.
        build: makes the graph from the placeholders of `feeds`, in their order. Returns the output's tensor; or
            several; or, where the live session fetches by another name, live tensors by the outputs' names.
        must: `equal`, a .pb with the outputs of the restored session, or `refused`, an error and no .pb.
        why: what is peculiar.
        feeds: arrays by the placeholders' names; a name with a port is a tensor that `build` makes.
        is_v2: whether control flow is built as functions (v2) or as Switch and Enter nodes (v1).
        has_weights: whether other weights must give another output.
        saver: makes the Saver; by default one of all variables by their names.
        edit: changes the .meta after it was written.
        damage: changes the checkpoint's files after they were written.
        mentions: a part of the refusal's message.
    """

    name: str
    build: Callable[..., Any]
    must: str
    why: str
    feeds: Mapping[str, Array] = field(default_factory=lambda: {"x": X})
    is_v2: bool = True
    has_weights: bool = True
    saver: Callable[[], Any] = v1.train.Saver
    edit: Callable[[Any], None] | None = None
    damage: Callable[[Path], None] | None = None
    mentions: str = ""


# In the order of the page.
GROUPS: dict[str, list[Case]] = {
    name: []
    for name in (
        "Variables",
        "References",
        "Control flow",
        "Functions",
        "Gathers",
        "Questions",
        "Keys",
        "Names",
        "Outputs",
        "State",
        "Draws",
        "Tables",
        "Inputs",
        "Layers",
        "Stale graphs",
        "Files",
    )
}
_FEEDS_BY_ARGUMENT = {"i": {"i": IDS}, "t": {"t": WORDS}}


def case(group: str, must: str, why: str, *, name: str = "", **options: Any) -> Callable[..., Any]:
    """Registers a builder as a case; with `res` or `is_v2` of several values, as several."""

    def register(build: Callable[..., Any]) -> Callable[..., Any]:
        res, flow = options.pop("res", (None,)), options.pop("flow", (True,))
        for is_v2 in flow:
            for is_resource in res:
                words = [name or build.__name__.replace("_", " ").strip()]
                words += [] if is_resource is None else ["resource" if is_resource else "ref"]
                words += [] if len(flow) == 1 else ["v2" if is_v2 else "v1"]
                made = build if is_resource is None else partial(build, res=is_resource)
                given = {"feeds": _feeds_of(build), **options}
                GROUPS[group].append(Case(", ".join(words), made, must, why, is_v2=is_v2, **given))
        return build

    return register


def _feeds_of(build: Callable[..., Any]) -> Mapping[str, Array]:
    """Builders name their placeholders: `i` for indices, `t` for text, `x` for floats."""
    function = build.func if isinstance(build, partial) else build
    return _FEEDS_BY_ARGUMENT.get(next(iter(function.__code__.co_varnames), "x"), {"x": X})


def weight(name: str, shape: Sequence[int], res: bool = True, dtype: Any = tf.float32, **options: Any) -> Any:
    """A variable whose first values follow from its name."""
    drawn = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape) * 3
    value = tf.constant(drawn.astype(tf.as_dtype(dtype).as_numpy_dtype))
    return v1.get_variable(name, initializer=value, use_resource=res, **options)
