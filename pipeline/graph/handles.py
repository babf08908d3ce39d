"""Follows the handles of variables through identities, calls, branches and loops.

A resource variable is read through a handle, which is a tensor like any other. For each tensor this finds the dtype of
the variable that it is a handle of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.errors import FreezeError

from .graph import Graph
from .nodes import data_inputs, normalize_tensor
from .protos import FunctionDef, NodeDef

# Ops that pass a handle on: the attribute of its dtype, and the outputs (by the names they have in functions) that
# carry input 0, or, for a list, the input of the same index.
PASSING: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "Identity": ("T", ("output",)),
    "IdentityN": ("T", ("output",)),
    "Switch": ("T", ("output_false", "output_true")),
    "_SwitchN": ("T", ("outputs",)),
    "Merge": ("T", ("output",)),
    "Enter": ("T", ("output",)),
    "Exit": ("T", ("output",)),
    "NextIteration": ("T", ("output",)),
}

# Ops that call functions: the attributes that name them, the first input that a function is given, and the
# attributes of the inputs' and the outputs' dtypes.
CALLS: Mapping[str, tuple[tuple[str, ...], int, str, str]] = {
    "PartitionedCall": (("f",), 0, "Tin", "Tout"),
    "StatefulPartitionedCall": (("f",), 0, "Tin", "Tout"),
    "If": (("then_branch", "else_branch"), 1, "Tin", "Tout"),
    "StatelessIf": (("then_branch", "else_branch"), 1, "Tin", "Tout"),
    "Case": (("branches",), 1, "Tin", "Tout"),
    "StatelessCase": (("branches",), 1, "Tin", "Tout"),
    "While": (("cond", "body"), 0, "T", "T"),
    "StatelessWhile": (("cond", "body"), 0, "T", "T"),
    "RemoteCall": (("f",), 1, "Tin", "Tout"),
}
LOOPS = ("While", "StatelessWhile")


@dataclass
class Scope:
    """A graph or a function's body, with the variables' dtypes behind its handles.

    Args:
        nodes: by name.
        arguments: by argument of a function the dtype of the variable whose handle it receives, else None.
        is_function: True if references have the form of a function's body.
    """

    nodes: Mapping[str, NodeDef]
    arguments: Mapping[str, int | None] = field(default_factory=dict)
    is_function: bool = False
    found: dict[str, int | None] = field(default_factory=dict)


class Handles:
    """The handles in one graph and in the functions that it calls.

    Args:
        graph: its function library is read.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph, self.library = graph, graph.functions
        self._results: dict[tuple[str, tuple[int | None, ...], str, int], int | None] = {}

    def of(self, scope: Scope, reference: str) -> int | None:
        """Returns the dtype of the variable whose handle a tensor is; None for any other tensor."""
        key = reference if scope.is_function else normalize_tensor(reference)
        if key not in scope.found:
            scope.found[key] = None  # the answer at a loop's back edge, until the loop is known
            scope.found[key] = self._find_handle(scope, key)
        return scope.found[key]

    def _find_handle(self, scope: Scope, reference: str) -> int | None:
        name, _, rest = reference.partition(":")
        if scope.is_function and not rest:
            return scope.arguments.get(name)
        node = scope.nodes.get(name)
        if node is None:
            return None
        if node.op == "VarHandleOp":
            return int(node.attr["dtype"].type)
        output, _, index = rest.rpartition(":")
        port = int(index)
        if node.op in PASSING:
            given = data_inputs(node)
            if node.op == "IdentityN":
                return self.of(scope, given[port]) if port < len(given) else None
            if node.op != "Merge":
                given = given[:1]
            elif (output, port) not in (("", 0), ("output", 0)):
                given = []
            return next((dtype for reference in given if (dtype := self.of(scope, reference))), None)
        return self.from_call(scope, node, output, port)

    def from_call(self, scope: Scope, node: NodeDef, output: str, port: int) -> int | None:
        """Returns the dtype of the variable whose handle a call returns; None for any other value."""
        call = self.call(node)
        if call is None or not (any(self.of(scope, r) for r in data_inputs(node))):
            return None
        names, first, _, _ = call
        given = [self.of(scope, reference) for reference in data_inputs(node)[first:]]
        if node.op in LOOPS:
            return given[port] if port < len(given) else None
        found = {self._result(name, tuple(given), output if node.op in self.library else "", port) for name in names}
        if len(found) > 1:
            raise of_several_dtypes(node)
        return found.pop()

    def _result(self, name: str, given: tuple[int | None, ...], output: str, port: int) -> int | None:
        """Returns the dtype of the variable whose handle a function returns at this result."""
        key = (name, given, output, port)
        if key not in self._results:
            self._results[key] = None  # the answer inside a recursive function, until it is known
            function = self.function(name)
            results = [argument.name for argument in function.signature.output_arg]
            if output not in results and port >= len(results):
                raise FreezeError("a function has no such result", where=f"function {name}", got=f"number {port}")
            result = output if output in results else results[port]
            self._results[key] = self.of(self.scope_of(function, given), function.ret[result])
        return self._results[key]

    def function(self, name: str) -> FunctionDef:
        """Returns a function of the library."""
        if name not in self.library:
            raise FreezeError("a function that is called is not in the graph", where=f"function {name!r}")
        return self.library[name]

    def call(self, node: NodeDef) -> tuple[list[str], int, str | None, str | None] | None:
        """Returns the functions that a node calls, the first input passed to them, the attributes of the dtypes."""
        if node.op in self.library:
            return [node.op], 0, None, None
        if node.op not in CALLS:
            return None
        attributes, first, inputs, outputs = CALLS[node.op]
        names = []
        for attribute in attributes:
            value = node.attr[attribute]
            names += [value.func.name] if value.WhichOneof("value") == "func" else [f.name for f in value.list.func]
        if len(names) < len(attributes):
            raise FreezeError(f"{node.op} names no function to call", where=f"node {node.name}")
        return names, first, inputs, outputs

    def scope_of(self, function: FunctionDef, given: tuple[int | None, ...]) -> Scope:
        """Returns a function's body, called with handles of these dtypes."""
        names = [argument.name for argument in function.signature.input_arg]
        return Scope(
            self._graph.body(function.signature.name).nodes, dict(zip(names, given, strict=False)), is_function=True
        )


def of_several_dtypes(node: NodeDef) -> FreezeError:
    """Returns the error for a node that may return handles of variables of different dtypes."""
    return FreezeError(
        f"{node.op} gives a variable of one dtype or of another",
        where=f"node {node.name}",
        next_step="Choose between the variables' values",
    )
