"""Finds what a graph needs to be frozen: modes to pin, and tensors to make inputs of, all at once.

Each proposal is tried on the graph before it is told, so the command that a message prints works.
"""

from __future__ import annotations

import re
import shlex
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, product

from pipeline.checkpoint.opened import Source
from pipeline.errors import CheckpointError, FreezeError, PipelineError
from pipeline.graph.discovery import Candidate, rank_inputs
from pipeline.graph.discovery.branches import FOR_USE
from pipeline.graph.discovery.names import is_named
from pipeline.graph.graph import Graph
from pipeline.graph.lazy_nodes import whole_node
from pipeline.graph.nodes import PLACEHOLDERS, data_inputs, node_of, normalize_tensor
from pipeline.graph.protos import DataType, NodeDef
from pipeline.graph.unsupported import CALLS_PYTHON, CHANGES_STATE, DRAWS, refusal_of

from .inference.mode import batch_statistics, offer_inference, told
from .masks import DropoutJudge, Effect, drops
from .passes.constant_folding import find_ranges
from .passes.pin_placeholders import pin_placeholders
from .run_passes import freeze_source
from .write.constants import Constant, FrozenGraph

_BOOL = DataType.Value("DT_BOOL")
_INTEGERS = frozenset(DataType.Value(f"DT_{name}") for name in ("INT8", "INT16", "INT32", "INT64", "UINT8"))
_MOST_TRIES = 16
_MOST_DRAWS = 3


@dataclass(frozen=True)
class Needs:
    """What freezing needs beside the outputs.

    Args:
        inputs: inner tensors that become inputs, and placeholders whose default no .pb can carry.
        pins: values of modes.
        defaults: those of the pins that are the placeholder's own default, and of the inputs that are placeholders.
        reasons: a sentence for each.
        others: needs that are as likely as these: the graph does not tell which of them is for use.
        norms: number of norms over the batch that are left.
        is_inference: the graph was built for training, and has to be rewritten (`inference.mode`).
    """

    inputs: tuple[str, ...] = ()
    pins: Mapping[str, str] = field(default_factory=dict)
    defaults: frozenset[str] = frozenset()
    reasons: tuple[str, ...] = ()
    others: tuple[Needs, ...] = ()
    norms: int = 0
    is_inference: bool = False

    @property
    def is_by_default(self) -> bool:
        """True if nothing is needed but what the graph does by itself."""
        return not self.is_inference and {*self.inputs, *self.pins} == self.defaults

    def options(self) -> str:
        """Returns the options of the command that meet the needs."""
        return join_options([], self.inputs, self.pins)


def join_options(outputs: Iterable[str], inputs: Iterable[str], pins: Mapping[str, str]) -> str:
    """Returns options as they are typed; the commands and the tasks have the same."""
    lists = {"--outputs": ",".join(outputs), "--inputs": ",".join(inputs)}
    lists["--pin"] = ",".join(f"{name}={value}" for name, value in pins.items())
    return " ".join(f"{option} {shlex.quote(text)}" for option, text in lists.items() if text)


def find_needs(
    source: Source, outputs: Sequence[str], inputs: Sequence[str], pins: Mapping[str, str]
) -> Needs | PipelineError:
    """Finds what freezing these outputs needs beside the inputs and pins that are given.

    Python code on the way to an output is cut away: what it gives becomes an input.

    Of a graph that was built for training, and has all for inference in it, the needs say so.

    Returns:
        The needs; an error if the graph cannot be frozen this way, whatever is pinned or cut.
    """
    found = _find_needs_around_calls(source, outputs, inputs, pins)
    if isinstance(found, Needs) and not found.norms:
        return found
    switched = offer_inference(source)
    needs = _find_needs_around_calls(switched, outputs, inputs, pins) if switched is not None else None
    if switched is None or switched.inference is None or not isinstance(needs, Needs):
        return found
    reason = f"the graph is built for training, and can be switched: {told(switched.inference)}"
    return replace(needs, is_inference=True, reasons=(reason, *needs.reasons))


def _find_needs_around_calls(
    source: Source, outputs: Sequence[str], inputs: Sequence[str], pins: Mapping[str, str]
) -> Needs | PipelineError:
    found = _find_needs(source, outputs, inputs, pins)
    calls = find_python_calls(source.graph, outputs, inputs) if isinstance(found, PipelineError) else []
    if not 0 < len(calls) <= _MOST_DRAWS:
        return found
    needs = _find_needs(source, outputs, [*inputs, *calls], pins)
    if isinstance(needs, PipelineError):
        return found
    reason = f"{', '.join(calls)}: a .pb cannot carry the Python code, so what it gives becomes an input"
    return replace(needs, inputs=(*calls, *needs.inputs), reasons=(reason, *needs.reasons))


