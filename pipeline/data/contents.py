"""Bytes that a graph can parse: images, tf.train.Examples, numbers as text, and what is packed in each other."""

from __future__ import annotations

import base64
import gzip
import io
import json
import struct
import wave
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.graph.demands import Content, Demand
from pipeline.graph.dtypes import DTYPES
from pipeline.graph.varint import encode_varint
from pipeline.graph.wire import encode_field
from pipeline.signature import Array

Draw = np.random.Generator
MakeValues = Callable[[Demand, tuple[int, ...], Draw], Array]
_IMAGE_SIDE, _SAMPLES, _OPEN_SIZE, _MOST_VALUES, _LEVELS = 32, 256, 8, 3, 256
_NUMBERS = {dtype.name: dtype.number for dtype in DTYPES.values()}
_COUNT = "@count"  # the part that is the number of pieces
_BYTES, _FLOATS, _INTEGERS = 1, 2, 3  # the fields of a Feature (tensorflow/core/example/feature.proto)


def make_content(content: Content, draw: Draw, make: MakeValues) -> bytes:
    """Makes bytes that can be parsed.

    Args:
        make: makes values of a part, of a given shape.
    """
    if content.kind in ("example", "json"):
        return _make_example(content, draw, make)
    if content.kind == "csv":
        return content.separator.join(_text(make(part, (), draw)) for _, part in sorted(content.parts.items())).encode()
    return _SINGLE[content.kind](content, content.parts.get("", Demand("string")), draw, make)


def sizes_of(part: Demand, open_size: int = _OPEN_SIZE) -> tuple[int, ...]:
    """Returns a shape whose open lengths are chosen."""
    least = part.least or (1,) * len(part.shape or ())
    pairs = zip(part.shape or (), least, strict=True)
    return tuple(max(open_size, low) if size is None else size for size, low in pairs)


def _make_image(content: Content, part: Demand, draw: Draw, make: MakeValues) -> bytes:
    from PIL import Image  # which few graphs need

    height, width, channels = sizes_of(part, _IMAGE_SIDE)
    pixels = draw.integers(0, _LEVELS, (height, width, channels)).astype(np.uint8)
    if content.kind == "jpeg" and channels not in (1, 3):
        pixels = pixels[:, :, :1]
    file = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(file, content.kind)
    return file.getvalue()


def _make_sound(content: Content, part: Demand, draw: Draw, make: MakeValues) -> bytes:
    samples, channels = sizes_of(part, _SAMPLES)
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((channels, 2, 16_000, samples, "NONE", ""))
        writer.writeframes(draw.integers(-(1 << 15), 1 << 15, (samples, channels)).astype("<i2").tobytes())
    return file.getvalue()


def _make_raw(content: Content, part: Demand, draw: Draw, make: MakeValues) -> bytes:
    return make(part, sizes_of(part), draw).tobytes()


def _make_tensor(content: Content, part: Demand, draw: Draw, make: MakeValues) -> bytes:
    """A TensorProto: dtype, shape and content (tensorflow/core/framework/tensor.proto)."""
    values = make(part, sizes_of(part), draw)
    dims = b"".join(encode_field(2, b"\x08" + encode_varint(size)) for size in values.shape)
    return b"\x08" + encode_varint(_NUMBERS[part.dtype]) + encode_field(2, dims) + encode_field(4, values.tobytes())


def _make_number(content: Content, part: Demand, draw: Draw, make: MakeValues) -> bytes:
    return _text(make(part, (), draw)).encode()


def _make_pieces(content: Content, part: Demand, draw: Draw, make: MakeValues) -> bytes:
    count = content.parts.get(_COUNT, Demand("int64", (None,)))
    known = (count.shape or (None,))[0]
    number = (
        known
        if known is not None
        else int(draw.integers(1, _OPEN_SIZE))
        if count.least in ((), (1,))
        else count.least[0]
    )
    pieces = (_without(make(part, (), draw), content.separator) for _ in range(number))
    return content.separator.encode().join(pieces)


