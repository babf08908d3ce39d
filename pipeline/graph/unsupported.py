"""Ops that cannot be frozen, with reasons: state changes, clocks, random numbers, files, Python."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from pipeline.errors import FreezeError

from .graph import Graph
from .protos import DataType, NodeDef

DT_RESOURCE = DataType.Value("DT_RESOURCE")


@dataclass(frozen=True)
class Refusal:
    """A kind of op that a .pb cannot carry: the ops, the cause, the cure.

    A cure for a node of the graph itself may name `{node}`. Inside of a function no node can be named from outside: the
    model ends before it, or is saved again without it. There the node's name tells the layer.
    """

    ops: str
    cause: str
    cure: str
    cure_inside: str = "Change it in the model's code"

    def matches(self, op: str) -> bool:
        """Returns True if an op is of this kind."""
        return re.fullmatch(self.ops, op) is not None

    def error(self, node: NodeDef, function: str | None) -> FreezeError:
        """Returns the error for one node."""
        where = f"node {node.name}" + (f" in function {function}" if function else "")
        cure = self.cure.format(node=node.name)
        if function:
            where, cure = f"{where}{_layer(node.name)}", f"{self.cure_inside}, and save the model again"
        return FreezeError(f"{node.op} {self.cause}", where=where, next_step=cure)


def _layer(name: str) -> str:
    """Returns words for the layer that a node of a function is in, which Keras writes before the node's own name."""
    scopes = name.split("/")[:-1]
    return f", layer {re.sub(r'_[0-9]+$', '', scopes[1])} ({'/'.join(scopes[:2])})" if len(scopes) > 1 else ""


CHANGES_STATE = Refusal(
    r"Assign|AssignAdd|AssignSub|Assign(Add|Sub)?VariableOp|(Resource)?CountUpTo"
    r"|Scatter(Add|Sub|Mul|Div|Min|Max|Update)|ScatterNd(Add|Sub|Min|Max|Update)"
    r"|ResourceScatter\w+|(Resource)?StridedSliceAssign|(Resource)?(Sparse)?Apply[A-Z]\w+|RngSkip|RngReadAndSkip",
    "changes state on the way to an output",
    "No .pb can hold state: end the model before it (--outputs), or serve it as it was saved",
    "Take outputs that do not need it (--outputs), or build the model without that state (stateful=False in a recurrent"
    " layer)",
)
_TOUCHES_FILES = Refusal(
    r"ReadFile|WriteFile|MatchingFiles|SaveV2|SaveSlices|Save|RestoreV2|RestoreSlice|Restore|MergeV2Checkpoints"
    r"|ImmutableConst|LoadAndRemapMatrix|GenerateVocabRemapping",
    "reads or writes files of the machine that it runs on",
    "Make what it gives an input: --inputs {node}",
)
_TELLS_TIME = Refusal(r"Timestamp", "reads the clock when it runs", "Make the time an input: --inputs {node}")
CALLS_PYTHON = Refusal(
    r"EagerPyFunc|PyFunc|PyFuncStateless",
    "calls Python code, which a .pb cannot carry",
    "Write it with TensorFlow ops, or make its result an input: --inputs {node}",
)
DRAWS = Refusal(
    r"RandomUniform|RandomUniformInt|RandomStandardNormal|TruncatedNormal|RandomShuffle|Multinomial|RandomGamma"
    r"|RandomPoisson\w*|ParameterizedTruncatedNormal|\w+CandidateSampler|SampleDistortedBoundingBox(V2)?"
    r"|NonDeterministicInts|Skipgram|RandomCrop|Fractional(Max|Avg)Pool|Stateful\w*(Uniform|Normal)\w*|StatefulRandomBinomial",
    "draws random numbers on the way to an output",
    "Pin what switches it off (--pin), end the model before it (--outputs), or make it an input: --inputs {node}",
    "Take outputs that do not need it (--outputs), or build the model so that it draws in training alone",
)
_CANNOT_BE_REWRITTEN = Refusal(r"RefSelect", "has no counterpart on constants here", "Select before the graph is saved")
_READS_ROWS = Refusal(
    r"Iterator\w*|OneShotIterator|AnonymousIterator\w*|MakeIterator|QueueDequeue\w*|\w*Queue(V2)?|Reader\w+|\w+Reader(V2)?"
    r"|Barrier\w*|(Ordered)?(Map)?(Uns|S)tage(NoKey)?|(Ordered)?(Map)?(Stage)?Peek|RecordInput"
    r"|((Ordered)?Map|Stage)(Incomplete)?(Size|Clear)|GetSession(Handle(V2)?|Tensor)|(Resource|Sparse)?(Conditional)?Accumulator\w*|\w+Dataset(V\d)?",
    "reads rows from a queue, a reader, a data set or another store",
    "Make the rows that it gives an input: --inputs {node}",
)
REFUSALS = (CHANGES_STATE, _TOUCHES_FILES, CALLS_PYTHON, DRAWS, _TELLS_TIME, _READS_ROWS, _CANNOT_BE_REWRITTEN)
# Control edges from these are dropped: they do nothing for an output.
_SIDE_EFFECTS = re.compile(
    r"PyFunc|EagerPyFunc|\w*Summary\w*|QueueEnqueue\w*|QueueClose\w*|WriteFile|Barrier\w*|InitializeTable\w*|LookupTableImport\w*"
)


@lru_cache(maxsize=4096)
def refusal_of(op: str) -> Refusal | None:
    """Returns the reason why an op cannot be in a .pb; None if it can."""
    return next((refusal for refusal in REFUSALS if refusal.matches(op)), None)


def acts(node: NodeDef, graph: Graph, seen: set[str]) -> bool:
    """Returns True if a node changes state or acts on the outside world, itself or in a function that it calls."""
    if acts_itself(node.op):
        return True
    for name in graph.called_by(node) if graph.functions else ():
        if name not in seen:
            seen.add(name)
            if any(acts(inner, graph, seen) for inner in graph.body(name).node):
                return True
    return False


@lru_cache(maxsize=4096)
def acts_itself(op: str) -> bool:
    """Returns True if an op changes state or acts on the outside world."""
    return refusal_of(op) is not None or _SIDE_EFFECTS.fullmatch(op) is not None
