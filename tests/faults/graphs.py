"""Faults in the graph: outputs, ops, attributes, kinds."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.signature import Decision, Signature, TensorSpec

from . import models
from .cases import Home, Pair, fault, freeze, read_graph, write_graph
from .models import SIGNATURE, v1

ALL = "equal edge generated golden"


def node(graph: Any, name: str) -> Any:
    """The node of a name."""
    return next(one for one in graph.node if one.name == name)


def rename(graph: Any, **names: str) -> None:
    """Gives nodes other names, and leaves what reads them as it is."""
    for one in graph.node:
        one.name = names.get(one.name, one.name)


def stand_before(graph: Any, name: str, op: str, *others: str, **types: Any) -> None:
    """Puts a node in the place of another one, which it reads."""
    rename(graph, **{name: f"{name}_inner"})
    added = graph.node.add(name=name, op=op, input=[f"{name}_inner", *others])
    for key, dtype in types.items():
        added.attr[key].type = dtype.as_datatype_enum


@fault("two outputs of one dtype and shape have each other's name", "outputs_swapped", ALL, mentions="margin gives")
def swapped_outputs(home: Home, folder: Path) -> Pair:
    return home.planted(folder, lambda graph: rename(graph, margin="spread", spread="margin"))


@fault("an output's node is not in the file", "missing_output", "equal", mentions="lacks the output spread")
def missing_output(home: Home, folder: Path) -> Pair:
    others = tuple(spec for spec in SIGNATURE.outputs if spec.name != "spread")

    def change(graph: Any) -> None:
        kept = [one for one in graph.node if one.name != "spread"]
        del graph.node[:]
        graph.node.extend(kept)

    return home.planted(folder, change, replace(SIGNATURE, outputs=others))


@fault("an output has another name", "renamed_output", "equal", mentions="spread is called width")
def renamed_output(home: Home, folder: Path) -> Pair:
    named = tuple(replace(spec, name="width" if spec.name == "spread" else spec.name) for spec in SIGNATURE.outputs)
    return home.planted(folder, lambda graph: rename(graph, spread="width"), replace(SIGNATURE, outputs=named))


@fault("an output is float64 instead of float32", "shape_or_dtype", "equal", mentions="got float64, wanted float32")
def output_of_another_dtype(home: Home, folder: Path) -> Pair:
    kinds = tuple(replace(spec, dtype="float64" if spec.name == "spread" else spec.dtype) for spec in SIGNATURE.outputs)
    change = lambda graph: stand_before(graph, "spread", "Cast", SrcT=tf.float32, DstT=tf.float64)  # noqa: E731
    return home.planted(folder, change, replace(SIGNATURE, outputs=kinds))


@fault("an output is [rows, 1] instead of [rows]", "shape_or_dtype", ALL, mentions="shape")
def output_of_another_shape(home: Home, folder: Path) -> Pair:
    def change(graph: Any) -> None:
        axis = graph.node.add(name="axis", op="Const")
        axis.attr["dtype"].type = tf.int32.as_datatype_enum
        axis.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(1, tf.int32))
        stand_before(graph, "spread", "ExpandDims", "axis", T=tf.float32, Tdim=tf.int32)

    return home.planted(folder, change)


@fault("a root of negative numbers", "nan", ALL, mentions="the first node that gives it is gap")
def NaN_in_one_output(home: Home, folder: Path) -> Pair:
    def change(graph: Any) -> None:
        node(graph, "gap").op = "Sqrt"

    return home.planted(folder, change)


@fault("a count is held in uint8 on its way to int32", "wrapped_integers", ALL, mentions="multiples of 256")
def uint8_wrap(home: Home, folder: Path) -> Pair:
    def change(graph: Any) -> None:
        stand_before(graph, "total", "Cast", SrcT=tf.uint8, DstT=tf.int32)
        stand_before(graph, "total_inner", "Cast", SrcT=tf.int32, DstT=tf.uint8)

    return home.planted(folder, change)


@fault(
    "sigmoid instead of tanh",
    "node_differs",
    f"{ALL} decisions",
    mentions="a Sigmoid stands where the checkpoint has a Tanh",
)
def another_activation(home: Home, folder: Path) -> Pair:
    def change(graph: Any) -> None:
        next(one for one in graph.node if one.op == "Tanh").op = "Sigmoid"

    return home.planted(folder, change)


@fault(
    "a product is taken with its operand transposed by an attribute",
    "node_differs",
    f"{ALL} decisions",
    mentions="transpose_b is true",
)
def another_attribute(home: Home, folder: Path) -> Pair:
    def change(graph: Any) -> None:
        next(one for one in graph.node if one.op == "MatMul").attr["transpose_b"].b = True

    return home.planted(folder, change)


@fault("the process dies of a batch", "crash", "equal", mentions="SIGABRT")
def crash(home: Home, folder: Path) -> Pair:
    def change(graph: Any) -> None:
        graph.node.add(name="abort", op="Abort").attr["error_msg"].s = b"planted"
        node(graph, "total").input.append("^abort")

    return home.planted(folder, change)


TIED = Signature(
    (TensorSpec("x", "float32", (None, 3)),),
    (TensorSpec("probabilities", "float32", (None, 3)),),
    Decision("probabilities", labels=("a", "b", "c")),
)


def tied(x: Any) -> dict[str, Any]:
    """A softmax of what it is given, so that equal inputs are a tie."""
    scale = variable_of_ones()
    return {"probabilities": tf.nn.softmax(x * scale, name="softmax")}


def variable_of_ones() -> Any:
    """A weight that leaves a row as it is, and counts all the same."""
    return v1.get_variable("scale", initializer=tf.constant([2.0, 2.0, 2.0]))


@fault(
    "a last bit, where two classes are equally likely in some rows",
    "decision_at_the_edge",
    "decisions",
    mentions="class a became b",
)
def argmax_tie(home: Home, folder: Path) -> Pair:
    rows = np.random.default_rng(2).normal(size=(16, 3)).astype(np.float32)
    rows[::4, 1] = rows[::4, 0] = 1.5  # the largest, twice
    checkpoint = models.save_checkpoint(folder / "checkpoint", tied, TIED, {"x": rows})
    candidate = freeze(checkpoint, folder / "candidate")
    graph = read_graph(candidate)
    bit = graph.node.add(name="bit", op="Const")
    bit.attr["dtype"].type = tf.float32.as_datatype_enum
    bit.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(np.array([0, 2e-7, 0], np.float32)))
    stand_before(graph, "probabilities", "AddV2", "bit", T=tf.float32)
    write_graph(graph, candidate)
    return Pair(checkpoint, candidate)


WORDED = Signature((TensorSpec("words", "string", (None,)),), (TensorSpec("score", "float32", (None,)),))


def worded(words: Any) -> dict[str, Any]:
    """Words looked up in a table, and weighed."""
    keys = tf.constant(["free", "hello", "now", "call"])
    filled = tf.lookup.KeyValueTensorInitializer(keys, tf.range(4, dtype=tf.int64))
    table = tf.lookup.StaticHashTable(filled, 4, name="vocabulary")
    weights = v1.get_variable("weights", initializer=tf.constant([3.0, -1.0, 1.0, 0.5, 0.0]))
    return {"score": tf.gather(weights, table.lookup(words))}


@fault("the lookup table's initializer was dropped", "table_not_initialized", f"{ALL} stable", mentions="vocabulary")
def table_missing(home: Home, folder: Path) -> Pair:
    checkpoint = models.save_checkpoint(folder / "checkpoint", worded, WORDED, {"words": models.WORDS})
    (folder / "candidate").mkdir()
    shutil.copy(checkpoint / "signature.json", folder / "candidate")
    write_graph(models.frozen_by_tensorflow(worded, WORDED), folder / "candidate")
    return Pair(checkpoint, folder / "candidate")
