"""Reads a TensorProto's elements as the bytes that they have in memory.

A tensor stands in a message (tensorflow/core/framework/tensor.proto) as bytes, or as numbers in a field of its dtype;
of numbers there may be fewer than elements, and then the last one counts for all that follow
(tensorflow/core/framework/tensor.cc, FromProtoField).
"""

from __future__ import annotations

import math

import numpy as np

from pipeline.errors import DataError
from pipeline.signature import Array

from .dtypes import DTYPES, STRING
from .protos import TensorProto
from .wire import contents_of

# The field of a dtype, and the type of its numbers there.
_FIELDS = {
    **dict.fromkeys(("float16", "bfloat16"), ("half_val", "<i8")),
    **dict.fromkeys(("float32",), ("float_val", "<f8")),
    **dict.fromkeys(("float64",), ("double_val", "<f8")),
    **dict.fromkeys(("complex64",), ("scomplex_val", "<f8")),
    **dict.fromkeys(("complex128",), ("dcomplex_val", "<f8")),
    **dict.fromkeys(("int64",), ("int64_val", "<i8")),
    **dict.fromkeys(("uint32",), ("uint32_val", "<u8")),
    **dict.fromkeys(("uint64",), ("uint64_val", "<u8")),
    **dict.fromkeys(("bool",), ("bool_val", "<i8")),
}
_NARROW = {"float_val": 5, "scomplex_val": 9}  # fields of float32, by their numbers
_OF_FLOAT8, _OF_INTEGERS = ("float8_val", "|u1"), ("int_val", "<i8")
_BARE = {"float16": "<u2", "complex64": "<f4", "complex128": "<f8"}  # what the numbers of a field are turned into


def shape_of(proto: TensorProto) -> tuple[int, ...]:
    """Returns a tensor's lengths, by axis."""
    return tuple(dim.size for dim in proto.tensor_shape.dim)


def content_of(proto: TensorProto, content: memoryview | None = None) -> bytes | memoryview:
    """Returns the elements as bytes, row-major and little-endian. Not for strings.

    Args:
        content: the tensor's `tensor_content`, if it is not in the message.

    Raises:
        DataError: the message is broken.
    """
    kind, elements = DTYPES.get(proto.dtype), math.prod(shape_of(proto))
    if kind is None or not kind.size_bytes:
        raise DataError("a tensor of this dtype has no bytes", got=proto.dtype)
    whole = content or proto.tensor_content or _numbers(proto, kind.name, kind.code, elements).tobytes()
    if len(whole) != elements * kind.size_bytes:
        raise DataError("a tensor is of another size than its shape", got=len(whole), wanted=elements * kind.size_bytes)
    return whole


def _numbers(proto: TensorProto, name: str, code: str, elements: int) -> Array:
    field, wide = _FIELDS.get(name) or (_OF_FLOAT8 if name.startswith("float8") else _OF_INTEGERS)
    values = getattr(proto, field)
    if field in _NARROW:  # by way of Python's floats a signalling NaN would come back as a quiet one
        given = np.frombuffer(b"".join(contents_of(proto.SerializeToString(), _NARROW[field])), "<f4")
    else:
        given = np.frombuffer(values, wide) if isinstance(values, bytes) else np.array(values, wide)
    numbers = given.astype(_BARE.get(name, code))
    if name.startswith("complex"):
        numbers = numbers.reshape(-1, 2)  # real and imaginary parts take turns
    if not len(numbers):
        return np.zeros((elements, *numbers.shape[1:]), numbers.dtype)
    rest = max(0, elements - len(numbers))
    return np.concatenate([numbers, np.repeat(numbers[-1:], rest, axis=0)])


def strings_of(proto: TensorProto) -> list[bytes]:
    """Returns the elements of a tensor of strings, row-major.

    Raises:
        DataError: the message is broken, or stores strings in an unusual field.
    """
    elements, values = math.prod(shape_of(proto)), list(proto.string_val)
    if proto.dtype != STRING.number or proto.tensor_content or len(values) > elements:
        raise DataError("not a readable tensor of strings", got=f"{len(values)} strings", wanted=elements)
    return values + (values[-1:] or [b""]) * (elements - len(values))
