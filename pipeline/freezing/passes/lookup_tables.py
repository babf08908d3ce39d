"""Lookup tables keep their content in the .pb.

A session runs a table's initializer once; a .pb has no such step. So every user of the table's handle waits for the
initializer, which fills the table in the first run and finds it filled in later ones. A mutable table is filled with
what the checkpoint has of it, in each run anew.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.checkpoint.tables import CONTENT
from pipeline.checkpoint.vocabularies import FROM_FILE, name_of_vocabulary
from pipeline.errors import FreezeError
from pipeline.graph.graph import Graph
from pipeline.graph.lazy_nodes import copy_node, whole_node
from pipeline.graph.nodes import data_inputs, node_of, unused_name
from pipeline.graph.protos import DataType, NodeDef
from pipeline.graph.unsupported import CHANGES_STATE, refusal_of
from pipeline.graph.variables import VARIABLE_OPS, identity_of, strings_of
from pipeline.inputs import read_file

_STATIC = frozenset({"HashTableV2", "HashTable"})
_MUTABLE = ("MutableHashTable", "MutableHashTableOfTensors", "MutableDenseHashTable")
TABLES = _STATIC.union(
    *((table, f"{table}V2", f"Anonymous{table}") for table in _MUTABLE),
    ("AnonymousHashTable",),
)
FROM_TENSORS = frozenset({"InitializeTableV2", "InitializeTable", "LookupTableImportV2", "LookupTableImport"})
FILLING_OPS = FROM_TENSORS | FROM_FILE

_CHANGES_TABLE = frozenset(f"LookupTable{change}{v}" for change in ("Insert", "Remove") for v in ("", "V2"))
_KEEP_IT = (
    "Save it with the checkpoint: fill the table, then build a Saver (of TensorFlow 2, save the object that has it), "
    "save, and freeze that; or use a tf.lookup.StaticHashTable"
)

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
_NUMBER = re.compile(rb"-?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?")


def carry_tables(kept: Graph, graph: Graph) -> Graph:
    """Returns the graph with the initializers of its tables, and control edges from them to the tables' users.

    Args:
        kept: the nodes that the outputs need.
        graph: the whole graph, with the initializers.

    Raises:
        FreezeError: a table has no initializer in the graph, has two that differ, is changed, or is inside a function.
    """
    for name, inner in kept.called_nodes(kept.node):
        if inner.op in TABLES:
            raise _refusal(inner, f"is inside the function {name}", "Create it outside of the function")
    for _, inner in itertools.chain((("", node) for node in kept.node), kept.called_nodes(kept.node)):
        if inner.op in _CHANGES_TABLE:
            cure = "Take outputs that only look up (--outputs)"
            raise _refusal(inner, "changes a table on the way to an output", cure)
    nodes, names, added = list(kept.node), set(kept.nodes), list[NodeDef]()
    for table in [node for node in nodes if node.op in TABLES]:
        initializer, needed = _initializer_of(table, graph)
        _require_constant(table, needed, kept)
        if "Dense" in table.op:
            needed = _with_open_shape(initializer, needed, {*names, *graph.nodes})
        added += [node for node in needed if node.name not in names]
        names |= {node.name for node in needed}
        for index, node in enumerate(nodes):
            if table.name in map(node_of, data_inputs(node)) and node.name != initializer:
                nodes[index] = copy_node(node)
                nodes[index].input.append(f"^{initializer}")
    return kept.replace_nodes([*nodes, *added]) if added or nodes != kept.node else kept


def _with_open_shape(initializer: str, needed: list[NodeDef], taken: set[str]) -> list[NodeDef]:
    """Hides the shape of what fills a dense table.

    Its keys are stored as `[buckets, 1]`, which the kernel takes, and the op's shape function refuses if it is known.
    """
    name = unused_name(f"{initializer}/buckets", taken)
    nodes, stored = list[NodeDef](), {node.name for node in needed if CONTENT in node.attr}
    for node in needed:
        if node.name == initializer and node.input[1] in stored:
            keys = NodeDef(name=name, op="PlaceholderWithDefault", input=[node.input[1]])
            keys.attr["dtype"].type = node.attr["Tin"].type
            keys.attr["shape"].shape.unknown_rank = True
            new = copy_node(node)
            new.input[1] = name
            nodes += [keys, new]
        else:
            nodes.append(node)
    return nodes


def _require_constant(table: NodeDef, needed: list[NodeDef], graph: Graph) -> None:
    """Checks that a table's content does not depend on when it is filled: before or after restoring variables."""
    inner = (node for _, node in graph.called_nodes(needed))
    for node in itertools.chain(needed, inner):
        if node.op in VARIABLE_OPS and CONTENT not in node.attr:
            raise _refusal(table, f"is filled from the variable {node.name}", "Fill it from constants")
        if (refusal := refusal_of(node.op)) is not None:
            raise refusal.error(node, None)


