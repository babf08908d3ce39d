"""The rules by op: what is known of each output from what is known of the inputs.

`sizes.txt` has a line for each op that a model may have, `op<TAB>kind`; the kinds are told at its beginning.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Mapping
from functools import cache, lru_cache

from . import shaping, sizing
from .arithmetic import BINARY, COMPARING, REDUCING, UNARY, apply, combine, map_numbers
from .costs import COSTS
from .kinds import kinds
from .shaping import Inputs, Operator, Result, Rule
from .values import UNKNOWN, Number, Unknown, Value, add, broadcast, dims_of, shape_from


def same_value(op: Operator, given: Inputs) -> Value:
    return given[0]


def same_shape(op: Operator, given: Inputs) -> Value:
    return given[0].shaped(given[0].dims)


def other(index: int) -> Rule:
    """Returns the rule of an op whose output has the shape of another input than the first."""
    return lambda op, given: given[index].shaped(given[index].dims)


def _unary(function: Callable[[Number], Number]) -> Rule:
    def rule(op: Operator, given: Inputs) -> Value:
        return same_shape(op, given).with_numbers(map_numbers(function, given[0]))

    return rule


def _binary(function: Callable[[Number, Number], Number], item: int = 0) -> Rule:
    def rule(op: Operator, given: Inputs) -> Value:
        return combine(function, item or max(given[0].item, given[1].item), *given[:2])

    return rule


def stretched(op: Operator, given: Inputs) -> Value:
    return Value(broadcast(*map(dims_of, given)), max(value.item for value in given))


def select(op: Operator, given: Inputs) -> Value:
    made = given[1].shaped(given[1].dims) if op.op == "Select" else stretched(op, given)
    if given[0].number is not None:
        return made.with_numbers(given[1 if given[0].number else 2].numbers)
    return made


def cast(op: Operator, given: Inputs) -> Value:
    kind = int if op.is_integer("DstT") else float
    numbers = map_numbers(kind, given[0])
    return Value(given[0].dims, op.item("DstT")).with_numbers(numbers)


def number_of_text(op: Operator, given: Inputs) -> Value:
    made = Value(given[0].dims, op.item("out_type"))
    return made.with_numbers([float(given[0].text)]) if given[0].text is not None else made


def running(op: Operator, given: Inputs) -> Value:
    """A running sum or product of a vector."""
    made, numbers = same_shape(op, given), given[0].numbers
    if numbers is None or None in numbers or op.integer("exclusive") or op.integer("reverse"):
        return made
    function = operator.mul if op.op == "Cumprod" else operator.add
    return made.with_numbers(list(itertools.accumulate(numbers, lambda one, more: apply(function, one, more))))


def first_of_many(op: Operator, given: Inputs) -> list[Value]:
    """What is told apart is as much as before, in parts of unknown lengths."""
    dims = dims_of(given[0])
    return [given[0].shaped([-max(1, abs(dims[0]) // max(1, op.integer("num_partitions", 1))), *dims[1:]])]


def pooled(op: Operator, given: Inputs) -> Value:
    columns = (dims_of(given[0]), op.integers("ksize"), op.integers("strides"))
    return given[0].shaped(sizing.windows(*each, op.text("padding")) for each in zip(*columns, strict=True))


def all_same(op: Operator, given: Inputs) -> list[Value]:
    return list(given)


def switch(op: Operator, given: Inputs) -> list[Value]:
    return [given[0], given[0]]


def merge(op: Operator, given: Inputs) -> list[Value]:
    """The first that is known: a loop begins with it."""
    return [next((value for value in given if value != UNKNOWN), UNKNOWN), Value((), 4)]


def sum_of_all(op: Operator, given: Inputs) -> Value:
    return next((value.shaped(value.dims) for value in given if value.dims is not None), UNKNOWN)


def broadcast_shapes(op: Operator, given: Inputs) -> Value:
    shapes = [shape_from(value) for value in given[:2]]
    made = broadcast(*shapes)
    return Value((len(made),), 4).with_numbers([length if length >= 0 else None for length in made])


def longer(op: Operator, given: Inputs) -> Value:
    return Value((add(dims_of(given[0])[0], dims_of(given[1])[0]),), 32)


def popped(op: Operator, given: Inputs) -> Result:
    return [given[0], Value(shape_from(given[1]), op.item("element_dtype"))]


def read(op: Operator, given: Inputs) -> Value:
    """A variable's handle has the shape of its value."""
    return given[0]


