"""Tells names that the author of a graph gave from those that TensorFlow gives."""

from __future__ import annotations

import re

from ..protos import NodeDef

_COUNTED = re.compile(r"(_\d+)?$")
_VERSION = re.compile(r"v\d+$")
# Of ops, functions and operators of Python whose nodes do not go by their op's name.
_GIVEN = """
    abs accumulaten add argmax argmin batchmatmul biasadd booleanmask bucketize cast clipbyglobalnorm clipbynorm
    clipbyvalue concat cond controldependency cumsum div dropout einsum embeddinglookup embeddinglookupsparse exit
    flatten floordiv floormod gather gathernd gradients identity l2normalize logicaland logicalnot logicalor
    logisticloss logsoftmax map matmul merge mod moments mul neg norm normalize onehot packed
    partitionedcall pow read realdiv reduce reducelogsumexp reducemax reducemean reducesum reshape resize reverse
    rnn round scan select softmax split squeeze stack statefulpartitionedcall stopgradient stridedslice sub switch
    tensordot toint32 toint64 tofloat todouble topk transpose truediv truncatediv tuple unstack where while
    xwplusb zeroslike oneslike
"""
_DEFAULTS = frozenset(_GIVEN.split())


def is_named(node: NodeDef) -> bool:
    """Returns True if a node's name is its author's: `rnn/state`, but not `rnn/transpose_1` or `while/Exit_3`."""
    stem = _plain(_COUNTED.sub("", str(node.name).rpartition("/")[2], count=1))
    if stem == "rank":
        return node.op not in ("Const", "Rank")  # of an answer among others, not of a tensor
    return stem not in _DEFAULTS and stem != _plain(node.op)


def scope_of(node: NodeDef) -> str:
    """Returns the scope of a node's name, with the slash at its end; empty if it has none."""
    return "".join(str(node.name).rpartition("/")[:2])


def _plain(name: str) -> str:
    return _VERSION.sub("", name.lower().replace("_", "").lstrip("."))
