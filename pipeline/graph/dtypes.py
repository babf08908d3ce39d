"""TensorFlow's dtypes: numbers in files, names, and layout of elements.

From tensorflow/core/framework/types.proto. The types of 4 bits and less take a byte for each element,
in checkpoints as in memory.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class DType:
    """One row of the table.

    Attributes:
        number: of the DataType enum.
        name: as `tf.DType.name` has it.
        size_bytes: of one element; 0 where elements differ in length.
        code: numpy's code for the same bits, little-endian; of a type that numpy lacks, an integer's.
        is_plain: numpy has the type itself, or (quantized ones) it is an integer with a meaning.
    """

    number: int
    name: str
    size_bytes: int
    code: str
    is_plain: bool = True

    def numpy(self) -> np.dtype[Any]:
        """The type for arrays; one that numpy lacks comes from ml_dtypes, or as an integer of the same bits."""
        import numpy as np

        if not self.is_plain:
            try:
                import ml_dtypes
            except ImportError:
                return np.dtype(self.code)
            return np.dtype(getattr(ml_dtypes, self.name, self.code))
        return np.dtype(self.code)

    def numbers(self, content: bytes) -> list[Any]:
        """The elements in some bytes. Those that Python can read itself do not load numpy, which takes long."""
        form = _FORMATS.get(self.code[1:]) if self.is_plain else None
        if form is None:
            import numpy as np

            values: list[Any] = np.frombuffer(content, self.numpy()).tolist()
            return values
        return list(struct.unpack(f"<{len(content) // self.size_bytes}{form}", content))


# Of Python's struct, by numpy's code.
_FORMATS = {
    **{"i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q"},
    **{"f2": "e", "f4": "f", "f8": "d", "b1": "?"},
}

STRING = DType(7, "string", 0, "O")
VARIANT = DType(21, "variant", 0, "")

# Numbers that are missing: 0 is invalid, 20 (resource) is a handle without a value, and those from 101 are references.
DTYPES: dict[int, DType] = {
    dtype.number: dtype
    for dtype in (
        DType(1, "float32", 4, "<f4"),
        DType(2, "float64", 8, "<f8"),
        DType(3, "int32", 4, "<i4"),
        DType(4, "uint8", 1, "|u1"),
        DType(5, "int16", 2, "<i2"),
        DType(6, "int8", 1, "|i1"),
        STRING,
        DType(8, "complex64", 8, "<c8"),
        DType(9, "int64", 8, "<i8"),
        DType(10, "bool", 1, "|b1"),
        DType(11, "qint8", 1, "|i1"),
        DType(12, "quint8", 1, "|u1"),
        DType(13, "qint32", 4, "<i4"),
        DType(14, "bfloat16", 2, "<u2", is_plain=False),
        DType(15, "qint16", 2, "<i2"),
        DType(16, "quint16", 2, "<u2"),
        DType(17, "uint16", 2, "<u2"),
        DType(18, "complex128", 16, "<c16"),
        DType(19, "float16", 2, "<f2"),
        VARIANT,
        DType(22, "uint32", 4, "<u4"),
        DType(23, "uint64", 8, "<u8"),
        DType(24, "float8_e5m2", 1, "|u1", is_plain=False),
        DType(25, "float8_e4m3fn", 1, "|u1", is_plain=False),
        DType(26, "float8_e4m3fnuz", 1, "|u1", is_plain=False),
        DType(27, "float8_e4m3b11fnuz", 1, "|u1", is_plain=False),
        DType(28, "float8_e5m2fnuz", 1, "|u1", is_plain=False),
        DType(29, "int4", 1, "|i1", is_plain=False),
        DType(30, "uint4", 1, "|u1", is_plain=False),
        DType(31, "int2", 1, "|i1", is_plain=False),
        DType(32, "uint2", 1, "|u1", is_plain=False),
        DType(33, "float4_e2m1fn", 1, "|u1", is_plain=False),
    )
}