def second(rule: Rule) -> Rule:
    """Returns the rule of an op whose second output has the size."""

    def both(op: Operator, given: Inputs) -> list[Value]:
        made = rule(op, given)
        return [UNKNOWN, *(made if isinstance(made, list) else [made])]

    return both


# By the kind of an op in the table: what its first output is.
KINDS: Mapping[str, Rule] = {
    "value": same_value,
    "shape": same_shape,
    "stretched": stretched,
    "product": shaping.matrix_product,
    "convolution": sizing.convolution,
    "random": sizing.shape_at(0),
    "stateful": sizing.shape_at(2),
    "sampler": sizing.number_sampled,
    "resize": sizing.image_of(1),
}

RULES: Mapping[str, Rule] = {
    **{name: _unary(function) for name, function in UNARY.items()},
    **{name: _binary(function) for name, function in BINARY.items()},
    **{name: _binary(function, 1) for name, function in COMPARING.items()},
    **dict.fromkeys(("Select", "SelectV2"), select),
    "Cast": cast,
    "IdentityN": all_same,
    **dict.fromkeys(("Switch", "RefSwitch"), switch),
    **dict.fromkeys(("Merge", "RefMerge"), merge),
    **dict.fromkeys(("AddN", "AccumulateNV2"), sum_of_all),
    "StringToNumber": number_of_text,
    **dict.fromkeys(("Cumsum", "Cumprod"), running),
    "DynamicPartition": first_of_many,
    **dict.fromkeys(("MaxPool", "AvgPool", "MaxPool3D", "AvgPool3D"), pooled),
    "ReadVariableOp": read,
    # Shapes and series.
    **dict.fromkeys(("Shape", "ShapeN"), shaping.shape_of),
    "VariableShape": shaping.shape_of,
    "Size": shaping.size_of,
    "Rank": shaping.rank,
    "Range": shaping.series,
    "RaggedRange": shaping.ragged_series,
    "LinSpace": sizing.rows_at(2, above=0),
    "BroadcastArgs": broadcast_shapes,
    # Of another shape.
    "Fill": shaping.fill,
    "BroadcastTo": shaping.broadcast_to,
    "Reshape": shaping.reshape,
    "QuantizedReshape": shaping.reshape,
    "Tile": shaping.tile,
    **dict.fromkeys(("Pad", "PadV2", "MirrorPad"), shaping.pad),
    **dict.fromkeys(("Concat", "ConcatV2", "QuantizedConcatV2"), shaping.concat),
    **dict.fromkeys(("Pack", "ParallelConcat"), shaping.pack),
    "Unpack": shaping.unpack,
    **dict.fromkeys(("Split", "SplitV"), shaping.split),
    "Slice": shaping.cut,
    "StridedSlice": shaping.strided_slice,
    **dict.fromkeys(("Gather", "GatherV2", "ResourceGather"), shaping.gather),
    **dict.fromkeys(("GatherNd", "ResourceGatherNd"), shaping.gather_nd),
    "ExpandDims": shaping.expand_dims,
    "Squeeze": shaping.squeeze,
    **dict.fromkeys(("Transpose", "ConjugateTranspose"), shaping.transpose),
    **dict.fromkeys((*REDUCING, "EuclideanNorm"), shaping.reduce),
    **dict.fromkeys(("ArgMax", "ArgMin"), shaping.argument_of_most),
    "Einsum": shaping.einsum,
    "Diag": shaping.diagonal,
    **dict.fromkeys(("MatrixDiag", "MatrixDiagV2", "MatrixDiagV3", "BatchMatrixDiag"), shaping.matrix_diagonal),
    **dict.fromkeys(("Qr", "Svd", "BatchSvd"), sizing.square),
    # Of a shape in an input or an attribute.
    **dict.fromkeys(("RandomGamma", "RandomPoisson", "RandomPoissonV2"), sizing.shape_and_more),
    "StatefulStandardNormal": sizing.shape_at(1),
    "ScatterNd": sizing.shape_at(2),
    "SparseToDense": sizing.shape_at(1),
    "RaggedTensorToTensor": sizing.shape_at(0),
    "StridedSliceGrad": sizing.shape_at(0),
    "XlaRngBitGenerator": second(sizing.shape_at(2)),
    "TemporaryVariable": sizing.shape_of_attribute("shape"),
    **dict.fromkeys(("Conv2DBackpropInput", "Conv3DBackpropInputV2", "AvgPoolGrad"), sizing.shape_at(0)),
    **dict.fromkeys(("DepthwiseConv2dNativeBackpropInput", "AvgPool3DGrad"), sizing.shape_at(0)),
    **dict.fromkeys(("Conv2DBackpropFilter", "Conv3DBackpropFilterV2"), sizing.shape_at(1)),
    "DepthwiseConv2dNativeBackpropFilter": sizing.shape_at(1),
    "FractionalAvgPoolGrad": sizing.shape_at(0),
    "XlaPad": sizing.padded_by_compiler,
    # Images, sounds and waves.
    **dict.fromkeys(("ImageProjectiveTransformV2", "ImageProjectiveTransformV3"), sizing.image_of(2)),
    "CropAndResize": sizing.crop_and_resize,
    "CropAndResizeGradImage": sizing.shape_at(3),
    "FusedPadConv2D": sizing.padded_convolution,
    "FusedResizeAndPadConv2D": sizing.image_of(1),
    **dict.fromkeys(("SpaceToBatch", "SpaceToBatchND"), sizing.space_to_batch),
    **dict.fromkeys(("ExtractImagePatches", "ExtractVolumePatches"), sizing.patches),
    **dict.fromkeys(("RFFT", "RFFT2D", "RFFT3D", "IRFFT", "IRFFT2D", "IRFFT3D"), sizing.spectrum),
    **dict.fromkeys(("FFTND", "IFFTND", "RFFTND", "IRFFTND"), sizing.spectrum),
    "Mfcc": sizing.mfcc,
    "AudioSpectrogram": sizing.spectrogram,
    "DecodeWav": sizing.sound,
    # As many as a number says.
    **dict.fromkeys(("Multinomial", "StatelessMultinomial"), sizing.samples_per_row),
    "SobolSample": sizing.sobol,
    "OneHot": sizing.one_hot,
    "Bincount": sizing.counted(1),
    "DenseBincount": sizing.counted(1, rows=0),
    "RaggedBincount": sizing.counted(2, rows=0),
    "SparseBincount": sizing.counted(3),
    "HistogramFixedWidth": sizing.counted(2),
    **dict.fromkeys(("UnsortedSegmentSum", "UnsortedSegmentProd"), sizing.rows_at(2, above=1)),
    **dict.fromkeys(("UnsortedSegmentMax", "UnsortedSegmentMin"), sizing.rows_at(2, above=1)),
    "UnsortedSegmentJoin": sizing.rows_at(2, above=1),
    **dict.fromkeys(("SegmentSumV2", "SegmentProdV2", "SegmentMaxV2", "SegmentMinV2"), sizing.rows_at(2)),
    **dict.fromkeys((f"SparseSegment{kind}WithNumSegments" for kind in ("Sum", "Mean", "SqrtN")), sizing.rows_at(3)),
    **dict.fromkeys((f"SparseSegment{kind}Grad" for kind in ("Sum", "Mean", "SqrtN")), sizing.rows_at(3)),
    **dict.fromkeys((f"SparseSegment{kind}GradV2" for kind in ("Sum", "Mean", "SqrtN")), sizing.rows_at(3)),
    **dict.fromkeys((f"Segment{kind}" for kind in ("Sum", "Prod", "Max", "Min", "Mean")), sizing.segments),
    **dict.fromkeys((f"SparseSegment{kind}" for kind in ("Sum", "Mean", "SqrtN")), sizing.segments),
    **dict.fromkeys(("DynamicStitch", "ParallelDynamicStitch"), sizing.stitch),
    "KmeansPlusPlusInitialization": sizing.rows_at(1),
    "GenerateBoundingBoxProposals": sizing.best_boxes,
    **dict.fromkeys(("NonMaxSuppressionV4", "CombinedNonMaxSuppression"), sizing.most_boxes),
    # Sparse matrices.
    **dict.fromkeys(("SparseReduceSum", "SparseReduceMax"), sizing.sparse_sum),
    "SparseTensorDenseMatMul": sizing.sparse_product,
    "SparseFillEmptyRows": sizing.filled_rows,
    "SparseTensorToCSRSparseMatrix": sizing.sparse_matrix(2),
    "SparseMatrixZeros": sizing.sparse_matrix(0),
    "CSRSparseMatrixToDense": sizing.dense_matrix,
    "SparseMatrixMatMul": shaping.matrix_product,
    "SparseTensorDenseAdd": other(3),
    # Texts and bytes.
    "AsString": sizing.text_of_width,
    "StringJoin": sizing.join,
    "ReduceJoin": sizing.reduce_join,
    "DecodePaddedRaw": sizing.padded_bytes,
    "ParseTensor": sizing.parse_tensor,
    "SerializeTensor": sizing.serialized,
    "DecodeCompressed": sizing.decompressed,
    # Lists, arrays, queues and tables.
    **dict.fromkeys(("TensorListReserve", "TensorListResize"), sizing.list_of(1)),
    **dict.fromkeys(("TensorArray", "TensorArrayV2", "TensorArrayV3"), sizing.list_of(0)),
    "TensorListScatterV2": sizing.list_of(3),
    "TensorListFromTensor": sizing.list_from(0),
    "TensorListScatter": sizing.list_up_to,
    **dict.fromkeys(("TensorListConcat", "TensorListConcatV2"), sizing.joined_list),
    "TensorListPushBack": sizing.longer_list,
    "TensorListConcatLists": longer,
    "TensorListSetItem": same_value,
    "TensorListPopBack": popped,
    "TensorListStack": sizing.stacked,
    "TensorListGetItem": sizing.element(2),
    "TensorListGather": sizing.gathered_list,
    **dict.fromkeys(("TensorArrayGather", "TensorArrayGatherV2", "TensorArrayGatherV3"), sizing.gathered_array),
    **dict.fromkeys(("FIFOQueue", "FIFOQueueV2", "RandomShuffleQueue", "RandomShuffleQueueV2"), sizing.queue),
    **dict.fromkeys(
        ("QueueDequeueMany", "QueueDequeueManyV2", "QueueDequeueUpTo", "QueueDequeueUpToV2"), sizing.dequeue_many
    ),
    **dict.fromkeys(("LookupTableFind", "LookupTableFindV2"), sizing.looked_up),
}