def find_python_calls(graph: Graph, outputs: Sequence[str], inputs: Sequence[str]) -> list[str]:
    """Returns the tensors that Python code gives on the way to outputs."""
    above = graph.ancestors(map(node_of, outputs), with_control=False, stop=set(map(node_of, inputs)))
    given = {node_of(name) for name in inputs}
    calls = [
        node.name
        for node in graph.node
        if node.name in above and node.name not in given and refusal_of(node.op) is CALLS_PYTHON
    ]
    taken = {
        reference.removesuffix(":0") for name in above for reference in graph.nodes[name].input if name not in given
    }
    ends = {name.removesuffix(":0") for name in outputs}
    return [name for call in calls for name in sorted(taken | ends) if name.partition(":")[0] == call]


def _find_needs(
    source: Source, outputs: Sequence[str], inputs: Sequence[str], pins: Mapping[str, str]
) -> Needs | PipelineError:
    candidates = [one for one in rank_inputs(source.graph, outputs) if node_of(one.tensor) not in map(node_of, pins)]
    given = {node_of(name) for name in inputs}
    cut = [
        one
        for one in candidates
        if one.op not in PLACEHOLDERS and one.op != "Const" and node_of(one.tensor) not in given
    ]
    modes = [one for one in candidates if one.is_mode and node_of(one.tensor) not in given]
    cut = [one for one in (_named_form(source.graph, each) for each in cut) if node_of(one.tensor) not in given]
    asking = [
        one for one in candidates if one not in modes and one.tensor not in given and _asks(source.graph, one.tensor)
    ]
    fed = [one.tensor for one in asking]
    cuts = [*fed, *(one.tensor for one in cut)]
    reasons = [f"{one.tensor} is a placeholder whose default no .pb can carry: it is an input" for one in asking]
    reasons += [*_reasons_to_cut(cut), *(f"{one.tensor} is {one.reasons[0]}" for one in modes)]
    statistics = batch_statistics(source)
    error: PipelineError | None = None
    best: tuple[int, Needs] | None = None  # with the fewest norms over the batch, which are for training
    guesses = _Guesses(source.graph, modes, DropoutJudge(source.graph, outputs, [*inputs, *cuts]) if modes else None)
    for values in islice(guesses.combined(), _MOST_TRIES):
        found = {name: value for name, (value, _) in values.items()}
        frozen = try_freezing(source, outputs, [*inputs, *cuts], {**pins, **found})
        if isinstance(frozen, PipelineError):
            error = error or frozen
            continue
        count = _count_batch_norms(frozen, statistics)
        if best is None or count < best[0]:
            own = frozenset(name for name, (_, is_own) in values.items() if is_own)
            best = count, Needs(tuple(cuts), found, own.union(fed), tuple(reasons), norms=count)
        if not count:
            break
    if best is None:
        return error or FreezeError("the graph cannot be frozen")
    needs = best[1]
    others = [
        replace(needs, pins=changed, defaults=needs.defaults - {name})
        for name, values in guesses.undecided.items()
        if name in needs.pins and name not in needs.defaults
        for changed in ({**needs.pins, name: value} for value in values if value != needs.pins[name])
        if not isinstance(try_freezing(source, outputs, [*inputs, *cuts], {**pins, **changed}), PipelineError)
    ]
    if not others:
        return needs
    unclear = f"the graph does not tell which value of {', '.join(guesses.undecided)} switches dropout off"
    return replace(needs, others=tuple(others), reasons=(*needs.reasons, unclear))


def _asks(graph: Graph, name: str) -> bool:
    """Returns True for a placeholder that has to be fed: its default is made of what no .pb can carry, such as rows.

    Numbers that are drawn alone leave it open whether the draw is the model's own or stands for what is fed.
    """
    if name not in graph.nodes or graph.nodes[name].op != "PlaceholderWithDefault":
        return False
    above = graph.ancestors([name], with_control=False)
    return not {refusal_of(graph.nodes[one].op) for one in above} <= {None, DRAWS, CHANGES_STATE}


def _named_form(graph: Graph, rows: Candidate) -> Candidate:
    """Returns the tensor that the author named and that alone takes rows, as `tf.identity(images, "images")` does."""
    name, port = node_of(rows.tensor), normalize_tensor(rows.tensor)
    users = graph.consumers.get(name, ())
    takers = [node for node in users if port in map(normalize_tensor, data_inputs(node))]
    if len(takers) != 1 or takers[0].op != "Identity" or not is_named(takers[0]):
        return rows
    return replace(rows, tensor=takers[0].name)


def _reasons_to_cut(cut: Iterable[Candidate]) -> Iterator[str]:
    """Yields a sentence for each node whose outputs become inputs."""
    nodes: dict[str, list[Candidate]] = {}
    for one in cut:
        nodes.setdefault(node_of(one.tensor), []).append(one)
    for name, (first, *others) in nodes.items():
        if others:
            op = "" if first.op == name else f" ({first.op})"
            yield f"{name}{op} gives rows: its {1 + len(others)} outputs become inputs"
        else:
            yield f"{first.tensor} gives rows ({first.op}): as an input it becomes a placeholder"


