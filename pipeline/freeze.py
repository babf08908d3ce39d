"""Freezes a checkpoint: one .pb in which the variables are constants, or a sentence on why it cannot be.

What TensorFlow's converter leaves in, or gets wrong without a word, is looked for before and after.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2

from .checkpoint import CheckpointFiles, checkpoint_errors
from .errors import FreezeError
from .signature import Signature

v1 = tf.compat.v1

MAX_PB_BYTES = 2**31 - 1  # protobuf's limit: a larger GraphDef is written without complaint and cannot be parsed

# What cannot be in a right .pb: why, and the way out. Matched against the op's whole name.
_REFUSED = (
    (
        r"(ReadFile|WriteFile|MatchingFiles|SaveV2|SaveSlices|Save|RestoreV2|RestoreSlice|Restore|MergeV2Checkpoints)",
        "reads or writes files of the machine that it runs on",
        "Make what it reads an input",
    ),
    (
        r"(Assign|AssignAdd|AssignSub|Assign(Add|Sub)?VariableOp|CountUpTo|Scatter(Add|Div|Max|Min|Mul|Sub|Update)"
        r"|ScatterNd(Add|Max|Min|Sub|Update)|(Resource)?(Sparse)?Apply[A-Z]\w+|ResourceScatter\w+|(Resource)?StridedSliceAssign"
        r"|ResourceCountUpTo|RngSkip|RngReadAndSkip)",
        "changes state on the way to an output",
        "Leave the update out of the inference graph",
    ),
    (
        r"((Mutable|Anonymous)?\w*HashTable\w*|LookupTable\w+|InitializeTable\w*)",
        "is a lookup table, which a .pb would carry without its content",
        "Hash the keys instead, or gather from a constant",
    ),
    (
        r"(EagerPyFunc|PyFunc|PyFuncStateless|XlaCustomCall\w*)",
        "calls Python code, which a .pb cannot carry",
        "Write it with TensorFlow ops",
    ),
    (
        r"(RandomUniform|RandomUniformInt|RandomStandardNormal|TruncatedNormal|RandomShuffle|Multinomial|RandomGamma"
        r"|RandomPoisson\w*|\w+CandidateSampler|SampleDistortedBoundingBox(V2)?|NonDeterministicInts|Skipgram"
        r"|ParameterizedTruncatedNormal|Stateful\w*(Uniform|Normal)\w*|StatefulRandomBinomial)",
        "draws random numbers on the way to an output",
        "Put it under `if training`",
    ),
    (
        r"(\w*Iterator\w*|QueueDequeue\w*|Reader\w+|\w*Queue(V2)?|Barrier\w*|(Ordered)?(Map)?(Uns|S)tage(NoKey)?|(Ordered)?(Map)?(Stage)?Peek)",
        "reads from a queue, a reader or a data set",
        "Make it an input of the signature",
    ),
)
_VARIABLE_OPS = frozenset({"Variable", "VariableV2", "VarHandleOp", "ReadVariableOp", "AutoReloadVariable"})
_HANDLE_OPS = frozenset(
    {"ResourceGather", "ResourceGatherNd", "VariableShape", "VarIsInitializedOp", "IsVariableInitialized"}
)


def freeze_checkpoint(checkpoint: Path, folder: Path) -> dict[str, Any]:
    """Freezes the exported checkpoint of an artifact into `model.pb`, with `signature.json` beside it.

    Args:
        checkpoint: the artifact with `model.ckpt.*` and `signature.json`.

    Returns:
        Notes for the manifest: numbers of nodes and constants.

    Raises:
        CheckpointError: the checkpoint's files are damaged.
        FreezeError: the graph cannot become a right .pb.
    """
    signature = Signature.read(checkpoint / "signature.json")
    frozen = freeze(checkpoint / "model.ckpt", signature)
    (folder / "model.pb").write_bytes(frozen.SerializeToString(deterministic=True))
    signature.write(folder / "signature.json")
    return {"nodes": len(frozen.node), "constants": sum(node.op == "Const" for node in frozen.node)}


def freeze(prefix: Path, signature: Signature) -> tf.compat.v1.GraphDef:
    """Turns the variables behind a signature's outputs into constants.

    Args:
        prefix: a Saver's prefix, with its `.meta`.

    Returns:
        The graph from the inputs to the outputs, without devices, training nodes, and functions
        that nobody calls; the same checkpoint gives the same graph.

    Raises:
        CheckpointError: the checkpoint's files are damaged.
        FreezeError: an output does not exist, or the graph holds what a .pb cannot carry.
    """
    CheckpointFiles(prefix).read_all()
    with tf.Graph().as_default() as graph, v1.Session() as session:
        with checkpoint_errors(f"{prefix}.meta"):
            saver = v1.train.import_meta_graph(_cleaned_meta(prefix), clear_devices=True)
        # The inputs too: one that no output uses is still fed by those who keep to the signature.
        names = [spec.name for spec in (*signature.outputs, *signature.inputs)]
        graph_def = v1.graph_util.extract_sub_graph(_existing(graph, names), names)
        for refusal in _refusals(graph_def):
            raise refusal
        _restore(saver, session, prefix, graph_def)
        frozen = v1.graph_util.convert_variables_to_constants(_ArraySession(session), graph_def, names)
    _mend(frozen)
    _clean(frozen)
    if frozen.ByteSize() > MAX_PB_BYTES:
        raise FreezeError(
            "the model is too large for a .pb",
            where=prefix,
            got=f"{frozen.ByteSize()} bytes",
            wanted=f"at most {MAX_PB_BYTES}",
        )
    _require_loadable(frozen, signature)
    return frozen


class _ArraySession:
    """A session for TensorFlow's converter, which wants arrays: a scalar string comes as plain bytes."""

    def __init__(self, session: Any) -> None:
        self.graph = session.graph
        self._session = session

    def run(self, fetches: Any) -> list[Any]:
        """The values of a list of tensors."""
        values = self._session.run(fetches)
        return [np.array(value, dtype=object) if isinstance(value, bytes) else value for value in values]


