"""Finds what outputs are computed in: with the policies mixed_float16 and mixed_bfloat16 an output of float32 is not.

A node that computes in float16 rounds its result to 11 bits, so two kernels, or two orders of a sum, may give
neighbours, 2^-10 apart, which is `float16_rtol`; for bfloat16, 2^-7. The roundings of the nodes along a path are
independent of each other, so their errors grow with the square root of their number (Higham and Mary, A New Approach
to Probabilistic Rounding Error Analysis, SIAM J. Sci. Comput. 41-5, 2019), and in proportion to the values that are
added, not to what is left of them. So the bound of such an output is

    |candidate - reference| <= r * (s + |reference|),    r = float16_rtol * sqrt(n),

with n for the most roundings on a path from the inputs, and s for the root mean square of the reference's outputs. It
replaces narrower bounds alone. The checkpoint's graph says which nodes these are: what a candidate computes in does not
widen its own bound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.checkpoint.source import open_artifact
from pipeline.errors import PipelineError
from pipeline.graph.graph import Graph
from pipeline.graph.nodes import data_inputs, node_of
from pipeline.graph.ops import output_dtypes
from pipeline.graph.protos import NodeDef
from pipeline.signature import Batch, Signature, read_origin
from pipeline.store.file_names import SIGNATURE_FILE

_NARROW = {19: "float16", 14: "bfloat16"}  # DataType's numbers
# Ops that choose or move values, and round none; a Cast to a narrow type rounds like a computation.
_EXACT = frozenset(
    (
        *(
            "Const",
            "ImmutableConst",
            "Placeholder",
            "PlaceholderV2",
            "PlaceholderWithDefault",
            "VariableV2",
            "Variable",
        ),
        *("ReadVariableOp", "Identity", "IdentityN", "StopGradient", "Reshape", "Squeeze", "ExpandDims", "Transpose"),
        *("ConcatV2", "Concat", "Pack", "Unpack", "Split", "SplitV", "Slice", "StridedSlice", "Pad", "PadV2", "Tile"),
        *("MirrorPad", "GatherV2", "Gather", "GatherNd", "ReverseV2", "Roll", "Fill", "ZerosLike", "OnesLike", "Where"),
        *("Relu", "Relu6", "MaxPool", "MaxPoolV2", "Max", "Min", "Maximum", "Minimum", "Neg", "Abs", "Select"),
        *("SelectV2", "Switch", "Merge", "Enter", "Exit", "NextIteration", "BroadcastTo", "Cast"),
    )
)


@dataclass(frozen=True)
class Precision:
    """A narrow float type that an output is computed in.

    Args:
        dtype: `float16` or `bfloat16`; the latter if both occur.
        roundings: the most on a path from the inputs to the output.
        node, op: the first node that computes in it.
        scale: the root mean square of the output.
    """

    dtype: str
    roundings: int
    node: str
    op: str
    scale: float = 0.0

    def sentence(self, output: str, rtol: float, atol: float) -> str:
        """Says why the bounds of an output are what they are."""
        return (
            f"{output} is computed in {self.dtype}: from the node {self.node} ({self.op}) on, with up to "
            f"{self.roundings} roundings on the way. So its bounds are rtol {rtol:.2g}, atol {atol:.2g}: "
            f"{self.dtype}_rtol times the root of {self.roundings}, and that times its root mean square "
            f"{self.scale:.3g}"
        )


def find_precisions(checkpoint: Path, signature: Signature) -> dict[str, Precision]:
    """Finds the outputs of a checkpoint that are computed in a narrow float type, without their scale.

    A graph that cannot be read has none: the checks report what is wrong with it.
    """
    try:
        graph = open_artifact(checkpoint, read_origin(checkpoint / SIGNATURE_FILE).get("signature")).graph
        fed = {node_of(spec.tensor_name) for spec in signature.inputs}
        ways = _Ways(graph, fed)
        found = {spec.name: ways.precision(node_of(spec.tensor_name)) for spec in signature.outputs}
    except PipelineError:
        return {}
    return {name: one for name, one in found.items() if one is not None}


def with_scales(precisions: Mapping[str, Precision], answers: Batch) -> dict[str, Precision]:
    """Adds the scale of each output.

    Args:
        answers: the reference's, by output.
    """
    scaled = {}
    for name, one in precisions.items():
        values = np.abs(np.asarray(answers[name]).astype(np.float64)) if name in answers else np.zeros(0)
        finite = values[np.isfinite(values)]
        scaled[name] = replace(one, scale=math.sqrt(float(np.mean(finite**2))) if finite.size else 0.0)
    return scaled


class _Ways:
    """The ways from a graph's inputs to its outputs."""

    def __init__(self, graph: Graph, fed: set[str]) -> None:
        self._graph, self._fed, self._dtypes = graph, fed, dict[str, list[tuple[int, NodeDef]]]()
        self._from_inputs: set[str] | None = None
        self._is_narrow = any(self._narrow(node) for node in graph.all_nodes())

    def precision(self, end: str) -> Precision | None:
        """Returns the precision of a node; None if nothing on its way is narrow."""
        if not self._is_narrow:
            return None
        if self._from_inputs is None:
            self._from_inputs = self._graph.descendants(self._fed)
        above = self._graph.ancestors([end], with_control=False, stop=self._fed) & self._from_inputs
        inside = {name: found for name in above if (found := self._roundings(self._graph.nodes[name]))}
        nodes = [node for found in inside.values() for node in found]
        if not nodes:
            return None
        dtypes = {self._narrow(node) for node in nodes}
        longest = self._longest(end, above, {name: len(found) for name, found in inside.items()})
        first = min((name for name in inside), key=lambda name: (self._depth[name], name))
        return Precision(
            _NARROW[14 if 14 in dtypes else 19], max(1, longest), inside[first][0].name, inside[first][0].op
        )

    def _roundings(self, node: NodeDef) -> list[NodeDef]:
        """Returns the node, or the nodes in the functions that it calls, that round to a narrow type."""
        inside = [each for _, each in self._graph.called_nodes([node])]
        return [each for each in (inside or [node]) if self._narrow(each) and each.op not in (_EXACT - {"Cast"})]

    def _narrow(self, node: NodeDef) -> int:
        """Returns the DataType of a narrow output; 0 if there is none."""
        dtypes = set(output_dtypes(node, self._graph.functions) or ()) & set(_NARROW)
        return min(dtypes, default=0)

    def _longest(self, end: str, above: set[str], weights: Mapping[str, int]) -> int:
        """Returns the largest sum of weights on a way to a node; a loop counts once."""
        self._depth: dict[str, int] = {}
        waiting, open_nodes = [(end, False)], set[str]()
        while waiting:
            name, is_left = waiting.pop()
            inputs = [node_of(reference) for reference in data_inputs(self._graph.nodes[name])]
            inputs = [] if name in self._fed else [one for one in inputs if one in above]
            if is_left:
                self._depth[name] = max((self._depth.get(one, 0) for one in inputs), default=0) + weights.get(name, 0)
            elif name not in open_nodes:
                open_nodes.add(name)
                waiting.append((name, True))
                waiting += [(one, False) for one in inputs if one not in open_nodes]
        return self._depth[end]
