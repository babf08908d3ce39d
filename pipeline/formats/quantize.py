"""Stores the kernels and tables of an ONNX model with less precision; what is computed stays float32.

onnxruntime's own dynamic quantization also rounds what a weight is multiplied with, by the range of the whole batch, so
that the answer to a row depends on its neighbours. Here only what is stored is rounded: a row has the same answer alone
and in any batch, and NaN stays NaN.
"""

from __future__ import annotations

import numpy as np
import onnx

from pipeline.signature import Array

# The ops whose weights are stored with less precision, and the dimension along which each place has a scale of its own:
# an output of a kernel, a row of a table (https://onnx.ai/onnx/operators/ has the shapes).
_CHANNELS = {"MatMul": -1, "Gemm": -1, "Conv": 0, "ConvTranspose": 1, "Gather": 0, "LSTM": 1, "GRU": 1, "RNN": 1}
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
_LARGEST = {"float16": float(np.finfo(np.float16).max), "int8": 127.0}


def reduce_weights(model: onnx.ModelProto, stored: str) -> list[str]:
    """Stores kernels and tables with less precision, in place; biases and other vectors cost nothing, and stay.

    A tensor `w` becomes `w/float16` or `w/int8`, and nodes before all others make it `w` again, which runtimes do once,
    when they load the file: a Cast, and for int8 a Mul by the scale of each channel.

    Args:
        stored: float16 or int8.

    Returns:
        The names of the tensors.

    Raises:
        ValueError: a number is too large for float16.
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
    """The dimension of the channels of each tensor that such an op reads as its weights."""
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
    """Whole numbers from -127 to 127, and what each channel's are to be multiplied with, of the same rank."""
    others = tuple(other for other in range(values.ndim) if other != axis)
    largest = np.abs(values).max(axis=others, keepdims=True)
    scale = np.where(largest > 0, largest / _LARGEST["int8"], 1.0).astype(values.dtype)
    return np.rint(values / scale).astype(np.int8), scale
