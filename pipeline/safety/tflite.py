"""Finds dangers in a .tflite: custom ops and shapes of tensors, read from the flatbuffer without the runtime.

The layout is that of tensorflow/lite/schema/schema.fbs; https://flatbuffers.dev/internals says how tables lie there.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import CandidateError, UnsafeModel
from pipeline.inputs import read_file

from . import UNKNOWN, Danger, harm_of, printable
from .sizes import MOST_TENSOR

_CUSTOM = 32  # BuiltinOperator.CUSTOM
# Custom ops that the runtime itself brings along: they compute, and touch nothing else.
_OWN = frozenset({"TFLite_Detection_PostProcess", "AudioSpectrogram", "Mfcc", "NumericVerify"})
_FLEX = "Flex"  # before the name of an op of TensorFlow
_MOST = 10_000_000  # entries of one list
# Fields by their numbers in the schema.
_MODEL_OPS, _MODEL_SUBGRAPHS, _OP_CUSTOM, _OP_CODE, _OP_OLD_CODE = 1, 2, 1, 3, 0
_SUBGRAPH_TENSORS, _TENSOR_SHAPE, _TENSOR_NAME = 0, 0, 3
_AGAIN = "Copy the candidate again, or make it again"


class _Table:
    """A table of a flatbuffer."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._fields = at - _read(data, "<i", at)

    def _place(self, field: int) -> int:
        """Returns the position of a field's value; 0 if it has none."""
        entry = 4 + 2 * field
        if entry + 2 > _read(self._data, "<H", self._fields):
            return 0
        offset = _read(self._data, "<H", self._fields + entry)
        return self._at + offset if offset else 0

    def number(self, field: int, code: str) -> int:
        place = self._place(field)
        return _read(self._data, code, place) if place else 0

    def _list(self, field: int) -> tuple[int, int]:
        place = self._place(field)
        if not place:
            return 0, 0
        start = place + _read(self._data, "<I", place)
        count = _read(self._data, "<I", start)
        if count > min(_MOST, len(self._data)):
            raise ValueError(f"a list of {count} entries")
        return start + 4, count

    def text(self, field: int) -> str:
        start, size = self._list(field)
        return self._data[start : start + size].decode("utf-8", "replace")

    def numbers(self, field: int) -> list[int]:
        start, count = self._list(field)
        return [_read(self._data, "<i", start + 4 * index) for index in range(count)]

    def tables(self, field: int) -> Iterator[_Table]:
        start, count = self._list(field)
        for place in range(start, start + 4 * count, 4):
            yield _Table(self._data, place + _read(self._data, "<I", place))


def _read(data: bytes, code: str, at: int) -> int:
    size = struct.calcsize(code)
    if not 0 <= at <= len(data) - size:
        raise ValueError(f"it points to byte {at}, and has {len(data)}")
    return int(struct.unpack_from(code, data, at)[0])


def find_dangers(path: Path) -> list[Danger]:
    """Finds the custom ops of a .tflite that the runtime lacks.

    Raises:
        CandidateError: it is damaged.
        UnsafeModel: a tensor in it takes more memory than there is.
    """
    try:
        data = read_file(path)
        model = _Table(data, _read(data, "<I", 0))
        found = [danger for op in model.tables(_MODEL_OPS) if (danger := _danger(op)) is not None]
        for subgraph in model.tables(_MODEL_SUBGRAPHS):
            for tensor in subgraph.tables(_SUBGRAPH_TENSORS):
                _require_bounded(path, tensor)
    except OSError as exc:
        raise CandidateError("the candidate cannot be read", where=path, got=exc.strerror) from exc
    except ValueError as exc:
        raise CandidateError("the candidate is damaged", where=path, got=exc, next_step=_AGAIN) from exc
    return found


def _danger(op: _Table) -> Danger | None:
    code = max(op.number(_OP_CODE, "<i"), op.number(_OP_OLD_CODE, "<b"))
    name = op.text(_OP_CUSTOM)
    if code != _CUSTOM or name in _OWN:
        return None
    harm = harm_of(name.removeprefix(_FLEX)) if name.startswith(_FLEX) else UNKNOWN
    return None if harm is None else Danger(name, "", harm, kind="custom op")


def _require_bounded(path: Path, tensor: _Table) -> None:
    size = math.prod(max(1, length) for length in tensor.numbers(_TENSOR_SHAPE))
    if size > MOST_TENSOR:
        raise UnsafeModel(
            f"this model could take more memory than there is: tensor {printable(tensor.text(_TENSOR_NAME))}",
            where=path,
            got=f"{size:.3g} elements" if size < 10**300 else "an astronomical number of elements",
            wanted=f"at most {MOST_TENSOR:,}",
        )
