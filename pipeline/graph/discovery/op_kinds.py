"""Tells ops that give rows, draw random numbers, change state or only report."""

from __future__ import annotations

import re
from functools import lru_cache

from ..unsupported import refusal_of

_SOURCES = re.compile(
    r"Placeholder(V2|WithDefault)?|IteratorGetNext\w*|Queue\w*Dequeue\w*|Reader(Read\w*)|(OrderedMap|Map)?Unstage\w*"
    r"|InfeedDequeue\w*|RecordInput"
)
# One string becomes features and labels here, so each output is a source.
_PARSERS = re.compile(r"Parse(Single)?(Sequence)?Example\w*|DecodeCSV|_ParseExample\w*")
_OBSERVERS = re.compile(r"\w*Summary\w*|Assert|PrintV2|Timestamp|\w*QueueEnqueue\w*|\w*HistogramFixedWidth")
DECODERS = frozenset({"CTCBeamSearchDecoder", "CTCBeamSearchDecoderV2", "CTCGreedyDecoder"})  # (logits, lengths)

_CHANGES_STATE, _DRAWS, FILES = refusal_of("Assign"), refusal_of("RandomUniform"), refusal_of("SaveV2")


@lru_cache(maxsize=4096)
def is_source(op: str) -> bool:
    """Returns True if an op gives rows: a placeholder, an iterator, a queue, a parser."""
    return _SOURCES.fullmatch(op) is not None or _PARSERS.fullmatch(op) is not None


@lru_cache(maxsize=4096)
def is_outcome(op: str) -> bool:
    """Returns True if no part of a model can follow an op: it changes state, writes, prints or checks."""
    refusal = refusal_of(op)
    return (refusal is not None and refusal in (_CHANGES_STATE, FILES)) or _OBSERVERS.fullmatch(op) is not None


@lru_cache(maxsize=4096)
def changes_state(op: str) -> bool:
    """Returns True if an op changes a variable."""
    return refusal_of(op) is _CHANGES_STATE


@lru_cache(maxsize=4096)
def draws(op: str) -> bool:
    """Returns True if an op draws random numbers."""
    return refusal_of(op) is _DRAWS or op.startswith("StatelessRandom") or op == "StatelessTruncatedNormal"
