"""Models of a few bytes that would take all memory: refused by what their constants ask for, before anything is run."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest

import redteam
from pipeline.errors import UnsafeModel
from pipeline.freezing import freeze
from pipeline.graph.graph import Graph
from pipeline.graph.protos import BundleEntryProto, FunctionDef, TensorProto
from pipeline.safety import safe_ops
from pipeline.safety.growth import costs, onnx_graphs, onnx_rules, rules, sizing
from pipeline.safety.growth.graphs import find_excess
from pipeline.safety.onnx import find_dangers as onnx_dangers
from pipeline.safety.sizes import MOST_TENSOR, require_bounded
from pipeline.safety.tflite import find_dangers as tflite_dangers
from redteam import (
    BOOL,
    FLOAT,
    INT32,
    INT64,
    STRING,
    call,
    calling,
    filled,
    function,
    honest,
    listed,
    node,
    numbers,
    shape,
    strings,
    text,
)

MUCH = 10**10


def count(name: str, value: int) -> Any:
    """A constant number."""
    made = numbers(name, value)
    del made.attr["value"].tensor.tensor_shape.dim[:]
    return made


def small(op: str, *more: str, size: int = 2, **attributes: Any) -> list[Any]:
    """An op on a small constant, and a number of elements beyond all memory."""
    return [filled("small", size), numbers("much", MUCH), node("big", op, "small", "much", *more, **attributes)]


def paddings(op: str, *, rank: int = 1, **attributes: Any) -> list[Any]:
    """An op that pads."""
    pads = numbers("pads", *[0, MUCH] * rank)
    pads.attr["value"].tensor.tensor_shape.dim[0].size = rank
    pads.attr["value"].tensor.tensor_shape.dim.add(size=2)
    return [filled("small", *[2] * rank), pads, node("big", op, "small", "pads", **attributes)]


def chain(op: str, times: int = 50, **attributes: Any) -> list[Any]:
    """An op on a tensor and itself, over and over: as small as its length, as large as 2 to the power of it."""
    nodes = [filled("big0", 4)]
    axis = [count("axis", 0)] if op == "ConcatV2" else []
    for k in range(times):
        nodes.append(node(f"big{k + 1}", op, f"big{k}", f"big{k}", *(one.name for one in axis), **attributes))
    return [*axis, *nodes]


def images(op: str, **attributes: Any) -> list[Any]:
    return [filled("image", 1, 2, 2, 3), numbers("size", 10**6, 10**6), node("big", op, "image", "size", **attributes)]


def sampled(op: str, *inputs: Any, at: int = 0, **attributes: Any) -> list[Any]:
    """An op that makes a tensor of the shape in an input."""
    names = [one.name for one in inputs]
    names.insert(at, "much")
    return [numbers("much", 10**6, 10**6), *inputs, node("big", op, *names, dtype=FLOAT, **attributes)]


def message_of_a_tensor() -> bytes:
    """A tensor of 10^12 elements in 20 bytes: the one that is there stands for all."""
    tensor = TensorProto(dtype=FLOAT, float_val=[1.0])
    tensor.tensor_shape.dim.add(size=10**12)
    return tensor.SerializeToString()


def computed() -> list[Any]:
    """The size is not there as a number: 10 * 10^9 of the shape of another tensor, cast, packed and cut."""
    return [
        filled("some", 100_000),
        node("shape", "Shape", "some", T=FLOAT, out_type=INT64),
        node("wide", "Cast", "shape", SrcT=INT64, DstT=FLOAT),
        node("square", "Mul", "wide", "wide", T=FLOAT),
        node("whole", "Cast", "square", SrcT=FLOAT, DstT=INT64),
        count("zero", 0),
        node("flat", "Squeeze", "whole", T=INT64),
        node("dims", "Pack", "flat", N={"i": 1}, T=INT64),
        filled("one"),
        node("big", "Fill", "dims", "one", T=FLOAT, index_type=INT64),
    ]


def in_a_call() -> list[Any]:
    return [filled("small", 2), numbers("much", MUCH), call_with("c", "f", "small", "much")]


def call_with(name: str, function: str, *inputs: str) -> Any:
    made = node(name, "PartitionedCall", *inputs, f=calling(function))
    made.attr["Tin"].list.type.extend([FLOAT, INT64][: len(inputs)])
    made.attr["Tout"].list.type.append(FLOAT)
    return made


def filled_by(*size: Any) -> list[Any]:
    """A Fill, whose size is the last of some nodes."""
    dims = node("dims", "Reshape", size[-1].name, "of_one", T=INT64)
    return [*size, numbers("of_one", 1), dims, filled("one"), node("big", "Fill", "dims", "one", T=FLOAT)]


def through(op: str, **attributes: Any) -> list[Any]:
    """A tensor that is joined with itself, with another op between."""
    nodes = [filled("big0", 4, 2, 2, 4), count("axis", 0)]
    for k in range(40):
        nodes.append(node(f"joined{k}", "ConcatV2", f"big{k}", f"big{k}", "axis", N={"i": 2}, T=FLOAT))
        nodes.append(node(f"big{k + 1}", op, f"joined{k}", "axis", T=FLOAT, **attributes))
    return nodes


def old_loop() -> list[Any]:
    """Forty turns as TensorFlow 1 writes them."""
    frame = {"frame_name": {"s": b"f"}}
    entries = [("small", FLOAT), ("start", INT64), ("last", INT64), ("step", INT64), ("axis", INT64)]
    return [
        *(filled("small", 1000), count("start", 0), count("last", 40), count("step", 1), count("axis", 0)),
        *(node(f"enter/{name}", "Enter", name, T=dtype, **frame) for name, dtype in entries),
        node("merge", "Merge", "enter/small", "next", T=FLOAT, N={"i": 2}),
        node("i", "Merge", "enter/start", "next_i", T=INT64, N={"i": 2}),
        node("less", "Less", "i", "enter/last", T=INT64),
        node("go_on", "LoopCond", "less"),
        node("switch", "Switch", "merge", "go_on", T=FLOAT),
        node("switch_i", "Switch", "i", "go_on", T=INT64),
        node("big", "ConcatV2", "switch:1", "switch:1", "enter/axis", N={"i": 2}, T=FLOAT, Tidx=INT64),
        node("more", "AddV2", "switch_i:1", "enter/step", T=INT64),
        node("next", "NextIteration", "big", T=FLOAT),
        node("next_i", "NextIteration", "more", T=INT64),
    ]


def calls_in_calls() -> list[Any]:
    inputs = [("t", FLOAT), ("m", INT64)]
    return [
        TILE_GIVEN,
        *(
            with_arguments(f"g{k}", inputs, "c:output:0", call_with("c", f"g{k + 1}" if k < 60 else "f", "t", "m"))
            for k in range(61)
        ),
    ]


def with_arguments(name: str, inputs: Sequence[tuple[str, int]], result: str, *nodes: Any, dtype: int = FLOAT) -> Any:
    """A function with arguments, and one result."""
    made = FunctionDef(node_def=nodes)
    made.signature.name = name
    for argument, kind in inputs:
        made.signature.input_arg.add(name=argument, type=kind)
    made.signature.output_arg.add(name="out", type=dtype)
    made.ret["out"] = result
    return made


def loop() -> tuple[list[Any], list[Any]]:
    """Forty turns, each of which doubles what there is."""
    condition = with_arguments(
        "go_on",
        [("i", INT64), ("t", FLOAT)],
        "less:z:0",
        count("last", 40),
        node("less", "Less", "i", "last:output:0", T=INT64),
        dtype=BOOL,
    )
    body = with_arguments(
        "double",
        [("i", INT64), ("t", FLOAT)],
        "next:z:0",
        count("one", 1),
        count("axis", 0),
        node("next", "AddV2", "i", "one:output:0", T=INT64),
        node("twice", "ConcatV2", "t", "t", "axis:output:0", N={"i": 2}, T=FLOAT, Tidx=INT64),
        dtype=INT64,
    )
    body.signature.output_arg.add(name="more", type=FLOAT)
    body.ret["more"] = "twice:output:0"
    turning = node("loop", "StatelessWhile", "start", "small", cond=calling("go_on"), body=calling("double"))
    turning.attr["T"].list.type.extend([INT64, FLOAT])
    return [filled("small", 1000), count("start", 0), turning], [condition, body]


TILE = function("f", filled("small", 2), numbers("much", MUCH), node("big", "Tile", "small:output:0", "much:output:0"))
TILE_GIVEN = with_arguments("f", [("t", FLOAT), ("m", INT64)], "big:output:0", node("big", "Tile", "t", "m", T=FLOAT))

# By what is tried: the nodes, and the functions.
ATTEMPTS: dict[str, tuple[list[Any], list[Any]]] = {
    "Tile": (small("Tile", T=FLOAT), []),
    "Tile of an input": ([numbers("much", 1, MUCH), node("big", "Tile", "x", "much", T=FLOAT)], []),
    "Tile in a function": ([call("c", "f")], [TILE]),
    "Tile in a function that nobody calls": ([], [TILE]),
    "Tile of what a function is given": (in_a_call(), [TILE_GIVEN]),
    "a loop that doubles": loop(),
    "Pad": (paddings("Pad", T=FLOAT), []),
    "PadV2": (paddings("PadV2", T=FLOAT), []),
    "MirrorPad": (paddings("MirrorPad", T=FLOAT, mode={"s": b"REFLECT"}), []),
    "MatrixDiag": ([filled("row", 100_000), node("big", "MatrixDiag", "row", T=FLOAT)], []),
    "MatrixDiagV3": (
        [
            filled("row", 2),
            count("k", 0),
            count("rows", 10**6),
            count("columns", 10**6),
            filled("zero"),
            node("big", "MatrixDiagV3", "row", "k", "rows", "columns", "zero", T=FLOAT),
        ],
        [],
    ),
    "Diag": ([filled("row", 100_000), node("big", "Diag", "row", T=FLOAT)], []),
    "threads of a data set": (
        [numbers("much", 10**9), node("big", "PrivateThreadPoolDataset", "x", "much")],
        [],
    ),
    "threads of a pool": ([node("big", "ThreadPoolHandle", num_threads={"i": 10**9})], []),
    "threads of a batch": ([node("big", "BatchFunction", "x", num_batch_threads={"i": 10**9}, f=calling("f"))], []),
    "a buffer to shuffle": ([count("much", 10**12), node("big", "ShuffleDataset", "x", "much", "much", "much")], []),
    "parallel calls": (
        [count("much", 10**9), node("big", "ParallelMapDatasetV2", "x", "much", f=calling("f"))],
        [],
    ),
    "a table of buckets": ([node("big", "MutableDenseHashTableV2", "x", "x", initial_num_buckets={"i": 1 << 40})], []),
    "a queue that waits for many": ([node("big", "RandomShuffleQueueV2", min_after_dequeue={"i": 1 << 40})], []),
    "ConcatV2 of itself": (chain("ConcatV2", N={"i": 2}, T=FLOAT), []),
    "Pack of itself": (chain("Pack", N={"i": 2}, T=FLOAT), []),
    "Fill of a Fill": (
        [
            numbers("one", 1),
            count("million", 10**6),
            node("dims", "Fill", "one", "million", T=INT64),
            node("dims2", "Fill", "one", "million", T=INT64),
            count("axis", 0),
            node("both", "ConcatV2", "dims", "dims2", "axis", N={"i": 2}, T=INT64),
            filled("value"),
            node("big", "Fill", "both", "value", T=FLOAT, index_type=INT64),
        ],
        [],
    ),
    "a size that is computed": (computed(), []),
    "Range": ([count("a", 0), count("b", MUCH), count("d", 1), node("big", "Range", "a", "b", "d", Tidx=INT64)], []),
    "LinSpace": ([filled("a"), filled("b"), count("n", MUCH), node("big", "LinSpace", "a", "b", "n", T=FLOAT)], []),
    "OneHot": (
        [
            numbers("i", 0),
            count("depth", MUCH),
            filled("on"),
            filled("off"),
            node("big", "OneHot", "i", "depth", "on", "off", T=FLOAT),
        ],
        [],
    ),
    "BroadcastTo": (small("BroadcastTo", size=1, T=FLOAT), []),
    "two that are stretched": (
        [filled("row", 1, 100_000), filled("column", 100_000, 1), node("big", "AddV2", "row", "column", T=FLOAT)],
        [],
    ),
    "a product of two vectors": (
        [filled("row", 1, 100_000), filled("column", 100_000, 1), node("big", "MatMul", "column", "row", T=FLOAT)],
        [],
    ),
    "Einsum": (
        [filled("a", 100_000), node("big", "Einsum", "a", "a", equation={"s": b"a,b->ab"}, N={"i": 2}, T=FLOAT)],
        [],
    ),
    "Gather of one row": (
        [
            filled("rows", 1, 10**6),
            numbers("dims", 10**5),
            count("zero", 0),
            node("places", "Fill", "dims", "zero", T=INT64),
            node("big", "GatherV2", "rows", "places", "zero", Tparams=FLOAT, Tindices=INT64, Taxis=INT64),
        ],
        [],
    ),
    "Bincount": (
        [numbers("a", 1), count("much", MUCH), filled("weights", 0), node("big", "Bincount", "a", "much", "weights")],
        [],
    ),
    "UnsortedSegmentSum": (
        [
            filled("a", 2),
            numbers("i", 0, 1),
            count("n", MUCH),
            node("big", "UnsortedSegmentSum", "a", "i", "n", T=FLOAT),
        ],
        [],
    ),
    "SegmentSum by its last number": (
        [filled("a", 2), numbers("i", 0, MUCH), node("big", "SegmentSum", "a", "i", T=FLOAT)],
        [],
    ),
    "DynamicStitch by its largest place": (
        [numbers("i", 0, MUCH), filled("a", 2), node("big", "DynamicStitch", "i", "a", N={"i": 1}, T=FLOAT)],
        [],
    ),
    "ScatterNd": (
        [numbers("i", 0), filled("u", 1), numbers("n", MUCH), node("big", "ScatterNd", "i", "u", "n", T=FLOAT)],
        [],
    ),
    "SparseToDense": (
        [
            numbers("i", 0),
            numbers("n", MUCH),
            filled("u", 1),
            filled("zero"),
            node("big", "SparseToDense", "i", "n", "u", "zero", T=FLOAT, Tindices=INT64),
        ],
        [],
    ),
    "rows of a sparse matrix": (
        [
            numbers("i", 0, 0),
            filled("u", 1),
            numbers("n", MUCH, 2),
            node("big", "SparseTensorToCSRSparseMatrix", "i", "u", "n", T=FLOAT),
        ],
        [],
    ),
    "a sparse matrix made dense": (
        [
            numbers("n", 10**6, 10**6),
            node("matrix", "SparseMatrixZeros", "n", type=FLOAT),
            node("big", "CSRSparseMatrixToDense", "matrix", type=FLOAT),
        ],
        [],
    ),
    "SparseFillEmptyRows": (
        [
            numbers("i", 0, 0),
            filled("u", 1),
            numbers("n", MUCH, 2),
            filled("zero"),
            node("big", "SparseFillEmptyRows", "i", "u", "n", "zero", T=FLOAT),
        ],
        [],
    ),
    "RaggedTensorToTensor": (sampled("RaggedTensorToTensor", filled("v", 1), filled("d")), []),
    "SpaceToBatchND": (
        [
            filled("a", 1, 2, 1),
            numbers("block", 1),
            paddings("Pad")[1],
            node("big", "SpaceToBatchND", "a", "block", "pads", T=FLOAT),
        ],
        [],
    ),
    **{
        op: (images(op, T=FLOAT), [])
        for op in ("ResizeBilinear", "ResizeBicubic", "ResizeArea", "ResizeNearestNeighbor", "ExtractGlimpse")
    },
    "CropAndResize": (
        [
            filled("image", 1, 2, 2, 3),
            filled("boxes", 1, 4),
            numbers("which", 0),
            numbers("size", 10**6, 10**6),
            node("big", "CropAndResize", "image", "boxes", "which", "size", T=FLOAT),
        ],
        [],
    ),
    "ExtractImagePatches": (
        [
            filled("image", 1, 10**3, 10**3, 3),
            node(
                "big",
                "ExtractImagePatches",
                "image",
                T=FLOAT,
                padding={"s": b"SAME"},
                **{
                    name: {"list": {"i": sizes}}
                    for name, sizes in {"ksizes": [1, 99, 99, 1], "strides": [1] * 4, "rates": [1] * 4}.items()
                },
            ),
        ],
        [],
    ),
    "Conv2D that pads": (
        [
            filled("image", 1, 2, 2, 1),
            filled("filter", 1, 1, 1, 1),
            node(
                "big",
                "Conv2D",
                "image",
                "filter",
                T=FLOAT,
                padding={"s": b"EXPLICIT"},
                strides={"list": {"i": [1] * 4}},
                explicit_paddings={"list": {"i": [0, 0, 10**6, 0, 10**6, 0, 0, 0]}},
            ),
        ],
        [],
    ),
    "Conv2DBackpropInput": (
        [
            numbers("size", 1, 10**6, 10**6, 1),
            filled("f", 1, 1, 1, 1),
            filled("a", 1, 1, 1, 1),
            node("big", "Conv2DBackpropInput", "size", "f", "a", T=FLOAT),
        ],
        [],
    ),
    "RFFT": ([filled("wave", 4), numbers("n", MUCH), node("big", "RFFT", "wave", "n")], []),
    "DecodePaddedRaw": (
        [text("t", "a"), count("n", MUCH * 4), node("big", "DecodePaddedRaw", "t", "n", out_type=FLOAT)],
        [],
    ),
    "DecodeWav": (
        [text("t", "a"), node("big", "DecodeWav", "t", desired_samples={"i": 1 << 40}, desired_channels={"i": 1})],
        [],
    ),
    **{
        op: (sampled(op), [])
        for op in ("RandomUniform", "RandomStandardNormal", "TruncatedNormal", "StatelessRandomUniformV2", "Empty")
    },
    "StatefulUniform": (sampled("StatefulUniform", filled("r"), filled("alg"), at=2), []),
    "RandomGamma": (sampled("RandomGamma", filled("alpha", 2), at=0), []),
    "Multinomial": ([filled("a", 1, 2), count("n", MUCH), node("big", "Multinomial", "a", "n", T=FLOAT)], []),
    "a sampler": ([numbers("i", 0), node("big", "UniformCandidateSampler", "i", num_sampled={"i": 1 << 40})], []),
    "ParseTensor": ([text("t", message_of_a_tensor()), node("big", "ParseTensor", "t", out_type=FLOAT)], []),
    "texts joined with themselves": (
        [text("t0", "a" * 100), *(node(f"t{k + 1}", "StringJoin", f"t{k}", f"t{k}", N={"i": 2}) for k in range(40))],
        [],
    ),
    "AsString of a width": ([numbers("i", 1), node("big", "AsString", "i", T=INT64, width={"i": 1 << 40})], []),
    "StringNGrams": (
        [
            strings("words", "a"),
            numbers("splits", 0, 1),
            node(
                "big",
                "StringNGrams",
                "words",
                "splits",
                separator={"s": b" "},
                left_pad={"s": b"<"},
                right_pad={"s": b">"},
                ngram_widths={"list": {"i": [10**6]}},
                pad_width={"i": -1},
            ),
        ],
        [],
    ),
    "TensorListReserve": (
        [numbers("s", 2), count("n", MUCH), node("big", "TensorListReserve", "s", "n", element_dtype=FLOAT)],
        [],
    ),
    "TensorListStack of nothing": (
        [
            numbers("s", 10**5),
            count("n", 10**5),
            node("list", "TensorListReserve", "s", "n", element_dtype=FLOAT),
            node("big", "TensorListStack", "list", "s", element_dtype=FLOAT),
        ],
        [],
    ),
    "TensorListGetItem of nothing": (
        [
            numbers("s", MUCH),
            count("n", 1),
            count("i", 0),
            node("list", "TensorListReserve", "s", "n", element_dtype=FLOAT),
            node("big", "TensorListGetItem", "list", "i", "s", element_dtype=FLOAT),
        ],
        [],
    ),
    "TensorArrayV3": ([count("n", MUCH), node("big", "TensorArrayV3", "n", dtype=FLOAT)], []),
    "TensorArrayWriteV3 far away": (
        [
            count("n", 1),
            count("i", MUCH),
            node("a", "TensorArrayV3", "n", dtype=FLOAT),
            node("big", "TensorArrayWriteV3", "a", "i", "x", "a:1", T=FLOAT),
        ],
        [],
    ),
    "a queue's elements": (
        [
            count("n", 10**9),
            node(
                "queue", "FIFOQueueV2", shapes={"list": {"shape": [shape(100)["shape"]]}}, component_types=listed(FLOAT)
            ),
            node("big", "QueueDequeueManyV2", "queue", "n", component_types=listed(FLOAT)),
        ],
        [],
    ),
    "TemporaryVariable": ([node("big", "TemporaryVariable", shape=shape(MUCH), dtype=FLOAT)], []),
    "ParseExample": (
        [
            node(
                "big",
                "ParseExampleV2",
                "save/names",
                Tdense=listed(FLOAT),
                dense_shapes={"list": {"shape": [shape(MUCH)["shape"]]}},
            )
        ],
        [],
    ),
    "a basis": ([filled("m", 100_000, 1), node("big", "Qr", "m", T=FLOAT, full_matrices={"b": True})], []),
    "a branch": (
        [
            count("yes", 1),
            filled("small", 2),
            numbers("much", MUCH),
            node(
                "if",
                "StatelessIf",
                "yes",
                "small",
                "much",
                then_branch=calling("f"),
                else_branch=calling("f"),
                Tin=listed(FLOAT, INT64),
                Tout=listed(FLOAT),
            ),
        ],
        [TILE_GIVEN],
    ),
    "an old loop that doubles": (old_loop(), []),
    "calls in calls": (
        [filled("small", 2), numbers("much", MUCH), call_with("c", "g0", "small", "much")],
        calls_in_calls(),
    ),
    "a function for each element": (
        [
            filled("small", 3, 2),
            numbers("much", MUCH),
            node("big", "MapDefun", "small", "much", f=calling("f"), Targuments=listed(FLOAT), Tcaptured=listed(INT64)),
        ],
        [TILE_GIVEN],
    ),
    "a function of a data set": (
        [numbers("much", MUCH), node("set", "MapDataset", "x", "much", f=calling("f"), Targuments=listed(INT64))],
        [TILE_GIVEN],
    ),
    "a number in a text": (
        filled_by(
            text("t", "10000000000"),
            node("n", "StringToNumber", "t", out_type=FLOAT),
            node("whole", "Cast", "n", SrcT=FLOAT, DstT=INT64),
        ),
        [],
    ),
    "a product of many": (
        filled_by(numbers("n", *[2] * 40, *[1] * 300), count("a", 0), node("p", "Prod", "n", "a", T=INT64)),
        [],
    ),
    "a running product": (
        filled_by(
            numbers("n", *[10] * 12),
            count("a", 0),
            count("i", 11),
            node("p", "Cumprod", "n", "a", T=INT64),
            node("g", "GatherV2", "p", "i", "a"),
        ),
        [],
    ),
    "through MaxPool": (
        through(
            "MaxPool",
            ksize={"list": {"i": [1] * 4}},
            strides={"list": {"i": [1] * 4}},
            padding={"s": b"SAME"},
        ),
        [],
    ),
    "through DynamicPartition": (through("DynamicPartition", num_partitions={"i": 1}), []),
    "an old loop's entry": (
        [
            filled("small", 2),
            numbers("much", MUCH),
            node("enter", "Enter", "small", T=FLOAT, frame_name={"s": b"f"}),
            node("merge", "Merge", "enter", "next", T=FLOAT, N={"i": 2}),
            node("big", "Tile", "merge", "much", T=FLOAT),
            node("next", "NextIteration", "big", T=FLOAT),
        ],
        [],
    ),
}


@pytest.mark.parametrize("case", ATTEMPTS)
def test_what_a_constant_blows_up_is_refused_before_memory_is_taken(case: str, tmp_path: Path) -> None:
    nodes, functions = ATTEMPTS[case]
    place = redteam.checkpoint(tmp_path / "in", honest(*nodes), functions)
    sentence = r"this model could take more memory than there is: op \w+ in node \w+( \(function \w+\))? \(got \S+ GB"
    with pytest.raises(UnsafeModel, match=sentence):
        freeze.freeze(place, ["y"], to=tmp_path / "made.pb")


def test_a_number_in_the_checkpoint_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redteam, "W", struct.pack("<q", MUCH))
    nodes = honest(numbers("one", 1), node("small", "Const", dtype=FLOAT), node("big", "Tile", "small", "w", T=FLOAT))
    tensor = nodes[[one.name for one in nodes].index("small")].attr["value"].tensor
    tensor.CopyFrom(filled("small", 2).attr["value"].tensor)
    nodes[1].CopyFrom(node("w", "VariableV2", dtype=INT64, shape=shape(1)))
    checksum = redteam.leveldb_tables.mask_crc(google_crc32c.value(redteam.W))
    entry = BundleEntryProto(dtype=INT64, size=8, crc32c=checksum)
    entry.shape.dim.add(size=1)
    place = redteam.checkpoint(tmp_path / "in", nodes, entry=entry)
    with pytest.raises(UnsafeModel, match="op Tile in node big"):
        freeze.freeze(place, ["y"], to=tmp_path / "made.pb")


def test_an_archive_in_an_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizing, "_MOST_UNPACKED", 1 << 23)
    unpack = {"compression_type": {"s": b"ZLIB"}}
    packed = text("t", zlib.compress(zlib.compress(bytes(1 << 24), 9)))
    nodes = [
        packed,
        node("inner", "DecodeCompressed", "t", **unpack),
        node("big", "DecodeCompressed", "inner", **unpack),
    ]
    with pytest.raises(UnsafeModel, match="op DecodeCompressed in node big"):
        require_bounded(Graph(honest(*nodes)), tmp_path)


# Other runtimes.


def tflite(path: Path, code: int, *tensors: tuple[list[int], int, Any]) -> Path:
    """A .tflite with one operator: shapes, dtypes and contents of its inputs, then of its output."""
    flatbuffers, schema = pytest.importorskip("flatbuffers"), pytest.importorskip("ai_edge_litert.schema_py_generated")
    model, graph, operator = schema.ModelT(), schema.SubGraphT(), schema.OperatorT()
    kind = schema.OperatorCodeT()
    kind.builtinCode, kind.deprecatedBuiltinCode = code, min(code, 127)
    model.version, model.operatorCodes, model.buffers, graph.tensors = 3, [kind], [schema.BufferT()], []
    for number, (sizes, dtype, content) in enumerate(tensors):
        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.name, tensor.buffer = sizes, dtype, f"t{number}".encode(), 0
        if content is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(content.tobytes(), np.uint8)
            model.buffers.append(buffer)
            tensor.buffer = len(model.buffers) - 1
        graph.tensors.append(tensor)
    operator.inputs, operator.outputs = [*range(len(tensors) - 1)], [len(tensors) - 1]
    graph.operators, graph.inputs, graph.outputs, model.subgraphs = [operator], [0], operator.outputs, [graph]
    build = flatbuffers.Builder(1024)
    build.Finish(model.Pack(build), b"TFL3")
    path.write_bytes(bytes(build.Output()))
    return path


X = ([1, 2], 0, None)
IMAGE = ([1, 2, 2, 3], 0, None)
Y = ([1], 0, None)  # what the file says of the output, which the runtime does not believe either


def sizes(*numbers: int) -> tuple[list[int], int, Any]:
    return [len(numbers)], 2, np.array(numbers, np.int32)


TFLITE = {
    "Tile": (69, X, sizes(1, 2 * 10**9), Y),
    "Pad": (34, X, ([2, 2], 2, np.array([0, 2 * 10**9, 0, 0], np.int32)), Y),
    "Fill": (94, sizes(10**5, 10**5), ([], 0, np.float32(1)), Y),
    "BroadcastTo": (130, ([1, 1], 0, None), sizes(10**5, 10**5), Y),
    "ResizeBilinear": (23, IMAGE, sizes(10**5, 10**5), Y),
    "Range": (96, ([], 4, np.int64(0)), ([], 4, np.int64(MUCH)), ([], 4, np.int64(1)), Y),
    "MatrixDiag": (113, ([100_000], 0, None), Y),
    "Conv2DBackpropInput": (67, sizes(1, 10**5, 10**5, 1), IMAGE, IMAGE, Y),
    "ScatterNd": (122, sizes(0), X, sizes(10**5, 10**5), Y),
}


@pytest.mark.parametrize("case", TFLITE)
def test_what_a_constant_of_a_tflite_blows_up_is_refused(case: str, tmp_path: Path) -> None:
    with pytest.raises(UnsafeModel, match=f"more memory than there is: operator {case} of tensor"):
        tflite_dangers(tflite(tmp_path / "model.tflite", *TFLITE[case]))


def test_a_constant_behind_the_tables_of_a_tflite_is_read(tmp_path: Path) -> None:
    """Large models have their constants behind the flatbuffer, by offset and size."""
    path = tflite(tmp_path / "model.tflite", 69, X, ([2], 2, None), Y)
    flatbuffers, schema = pytest.importorskip("flatbuffers"), pytest.importorskip("ai_edge_litert.schema_py_generated")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes()))
    model.buffers.append(schema.BufferT())
    model.buffers[-1].offset, model.buffers[-1].size = 1 << 12, 8
    model.subgraphs[0].tensors[1].buffer = 1
    build = flatbuffers.Builder(1024)
    build.Finish(model.Pack(build), b"TFL3")
    path.write_bytes(bytes(build.Output()).ljust(1 << 12, b"\0") + np.array([1, 2 * 10**9], np.int32).tobytes())
    with pytest.raises(UnsafeModel, match="more memory than there is: operator Tile of tensor"):
        tflite_dangers(path)


@pytest.mark.parametrize("inside", [1, 0], ids=["a branch", "a circle"])
def test_constants_of_a_tflite_are_followed_into_its_subgraphs(inside: int, tmp_path: Path) -> None:
    path = tflite(tmp_path / "model.tflite", 118, ([], 6, np.bool_(True)), X, sizes(1, 2 * 10**9), Y)
    flatbuffers, schema = pytest.importorskip("flatbuffers"), pytest.importorskip("ai_edge_litert.schema_py_generated")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes()))
    other = schema.ModelT.InitFromObj(schema.Model.GetRootAs(tflite(path, 69, X, X, Y).read_bytes()))
    model.subgraphs += other.subgraphs
    model.operatorCodes += other.operatorCodes
    model.subgraphs[1].inputs, model.subgraphs[1].operators[0].opcodeIndex = [0, 1], 1
    model.subgraphs[1].tensors[1].type = 2
    options = schema.IfOptionsT()
    options.thenSubgraphIndex, options.elseSubgraphIndex = inside, inside
    model.subgraphs[0].operators[0].builtinOptionsType = schema.BuiltinOptions.IfOptions
    model.subgraphs[0].operators[0].builtinOptions = options
    build = flatbuffers.Builder(1024)
    build.Finish(model.Pack(build), b"TFL3")
    path.write_bytes(bytes(build.Output()))
    sentence = "operator Tile of tensor" if inside else "subgraphs call each other without an end in sight"
    with pytest.raises(UnsafeModel, match=sentence):
        tflite_dangers(path)


def test_what_is_honest_in_a_tflite_passes(tmp_path: Path) -> None:
    assert tflite_dangers(tflite(tmp_path / "model.tflite", 69, X, sizes(1, 1000), Y)) == []


def onnx_model(nodes: Sequence[Any], **constants: Any) -> Any:
    helper = pytest.importorskip("onnx.helper")
    floats = 1
    ports = [helper.make_tensor_value_info("x", floats, [None, 2]), helper.make_tensor_value_info("y", floats, None)]
    numpy_helper = pytest.importorskip("onnx.numpy_helper")
    stored = [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()]
    made = [helper.make_node(op, given, result, **options) for op, given, result, options in nodes]
    return helper.make_model(helper.make_graph(made, "g", ports[:1], ports[1:], stored))


ONNX: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "Tile": ([("Tile", ["x", "n"], ["y"], {})], {"n": [1, MUCH]}),
    "Expand": ([("Expand", ["x", "n"], ["y"], {})], {"n": [MUCH, 2]}),
    "Pad": ([("Pad", ["x", "n"], ["y"], {})], {"n": [0, 0, MUCH, 0]}),
    "ConstantOfShape": ([("ConstantOfShape", ["n"], ["y"], {})], {"n": [MUCH, 2]}),
    "Resize": ([("Resize", ["x", "", "n"], ["y"], {})], {"n": np.array([1, 1e10], np.float32)}),
    "Range": ([("Range", ["a", "b", "c"], ["y"], {})], {"a": 0, "b": MUCH, "c": 1}),
    "OneHot": ([("OneHot", ["a", "n", "v"], ["y"], {})], {"a": [0, 1], "n": MUCH, "v": [0.0, 1.0]}),
    "RandomNormal": ([("RandomNormal", [], ["y"], {"shape": [10**6, 10**6]})], {}),
    "Concat": ([("Concat", [f"x{k or ''}"] * 2, [f"x{k + 1}"], {"axis": 1}) for k in range(40)], {}),
    "Mul": ([("Mul", ["a", "b"], ["y"], {})], {"a": np.ones((1, 100_000)), "b": np.ones((100_000, 1))}),
    "HannWindow": ([("HannWindow", ["n"], ["y"], {})], {"n": MUCH}),
    "RoiAlign": (
        [("RoiAlign", ["x", "r", "i"], ["y"], {"output_height": 10**5, "output_width": 10**5})],
        {"r": np.ones((1, 4)), "i": [0]},
    ),
}


ONE = {"one": np.ones(1, np.float32)}
ONNX |= {
    "numbers that are no tensor": (
        [("Constant", [], ["n"], {"value_ints": [1, MUCH]}), ("Tile", ["x", "n"], ["y"], {})],
        {},
    ),
    "numbers that are doubles": (
        [("Range", ["a", "b", "c"], ["y"], {})],
        {"a": np.float64(0), "b": np.float64(MUCH), "c": np.float64(1)},
    ),
    "nodes in disorder": ([("Tile", ["x", "m"], ["y"], {}), ("Identity", ["n"], ["m"], {})], {"n": [1, MUCH]}),
    "a part of a shape": (
        [("Slice", ["n", "from", "to"], ["m"], {}), ("Expand", ["one", "m"], ["y"], {})],
        {"n": [5, 10**6, 10**6, 5], "from": [1], "to": [3], **ONE},
    ),
    "a product of a shape": (
        [("ReduceProd", ["n"], ["m"], {"keepdims": 1}), ("Expand", ["one", "m"], ["y"], {})],
        {"n": [10**6, 10**6], **ONE},
    ),
    "a number with an axis": (
        [("Unsqueeze", ["n", "axes"], ["m"], {}), ("Expand", ["one", "m"], ["y"], {})],
        {"n": MUCH, "axes": [0], **ONE},
    ),
    "a limit": (
        [("Clip", ["n", "low"], ["m"], {}), ("Expand", ["one", "m"], ["y"], {})],
        {"n": [1], "low": MUCH, **ONE},
    ),
    "a largest of all": ([("Max", ["a", "b"], ["y"], {})], {"a": np.ones((1, 10**5)), "b": np.ones((10**5, 1))}),
    "a matrix with itself": ([("Gemm", ["a", "a"], ["y"], {"transB": 1})], {"a": np.ones((10**5, 1))}),
    "a pool's padding": (
        [("AveragePool", ["i"], ["y"], {"kernel_shape": [MUCH], "pads": [MUCH - 1] * 2})],
        {"i": np.ones((1, 1, 3))},
    ),
    "a step of a transposed convolution": (
        [("ConvTranspose", ["i", "w"], ["y"], {"strides": [MUCH]})],
        {"i": np.ones((1, 1, 3)), "w": np.ones((1, 1, 1))},
    ),
    "a spectrum": ([("DFT", ["i", "n"], ["y"], {"axis": 1})], {"i": np.ones((1, 3, 1)), "n": MUCH}),
    "a frame": ([("CenterCropPad", ["x", "n"], ["y"], {})], {"n": [10**6, 10**6]}),
    "an old scale": ([("Upsample", ["i"], ["y"], {"scales": [1.0, 1e10]})], {"i": np.ones((1, 3))}),
}


@pytest.mark.parametrize("case", ONNX)
def test_what_a_constant_of_an_onnx_blows_up_is_refused(case: str) -> None:
    nodes, constants = ONNX[case]
    with pytest.raises(UnsafeModel, match=rf"more memory than there is: op {case if ' ' not in case else '[A-Z]'}"):
        onnx_dangers(onnx_model(nodes, **constants), Path("model.onnx"))


def inner(nodes: Sequence[Any], given: Sequence[str], results: Sequence[str], **constants: Any) -> Any:
    """A graph within a node."""
    helper, numpy_helper = pytest.importorskip("onnx.helper"), pytest.importorskip("onnx.numpy_helper")
    ports = [[helper.make_tensor_value_info(name, 1, None) for name in side] for side in (given, results)]
    stored = [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()]
    made = [helper.make_node(op, before, after, **options) for op, before, after, options in nodes]
    return helper.make_graph(made, "inner", *ports, stored)


def own_function(name: str, nodes: Sequence[Any], given: Sequence[str]) -> Any:
    helper = pytest.importorskip("onnx.helper")
    made = [helper.make_node(op, before, after, **options) for op, before, after, options in nodes]
    return helper.make_function("own", name, given, ["z"], made, [helper.make_opsetid("", 17)], ["k"])


def with_functions(nodes: Sequence[Any], *functions: Any, **constants: Any) -> Any:
    model = onnx_model(nodes, **constants)
    model.functions.extend(functions)
    return model


def followed() -> dict[str, Any]:
    """Models in which a constant comes from another graph or function than that of the node that grows."""
    tile = ("Tile", ["p", "n"], ["z"], {})
    call = {"domain": "own"}
    branch = inner([("Identity", ["n"], ["r"], {})], [], ["r"], n=[1, MUCH])
    chosen = {"then_branch": branch, "else_branch": branch}
    doubled = inner(
        [("Concat", ["v", "v"], ["w"], {"axis": 0}), ("Identity", ["c"], ["d"], {})], ["i", "c", "v"], ["d", "w"]
    )
    kept = inner([("Identity", ["v"], ["w"], {}), ("Identity", ["c"], ["d"], {})], ["i", "c", "v"], ["d", "w", "v"])
    referring = own_function("F", [("Constant", [], ["n"], {"value_ints": [1]}), tile], ["p"])
    del referring.node[0].attribute[0].ints[:]
    referring.node[0].attribute[0].ref_attr_name = "k"
    harmless = [("Constant", [], ["n"], {"value_ints": [1, 1]}), tile]
    return {
        "an argument": with_functions(
            [("F", ["x", "n"], ["y"], call)], own_function("F", [tile], ["p", "n"]), n=[1, MUCH]
        ),
        "an attribute of a call": with_functions([("F", ["x"], ["y"], {**call, "k": [1, MUCH]})], referring),
        "a name that a function has too": with_functions(
            [("Tile", ["x", "n"], ["y"], {})], own_function("F", harmless, ["p"]), n=[1, MUCH]
        ),
        "a branch": onnx_model([("If", ["c"], ["n"], chosen), ("Tile", ["x", "n"], ["y"], {})]),
        "a loop that doubles": onnx_model([("Loop", ["n", "", "x"], ["y"], {"body": doubled})], n=60),
        "a loop that keeps all": onnx_model([("Loop", ["n", "", "x"], ["u", "y"], {"body": kept})], n=MUCH),
    }


@pytest.mark.parametrize(
    "case",
    [
        "an argument",
        "an attribute of a call",
        "a name that a function has too",
        "a branch",
        "a loop that doubles",
        "a loop that keeps all",
    ],
)
def test_constants_of_an_onnx_are_followed_into_graphs_and_functions(case: str) -> None:
    with pytest.raises(UnsafeModel, match=r"more memory than there is: op (Tile|Concat|Loop) of"):
        onnx_dangers(followed()[case], Path("model.onnx"))


@pytest.mark.parametrize("calls", [["F0"], ["F1", "F1"]], ids=["a circle", "a tower"])
def test_functions_of_an_onnx_without_an_end_are_refused(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_graphs, "MOST_STEPS", 1000)
    names = [f"F{number}" for number in range(12)]
    bodies = [calls] + [[after, after] for after in [*names[2:], "Last"]]
    made = [
        own_function(name, [(callee, ["p"], ["z"], {"domain": "own"}) for callee in inside], ["p"])
        for name, inside in zip(names, bodies, strict=True)
    ]
    with pytest.raises(UnsafeModel, match="functions call each other without an end in sight"):
        onnx_dangers(with_functions([("F0", ["x"], ["y"], {"domain": "own"})], *made), Path("model.onnx"))


def test_every_op_of_onnx_has_a_rule_for_its_size_or_needs_none() -> None:
    defs = pytest.importorskip("onnx.defs")
    ops = {schema.name for schema in defs.get_all_schemas() if not schema.domain}
    attributes = onnx_rules.Attributes()
    ruled = {op for op in ops if onnx_rules.onnx_step(op, ["a"], ["b"], attributes) is not None}
    walked = {"Constant", *onnx_graphs.WITH_GRAPHS}
    assert ops - ruled - walked == onnx_rules.OF_THEIR_INPUTS & ops
    assert not ruled & onnx_rules.OF_THEIR_INPUTS


def test_a_function_under_the_name_of_an_op_that_acts_does_not_hide_it() -> None:
    """A runtime takes its own op, and not the model's function of that name."""
    hiding = own_function("EPContext", [("Identity", ["p"], ["z"], {})], ["p"])
    hiding.domain = "com.microsoft"
    found = onnx_dangers(
        with_functions([("EPContext", ["x"], ["y"], {"domain": "com.microsoft"})], hiding), Path("m.onnx")
    )
    assert [danger.op for danger in found] == ["EPContext"]


