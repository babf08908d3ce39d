"""Demands: what a graph says of the values that an input may have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Demand:
    """What a graph demands of an input, or of a value that it parses out of one.

    Args:
        shape: of one row; None for an open dimension, and for the whole where the rank is unknown.
        least: by dimension of that shape, the smallest size that the graph can compute with.
        low, high: the smallest and the largest value; None if the graph sets no bound.
        keys: what a table of the graph knows.
        is_known: nothing but keys is answered.
        content: what the graph parses bytes as; None if any bytes will do.
    """

    dtype: str
    shape: tuple[int | None, ...] | None = None
    least: tuple[int, ...] = ()
    low: float | None = None
    high: float | None = None
    keys: Sequence[Any] = ()
    is_known: bool = False
    content: Content | None = None


@dataclass(frozen=True)
class Content:
    """What bytes are parsed as.

    Args:
        kind: `png`, `jpeg` or `bmp`; `wav`; `raw` (elements as in memory), `tensor` (a TensorProto), `number`, `pieces`
            (parts of a text), `csv`, `example` or `sequence` (a tf.train.Example or SequenceExample), `json` (such an
            Example as JSON), `base64`, `zlib`, `gzip`.
        parts: what is in it, by name. For examples the features; for all others the only part has an empty name, or a
            number.
        lists: names of the parts of which a row may have several values, or none.
        sequences: names of the parts that are a list of features, in a SequenceExample.
        separator: between the parts of a text.
        indexed: by the name of a part of values, those of the parts that say where each value is: a SparseFeature.
    """

    kind: str
    parts: Mapping[str, Demand] = field(default_factory=dict)
    lists: frozenset[str] = frozenset()
    sequences: frozenset[str] = frozenset()
    separator: str = ""
    indexed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """Inputs that are one value together, and whose rows can't be cut apart.

    Args:
        kind: `sparse` or `ragged`; `numbers` or `rising`, an input whose values are numbers of rows of the others, in
            any order or rising.
        inputs: their names: indices, values and mostly shape; values and row splits; or the one input of numbers.
        shape: of the dense tensor, None for an open dimension.
    """

    kind: str
    inputs: tuple[str, ...]
    shape: tuple[int | None, ...] = ()


@dataclass(frozen=True)
class Demands:
    """What a graph demands of its inputs, by their names."""

    inputs: Mapping[str, Demand] = field(default_factory=dict)
    groups: tuple[Group, ...] = ()


NOTHING = Demands()
