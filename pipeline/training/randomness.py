"""Makes random draws depend only on the seed and the training step.

TensorFlow's random ops keep a counter inside the session, which no checkpoint stores: a resumed
training would draw other dropout masks than one that was not interrupted. Each such op is replaced
by its stateless counterpart, keyed by the op's own seeds and the training step.
"""

from __future__ import annotations

from collections.abc import Iterable

import tensorflow as tf

from pipeline.graph.graph import Graph

STEP = "pipeline/step"

# op -> (stateless op, index of its seed input, renamed attributes); see TensorFlow's core/ops/random_ops.cc
# and stateless_random_ops.cc.
_STATELESS = {
    "RandomUniform": ("StatelessRandomUniform", 1, {}),
    "RandomStandardNormal": ("StatelessRandomNormal", 1, {}),
    "TruncatedNormal": ("StatelessTruncatedNormal", 1, {}),
    "RandomUniformInt": ("StatelessRandomUniformInt", 1, {"Tout": "dtype"}),
    "Multinomial": ("StatelessMultinomial", 2, {}),
}
_OTHER_DRAWS = frozenset(
    ["RandomShuffle", "RandomGamma", "RandomPoisson", "RandomPoissonV2", "ParameterizedTruncatedNormal", "RandomCrop"]
    + [f"Stateful{draw}" for draw in ("StandardNormalV2", "Uniform", "TruncatedNormal", "UniformInt", "RandomBinomial")]
)


def key_draws_by_step(graph_def: tf.compat.v1.GraphDef, initializers: Iterable[str]) -> list[str]:
    """Makes the random ops of a training graph stateless, in place.

    Args:
        graph_def: a graph with a scalar int64 placeholder named `pipeline/step`.
        initializers: names of nodes that initialize variables; their draws stay as they are, because
            they happen once, before the first step.

    Returns:
        Names of random nodes that cannot be replaced: with them a resumed training may differ.
    """
    initial = Graph.of(graph_def).ancestors(initializers, with_control=True)
    draws = [node for node in graph_def.node if node.op in _STATELESS and node.name not in initial]
    for node in draws:
        _replace(graph_def, node)
    in_functions = [
        f"{function.signature.name}/{node.name}"
        for function in graph_def.library.function
        for node in function.node_def
        if node.op in _STATELESS or node.op in _OTHER_DRAWS
    ]
    return [n.name for n in graph_def.node if n.op in _OTHER_DRAWS and n.name not in initial] + in_functions


def _replace(graph_def: tf.compat.v1.GraphDef, node: tf.compat.v1.NodeDef) -> None:
    op, position, renamed = _STATELESS[node.op]
    # Odd multipliers give (1, 2) and (2, 1) different keys; two nodes draw differently if their op seeds differ.
    key = (node.attr["seed"].i * 1_000_003 + node.attr["seed2"].i * 998_244_353) % (2**63)
    const = graph_def.node.add(name=f"{node.name}/key", op="Const")
    const.attr["dtype"].type = tf.int64.as_datatype_enum
    const.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(key, tf.int64))
    pack = graph_def.node.add(name=f"{node.name}/key_and_step", op="Pack", input=[const.name, STEP])
    pack.attr["N"].i = 2
    pack.attr["T"].type = tf.int64.as_datatype_enum
    node.op = op
    node.input.insert(position, pack.name)
    for name in ("seed", "seed2"):
        if name in node.attr:
            del node.attr[name]
    for old, new in renamed.items():
        node.attr[new].CopyFrom(node.attr[old])
        del node.attr[old]
    node.attr["Tseed"].type = tf.int64.as_datatype_enum
