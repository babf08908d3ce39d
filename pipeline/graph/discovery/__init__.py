"""Finds the inputs and outputs of a graph that nobody named, and says why.

Structure decides, names only order what structure leaves open. The model is what hangs on data and weights and on no
labels (see `anatomy`). An output is a tensor of the model that no other part of the model takes. From these ends go,
one after the other, those that belong to what surrounds a model: decisions and reductions that only metrics and
summaries read; the logarithms, clips and reshapes by which a loss begins; a loss without labels, back to where it
meets what the model was given. What is left of a layer's end is a candidate:

- Without training in the graph all candidates are outputs: whoever saved it left only the model.
- With training, each head, which is a last layer and what follows it, has one output: what feeds nothing at all (a
  Softmax beside the loss) stands before what feeds the loss or metrics. If one head is there, its output is the
  model's. Of several all are outputs if each has an end that feeds nothing, or each has a loss with labels of its own.
- Everything else is ambiguous, and an error that tells the candidates: a decision that feeds nothing beside the tensor
  that it decides on; heads of different kinds; a loss that never meets data or labels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import FreezeError, nearest

from ..graph import Graph
from ..nodes import node_of, normalized
from ..ops import dtype_name, output_dtypes
from ..protos import DataType, FunctionDef, GraphDef
from .outputs import LOSS, MODEL, NOTHING, SEEN, End, Ends, find_ends
from .roles import Anatomy, dissect, union
from .shapes import shape_of
from .topology import Tensor

_OUTPUT_NAME = re.compile(r"logit|predict|prob|softmax|output|score|y_?pred|y_?hat|embedding|result", re.IGNORECASE)
_OTHER_NAME = re.compile(r"loss|cost|accuracy|error|entropy|metric|regulariz|gradient|summar", re.IGNORECASE)
_LABEL_NAME = re.compile(r"label|target|ground_?truth|y_true", re.IGNORECASE)
_MOST_SHOWN = 8


@dataclass(frozen=True)
class Candidate:
    """A tensor that may be an input or an output of a graph.

    Args:
        tensor: its name; without a port for a node's first output.
        op: the node's.
        dtype: as `tf.DType.name` has it.
        shape: a size or None per dimension; None where the graph does not tell the rank.
        score: from 0 to 1, to order them by.
        reasons: what speaks for it and against it, the weightiest first.
    """

    tensor: str
    op: str
    dtype: str
    shape: tuple[int | None, ...] | None
    score: float
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        sizes = "" if self.shape is None else f" [{', '.join('?' if s is None else str(s) for s in self.shape)}]"
        return f"{self.tensor}: {self.op}, {self.dtype}{sizes}; {', '.join(self.reasons)}"


def ranked_outputs(graph: Graph | GraphDef) -> list[Candidate]:
    """What may be an output of the graph, the likeliest first."""
    graph = Graph.of(graph)
    anatomy = dissect(graph)
    return _ranked(graph, anatomy, find_ends(anatomy, graph.functions))


def discovered_outputs(graph: Graph | GraphDef) -> list[str]:
    """The graph's outputs, where its structure leaves no doubt.

    Returns:
        Names of tensors, in the order of the graph's nodes.

    Raises:
        FreezeError: there is none, or it is not clear which; the likeliest are told with their reasons.
    """
    graph = Graph.of(graph)
    anatomy = dissect(graph)
    ends = find_ends(anatomy, graph.functions)
    chosen, doubt = _choose(anatomy, ends.found)
    if chosen:
        return [anatomy.wiring.name(end.tensor) for end in sorted(chosen, key=lambda end: end.tensor)]
    candidates = _ranked(graph, anatomy, ends)
    if not candidates:
        raise FreezeError(
            "no tensor of the graph looks like an output",
            got="nothing that is computed from an input and from variables",
            next_step="Name the outputs with --outputs",
        )
    shown = [f"\n  {candidate}" for candidate in candidates[:_MOST_SHOWN]]
    more = f"\n  and {len(candidates) - _MOST_SHOWN} more" if len(candidates) > _MOST_SHOWN else ""
    raise FreezeError(
        f"it is not clear which tensors are the outputs: {doubt}",
        next_step=f"name them with --outputs, e.g. --outputs {candidates[0].tensor}. "
        f"The likeliest are{''.join(shown)}{more}",
    )


def ranked_inputs(graph: Graph | GraphDef, outputs: Sequence[str]) -> list[Candidate]:
    """What the outputs are computed from: placeholders, iterators and queues; data first, then modes to pin.

    Args:
        outputs: names of tensors or nodes.

    Raises:
        FreezeError: an output is not in the graph.
    """
    graph = Graph.of(graph)
    anatomy = dissect(graph)
    wiring, functions = anatomy.wiring, graph.functions
    for name in outputs:
        if node_of(name) not in wiring.number:
            raise FreezeError(
                "no such tensor in the graph", where=name, next_step=nearest(node_of(name), wiring.number)
            )
    found = []
    for tensor in _sources_above(anatomy, outputs):
        score, reasons = _input_reasons(anatomy, tensor)
        found.append((score, tensor, _candidate(anatomy, functions, tensor, score, reasons)))
    return [candidate for _, _, candidate in sorted(found, key=lambda entry: (-entry[0], entry[1]))]


# Inputs.


def _sources_above(anatomy: Anatomy, outputs: Iterable[str]) -> list[Tensor]:
    """The sources that outputs hang on; a parser of examples is passed, for what it parses is the input."""
    wiring = anatomy.wiring
    waiting: list[Tensor] = []
    for name in outputs:
        port = normalized(name).rpartition(":")[2]
        waiting.append((wiring.number[node_of(name)], int(port) if port.isdecimal() else 0))
    seen, found = set[Tensor](), set[Tensor]()
    while waiting:
        tensor = waiting.pop()
        if tensor in seen:
            continue
        seen.add(tensor)
        is_given = tensor in anatomy.sources or not wiring.inputs[tensor[0]]
        if tensor in anatomy.sources and not re.search("Parse|CSV", wiring.ops[tensor[0]]):
            found.add(tensor)
        elif not is_given or tensor in anatomy.sources:
            waiting += wiring.inputs[tensor[0]]
    return sorted(found)


def _input_reasons(anatomy: Anatomy, tensor: Tensor) -> tuple[float, list[str]]:
    node = anatomy.wiring.nodes[tensor[0]]
    bit = anatomy.sources[tensor]
    reasons = []
    if bit in anatomy.modes:
        value = "false" if node.attr["dtype"].type == DataType.Value("DT_BOOL") else "VALUE"
        return 0.3, [f"a mode: {anatomy.modes[bit]}", f"pin it with --pin {node.name}={value}"]
    score = 0.6
    if bit & anatomy.data:
        score = 0.9
        reasons.append("weights are applied to it")
    elif bit & anatomy.labels:
        score = 0.4
        reasons.append("no weights are applied to it, as with labels")
    else:
        reasons.append("the outputs hang on it, no weights are applied to it")
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


# The choice.


def _choose(anatomy: Anatomy, ends: list[End]) -> tuple[list[End], str]:
    """The outputs; where there are none, why not."""
    if not anatomy.has_training and not any(end.feeds == LOSS for end in ends):
        clear = [end for end in ends if end.feeds == NOTHING or end.head >= 0]
        return clear, "nothing ends the model"
    heads: dict[int, list[End]] = {}
    for end in ends:
        if end.head >= 0 or not anatomy.needs_weights:
            heads.setdefault(end.head, []).append(end)
    picked: list[End] = []
    for found in heads.values():
        best, doubt = _of_head(found)
        if doubt:
            return [], doubt
        picked += best
    # The same weights twice: once for the loss, with dropout perhaps, and once for answers.
    answering = {v for end in picked if end.feeds != LOSS for v in anatomy.applied.get(end.head, ())}
    picked = [e for e in picked if e.feeds != LOSS or answering.isdisjoint(anatomy.applied.get(e.head, ()))]
    aside = [e for e in ends if e.head < 0 and e.feeds == NOTHING and e.decides_on is None and not e.is_bool]
    if aside and anatomy.needs_weights and not any(end.feeds == NOTHING for end in picked):
        return [], "a tensor in the middle of the model feeds nothing, as an output does, and its end feeds the loss"
    if len(picked) <= 1:
        return picked, "no tensor ends the model"
    if len({anatomy.above[end.tensor[0]] for end in picked}) > 1:
        return [], "several parts of the model end, and they have different inputs"
    if all(end.feeds == NOTHING for end in picked):
        return picked, ""
    labels = [end.labels for end in picked]
    if all(end.feeds == LOSS for end in picked) and all(labels) and sum(labels) == union(labels):
        return picked, ""
    return [], "several parts of the model end, and not all in the same way"


def _of_head(ends: list[End]) -> tuple[list[End], str]:
    idle = [end for end in ends if end.feeds == NOTHING]
    decisions = [end for end in idle if end.decides_on is not None]
    if decisions:
        return [], "a decision feeds nothing, as an output does; what it decides on may be the output as well"
    if len(idle) > 1:
        return (idle, "") if len({e.tensor[0] for e in idle}) == 1 else ([], "several tensors of one head feed nothing")
    if idle:
        return idle, ""
    doubt = next((end.doubt for end in ends if end.doubt), "")
    if doubt:
        return [], doubt
    return (ends, "") if len(ends) == 1 else ([], "several tensors of one head feed the loss or metrics")


# How candidates are told.


def _ranked(graph: Graph, anatomy: Anatomy, ends: Ends) -> list[Candidate]:
    functions = graph.functions
    chosen = {end.tensor for end in _choose(anatomy, ends.found)[0]}
    found: dict[Tensor, Candidate] = {}
    for end in (*ends.found, *ends.alternatives):
        if end.tensor not in found:
            score, reasons = _output_reasons(anatomy, end, end.tensor in chosen)
            found[end.tensor] = _candidate(anatomy, functions, end.tensor, score, reasons)
    return sorted(
        found.values(), key=lambda candidate: (-candidate.score, anatomy.wiring.number[node_of(candidate.tensor)])
    )


def _output_reasons(anatomy: Anatomy, end: End, is_chosen: bool) -> tuple[float, list[str]]:
    name = anatomy.wiring.name(end.tensor)
    score = {NOTHING: 0.7, LOSS: 0.6, MODEL: 0.6, SEEN: 0.5}[end.feeds]
    reasons = [f"feeds {'nothing but ' if end.feeds in (LOSS, SEEN) else ''}{end.feeds}"]
    if end.decides_on is not None:
        score -= 0.1
        reasons.append(f"decides on {anatomy.wiring.name(end.decides_on)}")
    if end.head < 0 and anatomy.needs_weights and not end.doubt:
        score -= 0.3
        reasons.append("stands in the middle of the model, or beside it")
    if end.doubt:
        score -= 0.1
        reasons.append(end.doubt)
    if _OUTPUT_NAME.search(name):
        score += 0.05
        reasons.append("named like an output")
    if _OTHER_NAME.search(name):
        score -= 0.1
        reasons.append("named like a loss or a metric")
    return round(score + (0.2 if is_chosen else 0), 2), reasons


def _candidate(
    anatomy: Anatomy, functions: Mapping[str, FunctionDef], tensor: Tensor, score: float, reasons: list[str]
) -> Candidate:
    wiring = anatomy.wiring
    node = wiring.nodes[tensor[0]]
    dtypes = output_dtypes(node, functions)
    dtype = dtype_name(dtypes[tensor[1]]) if dtypes and tensor[1] < len(dtypes) else "unknown dtype"
    shape = shape_of(wiring, tensor, anatomy.producer)
    return Candidate(wiring.name(tensor), node.op, dtype, shape, round(score, 2), tuple(reasons))
