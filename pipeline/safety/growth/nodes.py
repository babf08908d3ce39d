"""A node of TensorFlow, as the rules see it, and what is known of a constant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.graph.dtypes import DTYPES, STRING
from pipeline.graph.lazy_nodes import whole_node
from pipeline.graph.protos import AttrValue, NodeDef, TensorProto, TensorShapeProto

from .values import MOST_NUMBERS, STRING_BYTES, UNKNOWN, Dims, Number, Value, elements_of

_MOST_TEXT = 1 << 24  # bytes of a text that is kept
_REFERENCE = 100  # what a reference's number has above that of its dtype


@dataclass
class NodeView:
    """A node of TensorFlow, as the rules see it; its attributes are parsed when one is asked for."""

    node: NodeDef
    _attributes: Mapping[str, AttrValue] | None = field(default=None, repr=False)

    @property
    def op(self) -> str:
        return str(self.node.op)

    def find(self, name: str) -> AttrValue | None:
        """Returns an attribute; None if there is none: asking the message would make it."""
        if self._attributes is None:
            self._attributes = whole_node(self.node).attr
        return self._attributes.get(name)

    def integer(self, name: str, default: int = 0) -> int:
        value = self.find(name)
        return default if value is None else int(value.i or value.b)

    def integers(self, name: str) -> list[int]:
        """Returns the numbers of a list; of a list of shapes, their elements."""
        value = self.find(name)
        if value is None:
            return []
        return [*value.list.i, *(elements_of(dims_from(shape) or ()) for shape in value.list.shape)]

    def dims(self, name: str) -> Dims | None:
        value = self.find(name)
        if value is None:
            return None
        return dims_from(value.list.shape[0] if value.list.shape else value.shape)

    def text(self, name: str) -> str:
        value = self.find(name)
        return "" if value is None else value.s.decode("utf-8", "replace")

    def is_integer(self, name: str) -> bool:
        value = self.find(name)
        kind = None if value is None else DTYPES.get(value.type)
        return kind is not None and kind.code[1:2] in ("i", "u")

    def item(self, name: str) -> int:
        value = self.find(name)
        return 4 if value is None or not value.type else item_bytes(value.type)


def item_bytes(dtype: int) -> int:
    """Returns the bytes of an element; 1 for a dtype that is unknown."""
    number = dtype - _REFERENCE if dtype > _REFERENCE else dtype
    return STRING_BYTES if number == STRING.number else max(1, DTYPES[number].size_bytes) if number in DTYPES else 1


def dims_from(shape: TensorShapeProto) -> Dims | None:
    """Returns the lengths of a message; None for an unknown rank."""
    return None if shape.unknown_rank else tuple(dim.size if dim.size >= 0 else -1 for dim in shape.dim)


def declared_value(view: NodeView) -> Value:
    """Returns the shape and dtype that an op declares by its attributes."""
    return Value(view.dims("shape"), view.item("dtype")) if view.find("shape") is not None else UNKNOWN


def value_of(tensor: TensorProto) -> Value:
    """Returns what is known of a constant: its numbers, if they are few."""
    made = Value(tuple(max(0, dim.size) for dim in tensor.tensor_shape.dim), item_bytes(tensor.dtype))
    count = elements_of(made.dims or ())
    if tensor.dtype == STRING.number and tensor.string_val:
        lengths = [len(text) for text in tensor.string_val]
        text = tensor.string_val[0] if count == 1 and lengths[0] <= _MOST_TEXT else None
        return Value(made.dims, STRING_BYTES + min(lengths), text=text)
    return made.with_numbers(_numbers(tensor, count)) if 0 < count <= MOST_NUMBERS else made


def _numbers(tensor: TensorProto, count: int) -> Sequence[Number | None] | None:
    kind = DTYPES.get(tensor.dtype)
    if kind is None or not kind.is_plain or not kind.size_bytes:
        return None
    values: list[Number] = [*tensor.int_val, *tensor.int64_val, *tensor.float_val, *tensor.double_val]
    values += [int(one) for one in tensor.bool_val]
    if tensor.tensor_content:
        if kind.code[1:2] == "c" or len(tensor.tensor_content) != count * kind.size_bytes:
            return None
        values = kind.numbers(tensor.tensor_content)
    return values + values[-1:] * (count - len(values)) if values else [0] * count