def test_what_is_honest_in_an_onnx_passes() -> None:
    nodes = [
        ("Shape", ["x"], ["s"], {}),
        ("Gather", ["s", "first"], ["n"], {"axis": 0}),
        ("Mul", ["n", "much"], ["m"], {}),
        ("ConstantOfShape", ["m"], ["y"], {}),
    ]
    assert onnx_dangers(onnx_model(nodes, first=[0], much=[10**9]), Path("model.onnx")) == []


# What honest models do.

HONEST: dict[str, list[Any]] = {
    "a mask for attention": [
        count("zero", 0),
        count("n", 8192),
        count("one", 1),
        node("range", "Range", "zero", "n", "one", Tidx=INT64),
        node("row", "ExpandDims", "range", "zero", T=INT64),
        node("column", "ExpandDims", "range", "one", T=INT64),
        node("mask", "Less", "row", "column", T=INT64),
    ],
    "tiles as many as there are rows": [
        node("shape", "Shape", "x", T=FLOAT),
        count("zero", 0),
        count("one", 1),
        node("rows", "GatherV2", "shape", "zero", "zero", Tparams=INT32),
        node("times", "Pack", "rows", "one", N={"i": 2}, T=INT64),
        filled("table", 1, 1000),
        node("tiled", "Tile", "table", "times", T=FLOAT),
    ],
    "a one-hot of a vocabulary": [
        node("i", "Placeholder", dtype=INT64, shape=shape(-1, -1)),
        count("depth", 250_000),
        filled("on"),
        filled("off"),
        node("hot", "OneHot", "i", "depth", "on", "off", T=FLOAT),
    ],
    "a buffer of a training": [
        count("n", 10**6),
        node("shuffled", "ShuffleDataset", "x", "n", "n", "n"),
        node("queue", "RandomShuffleQueueV2", min_after_dequeue={"i": 10**6}, component_types=listed(STRING)),
        node("pool", "PrivateThreadPoolDataset", "x", "threads"),
        count("threads", 64),
    ],
    "a length that nobody knows": [
        node("n", "Placeholder", dtype=INT64, shape=shape()),
        count("much", 10**12),
        node("less", "FloorDiv", "much", "n", T=INT64),
        node("dims", "Pack", "less", N={"i": 1}, T=INT64),
        filled("zero"),
        node("filled", "Fill", "dims", "zero", T=FLOAT, index_type=INT64),
    ],
}