def _initializer_of(table: NodeDef, graph: Graph) -> tuple[str, list[NodeDef]]:
    """Returns the name of the op that fills a table, and the nodes that it needs, itself included."""
    found = [
        node
        for node in graph.node
        if node.op in FILLING_OPS
        and (filled := graph.nodes[node_of(data_inputs(node)[0])]).op == table.op
        and identity_of(filled) == identity_of(table)
    ]
    if not found and table.op not in _STATIC:
        raise _refusal(table, "has a content that neither the graph nor the checkpoint holds", _KEEP_IT)
    if not found:
        raise _refusal(table, "is filled by no op of the graph", "Fill it by one initializer")
    fillings = [_filling(node, table, graph) for node in found]
    if any(_content(*filling, table) != _content(*fillings[0], table) for filling in fillings[1:]):
        cause = f"is filled by {len(found)} ops of the graph, not with the same"
        raise _refusal(table, cause, "Fill it by one initializer")
    return fillings[0]


def _filling(node: NodeDef, table: NodeDef, graph: Graph) -> tuple[str, list[NodeDef]]:
    """Returns the name of an op that fills a table, and the nodes that it needs, itself included."""
    if node.op in FROM_FILE:
        return _from_file(node, table, graph.nodes)
    before = graph.ancestors([node.name], with_control=True) - {table.name}
    if any(CHANGES_STATE.matches(graph.nodes[name].op) for name in before):
        raise _refusal(table, "is filled after something that changes state", "Fill it from constants")
    needed = graph.ancestors([node.name], with_control=False)
    return node.name, [_copy(one) for one in graph.node if one.name in needed and one.name != table.name]


def _content(name: str, needed: list[NodeDef], table: NodeDef) -> tuple[bytes, ...]:
    """Returns what fills a table without the names of the nodes: equal for ops that fill it with the same.

    TensorFlow fills a filled table again with the same content, and refuses any other.
    """
    nodes, content = {node.name: whole_node(node) for node in needed}, list[bytes]()
    waiting, numbers = [name], {name: 0}  # a node's number is the order in which it was met
    while waiting:
        node = nodes.get(waiting.pop(), table)
        if node.op == table.op and identity_of(node) == identity_of(table):
            content.append(b"the table")
            continue
        op = NodeDef(op=node.op)
        for key in node.attr:
            if not key.startswith("_"):
                op.attr[key].CopyFrom(node.attr[key])
        for reference in data_inputs(node):
            above, _, port = reference.partition(":")
            while (passing := nodes.get(above)) is not None and passing.op == "Identity":
                above, _, port = data_inputs(passing)[0].partition(":")
            if above not in numbers:
                numbers[above] = len(numbers)
                waiting.append(above)
            op.input.append(f"{numbers[above]}:{port or 0}")
        content.append(op.SerializeToString(deterministic=True))
    return tuple(content)