def _restore(saver: Any, session: Any, prefix: Path, graph_def: tf.compat.v1.GraphDef) -> None:
    lacking = "the checkpoint lacks a variable of the graph"
    if saver is not None:
        try:
            saver.restore(session, str(prefix))
        except tf.errors.NotFoundError as exc:
            found = re.search(r"Key (\S+) not found", str(exc))
            name = found[1] if found else "a variable"
            raise FreezeError(lacking, where=f"node {name}", got=f"no {name} in {prefix}") from exc
    needed = {node.name for node in graph_def.node if node.op in _VARIABLE_OPS}
    variables = [variable for variable in v1.global_variables() if variable.op.name in needed]
    for name in session.run(v1.report_uninitialized_variables(variables)) if variables else ():
        raise FreezeError(lacking, where=f"node {name.decode()}", got=f"no value in {prefix}")


def _mend(graph_def: tf.compat.v1.GraphDef) -> None:
    """Mends what the converter leaves behind: gathers and results inside functions, gathers inside v1 loops."""
    for function in graph_def.library.function:
        for node in list(function.node_def):
            if node.op == "ResourceGather":
                _as_gather(node, function.node_def)
            elif node.op == "ResourceGatherNd":
                node.op = "GatherNd"
                node.attr["Tparams"].CopyFrom(node.attr.pop("dtype"))
        identities = {node.name for node in function.node_def if node.op == "Identity"}
        for result, source in function.ret.items():
            name = source.split(":", 1)[0]
            if name in identities:
                function.ret[result] = f"{name}:output:0"
    nodes = {node.name: node for node in graph_def.node}
    for node in graph_def.node:
        params = nodes.get(node.input[0].split(":", 1)[0]) if node.op == "GatherV2" else None
        axis = nodes.get(node.input[2]) if node.op == "GatherV2" else None
        if params is not None and params.op == "Enter" and axis is not None and axis.op == "Const" and not axis.input:
            axis.input.append(f"^{params.name}")  # else it stands outside the loop's frame


def _as_gather(node: tf.compat.v1.NodeDef, body: Any) -> None:
    axis = body.add(name=f"{node.name}/frozen_axis", op="Const")
    axis.attr["dtype"].type = tf.int32.as_datatype_enum
    axis.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(0, tf.int32))
    node.op = "GatherV2"
    # Data inputs stand before control inputs.
    node.input.insert(2, f"{axis.name}:output:0")
    node.attr["Tparams"].CopyFrom(node.attr["dtype"])
    node.attr["Taxis"].type = tf.int32.as_datatype_enum
    for attribute in ("dtype", "validate_indices"):
        node.attr.pop(attribute, None)


def _cleaned_meta(prefix: Path) -> tf.compat.v1.MetaGraphDef:
    meta = v1.MetaGraphDef.FromString(Path(f"{prefix}.meta").read_bytes())
    for node in _all_nodes(meta.graph_def):
        node.attr.pop("_output_shapes", None)  # stale ones make the import fail once variables are constants
    return meta


def _existing(graph: tf.Graph, names: Iterable[str]) -> tf.compat.v1.GraphDef:
    graph_def = graph.as_graph_def()
    known = {node.name for node in graph_def.node}
    for name in names:
        if name not in known:
            raise FreezeError("a tensor of the signature is not in the graph", where=name)
    return graph_def


def _all_nodes(graph_def: tf.compat.v1.GraphDef) -> Iterator[tf.compat.v1.NodeDef]:
    yield from graph_def.node
    for function in graph_def.library.function:
        yield from function.node_def


def _refusals(graph_def: tf.compat.v1.GraphDef) -> Iterator[FreezeError]:
    """An error for each node that no right .pb can hold."""
    _prune_functions(graph_def)
    for node in _all_nodes(graph_def):
        for pattern, cause, cure in _REFUSED:
            if re.fullmatch(pattern, node.op):
                yield FreezeError(f"{node.op} {cause}", where=f"node {node.name}", next_step=cure)


