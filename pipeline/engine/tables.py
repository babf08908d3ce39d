"""Lookup tables that bring their content along.

A table is filled by an initializer that a session runs once; in a .pb nobody would. Here whatever uses the table's
handle waits for the initializer, which fills the table at the first run and finds it filled at the next ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..errors import FreezeError
from ..protos import DataType, GraphDef, NodeDef
from .graph import ancestors, data_inputs, node_of
from .pruning import called, changes_state
from .variables import strings_of

_STATIC = frozenset({"HashTableV2", "HashTable"})
_TABLES = _STATIC | {
    "MutableHashTableV2",
    "MutableHashTable",
    "MutableHashTableOfTensorsV2",
    "MutableHashTableOfTensors",
    "MutableDenseHashTableV2",
    "MutableDenseHashTable",
    "AnonymousHashTable",
    "AnonymousMutableHashTable",
    "AnonymousMutableHashTableOfTensors",
    "AnonymousMutableDenseHashTable",
}
_FROM_TENSORS = frozenset({"InitializeTableV2", "InitializeTable", "LookupTableImportV2", "LookupTableImport"})
_FROM_FILE = frozenset({"InitializeTableFromTextFileV2", "InitializeTableFromTextFile"})
FILLING_OPS = _FROM_TENSORS | _FROM_FILE

_WHOLE_LINE, _LINE_NUMBER = -2, -1  # key_index and value_index, tensorflow/core/ops/lookup_ops.cc
DT_STRING, DT_INT64, DT_INT32 = (DataType.Value(name) for name in ("DT_STRING", "DT_INT64", "DT_INT32"))
DT_FLOAT, DT_DOUBLE = DataType.Value("DT_FLOAT"), DataType.Value("DT_DOUBLE")
_FIELDS = {
    DT_STRING: "string_val",
    DT_INT64: "int64_val",
    DT_INT32: "int_val",
    DT_FLOAT: "float_val",
    DT_DOUBLE: "double_val",
}


def carry_tables(nodes: list[NodeDef], graph: GraphDef) -> list[NodeDef]:
    """The nodes with the initializers of their tables, and edges that make the tables' users wait for them.

    Args:
        nodes: those that the outputs need.
        graph: the whole graph, in which the initializers are.

    Raises:
        FreezeError: a table has no initializer in the graph, has two, or stands in a function.
    """
    tables = [node for node in nodes if node.op in _TABLES]
    library = {function.signature.name: function for function in graph.library.function}
    for name in called(nodes, library):
        for inner in library[name].node_def:
            if inner.op in _TABLES:
                raise _refusal(inner, f"stands inside the function {name}", "Create it outside of the function")
    everything = {node.name: node for node in graph.node}
    kept = {node.name for node in nodes}
    added: list[NodeDef] = []
    for table in tables:
        initializer, needed = _initializer_of(table, everything)
        added += [node for node in needed if node.name not in kept]
        kept |= {node.name for node in needed}
        for node in nodes:
            if table.name in map(node_of, data_inputs(node)) and node.name != initializer:
                node.input.append(f"^{initializer}")
    return nodes + added


def _initializer_of(table: NodeDef, everything: Mapping[str, NodeDef]) -> tuple[str, list[NodeDef]]:
    """The op that fills a table, and the nodes that it needs, itself included."""
    if table.op not in _STATIC:
        raise _refusal(table, "has a content that no graph holds", "Use a static table, or a constant")
    found = [
        node
        for node in everything.values()
        if node.op in _FROM_TENSORS | _FROM_FILE and node_of(data_inputs(node)[0]) == table.name
    ]
    if len(found) != 1:
        raise _refusal(
            table,
            f"is filled by {len(found)} ops of the graph" if found else "is filled by no op of the graph",
            "Fill it by one initializer",
        )
    [node] = found
    if node.op in _FROM_FILE:
        return _from_file(node, table, everything)
    if changes_state(ancestors(everything, [node.name], with_control=True) - {table.name}, everything):
        raise _refusal(table, "is filled after something that changes state", "Fill it from constants")
    needed = ancestors(everything, [node.name], with_control=False)
    copies = [_copy(everything[name]) for name in everything if name in needed and name != table.name]
    return node.name, copies


def _from_file(node: NodeDef, table: NodeDef, everything: Mapping[str, NodeDef]) -> tuple[str, list[NodeDef]]:
    """An initializer from a vocabulary file, as one from constants."""
    source = everything[node_of(data_inputs(node)[1])]
    while source.op == "Identity":
        source = everything[node_of(data_inputs(source)[0])]
    names = strings_of(source)
    if not names:
        raise _refusal(table, "is filled from a file that the graph does not name", "Name it by a constant")
    try:
        # TensorFlow's own reader of lines drops every carriage return.
        lines = Path(names[0]).read_bytes().replace(b"\r", b"").split(b"\n")
    except OSError as exc:
        raise _refusal(
            table, f"is filled from {names[0]}, which cannot be read", "Bring the file to that place"
        ) from exc
    lines = lines[:-1] if lines and not lines[-1] else lines
    size = node.attr["vocab_size"].i
    if size > 0:
        lines = lines[:size]
    delimiter = node.attr["delimiter"].s or b"\t"
    columns = [
        _column(table, lines, node.attr[index].i, delimiter, table.attr[dtype].type)
        for index, dtype in (("key_index", "key_dtype"), ("value_index", "value_dtype"))
    ]
    parts = [
        _const(f"{node.name}/{name}", values, table.attr[dtype].type)
        for name, values, dtype in zip(("keys", "values"), columns, ("key_dtype", "value_dtype"), strict=True)
    ]
    new = NodeDef(name=node.name, op="LookupTableImportV2", input=[table.name, *(part.name for part in parts)])
    new.attr["Tin"].type = table.attr["key_dtype"].type
    new.attr["Tout"].type = table.attr["value_dtype"].type
    return node.name, [*parts, new]


def _column(table: NodeDef, lines: list[bytes], index: int, delimiter: bytes, dtype: int) -> list[bytes | int | float]:
    if index == _LINE_NUMBER:
        return list(range(len(lines)))
    try:
        cells = lines if index == _WHOLE_LINE else [line.split(delimiter)[index] for line in lines]
        if dtype == DT_STRING:
            return list(cells)
        return [float(cell) if dtype in (DT_FLOAT, DT_DOUBLE) else int(cell) for cell in cells]
    except (IndexError, ValueError) as exc:
        raise _refusal(table, f"is filled from a file whose lines are not as said: {exc}", "Correct the file") from exc


def _const(name: str, values: list[bytes | int | float], dtype: int) -> NodeDef:
    node = NodeDef(name=name, op="Const")
    node.attr["dtype"].type = dtype
    tensor = node.attr["value"].tensor
    tensor.dtype = dtype
    tensor.tensor_shape.dim.add(size=len(values))
    fields = {
        DT_STRING: "string_val",
        DT_INT64: "int64_val",
        DT_INT32: "int_val",
        DT_FLOAT: "float_val",
        DT_DOUBLE: "double_val",
    }
    getattr(tensor, fields[dtype]).extend(values)
    return node


def _copy(node: NodeDef) -> NodeDef:
    new = NodeDef()
    new.CopyFrom(node)
    del new.input[:]
    new.input.extend(data_inputs(node))
    return new


def _refusal(table: NodeDef, cause: str, cure: str) -> FreezeError:
    return FreezeError(f"{table.op} {cause}", where=f"node {table.name}", next_step=cure)