def _from_file(node: NodeDef, table: NodeDef, everything: Mapping[str, NodeDef]) -> tuple[str, list[NodeDef]]:
    """Turns an initializer from a vocabulary file into one from constants."""
    names = strings_of(name_of_vocabulary(node, everything))
    if not names:
        raise _refusal(table, "is filled from a file that the graph does not name", "Name it by a constant")
    try:
        # TensorFlow's line reader drops every carriage return.
        lines = read_file(names[0]).replace(b"\r", b"").split(b"\n")
    except OSError as exc:
        raise _unreadable(table, names[0]) from exc
    lines = lines[:-1] if lines and not lines[-1] else lines
    size = node.attr["vocab_size"].i
    if size > len(lines) or not lines:
        raise _refusal(
            table, f"is filled with {size if size > 0 else 'the'} lines of a file of {len(lines)}", "Correct the file"
        )
    lines = lines[:size] if size > 0 else lines
    if b"" in lines:
        raise _refusal(table, f"is filled from {names[0]}, whose line {lines.index(b'') + 1} is empty", "Correct it")
    if not {table.attr["key_dtype"].type, table.attr["value_dtype"].type} <= _FIELDS.keys():
        raise _refusal(table, "is of dtypes that no file holds", "Correct the table")
    delimiter, offset = node.attr["delimiter"].s or b"\t", node.attr["offset"].i
    columns = [
        _column(table, lines, node.attr[index].i, delimiter, table.attr[dtype].type, offset)
        for index, dtype in (("key_index", "key_dtype"), ("value_index", "value_dtype"))
    ]
    pairs = dict(zip(*columns, strict=True))
    if any(pairs[key] != value for key, value in zip(*columns, strict=True)):
        raise _refusal(table, f"is filled from {names[0]}, which gives one key two values", "Correct the file")
    parts = [
        _const(unused_name(f"{node.name}/{name}", everything), values, table.attr[dtype].type)
        for name, values, dtype in zip(("keys", "values"), columns, ("key_dtype", "value_dtype"), strict=True)
    ]
    new = NodeDef(name=node.name, op="LookupTableImportV2", input=[table.name, *(part.name for part in parts)])
    new.attr["Tin"].type = table.attr["key_dtype"].type
    new.attr["Tout"].type = table.attr["value_dtype"].type
    return node.name, [*parts, new]


def _unreadable(table: NodeDef, name: str) -> FreezeError:
    step = "Bring the file to that place, or beside the checkpoint"
    return _refusal(table, f"is filled from {name}, which cannot be read", step)


def require_vocabularies(graph: Graph, outputs: Sequence[str]) -> None:
    """Checks that the files are there that fill the tables of some outputs.

    Raises:
        FreezeError: one is missing.
    """
    needed = graph.ancestors([node_of(tensor) for tensor in outputs], with_control=True)
    for node in graph.node:
        if node.op in FROM_FILE and (table := graph.nodes[node_of(data_inputs(node)[0])]).name in needed:
            names = strings_of(name_of_vocabulary(node, graph.nodes))
            if names and not Path(names[0]).is_file():
                raise _unreadable(table, names[0])


def _column(
    table: NodeDef, lines: list[bytes], index: int, delimiter: bytes, dtype: int, offset: int
) -> list[bytes | int | float]:
    if index == _LINE_NUMBER:
        return [number + offset for number in range(len(lines))]
    try:
        cells = lines if index == _WHOLE_LINE else [line.split(delimiter)[index] for line in lines]
        if dtype == DT_STRING:
            return list(cells)
        return [_number(cell.strip(), dtype) for cell in cells]
    except (IndexError, ValueError) as exc:
        raise _refusal(table, f"is filled from a file whose lines are not as said: {exc}", "Correct the file") from exc


def _number(cell: bytes, dtype: int) -> int | float:
    """Reads a number as TensorFlow does, which accepts less than Python; raises a ValueError if it would not."""
    if not _NUMBER.fullmatch(cell):
        raise ValueError(f"{cell!r} is no number")
    if dtype in (DT_FLOAT, DT_DOUBLE):
        return float(cell)
    number = int(cell)
    if number.bit_length() > (31 if dtype == DT_INT32 else 63):
        raise ValueError(f"{number} is too large")
    return number


def _const(name: str, values: list[bytes | int | float], dtype: int) -> NodeDef:
    node = NodeDef(name=name, op="Const")
    node.attr["dtype"].type = dtype
    tensor = node.attr["value"].tensor
    tensor.dtype = dtype
    tensor.tensor_shape.dim.add(size=len(values))
    getattr(tensor, _FIELDS[dtype]).extend(values)
    return node


def _copy(node: NodeDef) -> NodeDef:
    new = copy_node(node)
    new.input[:] = data_inputs(node)
    return new


def _refusal(table: NodeDef, cause: str, cure: str) -> FreezeError:
    return FreezeError(f"{table.op} {cause}", where=f"node {table.name}", next_step=cure)