def _clean(graph_def: tf.compat.v1.GraphDef) -> None:
    """Removes what belongs to the place of training, and makes the names of functions the same every time."""
    for node in _all_nodes(graph_def):
        node.device = ""
        for attribute in ("_class", "_output_shapes"):
            node.attr.pop(attribute, None)
    _prune_functions(graph_def)
    _rename_functions(graph_def)


def _functions_called(node: tf.compat.v1.NodeDef) -> Iterator[tuple[Any, str]]:
    """Each place where a node names a function, and that name."""
    for value in node.attr.values():
        for func in (value.func, *value.list.func):
            if func.name:
                yield func, func.name


def _prune_functions(graph_def: tf.compat.v1.GraphDef) -> None:
    bodies = {function.signature.name: function for function in graph_def.library.function}
    waiting, called = list(graph_def.node), set[str]()
    while waiting:
        node = waiting.pop()
        for name in (*(name for _, name in _functions_called(node)), node.op):
            if name in bodies and name not in called:
                called.add(name)
                waiting.extend(bodies[name].node_def)
    kept = [function for function in graph_def.library.function if function.signature.name in called]
    del graph_def.library.function[:]
    graph_def.library.function.extend(kept)
    kept_gradients = [gradient for gradient in graph_def.library.gradient if gradient.function_name in called]
    del graph_def.library.gradient[:]
    graph_def.library.gradient.extend(kept_gradients)


def _rename_functions(graph_def: tf.compat.v1.GraphDef) -> None:
    """Names functions by the order in which the graph calls them: TensorFlow's own names count up in a process."""
    bodies = {function.signature.name: function for function in graph_def.library.function}
    fresh: dict[str, str] = {}

    def visit(node: tf.compat.v1.NodeDef) -> None:
        names = [name for _, name in sorted(_functions_called(node), key=lambda pair: pair[1])]
        for name in (*names, node.op):
            if name in bodies and name not in fresh:
                base = re.sub(r"(_frozen)?(_rewritten)?(_\d+)+$", "", name)
                fresh[name] = f"{base}_{len(fresh)}"
                for inner in bodies[name].node_def:
                    visit(inner)

    for node in graph_def.node:
        visit(node)
    for node in _all_nodes(graph_def):
        node.op = fresh.get(node.op, node.op)
        for func, name in _functions_called(node):
            func.name = fresh.get(name, name)
    for name, function in bodies.items():
        function.signature.name = fresh[name]
    ordered = sorted(graph_def.library.function, key=lambda function: function.signature.name)
    kept = [type(function).FromString(function.SerializeToString()) for function in ordered]
    del graph_def.library.function[:]
    graph_def.library.function.extend(kept)
    del graph_def.library.gradient[:]


def _has(graph: tf.Graph, name: str) -> bool:
    try:
        graph.get_tensor_by_name(name)
    except KeyError:
        return False
    return True


def _require_loadable(frozen: tf.compat.v1.GraphDef, signature: Signature) -> None:
    """Imports the finished graph as a user would; what does not even import is never written."""
    for node in _all_nodes(frozen):
        if node.op in _VARIABLE_OPS:
            raise FreezeError("a variable is left in the frozen graph", where=f"node {node.name}", got=node.op)
        if node.op in _HANDLE_OPS:
            raise FreezeError(
                f"{node.op} asks a variable for more than its value",
                where=f"node {node.name}",
                next_step="Read the variable first, and use its value",
            )
    options = v1.ConfigProto()
    options.graph_options.rewrite_options.disable_meta_optimizer = True
    options.graph_options.optimizer_options.opt_level = -1
    wanted = config_pb2.CallableOptions(
        feed=[spec.tensor_name for spec in signature.inputs], fetch=[spec.tensor_name for spec in signature.outputs]
    )
    with tf.Graph().as_default() as graph, v1.Session(config=options) as session:
        try:
            tf.import_graph_def(frozen, name="")
            if all(_has(graph, name) for name in (*wanted.feed, *wanted.fetch)):
                session._make_callable_from_options(wanted)  # functions are looked into only now
        except (ValueError, tf.errors.OpError) as exc:
            raise FreezeError(
                "the frozen graph does not import",
                got=str(exc).split("\n", 1)[0][:300],
                next_step="Something reads a variable in a way that a constant does not allow",
            ) from exc
        for spec in (*signature.inputs, *signature.outputs):
            try:
                tensor = graph.get_tensor_by_name(spec.tensor_name)
            except KeyError as exc:
                raise FreezeError("a tensor of the signature does not reach the outputs", where=spec.name) from exc
            if tensor.dtype.base_dtype != tf.as_dtype(spec.dtype):
                raise FreezeError(
                    "a tensor changed its dtype", where=spec.name, got=tensor.dtype.name, wanted=spec.dtype
                )
