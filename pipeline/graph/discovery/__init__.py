"""Discovers inputs and outputs of a graph when no names are given, with reasons.

The structure decides; names only order what the structure leaves open. The model is all nodes computed from data and
weights and from no labels (see `roles`). An output is a tensor of the model that no other part of the model takes. The
ends that belong to the surroundings of a model are removed one by one: decisions and reductions that only metrics and
summaries read; the logarithms, clips and reshapes that begin a loss; a loss without labels, back to the node where it
meets an input of the model. Each end that is left is a candidate:

- Without training in the graph all candidates are outputs: only the model was saved.
- With training, each head (a last layer and its descendants) has one output: an end that feeds nothing at all (a
  Softmax beside the loss) wins over one that feeds the loss or metrics. A single head gives the model's output.
  Several heads are all outputs if each has an end that feeds nothing, or each has a loss with its own labels.
- Everything else is ambiguous, an error that lists the candidates: a decision that feeds nothing, next to the tensor
  that it decides on; heads of different kinds; a loss that never meets data or labels; a choice that leaves out what
  is made of more inputs, or that is nothing but rows of a table (see `left_out`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.errors import FreezeError, nearest

from ..graph import Graph
from ..nodes import node_of, normalize_tensor
from ..ops import dtype_name, output_dtypes
from ..protos import DataType, FunctionDef, GraphDef
from .alternatives import find_leftovers
from .beside import find_beside, find_idle
from .branches import find_label_branches
from .calls import inputs_of_output
from .choice import choose, is_sampled
from .constants import find_constant_labels, find_constant_rows
from .ends import LOSS, MODEL, NOTHING, SEEN, ModelEnd, ModelEnds
from .groups import named_of_branches, with_inner, with_trained
from .input_gradients import find_input_gradients
from .left_out import find_left_out, find_made_of
from .losses import ADDS, DROPS
from .named import find_decided, find_siblings, find_trained_within
from .names import is_named
from .op_kinds import draws
from .outputs import find_model_ends
from .roles import NodeRoles, classify_nodes, union
from .shapes import shape_of
from .topology import Tensor, find_descendants
from .trained import add_trained

_OUTPUT_NAME = re.compile(r"logit|predict|prob|softmax|output|score|y_?pred|y_?hat|embedding|result", re.IGNORECASE)
_OWN_NAMES = re.compile(r"embedding_lookup\w*|\w*cross_entropy\w*with_logits\w*")  # TensorFlow's, which tell nothing
_OTHER_NAME = re.compile(r"loss|cost|accuracy|error|entropy|metric|regulariz|gradient|summar", re.IGNORECASE)
_LABEL_NAME = re.compile(r"label|target|ground_?truth|y_true", re.IGNORECASE)
_PASSED = "no output is made of it, but a call on the way takes it for a loss or the like, so it has to be fed"
_MOST_SHOWN = 8
UNCLEAR = "it is not clear which tensors are the outputs"
_MOST_TOGETHER = 6
_MOST_NAMED = 10
_MOST_GROUPS = 3


@dataclass(frozen=True)
class Candidate:
    """A tensor that may be an input or an output of a graph.

    Args:
        tensor: its name; without a port for a node's first output.
        op: the node's.
        dtype: as `tf.DType.name` has it.
        shape: a size or None per dimension; None if the rank is unknown.
        score: from 0 to 1; the likeliest candidate has the highest.
        reasons: for and against it, the strongest first.
        is_mode: whether it is an input that decides how the model computes, and is pinned when the model is used.
    """

    tensor: str
    op: str
    dtype: str
    shape: tuple[int | None, ...] | None
    score: float
    reasons: tuple[str, ...]
    is_mode: bool = False

    def __str__(self) -> str:
        sizes = "" if self.shape is None else f" [{', '.join('?' if s is None else str(s) for s in self.shape)}]"
        return f"{self.tensor}: {self.op}, {self.dtype}{sizes}; {', '.join(self.reasons)}"


def rank_outputs(graph: Graph | GraphDef) -> list[Candidate]:
    """Returns possible outputs of the graph, the likeliest first."""
    graph = Graph.of(graph)
    roles = _classify(graph)
    return _rank(graph, roles, find_model_ends(roles, graph.functions))


def discover_outputs(graph: Graph | GraphDef) -> list[str]:
    """Returns the graph's outputs if its structure leaves no doubt.

    Returns:
        Names of tensors, in the order of the graph's nodes.

    Raises:
        FreezeError: there is none, or it is ambiguous; the message lists the likeliest with their reasons.
    """
    graph = Graph.of(graph)
    roles = _classify(graph)
    ends = find_model_ends(roles, graph.functions)
    chosen, doubt, _ = _choose(roles, ends, graph.functions)
    if chosen:
        return [roles.graph.name(end.tensor) for end in sorted(chosen, key=lambda end: end.tensor)]
    candidates = _rank(graph, roles, ends)
    if not candidates:
        raise FreezeError(
            "no tensor of the graph looks like an output",
            got="nothing that is computed from an input and from variables, but for numbers that train or report",
            next_step="Name the outputs with --outputs",
        )
    shown = [f"\n  {candidate}" for candidate in candidates[:_MOST_SHOWN]]
    more = f"\n  and {len(candidates) - _MOST_SHOWN} more" if len(candidates) > _MOST_SHOWN else ""
    raise FreezeError(
        f"{UNCLEAR}: {doubt}",
        next_step=f"name them with --outputs, e.g. --outputs {candidates[0].tensor}. "
        f"The likeliest are{''.join(shown)}{more}",
    )


def find_together(graph: Graph | GraphDef) -> list[tuple[list[str], str]]:
    """Returns outputs that may be wanted together, with what they are, where it is not clear which are the outputs.

    These are what is made with an input that no loss explains; and what nothing else uses with what its author named in
    its scope, and with what the loss is computed from: whoever takes all of them drops neither what was trained nor
    what was computed for use.
    """
    view = Graph.of(graph)
    roles = _classify(view)
    ends = find_model_ends(roles, view.functions)
    chosen, _, left = _choose(roles, ends, view.functions)
    left = [] if chosen or any(not one.doubt for one in left) else left
    left = [one for one in left if is_named(roles.graph.nodes[one.tensor[0]])] or left
    idle = [one for one in ends.found if not one.is_bool]
    idle = [one for one in idle if one.feeds == NOTHING or (one.feeds == LOSS and one.labels)]
    own = [one for one in idle if is_named(roles.graph.nodes[one.tensor[0]])]
    by_inputs: dict[int, list[ModelEnd]] = {}
    for one in idle:
        if one.head < 0 and one not in own:
            continue
        by_inputs.setdefault(roles.above[one.tensor[0]], []).append(one)
    given = union(roles.above[one.tensor[0]] for one in left)
    beside = [one for one in own if one.feeds == NOTHING and not roles.above[one.tensor[0]] & ~given]
    groups: list[tuple[list[ModelEnd], str]] = [
        (named_of_branches(roles, ends, left), "what the author named in all branches"),
        ([*left, *beside], "what is made with an input that no loss explains"),
        (
            find_siblings(roles, [*left, *beside], [*ends.found, *ends.alternatives]),
            "what has names of its own beside it",
        ),
    ]
    for group in by_inputs.values():
        if len(by_inputs) == 1 or any(one.feeds == NOTHING for one in group):
            pairs = with_trained(roles, ends, group)
            groups += [*pairs, *with_inner(roles, ends, next((pair for pair in pairs if pair[0]), pairs[-1]))]
    found = [(sorted({one.tensor for one in group}), what) for group, what in groups]
    return [
        (list(map(roles.graph.name, tensors)), what)
        for at, (tensors, what) in enumerate(found)
        if 1 < len(tensors) <= (_MOST_TOGETHER if at else _MOST_NAMED)
        and tensors not in [before for before, _ in found[:at]]
    ][:_MOST_GROUPS]


def find_outputs_of(graph: Graph | GraphDef, inputs: Iterable[str]) -> list[str]:
    """Returns the last tensors of the model that need exactly some inputs, beside settings and modes.

    If the author named one of them, these are what the author named in all branches that need no other inputs.

    Args:
        inputs: names of placeholders' nodes.
    """
    view, names = Graph.of(graph), set(inputs)
    roles = _classify(view)
    fixed = roles.settings | sum(roles.modes)
    wanted = sum(bit for tensor, bit in roles.sources.items() if roles.graph.name(tensor) in names) & ~fixed
    ends = find_model_ends(roles, view.functions)
    found = find_made_of(roles, ends.found, wanted) if wanted else []
    named = [one.tensor for one in named_of_branches(roles, ends, []) if not roles.above[one.tensor[0]] & ~wanted]
    if wanted and any(roles.above[index] == wanted for index, _ in named):  # served without an unnamed critic's end
        found = sorted(set(named))
    return [roles.graph.name(tensor) for tensor in found]


def find_answers_beside(graph: Graph | GraphDef, outputs: Sequence[str]) -> list[tuple[str, str]]:
    """Returns other answers of the model that outputs are of, the likeliest first, each with what it decides on.

    Args:
        outputs: names of tensors; see `beside`.
    """
    view = Graph.of(graph)
    roles = _classify(view)
    name, taken = roles.graph.name, set(map(_split_name, outputs))
    found = find_beside(roles, {(roles.graph.number[node], port) for node, port in taken}, view.functions)
    return [(name(tensor), "" if decided is None else name(decided)) for tensor, decided in found]


def _split_name(tensor: str) -> tuple[str, int]:
    port = normalize_tensor(tensor).rpartition(":")[2]
    return node_of(tensor), int(port) if port.isdecimal() else 0


def rank_before_draws(graph: Graph | GraphDef, outputs: Sequence[str]) -> list[Candidate]:
    """Returns the tensors of the model that random numbers are combined with on the way to outputs, the last first.

    What noise is added to, such as a mean, comes before what scales the noise. Dropout is left out: what stands before
    it is no answer of the model.
    """
    view = Graph.of(graph)
    roles = _classify(view)
    numbered = roles.graph
    inner = [roles.is_inner(index) for index in range(len(numbered.ops))]
    starts = {index for index, op in enumerate(numbered.ops) if op and draws(op)}
    behind = find_descendants(numbered, starts)
    above = {numbered.number[name] for name in view.ancestors(map(node_of, outputs), with_control=False)}
    dropped = {index for index in behind if numbered.ops[index] in DROPS}
    tensors = {
        tensor
        for index in (behind - find_descendants(numbered, dropped)) & above
        for tensor in numbered.inputs[index]
        if tensor[0] not in behind and inner[tensor[0]]
    }
    reason = "random numbers are combined with it"
    means = {tensor for index in behind if numbered.ops[index] in ADDS for tensor in numbered.inputs[index]}
    ordered = sorted(tensors, key=lambda tensor: (tensor in means, tensor), reverse=True)
    return [_candidate(roles, view.functions, tensor, 0.5, [reason]) for tensor in ordered]


def rank_inputs(graph: Graph | GraphDef, outputs: Sequence[str]) -> list[Candidate]:
    """Returns the placeholders, iterators and queues that outputs are computed from; data first, then modes to pin.

    Args:
        outputs: names of tensors or nodes.

    Raises:
        FreezeError: an output is not in the graph.
    """
    view = Graph.of(graph)
    roles = _classify(view)
    for name in outputs:
        if node_of(name) not in view.nodes:
            raise FreezeError("no such tensor in the graph", where=name, next_step=nearest(node_of(name), view.nodes))
    found, passed = [], _only_passed(roles, outputs, view.functions)
    for tensor in _sources_above(roles, outputs):
        score, reasons = (0.4, [_PASSED]) if tensor in passed else _input_reasons(roles, tensor)
        candidate = _candidate(roles, view.functions, tensor, score, reasons)
        found.append((score, tensor, replace(candidate, is_mode=roles.sources[tensor] in roles.modes)))
    return [candidate for _, _, candidate in sorted(found, key=lambda entry: (-entry[0], entry[1]))]


def _classify(graph: Graph) -> NodeRoles:
    """Classifies the nodes; rows and labels may be constants, gradients of the model, branches for training alone."""
    roles = classify_nodes(graph)
    closed = find_label_branches(roles)
    if closed:
        without = classify_nodes(graph, closed=closed)
        closed = {edge: added for edge, added in closed.items() if added & ~without.data}
        roles = classify_nodes(graph, closed=closed) if closed else roles
    found = find_constant_rows(roles)
    if found:
        roles = classify_nodes(graph, found, closed=closed)
    labels = find_constant_labels(roles, graph.functions)
    if labels:
        roles = classify_nodes(graph, [*found, *labels], closed=closed)
    of_model = find_input_gradients(roles)
    return classify_nodes(graph, [*found, *labels], of_model, closed) if of_model else roles


# Inputs.


def _sources_above(
    roles: NodeRoles, outputs: Iterable[str], functions: Mapping[str, FunctionDef] | None = None
) -> list[Tensor]:
    """Finds the sources that outputs are computed from. A parser of examples is passed: its own input counts.

    Args:
        functions: of the graph's library; without them, a call is computed from all that it takes.
    """
    graph = roles.graph
    waiting: list[Tensor] = []
    waiting += [(graph.number[name], port) for name, port in map(_split_name, outputs)]
    seen, found = set[Tensor](), set[Tensor]()
    while waiting:
        tensor = waiting.pop()
        if tensor in seen:
            continue
        seen.add(tensor)
        is_given = tensor in roles.sources or not graph.inputs[tensor[0]]
        if tensor in roles.sources and not re.search("Parse|CSV", graph.ops[tensor[0]]):
            found.add(tensor)
        elif not is_given or tensor in roles.sources:
            node = graph.nodes[tensor[0]] if functions and graph.ops[tensor[0]] else None
            needed = inputs_of_output(node, tensor[1], functions) if node is not None and functions else None
            given = graph.inputs[tensor[0]]
            waiting += given if needed is None else [given[at] for at in sorted(needed) if at < len(given)]
    return sorted(found)


def _only_passed(roles: NodeRoles, outputs: Sequence[str], functions: Mapping[str, FunctionDef]) -> list[Tensor]:
    """Returns the sources that only a call on the way to outputs takes, for what else it computes, such as a loss."""
    if not functions:
        return []
    needed = set(_sources_above(roles, outputs, functions))
    return [
        one for one in _sources_above(roles, outputs) if one not in needed and roles.sources[one] not in roles.modes
    ]


def _input_reasons(roles: NodeRoles, tensor: Tensor) -> tuple[float, list[str]]:
    node = roles.graph.nodes[tensor[0]]
    bit = roles.sources[tensor]
    reasons = []
    if bit in roles.modes:
        has_default = node.op == "PlaceholderWithDefault"
        value = "false" if node.attr["dtype"].type == DataType.Value("DT_BOOL") and not has_default else "VALUE"
        own = "it has a default, and another value is given with" if has_default else "pin it with"
        return 0.3, [f"a mode: {roles.modes[bit]}", f"{own} --pin {node.name}={value}"]
    score = 0.6
    if bit & roles.data:
        score = 0.9
        reasons.append("weights are applied to it")
    elif bit & roles.labels:
        score = 0.4
        reasons.append("no weights are applied to it, as with labels")
    else:
        reasons.append("the outputs are computed from it, no weights are applied to it")
    if "Placeholder" not in node.op:
        score -= 0.1
        reasons.append("rows are read here: as an input it becomes a placeholder")
    if node.op == "PlaceholderWithDefault":
        score -= 0.05
        reasons.append("it has a default")
    if _LABEL_NAME.search(node.name):
        score -= 0.05
        reasons.append("named like labels")
    return score, reasons


# Candidates with their reasons.


def _choose(
    roles: NodeRoles, ends: ModelEnds, functions: Mapping[str, FunctionDef]
) -> tuple[list[ModelEnd], str, list[ModelEnd]]:
    """Chooses the outputs; without any, the reason to ask comes second, and what else may be an output third."""
    chosen, doubt = choose(roles, ends.found)
    if chosen:
        feeding = [end for end in ends.found if end.feeds == LOSS and end.labels]
        trained = [end for end in (*feeding, *ends.trained) if not is_sampled(roles, end)]
        chosen, doubt = add_trained(roles, chosen, trained, ends.named)
    left, why = find_left_out(roles, chosen, ends.found, ends.trained)
    name = roles.graph.name
    passed = _only_passed(roles, [name(end.tensor) for end in chosen], functions) if not why else []
    if passed:
        calls = (
            "a call on the way to the outputs takes {}, of which no output is made: the frozen graph asks for it too"
        )
        return [], calls.format(", ".join(map(name, passed))), chosen
    if chosen and not why and any(end.feeds == NOTHING for end in chosen):
        idle = find_idle(roles, [end.tensor for end in chosen], functions)
        chosen = [*chosen, *(ModelEnd(tensor, NOTHING, -1) for tensor in idle)]
    return ([], why if chosen else doubt, left) if why else (chosen, doubt, [])


def _rank(graph: Graph, roles: NodeRoles, ends: ModelEnds) -> list[Candidate]:
    functions = graph.functions
    picked, _, left_out = _choose(roles, ends, functions)
    chosen = {end.tensor for end in picked}
    found: dict[Tensor, Candidate] = {}
    known = [*left_out, *ends.found, *picked, *ends.named, *find_decided(roles, ends.found), *ends.alternatives]
    known += find_trained_within(roles, ends)
    for end in known or find_leftovers(roles):
        if end.tensor not in found:
            score, reasons = _output_reasons(roles, end, end.tensor in chosen or end in left_out)
            found[end.tensor] = _candidate(roles, functions, end.tensor, score, reasons)
    return sorted(
        found.values(), key=lambda candidate: (-candidate.score, roles.graph.number[node_of(candidate.tensor)])
    )


def _output_reasons(roles: NodeRoles, end: ModelEnd, is_chosen: bool) -> tuple[float, list[str]]:
    name = roles.graph.name(end.tensor)
    score = {NOTHING: 0.7, LOSS: 0.6, MODEL: 0.6, SEEN: 0.5}[end.feeds]
    reasons = [f"feeds {'nothing but ' if end.feeds in (LOSS, SEEN) else ''}{end.feeds}"]
    if is_sampled(roles, end):
        score -= 0.4
        reasons.append("is for a sample of the classes alone")
    if end.decides_on is not None:
        score -= 0.1
        reasons.append(f"decides on {roles.graph.name(end.decides_on)}")
    own = is_named(roles.graph.nodes[end.tensor[0]])
    if end.head < 0 and roles.needs_weights and not end.doubt:
        score -= 0.05 if own and end.feeds == NOTHING else 0.3
        reasons.append("is in the middle of the model, or outside of it")
    if end.doubt:
        score -= 0.1
        reasons.append(end.doubt)
    if end.note:
        reasons.append(end.note)
    if _OUTPUT_NAME.search(_OWN_NAMES.sub("", name)):
        score += 0.05
        reasons.append("named like an output")
    if _OTHER_NAME.search(name):
        score -= 0.1
        reasons.append("named like a loss or a metric")
    score += 0.01 if own else 0  # of two that are as likely
    return round(score + (0.2 if is_chosen else 0), 2), reasons


def _candidate(
    roles: NodeRoles, functions: Mapping[str, FunctionDef], tensor: Tensor, score: float, reasons: list[str]
) -> Candidate:
    graph = roles.graph
    node = graph.nodes[tensor[0]]
    dtypes = output_dtypes(node, functions)
    dtype = dtype_name(dtypes[tensor[1]]) if dtypes and tensor[1] < len(dtypes) else "unknown dtype"
    shape = shape_of(graph, tensor, roles.producer)
    return Candidate(graph.name(tensor), node.op, dtype, shape, round(score, 2), tuple(reasons))
