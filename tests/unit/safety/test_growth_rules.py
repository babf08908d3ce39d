"""What the rules say of a tensor is what TensorFlow makes: its shape, its numbers, and never more than it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from pipeline.graph.graph import Graph
from pipeline.graph.protos import GraphDef
from pipeline.safety.growth.graphs import examine
from pipeline.safety.growth.values import Value

pytestmark = pytest.mark.tensorflow

v1, raw = tf.compat.v1, tf.raw_ops
F = np.arange(24, dtype=np.float32).reshape(2, 3, 4) + 1
M = np.arange(6, dtype=np.float32).reshape(2, 3) + 1
IMAGE = np.ones((1, 4, 5, 3), np.float32)
I = np.array([0, 2, 1], np.int32)  # noqa: E741


def c(value: Any, dtype: Any = None) -> Any:
    """A constant, which nothing folds."""
    return tf.constant(value, dtype)


def arithmetic() -> Iterator[Any]:
    """Numbers that decide sizes: each op on small numbers."""
    one, other = c([7, 5, 9]), c([2, 3, 4])
    for op in ("AddV2", "Sub", "Mul", "FloorDiv", "FloorMod", "Maximum", "Minimum", "SquaredDifference", "TruncateDiv"):
        yield getattr(raw, op)(x=one, y=other)
    yield raw.Div(x=c([-7, 7]), y=c([2, -2]))
    yield raw.RealDiv(x=c([7.0]), y=c([2.0]))
    yield raw.Pow(x=one, y=c(2))
    for op in ("Less", "Greater", "Equal", "NotEqual", "LessEqual", "GreaterEqual"):
        yield getattr(raw, op)(x=one, y=other)
    for op in ("Neg", "Abs", "Square", "Sign"):
        yield getattr(raw, op)(x=one)
    for op in ("Sqrt", "Exp", "Log", "Ceil", "Floor", "Round", "Rsqrt", "Reciprocal", "Relu", "ZerosLike", "OnesLike"):
        yield getattr(raw, op)(x=c([2.5, 4.0])) if op != "Relu" else raw.Relu(features=c([-1.0, 4.0]))
    yield raw.Cast(x=c([2.7, -2.7]), DstT=tf.int64)
    yield raw.RealDiv(x=raw.Cast(x=one, DstT=tf.float32), y=raw.Cast(x=other, DstT=tf.float32))
    yield from (raw.Cumsum(x=one, axis=0), raw.Cumprod(x=one, axis=0), raw.Cumsum(x=one, axis=0, reverse=True))
    yield raw.StringToNumber(string_tensor=c("12.5"))
    for op in ("Prod", "Sum", "Max", "Min", "Mean"):
        yield getattr(raw, op)(input=one, axis=0)
        yield getattr(raw, op)(input=c(F), axis=[0, 2], keep_dims=True)
    yield raw.SelectV2(condition=c(True), t=one, e=other)


def shapes() -> Iterator[Any]:
    """Ops that make, cut and join tensors."""
    x, shape = c(F), raw.Shape(input=c(F))
    yield from (shape, raw.Size(input=x), raw.Rank(input=x), *raw.ShapeN(input=[x, c(M)]))
    yield raw.Pack(values=[c(1), c(2), c(3)])
    yield raw.Pack(values=[c(M), c(M)], axis=1)
    yield raw.ConcatV2(values=[c([1]), c([2, 3])], axis=0)
    yield raw.ConcatV2(values=[x, x, x], axis=-1)
    yield raw.Concat(concat_dim=1, values=[x, x])
    yield from raw.Unpack(value=shape, num=3)
    yield from raw.Unpack(value=x, num=3, axis=1)
    yield from raw.Split(axis=2, value=x, num_split=2)
    yield from raw.SplitV(value=c([1, 2, 3, 4, 5]), size_splits=[2, -1], axis=0, num_split=2)
    yield from (raw.Slice(input=shape, begin=[1], size=[2]), raw.Slice(input=x, begin=[0, 1, 1], size=[-1, 1, 2]))
    for begin, end, step, masks in (
        ([1], [2], [1], {"shrink_axis_mask": 1}),
        ([0], [0], [-1], {"begin_mask": 1, "end_mask": 1}),
        ([1], [3], [1], {}),
        ([-2], [9], [1], {}),
    ):
        yield raw.StridedSlice(input=shape, begin=begin, end=end, strides=step, **masks)
    yield raw.StridedSlice(input=x, begin=[0, 0], end=[0, 1], strides=[1, 1], ellipsis_mask=1)
    yield raw.StridedSlice(input=x, begin=[0, 1], end=[0, 3], strides=[1, 1], new_axis_mask=1, begin_mask=1)
    yield raw.StridedSlice(input=x, begin=[0, 0, 3], end=[2, 3, 0], strides=[1, 2, -2])
    yield from (raw.GatherV2(params=shape, indices=[2, 0], axis=0), raw.GatherV2(params=x, indices=[[0, 1]], axis=1))
    yield from (raw.GatherNd(params=x, indices=[[0, 1], [1, 2]]), raw.ExpandDims(input=x, axis=-1))
    yield from (raw.Squeeze(input=c([[3]])), raw.Squeeze(input=c([[3, 4]]), axis=[0]))
    yield from (raw.Transpose(x=x, perm=[2, 0, 1]), raw.Reshape(tensor=x, shape=[4, -1]))
    yield from (raw.Fill(dims=[2, 3], value=7), raw.BroadcastTo(input=c([1.0]), shape=[2, 5]))
    yield from (raw.Tile(input=c([1, 2]), multiples=[3]), raw.Tile(input=x, multiples=[1, 2, 3]))
    pads = [[1, 2], [0, 0], [3, 0]]
    yield from (raw.Pad(input=x, paddings=pads), raw.PadV2(input=x, paddings=pads, constant_values=0.0))
    yield raw.MirrorPad(input=c(M), paddings=[[1, 0], [2, 1]], mode="REFLECT")
    yield from (raw.Range(start=3, limit=20, delta=4), raw.Range(start=9, limit=0, delta=-2))
    yield from (raw.LinSpace(start=0.0, stop=1.0, num=7), raw.BroadcastArgs(s0=[2, 1], s1=[3, 1, 5]))
    yield from (raw.OneHot(indices=I, depth=5, on_value=1.0, off_value=0.0, axis=axis) for axis in (-1, 0))
    yield from (raw.ArgMax(input=x, dimension=1), raw.AddV2(x=c(M), y=c([[1.0], [2.0]])), raw.AddN(inputs=[x, x]))
    yield from (raw.MatMul(a=c(M), b=c(M), transpose_b=True), raw.BatchMatMulV2(x=x, y=x, adj_x=True))
    yield from (raw.Einsum(inputs=[c(M), c(M)], equation="ab,cb->acb"), raw.Diag(diagonal=c(M)))
    yield from raw.RaggedRange(starts=[0, 5], limits=[3, 9], deltas=[1, 2])


def numbers() -> Iterator[Any]:
    """Ops whose size a number decides."""
    x = c(M)
    yield raw.MatrixDiag(diagonal=x)
    yield raw.MatrixDiagV3(diagonal=x, k=0, num_rows=3, num_cols=4, padding_value=0.0)
    yield raw.MatrixDiagV3(diagonal=x, k=-1, num_rows=-1, num_cols=-1, padding_value=0.0)
    yield raw.MatrixDiagV3(diagonal=x, k=2, num_rows=-1, num_cols=-1, padding_value=0.0)
    yield raw.MatrixDiagV3(diagonal=x, k=[-1, 0], num_rows=-1, num_cols=-1, padding_value=0.0)
    yield from raw.Qr(input=x, full_matrices=True)
    yield from raw.Svd(input=x, full_matrices=True)
    shape = c([3, 2])
    yield from (raw.RandomUniform(shape=shape, dtype=tf.float32), raw.TruncatedNormal(shape=shape, dtype=tf.float64))
    yield from (raw.StatelessRandomUniform(shape=shape, seed=[1, 2]), raw.Empty(shape=shape, dtype=tf.int64))
    yield from (raw.RandomGamma(shape=shape, alpha=x), raw.Multinomial(logits=x, num_samples=4))
    yield raw.SobolSample(dim=3, num_results=5, skip=0)
    yield from raw.UniformCandidateSampler(true_classes=[[0], [1]], num_true=1, num_sampled=4, unique=True, range_max=9)
    yield raw.ScatterNd(indices=[[0], [2]], updates=[1.0, 2.0], shape=[5])
    yield raw.SparseToDense(sparse_indices=[0], output_shape=[5], sparse_values=1.0, default_value=0.0)
    yield from (raw.ResizeBilinear(images=IMAGE, size=[7, 9]), raw.ResizeNearestNeighbor(images=IMAGE, size=[7, 9]))
    yield raw.ResizeNearestNeighborGrad(grads=IMAGE, size=[2, 3])
    yield raw.CropAndResize(image=IMAGE, boxes=[[0.0, 0, 1, 1]] * 2, box_ind=[0, 0], crop_size=[6, 7])
    yield raw.ExtractImagePatches(
        images=IMAGE, ksizes=[1, 2, 3, 1], strides=[1, 1, 2, 1], rates=[1] * 4, padding="SAME"
    )
    yield raw.ExtractImagePatches(
        images=IMAGE, ksizes=[1, 2, 3, 1], strides=[1, 1, 2, 1], rates=[1] * 4, padding="VALID"
    )
    yield raw.SpaceToBatchND(input=IMAGE, block_shape=[1, 1], paddings=[[1, 2], [0, 3]])
    filters = np.ones((2, 2, 3, 8), np.float32)
    yield raw.Conv2D(input=IMAGE, filter=filters, strides=[1] * 4, padding="SAME")
    pads = [0, 0, 3, 4, 5, 6, 0, 0]
    yield raw.Conv2D(input=IMAGE, filter=filters, strides=[1] * 4, padding="EXPLICIT", explicit_paddings=pads)
    yield raw.DepthwiseConv2dNative(input=IMAGE, filter=filters, strides=[1, 2, 2, 1], padding="VALID")
    yield raw.Conv2DBackpropInput(
        input_sizes=[1, 4, 5, 3],
        filter=filters,
        out_backprop=np.ones((1, 4, 5, 8), "f"),
        strides=[1] * 4,
        padding="SAME",
    )
    for padding in ("SAME", "VALID"):
        yield raw.MaxPool(input=IMAGE, ksize=[1, 2, 3, 1], strides=[1, 2, 1, 1], padding=padding)
        yield raw.AvgPool(value=IMAGE, ksize=[1, 2, 2, 1], strides=[1, 1, 2, 1], padding=padding)
    yield from raw.DynamicPartition(data=x, partitions=[0, 1], num_partitions=2)[:1]
    yield from (raw.RFFT(input=x, fft_length=[2]), raw.IRFFT(input=raw.RFFT(input=x, fft_length=[2]), fft_length=[2]))
    yield from (raw.RFFT2D(input=x, fft_length=[2, 3]), raw.Bincount(arr=I, size=7, weights=np.zeros(0, "f")))
    yield from (
        raw.DenseBincount(input=I, size=7, weights=np.zeros(0, "f")),
        raw.HistogramFixedWidth(values=x, value_range=[0.0, 9.0], nbins=6),
    )
    yield raw.DenseBincount(input=[[1, 2], [3, 4]], size=7, weights=np.zeros(0, "f"))
    yield raw.UnsortedSegmentSum(data=x, segment_ids=[0, 1], num_segments=6)
    yield raw.UnsortedSegmentSum(data=x, segment_ids=[[0, 1, 1], [0, 0, 2]], num_segments=6)
    yield from (
        raw.SegmentSum(data=x, segment_ids=[0, 4]),
        raw.SparseSegmentSum(data=x, indices=[0, 1], segment_ids=[0, 4]),
    )
    yield raw.SparseSegmentSumWithNumSegments(data=x, indices=[0, 1], segment_ids=[0, 2], num_segments=6)
    yield raw.SparseSegmentMeanGrad(grad=x, indices=[0, 1], segment_ids=[0, 1], output_dim0=6)
    yield raw.DynamicStitch(indices=[[0, 5], [3]], data=[[[1.0, 2], [3, 4]], [[5.0, 6]]])
    sparse = {"a_indices": np.array([[0, 0]], np.int64), "a_values": [1.0], "a_shape": np.array([6, 2], np.int64)}
    yield raw.SparseTensorDenseMatMul(**sparse, b=x)
    sparse_sum = {"input_indices": sparse["a_indices"], "input_values": [1.0], "input_shape": [6, 2]}
    yield raw.SparseReduceSum(**sparse_sum, reduction_axes=[1])
    matrix = raw.SparseTensorToCSRSparseMatrix(indices=sparse["a_indices"], values=[1.0], dense_shape=sparse["a_shape"])
    yield raw.CSRSparseMatrixToDense(sparse_input=matrix, type=tf.float32)
    yield raw.RaggedTensorToTensor(
        shape=[3, 4],
        values=[1.0],
        default_value=0.0,
        row_partition_tensors=[[0, 1]],
        row_partition_types=["ROW_SPLITS"],
    )
    yield from (raw.AsString(input=I, width=9), raw.StringJoin(inputs=[c("ab"), c(["c", "d"])]))
    yield from (raw.ReduceJoin(inputs=c(["ab", "cd"]), reduction_indices=0), raw.SerializeTensor(tensor=x))
    yield raw.DecodePaddedRaw(input_bytes=c(["ab"]), fixed_length=8, out_type=tf.float32)
    yield raw.ParseTensor(serialized=c(bytes(v1.make_tensor_proto(M).SerializeToString())), out_type=tf.float32)
    yield raw.StatelessMultinomial(logits=x, num_samples=5, seed=[1, 2])


def lists() -> Iterator[Any]:
    """Lists of tensors."""
    made = raw.TensorListReserve(element_shape=[2, 3], num_elements=4, element_dtype=tf.float32)
    yield raw.TensorListStack(input_handle=made, element_shape=[2, 3], element_dtype=tf.float32)
    yield raw.TensorListGetItem(input_handle=made, index=0, element_shape=[2, 3], element_dtype=tf.float32)
    yield raw.TensorListGather(input_handle=made, indices=[0, 1], element_shape=[2, 3], element_dtype=tf.float32)
    more = raw.TensorListPushBack(input_handle=made, tensor=c(M))
    yield raw.TensorListStack(input_handle=more, element_shape=[2, 3], element_dtype=tf.float32)
    yield raw.TensorListPopBack(input_handle=more, element_shape=[2, 3], element_dtype=tf.float32).tensor
    given = raw.TensorListFromTensor(tensor=c(F), element_shape=[3, 4])
    yield raw.TensorListStack(input_handle=given, element_shape=[3, 4], element_dtype=tf.float32)


@pytest.mark.parametrize("make", [arithmetic, shapes, numbers, lists])
def test_a_rule_tells_what_tensorflow_makes(make: Callable[[], Iterator[Any]]) -> None:
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        tensors = list(make())
        answers = session.run(tensors)
    found = examine(Graph.of(GraphDef.FromString(graph.as_graph_def().SerializeToString())))
    wrong = []
    for tensor, answer in zip(tensors, answers, strict=True):
        outputs = found[tensor.op.name]
        value = outputs[tensor.value_index] if tensor.value_index < len(outputs) else None
        said = "nothing" if value is None or value.dims is None else _differs(value, np.asarray(answer), tensor)
        if said:
            wrong.append(f"{tensor.op.type} {tensor.value_index}: {said}, made {np.shape(answer)}")
    assert not wrong, "\n".join(wrong)


def _differs(value: Value, made: Any, tensor: Any) -> str:
    assert value.dims is not None
    if len(value.dims) != made.ndim:
        return f"rank of {value.dims}"
    if any(
        said != length if said >= 0 else -said > length for said, length in zip(value.dims, made.shape, strict=True)
    ):
        return f"shape {value.dims}"
    if made.dtype.kind not in "OS" and value.item > max(made.dtype.itemsize, 1) and made.size:
        return f"{value.item} bytes each"
    if value.numbers is None or made.dtype.kind in "OS":
        return ""
    pairs = zip(value.numbers, made.ravel().tolist(), strict=True)
    unequal = [(said, real) for said, real in pairs if said is not None and not np.isclose(float(said), float(real))]
    return f"numbers {unequal}" if unequal else ""