def _without(value: Array, separator: str) -> bytes:
    text: bytes = value.item()
    return b"".join(text.split(separator.encode())) or b"x"


def _make_packed(content: Content, part: Demand, draw: Draw, make: MakeValues) -> bytes:
    inner: bytes = make(part, (), draw).item()
    if content.kind == "base64":
        return base64.urlsafe_b64encode(inner)
    return gzip.compress(inner, mtime=0) if content.kind == "gzip" else zlib.compress(inner)


_SINGLE: Mapping[str, Callable[[Content, Demand, Draw, MakeValues], bytes]] = {
    **dict.fromkeys(("png", "jpeg", "bmp"), _make_image),
    "wav": _make_sound,
    "raw": _make_raw,
    "tensor": _make_tensor,
    "number": _make_number,
    "pieces": _make_pieces,
    **dict.fromkeys(("base64", "zlib", "gzip"), _make_packed),
}


# Examples.


def _make_example(content: Content, draw: Draw, make: MakeValues) -> bytes:
    if content.kind == "json":
        inner = content.parts.get("", Demand("string")).content or Content("example")
        return json.dumps({"features": {"feature": _json_features(inner, draw, make)}}).encode()
    features = b"".join(
        encode_field(1, encode_field(1, name.encode()) + encode_field(2, _feature(values)))
        for name, values in _features(content, draw, make).items()
    )
    return encode_field(1, features)


def _features(content: Content, draw: Draw, make: MakeValues) -> dict[str, Array]:
    """Makes the values of all features; of a list some, unless the graph demands a number."""
    made = {}
    for name, part in content.parts.items():
        sizes = sizes_of(part)
        if name in content.lists and part.shape == (None,):
            least = part.least[0] if part.least else 1
            sizes = (max(least, int(draw.integers(1, _MOST_VALUES + 1))),)
        made[name] = make(part, sizes, draw).reshape(-1)
    for name, places in content.indexed.items():
        made |= _place(content, name, places, made, draw)
    return made


def _place(
    content: Content, name: str, places: Sequence[str], made: Mapping[str, Array], draw: Draw
) -> dict[str, Array]:
    """Makes as many indices as there are values, none of them twice, in their order."""
    first, high = made[places[0]], content.parts[places[0]].high
    size = _MOST_VALUES if high is None else int(high) + 1
    count = min(size, *(len(made[each]) for each in (name, *places)))
    cut = {each: made[each][:count] for each in (name, *places)}
    return {**cut, places[0]: np.sort(draw.permutation(size)[:count]).astype(first.dtype)}


def _feature(values: Array) -> bytes:
    if values.dtype == object:
        return encode_field(_BYTES, b"".join(encode_field(1, value) for value in values))
    if values.dtype.kind == "f":
        return encode_field(_FLOATS, encode_field(1, struct.pack(f"<{len(values)}f", *values.tolist())))
    packed = b"".join(encode_varint(int(value) & ((1 << 64) - 1)) for value in values)
    return encode_field(_INTEGERS, encode_field(1, packed))


def _json_features(content: Content, draw: Draw, make: MakeValues) -> dict[str, Any]:
    """Returns features as protobuf's JSON has them: bytes are base64."""
    found: dict[str, Any] = {}
    for name, values in _features(content, draw, make).items():
        if values.dtype == object:
            found[name] = {"bytesList": {"value": [base64.b64encode(value).decode() for value in values]}}
        elif values.dtype.kind == "f":
            found[name] = {"floatList": {"value": values.tolist()}}
        else:
            found[name] = {"int64List": {"value": [str(value) for value in values.tolist()]}}
    return found


def _text(value: Array) -> str:
    """Writes a number as text, or a text that stands in a line."""
    item = value.item()
    if isinstance(item, bytes):
        return '"' + item.decode("utf-8", "replace").replace('"', "").replace("\n", " ") + '"'
    return repr(item)
