"""Finds dangers in a .tflite: custom ops, shapes, and what constants ask for. It is read without the runtime.

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
from .growth.others import OF_TFLITE, OPTIONS_OF_TFLITE, Step, find_excess, tflite_step
from .growth.values import MOST_NUMBERS, STRING_BYTES, Value
from .sizes import MOST_TENSOR

_CUSTOM = 32  # BuiltinOperator.CUSTOM
# Custom ops that the runtime itself brings along: they compute, and touch nothing else.
_OWN = frozenset({"TFLite_Detection_PostProcess", "AudioSpectrogram", "Mfcc", "NumericVerify"})
_FLEX = "Flex"  # before the name of an op of TensorFlow
_MOST = 10_000_000  # entries of one list
# Fields by their numbers in the schema.
_MODEL_EXTERNAL, _GROUP_NAME = 8, 0
_MODEL_OPS, _MODEL_SUBGRAPHS, _OP_CUSTOM, _OP_CODE, _OP_OLD_CODE = 1, 2, 1, 3, 0
_SUBGRAPH_TENSORS, _TENSOR_SHAPE, _TENSOR_TYPE, _TENSOR_BUFFER, _TENSOR_NAME = 0, 0, 1, 2, 3
_MODEL_BUFFERS, _BUFFER_DATA = 4, 0
_SUBGRAPH_STEPS, _STEP_CODE, _STEP_INPUTS, _STEP_OUTPUTS, _STEP_OPTIONS = 3, 0, 1, 2, 4
# Of TensorType: bytes of an element, and how its numbers are read; empty for others.
_TYPES = {
    0: (4, "f"),
    1: (2, "e"),
    2: (4, "i"),
    3: (1, "B"),
    4: (8, "q"),
    5: (STRING_BYTES, ""),
    6: (1, "B"),
    7: (2, "h"),
}
_TYPES |= {8: (8, ""), 9: (1, "b"), 10: (8, "d"), 11: (16, ""), 12: (8, "Q"), 15: (4, "I"), 16: (2, "H")}
_AGAIN = "Copy the candidate again, or make it again"


class _Table:
    """A table of a flatbuffer."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._fields = at - _read(data, "<i", at)
        self._size = _read(data, "<H", self._fields)
        if self._size % 2 or self._size < 4:  # a runtime would see half a field more, and this reader not
            raise ValueError(f"a table of {self._size} bytes")

    def _place(self, field: int) -> int:
        """Returns the position of a field's value; 0 if it has none."""
        entry = 4 + 2 * field
        if entry + 2 > self._size:
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

    def table(self, field: int) -> _Table | None:
        place = self._place(field)
        return _Table(self._data, place + _read(self._data, "<I", place)) if place else None

    def size(self, field: int) -> int:
        return self._list(field)[1]

    def content(self, field: int) -> bytes:
        start, size = self._list(field)
        return self._data[start : start + size]

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
        UnsafeModel: its weights lie in another file, or a tensor in it takes more memory than there is.
    """
    try:
        data = read_file(path)
        model = _Table(data, _read(data, "<I", 0))
        found = [danger for op in model.tables(_MODEL_OPS) if (danger := _danger(op)) is not None]
        for group in model.tables(_MODEL_EXTERNAL):
            raise UnsafeModel(
                "this model could read files: its weights lie in another file",
                where=path,
                got=repr(printable(group.text(_GROUP_NAME))),
                wanted="weights in the model itself",
            )
        for subgraph in model.tables(_MODEL_SUBGRAPHS):
            for tensor in subgraph.tables(_SUBGRAPH_TENSORS):
                _require_bounded(path, tensor)
            _require_no_growth(path, model, subgraph)
    except OSError as exc:
        raise CandidateError("the candidate cannot be read", where=path, got=exc.strerror) from exc
    except ValueError as exc:
        raise CandidateError("the candidate is damaged", where=path, got=exc, next_step=_AGAIN) from exc
    return found


def _code(op: _Table) -> int:
    return max(op.number(_OP_CODE, "<i"), op.number(_OP_OLD_CODE, "<b"))


def _danger(op: _Table) -> Danger | None:
    code = _code(op)
    name = op.text(_OP_CUSTOM)
    if code != _CUSTOM or name in _OWN:
        return None
    harm = harm_of(name.removeprefix(_FLEX)) if name.startswith(_FLEX) else UNKNOWN
    return None if harm is None else Danger(name, "", harm, kind="custom op")


def _require_no_growth(path: Path, model: _Table, subgraph: _Table) -> None:
    """Checks what the operators make of constants: a runtime computes the shapes again, whatever the file says."""
    buffers, codes = list(model.tables(_MODEL_BUFFERS)), [_code(op) for op in model.tables(_MODEL_OPS)]
    tensors = [_value(tensor, buffers) for tensor in subgraph.tables(_SUBGRAPH_TENSORS)]
    known = {str(index): value for index, value in enumerate(tensors)}
    found = find_excess(_steps(subgraph, codes), known, MOST_TENSOR)
    if found is not None:
        step, size = found
        raise UnsafeModel(
            f"this model could take more memory than there is: operator {step} of tensor {step.outputs[0]}",
            where=path,
            got=f"{size / 1e9:.3g} GB" if size < 10**300 else "an astronomical number of bytes",
            wanted=f"at most {MOST_TENSOR / 1e9:.3g} GB",
        )


def _steps(subgraph: _Table, codes: list[int]) -> Iterator[Step]:
    for one in subgraph.tables(_SUBGRAPH_STEPS):
        index = one.number(_STEP_CODE, "<I")
        code = codes[index] if index < len(codes) else -1
        options, names = one.table(_STEP_OPTIONS), OPTIONS_OF_TFLITE.get(OF_TFLITE.get(code, ""), {})
        numbers = {name: options.number(place, _code_of(name)) for place, name in names.items()} if options else {}
        inputs, outputs = ([str(number) for number in one.numbers(field)] for field in (_STEP_INPUTS, _STEP_OUTPUTS))
        step = tflite_step(code, inputs, outputs, numbers)
        if step is not None and outputs:
            yield step


def _code_of(option: str) -> str:
    return "<b" if option in ("adj_x", "adj_y", "keep_dims") else "<i"


def _value(tensor: _Table, buffers: list[_Table]) -> Value:
    """Returns a constant, or what is declared of a tensor, whose lengths may be longer."""
    item, code = _TYPES.get(tensor.number(_TENSOR_TYPE, "<b"), (1, ""))
    dims, index = tensor.numbers(_TENSOR_SHAPE), tensor.number(_TENSOR_BUFFER, "<I")
    size = buffers[index].size(_BUFFER_DATA) if 0 < index < len(buffers) else 0
    if not size:
        return Value(tuple(-max(1, length) for length in dims), item)
    made = Value(tuple(max(0, length) for length in dims), item)
    if not code or size > MOST_NUMBERS * item or size % item:
        return made
    return made.with_numbers(struct.unpack(f"<{size // item}{code}", buffers[index].content(_BUFFER_DATA)))


def _require_bounded(path: Path, tensor: _Table) -> None:
    size = math.prod(max(1, length) for length in tensor.numbers(_TENSOR_SHAPE))
    if size > MOST_TENSOR:
        raise UnsafeModel(
            f"this model could take more memory than there is: tensor {printable(tensor.text(_TENSOR_NAME))}",
            where=path,
            got=f"{size:.3g} elements" if size < 10**300 else "an astronomical number of elements",
            wanted=f"at most {MOST_TENSOR:,}",
        )
