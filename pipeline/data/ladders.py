"""Ladders: rows that climb over the whole range of what an input takes, where random rows stay in its middle.

    magnitudes  floats from a millionth to a million, in all elements, in one, or a row of the data at that scale
    lengths     texts from nothing to 100,000 bytes; sequences from 1 to 2,000 where the signature leaves that open
    ids         indices over all rows of their tables, each one if there are not too many; other whole numbers to 10^6
    tables      each key of each lookup table, as few in one row as there is room for
    unicode     words of the data and of the tables, written as normalisation should catch

Seeds are fixed. What the graph demands of its inputs bounds them; what it parses out of bytes keeps its usual rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.graph.demands import NOTHING, Demand, Demands
from pipeline.signature import Array, Batch, Signature, TensorSpec

from .unusual_text import unusual_texts

_SEED = 2011
_MAGNITUDES: tuple[float, ...] = (
    *(1e-6, 1e-3, 1e-2, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 5, 6, 7, 8.5, 10, 12, 16, 20, 33, 50, 88),
    *(100, 128, 200, 255, 256, 500, 1000, 3000, 10_000, 100_000, 1_000_000),
)
_ALONE, _MOST_ALONE = (8.5, -8.5, 100.0, -100.0), 64  # magnitudes of one element; elements
_STEPS = 8  # between two bounds
_TEXTS: tuple[int, ...] = (
    *(0, 1, 2, 3, 5, 10, 20, 50, 100, 159, 160, 161, 200, 255, 256, 257, 400, 500, 700, 1000, 1023, 1024, 1025),
    *(1500, 2000, 3000, 4096, 5000, 7000, 10_000, 20_000, 50_000, 65_536, 100_000),
)
_LONG, _MOST_BYTES = 5000, 400_000  # bytes of a text that is run alone; of one row
_SEQUENCES = (1, 2, 3, 5, 8, 16, 31, 32, 33, 64, 100, 128, 200, 256, 257, 500, 512, 513, 1000, 1024, 2000)
_MOST_GROWTH = 16  # of the size of a row whose length is open in two dimensions, as an image's
_WHOLES: tuple[int, ...] = (
    *(0, 1, 2, 3, 4, 5, 7, 8, 10, 16, 31, 32, 63, 64, 100, 127, 128, 255, 256, 257, 500, 1000, 4095, 4096, 9999),
    *(10_000, 32_767, 65_535, 100_000, 150_000, 200_000, 500_000, 1_000_000, -1, -2, -100),
)
_MOST_WORDS = 64  # in one row
_MOST_IDS = 65_536  # different ones of one input
_UNICODE_WORDS = 3
_MOST_SHOWN = 40  # characters of a key in a label


@dataclass(frozen=True)
class Ladder:
    """Rows of one kind.

    Args:
        labels: a name for each row.
        rows: an array `[rows, ...]` for each input.
        is_alone: run each row in a batch of its own, because it is long.
    """

    kind: str
    labels: tuple[str, ...]
    rows: Batch
    is_alone: bool = False


@dataclass(frozen=True)
class Ground:
    """What ladders stand on.

    Args:
        signature: of the model; its inputs have rows.
        usual: rows of the data, `[rows, ...]` for each input; at least one.
        demands: what the graph demands of its inputs.
        keys: by dtype, the keys of the graph's lookup tables.
        fixed: the inputs that keep the values of the first row, because all rows have one value.
        most: the most rows of each kind.
        room: how many times as large as a usual row one may be.
    """

    signature: Signature
    usual: Batch
    demands: Demands = NOTHING
    keys: Mapping[str, Sequence[Any]] | None = None
    fixed: frozenset[str] = frozenset()
    most: int = 4096
    room: float = math.inf

    def demand(self, spec: TensorSpec) -> Demand:
        """Returns what the graph demands of an input."""
        return self.demands.inputs.get(spec.name, Demand(spec.dtype))

    def free(self, *kinds: str) -> list[TensorSpec]:
        """Returns the inputs of some kinds of dtype whose values can be chosen."""
        return [
            spec
            for spec in self.signature.inputs
            if spec.name not in self.fixed
            and any(kind in spec.dtype for kind in kinds)
            and self.usual[spec.name].size
            and self.usual[spec.name].dtype.kind in "fiuOV"
        ]

    def rows(self, count: int) -> dict[str, Array]:
        """Returns rows of the data, from the start again if there are not enough; a copy."""
        numbers = np.arange(count) % max(1, len(next(iter(self.usual.values()))))
        return {
            name: values[np.zeros_like(numbers) if name in self.fixed else numbers].copy()
            for name, values in self.usual.items()
        }


def climb(ground: Ground, kinds: Sequence[str]) -> list[Ladder]:
    """Makes the rows of some kinds; none of those that no input takes."""
    found = [replace(ladder, kind=kind) for kind in kinds for ladder in _MAKERS[kind](ground) if ladder.labels]
    return [_cut(ladder, ground.most) for ladder in found]


def _cut(ladder: Ladder, most: int) -> Ladder:
    return replace(
        ladder, labels=ladder.labels[:most], rows={name: values[:most] for name, values in ladder.rows.items()}
    )


# Magnitudes.


def _magnitudes(ground: Ground) -> Iterator[Ladder]:
    specs = [spec for spec in ground.free("float") if ground.demand(spec).content is None]
    if not specs:
        return
    scales = _thin(_scales([ground.demand(spec) for spec in specs]), ground.most // 3)
    rows, labels = ground.rows(2 * len(scales)), [f"all {scale:g}" for scale in scales]
    labels += [f"scaled to {scale:g}" for scale in scales]
    for spec in specs:
        values, demand = rows[spec.name], ground.demand(spec)
        for row, scale in enumerate(scales):
            values[row] = _bounded(np.full(values.shape[1:], scale), demand)
            usual = values[len(scales) + row].astype(np.float64)
            largest = np.abs(usual[np.isfinite(usual)]).max(initial=0)
            if largest:
                values[len(scales) + row] = _bounded(usual / largest * scale, demand)
    yield Ladder("", tuple(labels), rows)
    yield _alone(ground, specs)


def _scales(demands: Sequence[Demand]) -> list[float]:
    """Returns the magnitudes with both signs, within the widest bounds, and steps between two bounds."""
    lows, highs = [demand.low for demand in demands], [demand.high for demand in demands]
    low = -math.inf if None in lows else min(float(each) for each in lows if each is not None)
    high = math.inf if None in highs else max(float(each) for each in highs if each is not None)
    scales = [sign * scale for scale in _MAGNITUDES for sign in (1, -1) if low <= sign * scale <= high]
    if math.isfinite(low) and math.isfinite(high):
        scales += np.linspace(low, high, _STEPS + 1).tolist()
    return scales


def _thin(values: Sequence[float], most: int) -> list[float]:
    """Returns as many of the values as there is room for, over their whole range; at least one."""
    places = np.unique(np.linspace(0, len(values) - 1, max(1, min(len(values), most))).astype(np.int64))
    return [values[place] for place in places.tolist()]


def _bounded(values: Array, demand: Demand) -> Array:
    return np.clip(
        values, -np.inf if demand.low is None else demand.low, np.inf if demand.high is None else demand.high
    )


def _alone(ground: Ground, specs: Sequence[TensorSpec]) -> Ladder:
    """Makes rows of the data in which one element alone is large."""
    draw, labels, places = np.random.default_rng(_SEED), list[str](), list[tuple[str, int, float]]()
    elements = [(spec.name, at) for spec in specs for at in range(math.prod(ground.usual[spec.name].shape[1:]))]
    most = max(1, min(_MOST_ALONE, ground.most // (3 * len(_ALONE))))
    for number in sorted(draw.permutation(len(elements))[:most].tolist()):
        name, at = elements[number]
        places += [(name, at, scale) for scale in _ALONE]
        labels += [f"{name}[{at}] {scale:g}" for scale in _ALONE]
    rows = ground.rows(len(places))
    demands = {spec.name: ground.demand(spec) for spec in specs}
    for row, (name, at, scale) in enumerate(places):
        rows[name][row].reshape(-1)[at : at + 1] = _bounded(np.array([scale]), demands[name])
        if not rows[name].ndim - 1:
            rows[name][row] = _bounded(np.array(scale), demands[name])
    return Ladder("", tuple(labels), rows)


# Lengths.


def _lengths(ground: Ground) -> Iterator[Ladder]:
    specs = _texts(ground)
    if specs:
        longest = _MOST_BYTES // max(math.prod(ground.usual[spec.name].shape[1:]) for spec in specs)
        lengths = [length for length in _TEXTS if length <= longest]
        for is_long in (False, True):
            chosen = [length for length in lengths if (length > _LONG) == is_long]
            rows = ground.rows(len(chosen))
            for row, length in enumerate(chosen):
                for spec in specs:
                    rows[spec.name][row, ...] = _text(_words(ground, spec), length, row)
            yield Ladder("", tuple(f"{length} bytes" for length in chosen), rows, is_long)
    yield from _sequences(ground)


def _texts(ground: Ground) -> list[TensorSpec]:
    demands = ((spec, ground.demand(spec)) for spec in ground.free("string"))
    return [
        spec
        for spec, demand in demands
        if (demand.content is None or demand.content.kind == "pieces") and not demand.is_known
    ]


def _words(ground: Ground, spec: TensorSpec) -> list[bytes]:
    """Returns words of the data."""
    return [word for text in ground.usual[spec.name].ravel() for word in bytes(text).split()] or [b"text"]


def _text(words: Sequence[bytes], length: int, start: int) -> bytes:
    """Joins words to a text of a number of bytes; a character that would be cut becomes blanks."""
    made, number = bytearray(), start
    while len(made) < length:
        made += words[number % len(words)] + b" "
        number += 1
    return bytes(made[:length]).decode("utf-8", "ignore").encode().ljust(length)


def _sequences(ground: Ground) -> Iterator[Ladder]:
    """Makes rows of other lengths, where the signature leaves a length open; all that are as long in the data are one.

    A length may change only with all others that are the same in the data: ids with their mask.
    """
    opened: dict[int, list[tuple[str, int]]] = {}
    for spec in ground.signature.inputs:
        demand, own = ground.demand(spec), ground.usual[spec.name].shape
        if spec.shape is None or spec.name in ground.fixed or demand.content is not None:
            continue
        known = demand.shape if demand.shape is not None and len(demand.shape) == len(spec.shape) - 1 else None
        for axis in range(1, len(spec.shape)):
            if spec.shape[axis] is None and (known is None or known[axis - 1] is None) and own[axis]:
                opened.setdefault(own[axis], []).append((spec.name, axis))
    for usual, places in sorted(opened.items()):
        dimensions = max(sum(name == other for other, _ in places) for name, _ in places)
        names = ", ".join(dict.fromkeys(name for name, _ in places))
        for length in _SEQUENCES:
            growth = (length / usual) ** dimensions
            if growth > (ground.room if dimensions == 1 else min(ground.room, _MOST_GROWTH)):
                break
            rows = ground.rows(1)
            for name, axis in places:
                rows[name] = np.take(rows[name], np.arange(length) % usual, axis=axis)
            yield Ladder("", (f"length {length} of {names}",), rows)


# Ids and other whole numbers.


def _ids(ground: Ground) -> Iterator[Ladder]:
    specs = [spec for spec in ground.free("int") if ground.demand(spec).content is None]
    bounded = [spec for spec in specs if ground.demand(spec).high is not None and not ground.demand(spec).keys]
    if bounded:
        columns = [_all_ids(ground, spec) for spec in bounded]
        count = max(-(-len(ids) // _elements(ground, spec)) for spec, ids in zip(bounded, columns, strict=True))
        rows, told = ground.rows(count), ["" for _ in range(count)]
        for spec, ids in zip(bounded, columns, strict=True):
            first = _spread(rows[spec.name], ids)
            told = [
                f"{one}, {spec.name} {each}" if one else f"{spec.name} {each}"
                for one, each in zip(told, first, strict=True)
            ]
        yield Ladder("", tuple(told), rows)
    for spec in specs:
        if ground.demand(spec).high is None and not ground.demand(spec).keys:
            yield _wholes(ground, spec)


def _elements(ground: Ground, spec: TensorSpec) -> int:
    return max(1, int(ground.usual[spec.name][:1].size))


def _all_ids(ground: Ground, spec: TensorSpec) -> Array:
    """Returns the ids of an input in ascending order: all, or as many as there is room for, over the whole range."""
    demand = ground.demand(spec)
    low, high = int(demand.low or 0), int(demand.high or 0)
    room = min(_MOST_IDS, ground.most * _elements(ground, spec))
    if high - low < room:
        return np.arange(low, high + 1)
    draw, strata = np.random.default_rng(_SEED), np.linspace(low, high, room - 2 * 64 if room > 256 else room)
    ladder = low + np.unique(np.geomspace(1, high - low, 64 if room > 256 else 2).astype(np.int64))
    jittered = strata + draw.uniform(0, (high - low) / len(strata), len(strata))
    picked = [np.array([low, high]), ladder, high - (ladder - low), jittered.astype(np.int64)]
    return np.unique(np.clip(np.concatenate(picked), low, high))[:room]


def _spread(places: Array, values: Array) -> list[str]:
    """Puts values into rows so that neighbours are in different rows; returns what stands in each row."""
    count, elements = len(places), max(1, math.prod(places.shape[1:]))
    numbers = np.arange(count)[:, None] + count * np.arange(elements)[None]  # the first row: 0, count, 2 * count, …
    chosen = values[numbers % len(values)]
    places[...] = chosen.reshape(places.shape)
    return [
        _shown(row[0]) if elements == 1 or len(set(row.tolist())) == 1 else f"{_shown(row[0])} and others"
        for row in chosen
    ]


def _shown(value: Any) -> str:
    """Returns a key as it stands in a label."""
    if not isinstance(value, bytes):
        return str(value)
    return repr(value.decode("utf-8", "backslashreplace")[:_MOST_SHOWN])


def _wholes(ground: Ground, spec: TensorSpec) -> Ladder:
    """Makes rows of a whole number that is no index, each in all elements."""
    kind, low = ground.usual[spec.name].dtype, ground.demand(spec).low
    limits = np.iinfo(kind) if kind.kind in "iu" else np.iinfo(np.int8)
    values = [value for value in _WHOLES if max(limits.min, -math.inf if low is None else low) <= value <= limits.max]
    rows = ground.rows(len(values))
    for row, value in enumerate(values):
        rows[spec.name][row, ...] = value
    return Ladder("", tuple(f"{spec.name} all {value}" for value in values), rows)


# The keys of tables.


def _tables(ground: Ground) -> Iterator[Ladder]:
    is_traced = False
    for spec in ground.free("string", "int"):
        demand = ground.demand(spec)
        pieces = demand.content if demand.content is not None and demand.content.kind == "pieces" else None
        if demand.keys and demand.content is None:
            is_traced = True
            yield _looked_up(ground, spec, demand.keys)
        elif pieces is not None and any(part.keys for part in pieces.parts.values()):
            is_traced = True
            keys = [key for part in pieces.parts.values() for key in part.keys if isinstance(key, bytes)]
            yield _in_texts(ground, spec, keys, (pieces.separator or " ").encode())
    if is_traced:
        return
    for spec in _texts(ground):  # which words a text is cut into was not found out
        keys = [key for key in (ground.keys or {}).get("string", ()) if isinstance(key, bytes) and key.strip()]
        if keys:
            yield _in_texts(ground, spec, keys, b" ")


def _looked_up(ground: Ground, spec: TensorSpec, keys: Sequence[Any]) -> Ladder:
    known = np.empty(len(keys), object)
    known[:] = list(keys)
    known = known[: min(_MOST_IDS, ground.most * _elements(ground, spec))]
    rows = ground.rows(-(-len(known) // _elements(ground, spec)))
    return Ladder("", tuple(f"{spec.name} {each}" for each in _spread(rows[spec.name], known)), rows)


def _in_texts(ground: Ground, spec: TensorSpec, keys: Sequence[bytes], separator: bytes) -> Ladder:
    """Makes texts of keys: each is one key, or as few as it takes to have all of them."""
    together: int = min(_MOST_WORDS, -(-len(keys) // ground.most))
    count = int(min(ground.most, -(-len(keys) // together)))
    rows, labels = ground.rows(count), list[str]()
    for row in range(count):
        chosen = keys[row::count][:together]
        rows[spec.name][row, ...] = separator.join(chosen)
        labels.append(
            f"{spec.name} {_shown(chosen[0])}" + (f" and {len(chosen) - 1} others" if len(chosen) > 1 else "")
        )
    return Ladder("", tuple(labels), rows)


# Unicode.


def _unicode(ground: Ground) -> Iterator[Ladder]:
    for spec in _texts(ground):
        keys = (ground.demand(spec).keys or (ground.keys or {}).get("string", ())) or ()
        known = [key for key in keys if isinstance(key, bytes) and key.isalpha()][:_UNICODE_WORDS]
        own = [word for word in dict.fromkeys(_words(ground, spec)) if word.isalpha() and len(word) > 2]
        words = [word.decode("utf-8", "ignore") for word in [*known, *own[:_UNICODE_WORDS]]] or ["file", "kiss"]
        texts = unusual_texts(words)
        rows = ground.rows(len(texts))
        for row, text in enumerate(texts.values()):
            rows[spec.name][row, ...] = text
        yield Ladder("", tuple(texts), rows)


_MAKERS: Mapping[str, Callable[[Ground], Iterator[Ladder]]] = {
    "magnitudes": _magnitudes,
    "lengths": _lengths,
    "ids": _ids,
    "tables": _tables,
    "unicode": _unicode,
}
