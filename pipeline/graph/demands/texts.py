"""Rules of ops that parse bytes: what they parse becomes a leaf of its own, of which more may be demanded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .demand import Content
from .step import Made, Rules, Step
from .tensors import UNKNOWN, Dims, Leaf, Looked, Open, Origin, Value, anything, product

_IMAGES = {
    "DecodeJpeg": "png",  # which it reads too
    "DecodePng": "png",
    "DecodeImage": "png",
    "DecodeBmp": "bmp",
    "DecodeGif": "png",
    "DecodeAndCropJpeg": "jpeg",
    "ExtractJpegShape": "jpeg",
}
_PARSED = ("indices", "values", "shapes")
COUNT = "@count"  # the part that is the number of pieces


def of(leaf: Leaf, dims: Dims | None = None) -> Value:
    """Returns a tensor of a leaf's values."""
    return Value(leaf.dims if dims is None else dims, origins=(Origin(leaf),))


def part(leaf: Leaf, name: str, dtype: str, dims: Dims) -> Leaf:
    """Returns a part of what is parsed; the same one each time that the graph is looked at."""
    if name not in leaf.parts:
        leaf.parts[name] = Leaf(f"{leaf.name}/{name}", dtype, dims)
    found = leaf.parts[name]
    found.dims = tuple(
        dim.size.value if isinstance(dim, Open) and not dim.changes and dim.size.value is not None else dim
        for dim in found.dims or ()
    )
    return found


def _content(step: Step, number: int, content: Content) -> Leaf | None:
    """Says what an input is parsed as; returns its leaf."""
    leaf = step.sole_origin(number)
    if leaf is None or (leaf.content is not None and leaf.content.kind != content.kind):
        return None
    leaf.content = leaf.content or content
    return leaf


def _dims(step: Step, number: int = 0) -> Dims:
    dims = step.dims(number)
    return (anything(),) if dims is None else dims


def image(step: Step) -> Value:
    """An image; how high and wide it is decides what comes after."""
    channels = step.number("channels") or 3
    leaf = _content(step, 0, Content(_IMAGES[step.node.op]))
    if leaf is None:
        return UNKNOWN
    pixels = part(leaf, "", step.dtype("dtype", "uint8"), (anything(), anything(), channels))
    if step.node.op == "ExtractJpegShape":
        return Value((3,))
    if step.node.op == "DecodeAndCropJpeg":
        window = step.whole_numbers(1)
        if window is None:
            return Value((anything(), anything(), channels))
        for dim, start, length in zip(pixels.dims or (), window[:2], window[2:], strict=False):
            step.facts.at_least(dim, start + length)
        return Value((window[2], window[3], channels))
    made = Value(pixels.dims)
    return Value((1, *(pixels.dims or ()))) if step.node.op == "DecodeGif" else made


