"""What loading a SavedModel does to its graph, as a part of the graph: paths of its assets, and its tables.

TensorFlow 2 creates and fills tables by functions that its loader calls; TensorFlow 1 has ops in the graph for that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.freezing.passes.prune import called
from pipeline.graph.nodes import data_inputs, node_of
from pipeline.graph.protos import DataType, FunctionDef, GraphDef, NodeDef

_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_DEEPEST = 100  # calls within calls
_TABLE = re.compile(r"HashTable(V2)?")
_FILLS_TABLE = re.compile(r"InitializeTable(FromTextFile)?(V2)?|LookupTableImport(V2)?")


def with_assets(graph: GraphDef, assets: Mapping[str, Path]) -> GraphDef:
    """The graph with the paths that files have now; TensorFlow 2 keeps each in a variable, filled when loading."""
    paths = {node_of(tensor): path for tensor, path in assets.items()}
    variables: dict[str, Path] = {}
    for node in graph.node:
        if node.op == "AssignVariableOp" and len(node.input) >= 2 and node_of(node.input[1]) in paths:
            variables[node_of(node.input[0])] = paths[node_of(node.input[1])]
    new = GraphDef()
    new.CopyFrom(graph)
    for node in new.node:
        if node.name in paths:
            _fill(node, paths[node.name])
        elif node.op == "ReadVariableOp" and node.input and node_of(node.input[0]) in variables:
            _fill(node, variables[node_of(node.input[0])])
    return new


def _fill(node: NodeDef, path: Path) -> None:
    """Makes a node a constant that holds a path, of the shape that it has as a constant."""
    shape = node.attr["value"].tensor.tensor_shape
    node.CopyFrom(NodeDef(name=node.name, op="Const"))
    node.attr["dtype"].type = DataType.Value("DT_STRING")
    node.attr["value"].tensor.dtype = DataType.Value("DT_STRING")
    node.attr["value"].tensor.tensor_shape.CopyFrom(shape)
    node.attr["value"].tensor.string_val.append(str(path).encode())


def with_initializers(graph: GraphDef) -> GraphDef:
    """The graph with its tables and their initializers outside of functions, where TensorFlow 1 has them.

    Functions that no node calls are left out: TensorFlow 2's loader makes objects by them.
    """
    functions = {function.signature.name: function for function in graph.library.function}
    new = GraphDef(node=(_created_table(node, functions) or node for node in graph.node), versions=graph.versions)
    new.node.extend(_table_initializers(graph, functions))
    new.library.function.extend(functions[name] for name in called(new.node, functions))
    return new


def _created_table(call: NodeDef, functions: Mapping[str, FunctionDef]) -> NodeDef | None:
    """The table that a call creates: a model that was loaded and saved again has its tables from functions."""
    node, body = call, dict[str, NodeDef]()
    for _ in range(_DEEPEST):
        name = node.attr["f"].func.name if node.op in _CALLS else ""
        if name in functions and len(functions[name].ret) == 1 and not data_inputs(node):
            body = {inner.name: inner for inner in functions[name].node_def}
            [result] = functions[name].ret.values()
        elif node.op == "Identity" and node.input:
            result = node.input[0]
        else:
            break
        node = body.get(node_of(result), NodeDef())
    is_table = node is not call and _TABLE.fullmatch(node.op) is not None
    return NodeDef(name=call.name, op=node.op, attr=node.attr) if is_table else None


def _table_initializers(graph: GraphDef, functions: Mapping[str, FunctionDef]) -> Iterator[NodeDef]:
    """The initializers in functions, as nodes of the graph; those that tensors of the graph are enough for."""
    for root in graph.node:
        seen = set[str]()  # functions of a damaged file may call each other without end
        # Each with its arguments: tensors of the graph, or None for what only functions know; and a name in the graph.
        waiting: list[tuple[NodeDef, list[str | None], str]] = [(root, [*data_inputs(root)], root.name)]
        while waiting:
            call, arguments, prefix = waiting.pop()
            name = call.attr["f"].func.name if call.op in _CALLS else call.op
            if name not in functions or name in seen:
                continue
            seen.add(name)
            names = [argument.name for argument in functions[name].signature.input_arg]
            given = dict(zip(names, arguments, strict=False))
            for node in functions[name].node_def:
                inputs = [given.get(reference) for reference in data_inputs(node)]
                inner = f"{prefix}/{node.name}"
                waiting.append((node, inputs, inner))
                if _FILLS_TABLE.fullmatch(node.op) and None not in inputs:
                    yield NodeDef(name=inner, op=node.op, input=filter(None, inputs), attr=node.attr)