# Ops with a rule that only carries on what is known: what they make is no larger than what they are given.
_NO_LARGER = {
    *("ReadVariableOp", "IdentityN", "Switch", "RefSwitch", "Merge", "RefMerge", "Shape", "ShapeN", "VariableShape"),
    *("Size", "Rank", "Reshape", "QuantizedReshape", "Squeeze", "ExpandDims", "Transpose", "ConjugateTranspose"),
    *("Slice", "StridedSlice", "Split", "SplitV", "Unpack", "ArgMax", "ArgMin", "EuclideanNorm", "Cumsum", "Cumprod"),
    *("StringToNumber", "DynamicPartition", "BroadcastArgs", "AddN", "AccumulateNV2"),
}


@lru_cache(maxsize=1)
def growing() -> frozenset[str]:
    """Returns the ops that may make more than they are given; only these, and what they are given, are looked at."""
    carrying = _NO_LARGER | UNARY.keys() | REDUCING.keys()
    by_kind = {op for op, kind in kinds().items() if kind in KINDS and kind not in ("value", "shape")}
    own = {op for op in kinds() if op.removeprefix("Experimental") in COSTS}
    return frozenset((RULES.keys() | by_kind | own) - carrying)


@cache
def rule_of(op: str) -> Rule | None:
    """Returns the rule of an op, its own or that of its kind; None if it has none."""
    return RULES.get(op) or KINDS.get(kinds().get(op, ""))


def outputs_of(op: Operator, given: Inputs) -> list[Value]:
    """Returns what is known of the outputs; nothing where the inputs are too little known, or of no shape at all."""
    rule = rule_of(op.op)
    if rule is None:
        return []
    try:
        made = rule(op, given)
        return made if isinstance(made, list) else [made]
    except (Unknown, LookupError, ValueError, TypeError, ArithmeticError):
        return []
