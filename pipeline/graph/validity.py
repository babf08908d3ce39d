"""Validates a graph: each name is used once, every input exists. Later walks rely on it.

TensorFlow checks the same when it imports a graph (tensorflow/core/graph/graph_constructor.cc) or calls a function
(tensorflow/core/common_runtime/function_def_utils.cc).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from pipeline.errors import CheckpointError

from .graph import Graph
from .handles import CALLS
from .lazy_nodes import whole_node
from .nodes import data_inputs
from .protos import FunctionDef, NodeDef

_PORT = re.compile(r"[^:^]+:[0-9]{1,9}")
_OUTPUT = re.compile(r"[^:^]+:[^:^]+:[0-9]{1,9}")

# The least number of inputs of ops that later code looks into.
_FEWEST: Mapping[str, int] = {
    **dict.fromkeys(("Identity", "RefIdentity", "Enter", "RefEnter", "Exit", "NextIteration", "Merge", "RefMerge"), 1),
    **dict.fromkeys(("RandomUniform", "If", "StatelessIf", "Case", "StatelessCase", "RemoteCall"), 1),
    **dict.fromkeys(("ReadVariableOp", "VariableShape", "VarIsInitializedOp", "IsVariableInitialized"), 1),
    **dict.fromkeys(("Switch", "RefSwitch", "_SwitchN", "ResourceGather", "ResourceGatherNd"), 2),
    **dict.fromkeys(("Assign", "AssignVariableOp"), 2),
    **dict.fromkeys(("InitializeTableFromTextFile", "InitializeTableFromTextFileV2"), 2),
    **dict.fromkeys(("InitializeTable", "InitializeTableV2", "LookupTableImport", "LookupTableImportV2"), 3),
}


def validate_graph(graph: Graph, path: Path) -> None:
    """Validates a graph.

    Args:
        path: the file of the graph, for messages.

    Raises:
        CheckpointError: a name of a node or function is missing or used twice, an input or a result does not exist, or
            a node or a function has too few inputs.
    """
    functions = graph.functions
    if len(functions) != len(graph.library.function) or "" in functions:
        raise _unsound(path, "a function", "two of one name, or one without a name", "names of their own")
    _require_nodes(graph.node, (), functions, path)
    for function in graph.library.function:
        _require_function(function, functions, path)


def _require_function(function: FunctionDef, functions: Mapping[str, FunctionDef], path: Path) -> None:
    name, signature = f"function {function.signature.name}", function.signature
    arguments = [argument.name for argument in signature.input_arg]
    nodes = _require_nodes(function.node_def, arguments, functions, path, name)
    for result in signature.output_arg:
        reference = function.ret.get(result.name)
        if reference is None or not _is_known(reference, nodes, arguments, is_function=True):
            raise _unsound(path, f"{name}, result {result.name!r}", repr(reference), "an output of one of its nodes")
    if len(function.ret) != len(signature.output_arg):
        raise _unsound(path, name, f"{len(function.ret)} results", f"{len(signature.output_arg)}")
    gone = [node for node in function.control_ret.values() if node not in nodes]
    if gone or function.control_ret.keys() != set(signature.control_output):
        raise _unsound(path, name, f"control results {sorted(function.control_ret)}", "one for each that is declared")


def _require_nodes(
    nodes: Iterable[NodeDef],
    arguments: Collection[str],
    functions: Mapping[str, FunctionDef],
    path: Path,
    function: str = "",
) -> set[str]:
    """Validates the nodes of a graph or of a function's body; returns their names."""
    names, given, inside = set[str](), set(arguments), f" in {function}" if function else ""
    for node in nodes:
        name = node.name
        if not name or ":" in name or "^" in name or name in names or name in given:
            raise _unsound(path, f"node {name!r}{inside}", "this name", "one of its own")
        names.add(name)
    plain = given if function else names  # what an input may name without a port
    for node in nodes:
        waits = False
        for reference in node.input:
            if not waits and reference in plain:  # as most are
                continue
            if reference.startswith("^"):
                waits = True
                is_known = reference[1:] in names or reference[1:] in given  # an argument is there from the beginning
            else:
                is_known = not waits and _is_known(reference, names, given, bool(function))
            if not is_known:
                raise _unsound(
                    path,
                    f"node {node.name}{inside}",
                    f"input {reference!r}",
                    "an output of another node, before what is waited for",
                )
        fewest = _FEWEST.get(node.op, 0)
        if fewest and len(data_inputs(node)) < fewest:
            got = f"{node.op} of {len(data_inputs(node))} inputs"
            raise _unsound(path, f"node {node.name}{inside}", got, f"{fewest}")
        if functions and (node.op in CALLS or node.op in functions):
            _require_call(whole_node(node), functions, path, f"node {node.name}{inside}")
    return names


def _is_known(reference: str, nodes: Collection[str], arguments: Collection[str], is_function: bool) -> bool:
    if reference in (arguments if is_function else nodes):
        return True
    pattern = _OUTPUT if is_function else _PORT
    return pattern.fullmatch(reference) is not None and reference.partition(":")[0] in nodes


def _require_call(node: NodeDef, functions: Mapping[str, FunctionDef], path: Path, where: str) -> None:
    """Validates a call: it passes as many values as the function takes."""
    attributes, first, inputs, _ = CALLS.get(node.op, ((), 0, "", ""))
    values = [node.attr[name] for name in attributes if name in node.attr]
    calls = [node.op, *(func.name for value in values for func in (value.func, *value.list.func))]
    given = len(data_inputs(node)) - first
    for function in (functions[name] for name in calls if name in functions):
        if given != len(function.signature.input_arg):
            wanted = f"{len(function.signature.input_arg)}"
            raise _unsound(path, where, f"{given} values for {function.signature.name}", wanted)
    if node.op in CALLS and (inputs not in node.attr or len(node.attr[inputs].list.type) != given):
        raise _unsound(path, where, f"{inputs} of other than its inputs", f"{given} dtypes")


def _unsound(path: Path, place: str, got: str, wanted: str) -> CheckpointError:
    return CheckpointError("the graph is damaged", where=f"{path}: {place}", got=got, wanted=wanted)