@pytest.mark.parametrize("case", HONEST)
def test_what_is_honest_passes(case: str) -> None:
    require_bounded(Graph(honest(*HONEST[case])), Path("model.pb"))


@pytest.mark.parametrize(("length", "is_refused"), [(1_000, False), (70_000, True)])
def test_a_graph_of_products_alone_is_bounded_by_what_it_multiplies(length: int, is_refused: bool) -> None:
    nodes = [
        node("column", "VariableV2", dtype=FLOAT, shape=shape(length, 1)),
        node("row", "VariableV2", dtype=FLOAT, shape=shape(1, length)),
        node("product", "MatMul", "column", "row", T=FLOAT),
    ]
    with pytest.raises(UnsafeModel, match="op MatMul in node product") if is_refused else nullcontext():
        require_bounded(Graph(nodes), Path("model.pb"))


def test_weights_that_are_stored_may_be_as_large_as_they_are() -> None:
    stored = 5 * MOST_TENSOR
    w = node("w", "VarHandleOp", dtype=FLOAT, shape=shape(stored // 4))
    nodes = [
        w,
        node("read", "ReadVariableOp", "w", dtype=FLOAT),
        node("twice", "Pack", "read", "read", N={"i": 2}, T=FLOAT),
    ]
    require_bounded(Graph(nodes), Path("model.pb"), stored)
    assert find_excess(Graph(nodes), MOST_TENSOR) is not None


# All ops.


def test_every_op_that_a_model_may_have_has_a_rule_for_its_size_or_the_reason_why_it_needs_none() -> None:
    kinds = rules.kinds()
    assert kinds.keys() == safe_ops()
    known = {*rules.KINDS, "rule", "walk", "input", "gradient", "state", "handle", "compiler"}
    assert set(kinds.values()) == known
    own = rules.RULES.keys() | {op for op in kinds if op.removeprefix("Experimental") in costs.COSTS}
    assert {op for op, kind in kinds.items() if kind == "rule"} == {op for op in own if kinds[op] not in rules.KINDS}
    assert own <= kinds.keys()