def try_freezing(
    source: Source, outputs: Sequence[str], inputs: Sequence[str], pins: Mapping[str, str]
) -> FrozenGraph | PipelineError:
    """Returns the frozen graph, or the error that freezing would end with; nothing is written."""
    try:
        return freeze_source(replace(source, graph=pin_placeholders(source.graph, pins)), outputs, inputs)
    except (CheckpointError, FreezeError) as error:
        return error


def _count_batch_norms(frozen: FrozenGraph, statistics: Collection[str]) -> int:
    """Counts what normalizes by the batch, as batch norm does in training.

    Args:
        statistics: names of nodes that are known to.
    """
    inner = (node for function in frozen.library.function for node in function.node_def)
    nodes = [node for node in (*frozen.nodes, *inner) if not isinstance(node, Constant)]
    moments = [node for node in nodes if node.name in statistics or (node.op == "Mean" and "moments/" in node.name)]
    fused = [whole_node(node) for node in nodes if re.fullmatch(r"FusedBatchNorm(V\d)?", node.op)]
    return len([*moments, *(node for node in fused if "is_training" not in node.attr or node.attr["is_training"].b)])


def find_draws(source: Source, outputs: Sequence[str], inputs: Sequence[str]) -> Needs | None:
    """Returns the needs if the draws on the way to the outputs become inputs; None if that is not enough."""
    graph = source.graph
    above = graph.ancestors(map(node_of, outputs), with_control=False, stop=set(map(node_of, inputs)))
    draws = [node.name for node in graph.node if node.name in above and refusal_of(node.op) is DRAWS]
    if not 0 < len(draws) <= _MOST_DRAWS:
        return None
    needs = find_needs(source, outputs, [*inputs, *draws], {})
    return replace(needs, inputs=(*draws, *needs.inputs)) if isinstance(needs, Needs) else None


class _Guesses:
    """Values of modes, the likeliest first.

    Args:
        judge: tells what a value does to dropout.
    """

    def __init__(self, graph: Graph, modes: Sequence[Candidate], judge: DropoutJudge | None) -> None:
        self._graph, self._judge = graph, judge
        self.undecided: dict[str, list[str]] = {}  # values of which the graph does not tell which one is for use
        self._choices = {name: [*self._values(name)] for name in (node_of(one.tensor) for one in modes)}

    def combined(self) -> Iterator[dict[str, tuple[str, bool]]]:
        """Yields a value for each mode, each with whether it is the placeholder's own default."""
        choices = map(enumerate, self._choices.values())
        for values in sorted(product(*choices), key=lambda one: sum(place for place, _ in one)):
            yield {name: value for name, (_, value) in zip(self._choices, values, strict=True)}

    def _values(self, name: str) -> Iterator[tuple[str, bool]]:
        node = whole_node(self._graph.nodes[name])
        default = default_of(self._graph, node)
        if node.attr["dtype"].type == _BOOL:
            values = ["true", "false"] if FOR_USE.search(name.rpartition("/")[2]) else ["false", "true"]
        else:
            values = self._judged(name)
        if default is not None and not self._drops(name, default):
            yield default, True
        yield from ((value, False) for value in values if value != default)

    def _judged(self, name: str) -> list[str]:
        """Returns the numbers that may switch a mode off: by what they do to dropout, never by its name."""
        judged = {value: self._judge.judge({name: value}) if self._judge else None for value in ("1", "0")}
        right = [value for value, one in judged.items() if one is not None and one.effect is Effect.KEEPS]
        if len(right) == 1:
            return right
        left = [value for value, one in judged.items() if not drops(one)]
        if len(left) > 1 and any(judged.values()):
            self.undecided[name] = left
        return left

    def _drops(self, name: str, value: str) -> bool:
        return self._judge is not None and drops(self._judge.judge({name: value}))


def default_of(graph: Graph, node: NodeDef) -> str | None:
    """Returns the default of a scalar placeholder as a pin has it; None if there is none, or it is no constant."""
    if node.op != "PlaceholderWithDefault" or not node.input:
        return None
    given = graph.nodes.get(node_of(node.input[0]))
    if given is None or given.op != "Const":
        return None
    given = whole_node(given)
    tensor = given.attr["value"].tensor
    if tensor.tensor_shape.dim:
        return None
    if tensor.dtype in _INTEGERS and not tensor.tensor_content:
        return str(next(iter([*tensor.int_val, *tensor.int64_val]), 0))
    found = find_ranges(graph.replace_nodes([given])).get(given.name)
    if found is None:
        return None
    return str(bool(found.low)).lower() if found.dtype == _BOOL else _short(found.low)


def _short(value: float) -> str:
    """Returns the shortest text of a float32."""
    texts = (f"{value:.{digits}g}" for digits in range(1, 10))
    packed = struct.pack("<f", value)
    return next((text for text in texts if struct.pack("<f", float(text)) == packed), repr(value))