def raw(step: Step) -> Value:
    """Elements as they are in memory."""
    leaf = _content(step, 0, Content("raw"))
    if leaf is None:
        return UNKNOWN
    length = step.single(1) if step.node.op == "DecodePaddedRaw" else None
    elements = part(leaf, "", step.dtype("out_type"), (anything(),))
    inner: Dims = elements.dims or ()
    if length is not None and isinstance(inner[0], Open):
        size = {"uint8": 1, "int8": 1, "bool": 1, "int16": 2, "uint16": 2, "float16": 2, "int64": 8, "float64": 8}
        step.facts.require(inner[0], length // size.get(elements.dtype, 4))
    return of(elements, (*_dims(step), *inner))


def sound(step: Step) -> Made:
    """A WAV file: samples, and how many there are a second."""
    leaf = _content(step, 0, Content("wav"))
    channels, samples = step.number("desired_channels", -1), step.number("desired_samples", -1)
    if leaf is None:
        return {"audio": [UNKNOWN], "sample_rate": [Value(())]}
    made = part(leaf, "", "int16", (anything(), channels if channels > 0 else 1))
    length, width = made.dims or (anything(), 1)
    return {"audio": [Value((samples if samples > 0 else length, width))], "sample_rate": [Value(())]}


def tensor(step: Step) -> Value:
    leaf = _content(step, 0, Content("tensor"))
    if leaf is None:
        return UNKNOWN
    elements = part(leaf, "", step.dtype("out_type"), (anything(),))
    return of(elements)


def number(step: Step) -> Value:
    leaf = _content(step, 0, Content("number"))
    if leaf is None:
        return step.value(0).bare()
    return of(part(leaf, "", step.dtype("out_type"), ()), step.dims(0) or (anything(),))


def pieces(step: Step) -> Made:
    """A text is cut into pieces: `indices`, `values` and the number of pieces."""
    separator = step.value(1).texts
    leaf = _content(step, 0, Content("pieces", separator=(separator[0].decode() if separator else "") or " "))
    if leaf is None:
        return [UNKNOWN, UNKNOWN, UNKNOWN]
    piece = part(leaf, "", "string", ())
    count = part(leaf, COUNT, "int64", (anything(),))
    rows = _dims(step)[0] if _dims(step) else 1
    per_row = (count.dims or (anything(),))[0]
    values: Dims = (per_row,) if rows == 1 or not _dims(step) else (product((rows, per_row)),)
    return {
        "indices": [Value((values[0], 2))],
        "values": [of(piece, values)],
        "shape": [Value((2,), numbers=(rows, per_row))],
    }


def recode(step: Step) -> Value:
    """Bytes that are packed in other bytes."""
    kind = "base64" if step.node.op == "DecodeBase64" else (step.text("compression_type") or "").lower()
    if not kind:
        return step.value(0)
    leaf = _content(step, 0, Content(kind))
    return UNKNOWN if leaf is None else of(part(leaf, "", "string", ()), step.dims(0) or (anything(),))


def json_example(step: Step) -> Value:
    leaf = _content(step, 0, Content("json"))
    return UNKNOWN if leaf is None else of(part(leaf, "", "string", ()), step.dims(0) or (anything(),))


def csv(step: Step) -> Made:
    dtypes = step.dtypes("OUT_TYPE")
    leaf = _content(step, 0, Content("csv", separator=step.text("field_delim", ",")))
    if leaf is None:
        return [UNKNOWN] * len(dtypes)
    columns = [part(leaf, f"{place:05}", dtype, ()) for place, dtype in enumerate(dtypes)]
    return {"output": [of(column, step.dims(0) or (anything(),)) for column in columns]}


# Examples.


def examples(step: Step) -> Made:
    """A batch of tf.train.Examples, with the names of its features among the inputs."""
    if step.node.op == "ParseExampleV2":
        names = [_texts(step, number) for number in (2, 3, 4)]
    else:
        counts = step.number("Nsparse"), step.number("Ndense")
        keys = [b"".join(step.value(2 + at).texts or ()) for at in range(sum(counts))]
        names = [keys[: counts[0]], keys[counts[0] :], []]
    return _parse(step, names, (step.dims(0) or (Open(step.facts.batch),))[:1])


def single_example(step: Step) -> Made:
    """One tf.train.Example, with the names of its features among the attributes."""
    names = [[] if (found := step.attribute(name)) is None else list(found.list.s) for name in _KEYS]
    return _parse(step, [*names, []], ())


_KEYS = ("sparse_keys", "dense_keys")


def _texts(step: Step, number: int) -> Sequence[bytes]:
    return step.value(number).texts or ()


def _parse(step: Step, names: Sequence[Sequence[bytes]], rows: Dims) -> Made:
    leaf = step.sole_origin(0)
    if leaf is None or (leaf.content is not None and leaf.content.kind != "example"):
        return []
    sparse, dense, ragged = ([name.decode("utf-8", "replace") for name in kind] for kind in names)
    lists = frozenset([*sparse, *ragged])
    if leaf.content is not None:
        lists |= leaf.content.lists
    leaf.content = Content("example", lists=lists)
    made: dict[str, list[Value]] = {f"sparse_{kind}": [] for kind in _PARSED}
    for name, dtype in zip(sparse, step.dtypes("sparse_types"), strict=True):
        found = part(leaf, name, dtype, (anything(),))
        length = (found.dims or (anything(),))[0]
        made["sparse_indices"].append(Value((anything(), len(rows) + 1)))
        made["sparse_values"].append(of(found, (anything(),) if rows else (length,)))
        made["sparse_shapes"].append(Value((len(rows) + 1,), numbers=(*rows, length)))
    made["dense_values"] = []
    shapes = step.shapes("dense_shapes")
    for name, dtype, shape in zip(dense, step.dtypes("Tdense"), shapes, strict=True):
        found = part(leaf, name, dtype, tuple(anything() if size is None else size for size in shape or ()))
        made["dense_values"].append(of(found, (*rows, *(found.dims or ()))))
    made["ragged_values"], made["ragged_row_splits"] = [], []
    for name, dtype in zip(ragged, step.dtypes("ragged_value_types"), strict=True):
        made["ragged_values"].append(of(part(leaf, name, dtype, (anything(),)), (anything(),)))
        made["ragged_row_splits"].append(Value((anything(),)))
    return made


# Tables.


def look_up(step: Step) -> Value:
    """Keys in a table: what is answered to what is no key may be no index; a dense table refuses some keys."""
    value, table = step.value(1), step.value(0).table
    default = step.value(2).numbers
    answer = default[0] if default and len(default) == 1 else None
    looked = []
    for origin in value.origins:
        leaf = origin.leaf
        keys = step.facts.keys(table) if not leaf.keys else ()
        is_text = [isinstance(key, bytes) for key in keys[:1]]
        if origin[1:] == (1.0, 0.0, 0.0) and is_text in ([], [leaf.dtype == "string"]):
            leaf.keys.update(dict.fromkeys(keys))
            leaf.is_known = leaf.is_known or (bool(keys) and table in step.facts.dense)
        looked.append((leaf, float(answer) if isinstance(answer, int | float) else None))
    return Value(value.dims, value.rank_of, looked=tuple(Looked(*each) for each in looked))


def sparse_to_dense(step: Step) -> Value:
    """A sparse tensor is written out: its shape is the second input."""
    numbers = step.value(1).numbers
    dims = None if numbers is None else tuple(n if isinstance(n, int | tuple) else anything() for n in numbers)
    return replace(step.value(2).shaped(dims))


def join(step: Step) -> Value:
    return Value(next((each.dims for each in step.given if each.dims), None))


RULES: Rules = {
    **dict.fromkeys(_IMAGES, image),
    **dict.fromkeys(("DecodeRaw", "DecodePaddedRaw"), raw),
    "DecodeWav": sound,
    "ParseTensor": tensor,
    "StringToNumber": number,
    **dict.fromkeys(("StringSplit", "StringSplitV2"), pieces),
    **dict.fromkeys(("DecodeBase64", "DecodeCompressed"), recode),
    "DecodeJSONExample": json_example,
    "DecodeCSV": csv,
    **dict.fromkeys(("ParseExample", "ParseExampleV2"), examples),
    "ParseSingleExample": single_example,
    **dict.fromkeys(("LookupTableFind", "LookupTableFindV2"), look_up),
    "SparseToDense": sparse_to_dense,
    **dict.fromkeys(("StringJoin", "ReduceJoin"), join),
}
