"""Generate rows for a signature: seeded, so that they are the same in every run and on every machine.

What the graph demands of its inputs (`graph.demands`) decides shapes, bounds and contents. What it leaves open is drawn
as for any model: floats are normally distributed, integers are small, texts are words.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from keyword import iskeyword
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from pipeline.errors import DataError
from pipeline.graph.demands import NOTHING, Demand, Demands, Group
from pipeline.signature import Array, Signature, TensorSpec, batch_size_of

from .contents import make_content, sizes_of
from .npz import NpzReader

MADE_UP = "made_up"  # in a file of rows: by row, how many belong together; only where they were made up
_OPEN_SIZE = 8  # for a dimension that the signature leaves open, other than the batch
_MOST_BYTES = 64_000_000  # of all rows together
_MOST_KEYS = 10_000
_LARGEST_INT = 4  # small: most integers are indices, and the edge cases cover large ones
_LEVELS = 256  # of a pixel
_RAGGED_ROWS = 4
_WORDS = (
    "call",
    "free",
    "now",
    "ok",
    "see you",
    "win £1000",
    "http://a.b",
    "naïve",
    "",
    "a longer message, of some words",
)


def generate_rows(
    signature: Signature,
    count: int,
    seed: int,
    keys: Mapping[str, Sequence[Any]] | None = None,
    demands: Demands = NOTHING,
) -> dict[str, Array]:
    """Generate rows for the inputs of a signature.

    Args:
        count: number of rows; fewer if they would exceed 64 MB, and a multiple of the batch size if that is fixed.
        keys: by dtype, values that the model looks up in its tables. Three quarters of the values are such keys, and
            there are as many rows more as it takes to have each of the first 10,000 once.
        demands: what the graph demands of its inputs.

    Returns:
        By input name an array `[rows, ...]`: floats normally distributed, integers from 0 to 3, words; or within the
        bounds, and of the contents, that the graph demands.

    Raises:
        DataError: an input has no batch dimension.
    """
    batch = rows_together(demands) or batch_size_of(signature) or 1
    wanted_of = {spec.name: demands.inputs.get(spec.name, Demand(spec.dtype)) for spec in signature.inputs}
    sizes = {spec.name: row_shape(spec, wanted_of[spec.name]) for spec in signature.inputs}
    row_bytes = sum(8 * math.prod(shape) for shape in sizes.values())
    known = {name: _keys_for(wanted, keys or {}, demands) for name, wanted in wanted_of.items()}
    wanted = [-(-4 * len(known[name]) // (3 * max(1, math.prod(shape)))) for name, shape in sizes.items()]
    count = -(-max(count, *wanted) // batch) * batch if any(known.values()) else count
    count = max(1, min(count, _MOST_BYTES // max(1, row_bytes)) // batch) * batch
    draw = np.random.default_rng(seed)
    rows = {name: make_values(wanted_of[name], (count, *shape), draw) for name, shape in sizes.items()}
    for name, values in known.items():
        if values:
            _put_keys(rows[name].reshape(-1), values, is_known=wanted_of[name].is_known)
    for group in demands.groups:
        rows |= _make_group(group, {name: rows[name] for name in group.inputs}, draw)
    return rows


def read_rows_together(path: Path) -> int | None:
    """Returns the number of rows that belong together in a file of rows: 1 if none do; None if none were made up.

    Raises:
        DataError: the file is missing or damaged.
    """
    rows = NpzReader(path)
    return int(rows.first[MADE_UP].max(initial=1)) if MADE_UP in rows.names else None


def refused_rows(signature: Signature, sentence: object) -> DataError:
    """Returns the error of a model that refuses the rows that were made up for it.

    Args:
        sentence: what the model, or the library that runs it, says.
    """
    are_plain = all(spec.name.isidentifier() and not iskeyword(spec.name) for spec in signature.inputs)
    arrays = ", ".join(f"{spec.name}={_as_array(spec)}" for spec in signature.inputs)
    if not are_plain:
        arrays = f"**{{{', '.join(f'{spec.name!r}: {_as_array(spec)}' for spec in signature.inputs)}}}"
    code = re.sub(r'(["$`\\])', r"\\\1", f"import numpy as np; np.savez('rows.npz', {arrays})")  # within double quotes
    command = f'python -c "{code}"'
    return DataError(
        f"these rows were made up, and the model refuses them: {sentence}",
        next_step=f"Give rows of your own with --data: a table, or rows.npz, which {command} writes, with your values",
    )


def _as_array(spec: TensorSpec) -> str:
    sizes = (8, *(_OPEN_SIZE if size is None else size for size in (spec.shape or ())[1:]))
    return f"np.full({sizes}, b'text')" if spec.dtype == "string" else f"np.zeros({sizes}, '{spec.dtype}')"


def rows_together(demands: Demands) -> int | None:
    """Returns the number of rows that are one value together, which is the only size of a batch; None for any size."""
    sizes = [_RAGGED_ROWS if group.kind == "ragged" else max(2, len(group.shape)) for group in demands.groups]
    return max(sizes) if sizes else None


def _keys_for(demand: Demand, keys: Mapping[str, Sequence[Any]], demands: Demands) -> list[Any]:
    """Return the keys of the tables that an input is looked up in; where none was traced, all keys of its dtype."""
    if demand.keys or demand.content is not None or demand.low is not None or demand.high is not None:
        return [*demand.keys][:_MOST_KEYS]
    is_traced = any(other.keys and other.dtype == demand.dtype for other in demands.inputs.values())
    return [] if is_traced else [*keys.get(demand.dtype, ())][:_MOST_KEYS]


def _put_keys(places: Array, keys: Sequence[Any], is_known: bool) -> None:
    """Replace all values but those at the beginning by keys, one after the other and from the start again.

    Args:
        is_known: replace those at the beginning too.
    """
    first = 0 if is_known else len(places) // 4
    for place in range(first, len(places)):
        places[place] = keys[(place - first) % len(keys)]


def row_shape(spec: TensorSpec, demand: Demand) -> tuple[int, ...]:
    """Return the shape of a row."""
    if spec.shape is not None and not spec.shape:
        raise DataError(
            "an input without a batch dimension cannot hold rows",
            where=spec.name,
            got=spec,
            next_step=f"Pin it to its value (--pin {spec.name}=…)",
        )
    found = sizes_of(demand, _OPEN_SIZE)
    if spec.shape is None:
        return found
    own = spec.shape[1:]
    chosen = found if len(found) == len(own) else (_OPEN_SIZE,) * len(own)
    return tuple(other if size is None else size for size, other in zip(own, chosen, strict=True))


def make_values(demand: Demand, shape: tuple[int, ...], draw: np.random.Generator) -> Array:
    """Make values that a graph can take, of a shape."""
    dtype = demand.dtype
    if dtype == "string":
        return _make_texts(demand, shape, draw)
    if dtype == "bool":
        return np.asarray(draw.integers(0, 2, shape)).astype(bool)
    if dtype.startswith("complex"):
        return np.asarray(draw.standard_normal(shape) + 1j * draw.standard_normal(shape)).astype(dtype)
    if "int" in dtype:
        low, high = _whole_bounds(demand, shape)
        return np.asarray(draw.integers(low, high + 1, shape)).astype(dtype.removeprefix("q"))
    return np.asarray(_make_floats(demand, shape, draw)).astype(getattr(ml_dtypes, dtype, dtype))


def _make_texts(demand: Demand, shape: tuple[int, ...], draw: np.random.Generator) -> Array:
    made = np.empty(shape, object)
    if demand.content is not None:
        for place in np.ndindex(*shape):
            made[place] = make_content(demand.content, draw, make_values)
        return made
    words = [word.encode() for word in _WORDS]
    if demand.keys and not shape:  # a part of a content: of whole inputs keys are put into their places
        words = [*demand.keys] if demand.is_known else [*demand.keys, *words]
    texts = np.array(words, dtype=object)
    made[...] = texts[draw.integers(0, len(texts), shape)]
    return made


def _whole_bounds(demand: Demand, shape: tuple[int, ...]) -> tuple[int, int]:
    low, high = demand.low, demand.high
    if low is None and high is None:
        is_image = demand.dtype == "uint8" and len(shape) > 3
        return 0, (_LEVELS if is_image else _LARGEST_INT) - 1
    first = int(high - _LARGEST_INT + 1) if low is None and high is not None else int(low or 0)
    return first, int(high) if high is not None else first + _LARGEST_INT - 1


def _make_floats(demand: Demand, shape: tuple[int, ...], draw: np.random.Generator) -> Array:
    low, high = demand.low, demand.high
    if low is not None and high is not None:
        return draw.uniform(low, high, shape)
    drawn = np.asarray(draw.standard_normal(shape))
    if low is not None:
        return low + np.abs(drawn)
    return drawn if high is None else high - np.abs(drawn)


def _make_group(group: Group, rows: Mapping[str, Array], draw: np.random.Generator) -> dict[str, Array]:
    """Make inputs that are one value fit each other, batch by batch."""
    if group.kind == "ragged":
        values, splits = (rows[name] for name in group.inputs)
        whole = np.arange(len(splits)) % _RAGGED_ROWS  # as 0, 2, 3, 4: rows of two values, one and one
        return {group.inputs[0]: values, group.inputs[1]: (whole + (whole > 0)).astype(splits.dtype)}
    indices = rows[group.inputs[0]]
    rank = max(2, len(group.shape))
    lengths = [rank, *(_OPEN_SIZE if size is None else size for size in group.shape[1:])]
    places = np.arange(len(indices)) % rank
    columns = [places, *(draw.integers(0, length, len(indices)) for length in lengths[1:])]
    made = {group.inputs[0]: np.stack(columns, axis=1).astype(indices.dtype)}
    for name in group.inputs[2:]:
        made[name] = np.asarray(lengths)[np.arange(len(rows[name])) % rank].astype(rows[name].dtype)
    return made
