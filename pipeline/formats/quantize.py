"""Quantizes the stored kernels and tables of an ONNX model; the computation stays in float32.

onnxruntime's own dynamic quantization also rounds the activations, by the range of the whole batch, so that the output
for a row depends on the other rows. Here only the stored weights are rounded: a row gives the same output in any batch,
and NaN stays NaN.
"""

from __future__ import annotations

import numpy as np
import onnx

from pipeline.signature import Array

# Ops whose weights are quantized, and the dimension of the channels, each with its own scale: an output of a kernel,
# a row of a table (shapes: https://onnx.ai/onnx/operators/).
_CHANNELS = {"MatMul": -1, "Gemm": -1, "Conv": 0, "ConvTranspose": 1, "Gather": 0, "LSTM": 1, "GRU": 1, "RNN": 1}
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
_LARGEST = {"float16": float(np.finfo(np.float16).max), "int8": 127.0}


def quantize_weights(model: onnx.ModelProto, stored: str) -> list[str]:
    """Quantizes kernels and tables in place; biases and other vectors are small, and stay unchanged.

    A tensor `w` becomes `w/float16` or `w/int8`, and new first nodes compute `w` from it: a Cast, and for int8 a Mul by
    the scale of each channel. Runtimes do this once, when they load the file.

    Args:
        stored: float16 or int8.

    Returns:
        The names of the quantized tensors.

    Raises:
        ValueError: a weight is too large for float16.
    """
    axes = _axes(model)
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in axes and tensor.data_type in _FLOATS]
    nodes, names = [], []
    for tensor in tensors:
        values, name, kind = onnx.numpy_helper.to_array(tensor), tensor.name, tensor.data_type
        if values.ndim < 2 or not values.size or not np.isfinite(values).all():
            continue
        names.append(name)
        if stored == "float16":
            tensor.CopyFrom(onnx.numpy_helper.from_array(_as_float16(name, values), f"{name}/float16"))
            nodes.append(onnx.helper.make_node("Cast", [tensor.name], [name], f"{name}/Cast", to=kind))
        else:
            rounded, scale = _as_int8(values, axes[name] % values.ndim)
            tensor.CopyFrom(onnx.numpy_helper.from_array(rounded, f"{name}/int8"))
            model.graph.initializer.append(onnx.numpy_helper.from_array(scale, f"{name}/scale"))
            wide = f"{name}/wide"
            nodes.append(onnx.helper.make_node("Cast", [tensor.name], [wide], f"{name}/Cast", to=kind))
            nodes.append(onnx.helper.make_node("Mul", [wide, f"{name}/scale"], [name], f"{name}/Mul"))
    others = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *others])
    return names


def _axes(model: onnx.ModelProto) -> dict[str, int]:
    """Maps each weight tensor of an op in `_CHANNELS` to the dimension of its channels."""
    axes: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type in _CHANNELS:
            is_transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
            for name in node.input:
                axes.setdefault(name, 0 if is_transposed else _CHANNELS[node.op_type])
    return axes


def _as_float16(name: str, values: Array) -> Array:
    largest = float(np.abs(values).max())
    if largest > _LARGEST["float16"]:
        raise ValueError(f"the weights {name} hold {largest:g}, which is too large for float16")
    return values.astype(np.float16)


def _as_int8(values: Array, axis: int) -> tuple[Array, Array]:
    """Returns integers from -127 to 127, and the scale of each channel with the same rank."""
    others = tuple(other for other in range(values.ndim) if other != axis)
    largest = np.abs(values).max(axis=others, keepdims=True)
    scale = np.where(largest > 0, largest / _LARGEST["int8"], 1.0).astype(values.dtype)
    return np.rint(values / scale).astype(np.int8), scale
