"""Op outputs: dtypes and number of a node's outputs.

`table.txt` has a line for each op that TensorFlow 2.21 registers, `name outputs defaults`:

    MatMul T                          one output, of the dtype that the attribute T names
    TopKV2 T,index_type index_type=int32    two; a node that has no index_type has int32
    Split num_split*T                 as many as num_split says
    IdentityN T...                    one for each dtype in the list T
    NoOp                              none

A reference (of an old variable) is written as the dtype that it refers to.
`python tests/helpers/op_table.py` writes the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from .dtypes import DTYPES
from .protos import AttrValue, DataType, FunctionDef, NodeDef, OpDef

TABLE = Path(__file__).with_name("ops_table.txt")

_RESOURCE = DataType.Value("DT_RESOURCE")
_NAMES: dict[int, str] = {number: dtype.name for number, dtype in DTYPES.items()} | {_RESOURCE: "resource"}
_NUMBERS = {name: number for number, name in _NAMES.items()}
_REFERENCE = 100  # what a reference's number has above that of its dtype (tensorflow/core/framework/types.proto)
_MOST_OUTPUTS = 1_000_000  # more is damage


@dataclass(frozen=True)
class Output:
    """One declared output of an op (tensorflow/core/framework/op_def.proto, ArgDef).

    Args:
        dtype: a DataType; 0 if an attribute names it.
        attr: the attribute of the dtype, or of the list of dtypes.
        is_list: True if there is an output for each dtype of a list.
        count: the attribute with the number of such outputs; empty for one.
    """

    dtype: int
    attr: str = ""
    is_list: bool = False
    count: str = ""

    def __str__(self) -> str:
        dtype = self.attr or dtype_name(self.dtype)
        return f"{self.count}*{dtype}" if self.count else f"{dtype}..." if self.is_list else dtype


@dataclass(frozen=True)
class Outputs:
    """The outputs of an op, and defaults of the attributes that they depend on."""

    outputs: tuple[Output, ...]
    defaults: Mapping[str, AttrValue]

    def __str__(self) -> str:
        defaults = [f"{name}={_format_attribute(value)}" for name, value in self.defaults.items()]
        return " ".join([",".join(map(str, self.outputs)), *defaults]).strip()


def dtype_name(dtype: int) -> str:
    """Returns a DataType's name, as in `tf.DType.name`; a reference has the name of the dtype that it refers to."""
    return _NAMES.get(_value_dtype(dtype), str(dtype))


def output_dtypes(
    node: NodeDef, functions: Mapping[str, FunctionDef], definitions: Mapping[str, OpDef] | None = None
) -> tuple[int, ...] | None:
    """Returns the dtypes of a node's outputs, in their order.

    Args:
        functions: of the graph's library; a node whose op is a function's name is a call.
        definitions: of the ops as a MetaGraphDef's stripped_op_list has them, where there is one: custom ops too.

    Returns:
        A DataType for each output, references as the dtype that they refer to; None if the op is unknown, or the node
        lacks an attribute that it needs.
    """
    if node.op in functions:
        known: Outputs | None = declared_outputs(functions[node.op].signature)
    elif definitions is not None and node.op in definitions:
        known = declared_outputs(definitions[node.op])
    else:
        known = _look_up(node.op)
    if known is None:
        return None
    dtypes: list[int] = []
    for output in known.outputs:
        found = dtypes_of(output, node, known.defaults)
        if found is None:
            return None
        dtypes += found
    return tuple(dtypes)


def declared_outputs(op: OpDef) -> Outputs:
    """Returns the outputs that an op's definition declares."""
    outputs = tuple(declared(arg) for arg in op.output_arg)
    needed = {name for output in outputs for name in (output.attr, output.count)}
    return Outputs(
        outputs,
        {attr.name: attr.default_value for attr in op.attr if attr.name in needed and attr.HasField("default_value")},
    )


def declared(arg: OpDef.ArgDef) -> Output:
    """Returns an output or input that an op's definition declares."""
    name = arg.type_list_attr or arg.type_attr
    return Output(_value_dtype(arg.type), name, is_list=bool(arg.type_list_attr), count=arg.number_attr)


def dtypes_of(output: Output, node: NodeDef, defaults: Mapping[str, AttrValue]) -> list[int] | None:
    """Returns the dtypes of one declared output or input; None if they are unknown."""
    if output.is_list:
        given = _attribute(node, output.attr, defaults)
        dtypes = None if given is None else [_value_dtype(dtype) for dtype in given.list.type]
        return None if dtypes is None or 0 in dtypes else dtypes
    dtype, count = output.dtype, 1
    if output.attr:
        given = _attribute(node, output.attr, defaults)
        dtype = 0 if given is None else _value_dtype(given.type)
    if output.count:
        given = _attribute(node, output.count, defaults)
        count = -1 if given is None else given.i
    return [dtype] * count if dtype and 0 <= count <= _MOST_OUTPUTS else None


def _attribute(node: NodeDef, name: str, defaults: Mapping[str, AttrValue]) -> AttrValue | None:
    # Not node.attr[name] at once, which would make the attribute.
    return node.attr[name] if name in node.attr else defaults.get(name)


def _value_dtype(dtype: int) -> int:
    return dtype - _REFERENCE if dtype > _REFERENCE else dtype


# The table.


@lru_cache(maxsize=1)
def _lines() -> dict[str, str]:
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    return {name: rest for name, _, rest in (line.partition(" ") for line in lines)}


@lru_cache(maxsize=4096)
def _look_up(op: str) -> Outputs | None:
    """Returns the outputs of an op in the table; None if the table lacks it."""
    line = _lines().get(op)
    if line is None:
        return None
    outputs, *defaults = line.split(" ")
    return Outputs(
        tuple(read_declared(outputs)),
        {name: _read(value) for name, _, value in (default.partition("=") for default in defaults)},
    )


def read_declared(written: str) -> Iterator[Output]:
    """Yields the outputs or inputs that a line of the table declares."""
    for output in filter(None, written.split(",")):
        count, _, dtype = output.rpartition("*")
        if dtype in _NUMBERS:
            yield Output(_NUMBERS[dtype], count=count)
        else:
            yield Output(0, dtype.removesuffix("..."), is_list=dtype.endswith("..."), count=count)


def _format_attribute(value: AttrValue) -> str:
    kind = value.WhichOneof("value")
    if kind == "list":
        return f"[{','.join(map(dtype_name, value.list.type))}]"
    return str(value.i) if kind == "i" else dtype_name(value.type)


def _read(written: str) -> AttrValue:
    if written.startswith("["):
        names = filter(None, written.strip("[]").split(","))
        return AttrValue(list=AttrValue.ListValue(type=[_NUMBERS[name] for name in names]))
    return AttrValue(type=_NUMBERS[written]) if written in _NUMBERS else AttrValue(i=int(written))
