"""Evaluates a graph to terms: from its outputs back, over functions, branches and loops of both generations.

Nothing runs. What only passes a value on is left out, functions are entered at each call, a variable is the content
that the checkpoint gives it, and a table is its content. A condition of TensorFlow 1 (Switch and Merge) and one of
TensorFlow 2 (If) give the same term, and so do their loops.

A value of TensorFlow 1 exists only where the branches that it is in are taken. So each tensor has a *guard*: the
conditions under which it exists, each as the term of the condition and the number of the branch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pipeline.errors import PipelineError
from pipeline.graph.lazy_nodes import whole_node
from pipeline.graph.nodes import data_inputs, dims_of, function_names, is_control, node_of, normalize_tensor
from pipeline.graph.protos import NodeDef
from pipeline.graph.unsupported import DRAWS

from .contents import Content, ContentTable
from .control_flow import ControlFlow
from .loops import leaves_loop, loop_of, require_usual_enter, sides_of
from .model import Model, fixed_content
from .op_facts import facts_of, has_many_outputs, number_of_output
from .ops import (
    CASES,
    CHANGES,
    CHANGES_TABLES,
    CHECKS,
    FILLERS,
    IFS,
    IGNORED_ATTRIBUTES,
    INLINED,
    NAMED,
    PASSES,
    POPS,
    PUSHES,
    TABLES,
    WHILES,
    plain_op,
    reason_against,
)
from .rules import Rules
from .saved_names import VARIABLES, identity_of, trace_passed, trace_variable
from .scope import DEAD, Effect, Guard, Scope, Unproven
from .tables import find_fillers, table_term
from .terms import TermTable

_MOST_TERMS = 20_000_000


class Evaluator(ControlFlow):
    """Evaluates the graph of one side.

    Attributes:
        nodes: by term the first node that has it, for messages.
        guards: by term the conditions under which it is computed.
        reasons: by term the reason why it is no function of the inputs alone.
        effects: the checks and changes that the outputs wait for.
        changed: the identities of the variables that they change.
    """

    def __init__(self, table: TermTable, rules: Rules, model: Model) -> None:
        super().__init__(table, rules, model)
        self.contents: ContentTable = rules.contents
        self.nodes: dict[int, str] = {}
        self.reasons: dict[int, str] = {}
        self.effects: list[Effect] = []
        self.changed: set[tuple[str, str]] = set()
        self.guards: dict[int, set[Guard]] = {}
        self._functions = model.graph.functions
        self._calls: dict[tuple[str, tuple[int, ...], Guard], list[int]] = {}
        self._entered: list[str] = []
        self._variables: dict[tuple[str, str], int] = {}
        self._scope = Scope("", model.graph)

    def outputs(self) -> dict[str, int]:
        """Returns the terms of the outputs by name.

        Raises:
            Unproven: the graph has a part whose function is not decided here.
        """
        try:
            found = self._outputs()
            if self.changed:  # their values are not the checkpoint's where they are read
                self._start_again()
                found = self._outputs()
        except RecursionError as exc:
            raise Unproven("functions or loops are nested too deeply") from exc
        except PipelineError as exc:
            raise Unproven(str(exc)) from exc
        except (LookupError, ValueError) as exc:  # such as an op with fewer inputs than it has
            raise Unproven(f"the graph is malformed: {exc!r}") from exc
        return found

    def _outputs(self) -> dict[str, int]:
        references = [*self.model.outputs.values()]
        self._evaluate(self._scope, references)
        terms = {name: self._term(self._scope, reference) for name, reference in self.model.outputs.items()}
        return {name: self.rules.values.get(term, term) for name, term in terms.items()}  # a variable is its value

    def _start_again(self) -> None:
        self._scope = Scope("", self.model.graph)
        self._calls, self._variables, self.effects = {}, {}, []
        self.table.apply_rules_again()

    # Walking.

    def _evaluate(self, scope: Scope, references: Iterable[str]) -> None:
        """Evaluates tensors and all that they are computed from or wait for."""
        waiting = [node_of(reference) for reference in references if self._is_open(scope, reference)][::-1]
        entered = set[str]()
        while waiting:
            name = waiting[-1]
            if name in scope.values:
                waiting.pop()
                continue
            node = scope.graph.nodes.get(name)
            if node is None:
                raise Unproven(f"a node is missing: {scope.place(name)}")
            missing = [node_of(one) for one in self._needs(scope, node) if self._is_open(scope, one)]
            if not missing:
                scope.values[name] = self._value(scope, whole_node(node))
                waiting.pop()
            elif name in entered:
                raise Unproven(f"a circle that is no loop of TensorFlow's: {scope.place(name)}")
            else:
                entered.add(name)
                waiting += missing[::-1]
            if len(self.table.terms) > _MOST_TERMS:
                raise Unproven("the functions of the graph call each other too often")

    def _is_open(self, scope: Scope, reference: str) -> bool:
        name = node_of(reference)
        if name in scope.values or (scope.function and ":" not in reference and name in scope.arguments):
            return False
        if scope.function:
            return True
        if is_control(reference):
            return not any(node_of(tensor) == name for tensor in self.model.inputs)
        tensor = normalize_tensor(reference)
        return tensor not in self.model.inputs and tensor not in self.model.fixed

    def _needs(self, scope: Scope, node: NodeDef) -> Sequence[str]:
        if plain_op(node.op) == "Exit" and leaves_loop(scope, node):
            return [one for merge in loop_of(scope, node)[1] for one in [sides_of(scope, merge)[0]]]
        return list(node.input)

    def _term(self, scope: Scope, reference: str) -> int:
        """Returns the term of a tensor that has been evaluated."""
        name, _, rest = reference.partition(":")
        if scope.function:
            if not rest:
                return scope.arguments[name]
            port = self._port(scope, name, rest)
        else:
            tensor = normalize_tensor(reference)
            if tensor in self.model.inputs:
                return self.table.make("input", self.model.inputs[tensor])
            if tensor in self.model.fixed:
                return self._fixed(tensor)
            port = int(rest or 0)
        value = scope.values[name]
        if isinstance(value, int):
            return self.table.output(value, port) if port or has_many_outputs(self.table[value].op) else value
        if port >= len(value):
            raise Unproven(f"an output that the node does not have: {scope.place(reference)}")
        return value[port]

    def _port(self, scope: Scope, name: str, rest: str) -> int:
        output, _, index = rest.partition(":")
        number = number_of_output(whole_node(scope.graph.nodes[name]), output, int(index or 0), self._functions)
        if number is None:
            raise Unproven(f"an output whose number is not known: {scope.place(name)}, output {output}")
        return number

    def _fixed(self, tensor: str) -> int:
        node = whole_node(self.model.graph.nodes[node_of(tensor)])
        shape = dims_of(node.attr["shape"].shape) if "shape" in node.attr else None
        known = None if shape is None or None in shape else tuple(size for size in shape if size is not None)
        dtype = node.attr["dtype"].type
        try:
            return self._constant(fixed_content(self.model.fixed[tensor], dtype, known))
        except (KeyError, ValueError) as exc:
            raise Unproven(f"a fixed value that is not read here: {tensor}") from exc

    def _constant(self, content: Content) -> int:
        number = self.table.make("const", self.contents.number(content))
        self.nodes.setdefault(number, content.name)
        return number

    # Guards.

    def _guard(self, scope: Scope, reference: str) -> Guard:
        name = node_of(reference)
        guard = scope.guards.get(name, scope.guard)
        if name not in scope.choices or is_control(reference):
            return guard
        condition, taken = scope.choices[name]
        rest = reference.partition(":")[2]
        port = self._port(scope, name, rest) if scope.function and rest else int(rest or 0)
        if taken is not None:
            return guard if port == taken else guard | {DEAD}
        return guard | {(condition, port)}

    # Values of nodes.

    def _value(self, scope: Scope, node: NodeDef) -> int | Sequence[int]:
        op, references = plain_op(node.op), data_inputs(node)
        is_guarded = bool(scope.guards or scope.choices)
        guard = scope.guard.union(*(self._guard(scope, one) for one in node.input)) if is_guarded else scope.guard
        if is_guarded and op not in ("Merge", "Exit", "ControlTrigger"):
            scope.guards[node.name] = guard
        if op == "Merge":
            return self._merge(scope, node)
        if op == "Exit":
            return self._exit(scope, node)
        if op == "ControlTrigger":
            scope.guards[node.name] = scope.guard
            return ()
        given = [self._term(scope, reference) for reference in references]
        if op == "Enter":
            require_usual_enter(scope, node)
        if op in PASSES and given:
            if op in CHECKS:
                self._note_effect(scope, node, given)
            return given[0]
        if op == "IdentityN":
            return given
        if op in ("Switch", "_SwitchN"):
            value = self.rules.scalar(self.table, given[1])
            scope.choices[node.name] = given[1], None if value is None else int(value)
            return [given[0]] * (2 if op == "Switch" else node.attr["num_outs"].i)
        if node.op in self._functions:
            return self._call(scope, node.op, given, guard)
        if op == "SymbolicGradient" and node.attr["f"].func.name in self.model.graph.gradients:
            return self._call(scope, self.model.graph.gradients[node.attr["f"].func.name], given, guard)
        if op in INLINED:
            arguments = given[1:] if op == "RemoteCall" else given  # the first says where
            return self._call(scope, node.attr["f"].func.name, arguments, guard)
        if op in IFS:
            return self._branches(scope, "if", [node.attr[one].func.name for one in IFS[op]], given, guard)
        if op in CASES:
            return self._branches(scope, "case", [one.name for one in node.attr["branches"].list.func], given, guard)
        if op in WHILES:
            return self._while(scope, node, given, guard)
        return self._op(scope, node, op, given, guard)

    def _op(self, scope: Scope, node: NodeDef, op: str, given: Sequence[int], guard: Guard) -> int | Sequence[int]:
        if op in ("Const", "ImmutableConst"):
            return self._constant(self.model.constant(node, bool(scope.function)))
        if op in VARIABLES:
            return self._variable(node)
        if op in TABLES:
            return self._table(node, given)
        if op in CHANGES_TABLES:
            raise Unproven(f"a table changes while the outputs are computed: {scope.place(node.name)}")
        if op in ("Placeholder", "PlaceholderV2"):
            return self._unknown(scope, node, "is fed by nobody", given)
        if op in CHECKS:
            if DEAD not in guard:
                self._note_effect(scope, node, given)
            return ()
        if op in ("NoOp", *FILLERS):  # what fills a table is in the table's term
            return ()
        if op in CHANGES and DEAD not in guard:
            self._note_change(scope, node, given)
        if op in NAMED:
            given = [*given, self.table.leaf(op)]
        elif op in PUSHES:
            return given[1]
        elif op in POPS:
            given = [*given, *self._pushed(scope, node)]
        elif reason := reason_against(op, self.model.pure):
            term = self._unknown(scope, node, reason, given)
            if not DRAWS.matches(op) and DEAD not in guard:
                self.effects.append(Effect(node, scope.function, term))
            return term
        term = self.table.make(op, self._attributes(node, op), [*given, *self._inner_functions(scope, node)])
        self.nodes.setdefault(term, node.name)
        self.guards.setdefault(term, set()).add(guard)
        return term

    def _unknown(self, scope: Scope, node: NodeDef, reason: str, given: Sequence[int]) -> int:
        """Returns the term of an op that gives something else each time; rules may find that it does not matter."""
        attributes = self._attributes(node, plain_op(node.op))
        term = self.table.make(plain_op(node.op), attributes, [*given, self.table.leaf("run")])
        self.reasons[term] = f"{node.op} {reason}: {scope.place(node.name)}"
        self.nodes.setdefault(term, node.name)
        return term

    def _attributes(self, node: NodeDef, op: str) -> tuple[tuple[str, bytes], ...]:
        facts = facts_of(op)
        defaults = facts.defaults if facts is not None else {}
        found = []
        for name in sorted(node.attr):
            if name.startswith("_") or name in IGNORED_ATTRIBUTES:
                continue
            value = node.attr[name]
            raw = value.SerializeToString(deterministic=True)
            kind = value.WhichOneof("value") if defaults.get(name) != raw else "func"
            if kind != "func" and not (kind == "list" and value.list.func):
                found.append((name, raw))
        return tuple(found)

    def _inner_functions(self, scope: Scope, node: NodeDef) -> Iterator[int]:
        """Yields terms of the functions that an op other than a call is given, such as those of a data set."""
        if not self._functions:
            return
        for name in sorted(node.attr):
            for function in function_names(node.attr[name]):
                if function in self._functions:
                    count = len(self._functions[function].signature.input_arg)
                    leaves = [self.table.leaf("argument") for _ in range(count)]
                    results = self._call(scope, function, leaves, scope.guard)
                    yield self.table.bind("function", count, leaves, results, ())

    def _variable(self, node: NodeDef) -> int:
        identity = identity_of(node)
        if identity not in self._variables:
            self._variables[identity] = self._value_of(identity, node)
        value = self._variables[identity]
        if node.op != "VarHandleOp":
            return value
        handle = self.table.make("handle", (self.model.side, identity))
        self.nodes.setdefault(handle, node.name)
        self.rules.values[handle] = value
        return handle

    def _value_of(self, identity: tuple[str, str], node: NodeDef) -> int:
        content = None if identity in self.changed else self.model.variable(identity, node.name)
        if content is not None and content.dtype == node.attr["dtype"].type:
            return self._constant(content)
        term = self.table.leaf("variable")
        is_changed = identity in self.changed
        reason = "is changed while the outputs are computed" if is_changed else "has no value in the checkpoint"
        self.reasons[term] = f"variable {node.name} {reason}"
        return term

    def _table(self, node: NodeDef, given: Sequence[int]) -> int:
        """Returns the term of a lookup table: its content, whichever op fills it."""
        identity = identity_of(node)
        contents = set[int]()
        for filler in find_fillers(self.model.graph, node, identity):
            self._evaluate(self._scope, data_inputs(filler)[1:])
            terms = [self._term(self._scope, one) for one in data_inputs(filler)[1:]]
            attributes = (node.op, self._attributes(node, node.op))
            dtypes = (node.attr["key_dtype"].type, node.attr["value_dtype"].type)
            contents.add(table_term(self.table, self.contents, filler, terms, dtypes, (attributes, given)))
        if len(contents) == 1:
            [term] = contents
            self.nodes.setdefault(term, node.name)
            return term
        term = self.table.leaf("table")
        self.reasons[term] = f"table {node.name} is filled " + ("in several ways" if contents else "by no op")
        return term

    def _pushed(self, scope: Scope, pop: NodeDef) -> list[int]:
        """Returns the terms that are pushed to the stack of a loop's gradient, and those of the loops that push."""
        stack = trace_passed(scope.graph, data_inputs(pop)[0])
        pushes = [
            data_inputs(node)[1]
            for node in scope.graph.node
            if node.op in PUSHES and trace_passed(scope.graph, data_inputs(node)[0]) is stack
        ]
        self._evaluate(scope, pushes)
        found = [self._term(scope, one) for one in pushes]
        seen, waiting = set[int](), list(found)
        while waiting:
            for leaf in sorted(self.table.leaves.get(waiting.pop(), frozenset()) - seen):
                seen.add(leaf)
                if leaf in self._turns:
                    loop = self._turns[leaf]()
                    found += loop
                    waiting += loop
        return found

    # Effects.

    def _note_effect(self, scope: Scope, node: NodeDef, given: Sequence[int]) -> None:
        counted = given[:1] if node.op == "Assert" else given  # what it says where it fails does not matter
        attributes = () if node.op == "Assert" else self._attributes(node, node.op)
        self.effects.append(Effect(node, scope.function, self.table.make(node.op, attributes, counted)))

    def _note_change(self, scope: Scope, node: NodeDef, given: Sequence[int]) -> None:
        for number, (reference, term) in enumerate(zip(data_inputs(node), given, strict=True)):
            if self.table[term].op == "handle":
                self.changed.add(self.table[term].attributes[1])  # type: ignore[index]
            elif (
                (number == 0 or "Apply" in node.op)
                and not scope.function
                and (variable := trace_variable(scope.graph, reference)) is not None
            ):
                self.changed.add(identity_of(variable))

    # Functions.

    def _call(self, scope: Scope, name: str, given: Sequence[int], guard: Guard) -> list[int]:
        """Returns the results of a function."""
        key = (name, tuple(given), guard)
        if key not in self._calls:
            function = self._functions.get(name)
            if function is None:
                raise Unproven(f"a function is missing: {name}")
            if name in self._entered:
                raise Unproven(f"a function calls itself: {name}")
            names = [argument.name for argument in function.signature.input_arg]
            if len(names) != len(given):
                raise Unproven(f"a function is called with {len(given)} arguments instead of {len(names)}: {name}")
            inner = Scope(name, self.model.graph.body(name), dict(zip(names, given, strict=True)), guard)
            results = [function.ret[result.name] for result in function.signature.output_arg]
            self._entered.append(name)
            waited_for = [function.control_ret[one] for one in function.signature.control_output]
            self._evaluate(inner, [*results, *(f"^{one}" for one in waited_for)])
            self._entered.pop()
            self._calls[key] = [self._term(inner, result) for result in results]
        return self._calls[key]
