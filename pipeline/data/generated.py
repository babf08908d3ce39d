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
from pipeline.signature import Array, Batch, Signature, TensorSpec, batch_size_of

from .contents import make_content, sizes_of
from .npz import NpzReader

MADE_UP = "made_up"  # in a file of rows: by row, how many belong together; only where they were made up
_OPEN_SIZE = 8  # for a dimension that the signature leaves open, other than the batch
_MOST_BYTES = 64_000_000  # of all rows together
_MOST_KEYS = 10_000
_LARGEST_INT = 4  # small: most integers are indices, and the edge cases cover large ones
_LEVELS = 256  # of a pixel
_WHOLE_VALUES = 16
_MOST_PRINTED = 16  # elements of an array in a command
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
    batch = batch_size_of(signature) or 1
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
        if group.kind == "rising":  # in any order of rows
            rows[group.inputs[0]] = np.zeros_like(rows[group.inputs[0]])
    return rows


def generate_values(
    signature: Signature, seed: int, keys: Mapping[str, Sequence[Any]] | None = None, demands: Demands = NOTHING
) -> dict[str, Array]:
    """Generate several whole values for inputs that are one value together, all of one size.

    Returns:
        By input name an array `[values, ...]`.
    """
    made = [generate_value(signature, _OPEN_SIZE, seed, keys, demands)]
    most = max(1, _MOST_BYTES // max(1, 8 * sum(values.size for values in made[0].values())))
    made += [generate_value(signature, _OPEN_SIZE, seed + n, keys, demands) for n in range(1, min(_WHOLE_VALUES, most))]
    return {name: np.stack([each[name] for each in made]) for name in made[0]}


def generate_value(
    signature: Signature,
    rows: int,
    seed: int,
    keys: Mapping[str, Sequence[Any]] | None = None,
    demands: Demands = NOTHING,
) -> dict[str, Array]:
    """Generate one value for inputs that are one value together.

    Args:
        rows: the length that the signature leaves open: of dense inputs, and of what sparse and ragged ones stand for.
    """
    draw, made = np.random.default_rng(seed), dict[str, Array]()
    for spec in signature.inputs:
        demand = demands.inputs.get(spec.name, Demand(spec.dtype))
        if spec.shape == ():
            made[spec.name] = _make_scalar(demand, draw)
            continue
        first = spec.shape[0] if spec.shape and spec.shape[0] is not None else rows
        made[spec.name] = make_values(demand, (first, *row_shape(spec, demand)), draw)
        if known := _keys_for(demand, keys or {}, demands):
            _put_keys(made[spec.name].reshape(-1), known, is_known=demand.is_known)
    for group in sorted(demands.groups, key=lambda group: len(group.inputs)):  # what numbers of rows are besides
        made |= _make_group(group, {name: made[name] for name in group.inputs}, rows, draw)
    return made


def _make_scalar(demand: Demand, draw: np.random.Generator) -> Array:
    """Make a number beside the others: 1 or False, which are mostly harmless, where the graph demands nothing."""
    made = make_values(demand, (), draw)
    is_free = demand.low is None and demand.high is None and not demand.keys and made.dtype != object
    return np.full_like(made, made.dtype.kind != "b") if is_free else made


def read_rows_together(path: Path) -> int | None:
    """Returns the number of rows that belong together in a file of rows: 1 if none do; None if none were made up.

    Raises:
        DataError: the file is missing or damaged.
    """
    rows = NpzReader(path)
    return int(rows.first[MADE_UP].max(initial=1)) if MADE_UP in rows.names else None


def refused_rows(
    signature: Signature, sentence: object, demands: Demands = NOTHING, value: Batch | None = None
) -> DataError:
    """Returns the error of a model that refuses the rows that were made up for it.

    Args:
        sentence: what the model, or the library that runs it, says.
        demands: what the graph demands of its inputs: of a string that holds a tf.train.Example, a file of those.
        value: of inputs that are one value together, the value that was made up.
    """
    only = demands.inputs.get(signature.inputs[0].name) if len(signature.inputs) == 1 else None
    if only is not None and only.content is not None and only.content.kind == "example":
        return DataError(
            f"these rows were made up, and the model refuses them: {sentence}",
            next_step="Give tf.train.Examples of your own: --data rows.tfrecord, which tf.io.TFRecordWriter writes",
        )
    shapes = {spec.name: demands.inputs.get(spec.name, Demand(spec.dtype)) for spec in signature.inputs}
    open_ones = [name for spec in signature.inputs if (name := spec.name) and _is_any(spec, shapes[name])]
    if open_ones and value is None:
        return DataError(
            f"these rows were made up, and the model refuses them: {sentence}",
            next_step=f"The graph gives no shape for {', '.join(open_ones)}: give rows of the rank that the model "
            "takes with --data: an .npz with an array [rows, ...] for each input",
        )
    made = {
        spec.name: _as_array(spec, shapes[spec.name], None if value is None else value[spec.name])
        for spec in signature.inputs
    }
    arrays = ", ".join(f"{name}={array}" for name, array in made.items())
    if not all(name.isidentifier() and not iskeyword(name) for name in made):
        arrays = f"**{{{', '.join(f'{name!r}: {array}' for name, array in made.items())}}}"
    code = re.sub(r'(["$`\\])', r"\\\1", f"import numpy as np; np.savez('rows.npz', {arrays})")  # within double quotes
    command = f'python -c "{code}"'
    return DataError(
        f"these rows were made up, and the model refuses them: {sentence}",
        next_step=f"Give rows of your own with --data: a table, or rows.npz, which {command} writes, with your values",
    )


def _is_any(spec: TensorSpec, demand: Demand) -> bool:
    """Return True if neither the signature nor the graph tells the rank of an input."""
    return spec.shape is None and demand.shape is None


def _as_array(spec: TensorSpec, demand: Demand, value: Array | None = None) -> str:
    if value is not None and value.dtype.kind in "iu" and value.size <= _MOST_PRINTED:
        return f"np.array({value.tolist()}, '{value.dtype}')"
    is_row = spec.shape is None or len(spec.shape) > 0
    sizes = value.shape if value is not None else (8, *(row_shape(spec, demand) if is_row else ()))
    return f"np.full({sizes}, b'text')" if spec.dtype == "string" else f"np.zeros({sizes}, '{spec.dtype}')"


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


def _make_group(group: Group, made: Mapping[str, Array], rows: int, draw: np.random.Generator) -> dict[str, Array]:
    """Make inputs that are one value fit each other."""
    if group.kind in ("numbers", "rising"):
        name, values = group.inputs[0], made[group.inputs[0]] % rows  # numbers of rows
        return {name: np.sort(values, axis=0) if group.kind == "rising" else values}
    if group.kind == "ragged":
        values, splits = (made[name] for name in group.inputs)
        inner = np.sort(draw.integers(0, len(values) + 1, rows - 1))
        return {group.inputs[1]: np.array([0, *inner, len(values)]).astype(splits.dtype)}
    indices, values = (made[name] for name in group.inputs[:2])
    lengths = [rows, *(_OPEN_SIZE if size is None else size for size in group.shape[1:] or (None,))]
    columns = [np.arange(rows), *(draw.integers(0, length, rows) for length in lengths[1:])]  # in each row one
    fitting = {group.inputs[0]: np.stack(columns, axis=1).astype(indices.dtype), group.inputs[1]: values[:rows]}
    return fitting | {name: np.array(lengths).astype(made[name].dtype) for name in group.inputs[2:]}
