"""Prepares the functions and loops of a frozen graph for the converters of TFLite and ONNX.

Both converters take a loop as one op, `While`, and a branch as `If`. When TensorFlow inlines a function, it would
rewrite those inside it to Switch, Merge, Enter and Exit, and so cut a loop's TensorLists off from their loop: no
converter knows them alone. A Keras RNN is such a loop, in a function of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from tensorflow.compat import v1
from tensorflow.core.protobuf import config_pb2, rewriter_config_pb2
from tensorflow.python.grappler import tf_optimizer

from pipeline.signature import Signature

_BRANCHES = ("If", "StatelessIf", "Case", "StatelessCase")
_LOOPS, _FROM_WHILE_LOOP = ("While", "StatelessWhile"), "_num_original_outputs"


def inline_calls(graph_def: Any, signature: Signature) -> Any:
    """Inlines all function calls, and keeps loops and branches as one op each.

    Args:
        graph_def: a frozen graph; since it has no state, all of its calls may be treated as stateless.

    Returns:
        The graph, with only what its outputs need; the inputs and outputs of the signature keep their names.

    Raises:
        ValueError, tf.errors.OpError: TensorFlow cannot import or optimize the graph.
    """
    kept = make_calls_stateless(graph_def)
    for node in all_nodes(kept):
        # tf2onnx takes the first two variables of any loop for its counter and its limit, as tf.while_loop makes them.
        if node.op in _BRANCHES or (node.op in _LOOPS and _FROM_WHILE_LOOP in node.attr):
            node.attr["_lower_using_switch_merge"].b = False
    for function in kept.library.function:
        function.attr.pop("api_implements", None)  # another implementation, for a GPU, which would not be inlined
        function.attr.pop("_noinline", None)
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(kept, name="")
        meta = v1.train.export_meta_graph(graph=graph, graph_def=graph.as_graph_def(add_shapes=True))
    ends = [spec.tensor_name for spec in (*signature.inputs, *signature.outputs)]
    meta.collection_def["train_op"].node_list.value.extend(ends)
    config = config_pb2.ConfigProto()
    options = config.graph_options.rewrite_options
    options.min_graph_nodes = -1  # small graphs too
    options.optimizers.append("function")
    options.function_optimization = rewriter_config_pb2.RewriterConfig.AGGRESSIVE
    return tf_optimizer.OptimizeGraph(config, meta)


def make_calls_stateless(graph_def: Any) -> Any:
    """Returns a copy of a frozen graph whose calls can all be inlined: it has no state, whatever its calls say."""
    result = v1.GraphDef()
    result.CopyFrom(graph_def)
    for node in all_nodes(result):
        if node.op == "StatefulPartitionedCall":
            node.op = "PartitionedCall"
    return result


def has_loop_in_loop(graph_def: Any) -> bool:
    """Returns True if the functions of a loop have loops themselves."""
    functions = {function.signature.name: function for function in graph_def.library.function}
    loops = [node for node in all_nodes(graph_def) if node.op in _LOOPS]
    called = {name for loop in loops for name in (loop.attr["body"].func.name, loop.attr["cond"].func.name)}
    waiting, seen = list(called), set(called)
    while waiting:
        function = functions.get(waiting.pop())
        for node in () if function is None else function.node_def:
            if node.op in _LOOPS:
                return True
            inner = {value.func.name for value in node.attr.values() if value.HasField("func")} - seen
            waiting += inner
            seen |= inner
    return False


def all_nodes(graph_def: Any) -> Iterator[Any]:
    """Yields the nodes of a graph and of its functions."""
    yield from graph_def.node
    for function in graph_def.library.function:
        yield from function.node_def
