"""Variables of every kind, dtype and shape."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from .cases import BOTH, EQUAL, case, raw, v1, weight


@case("Variables", EQUAL, "the plain one", res=BOTH)
def product(x: Any, res: bool) -> Any:
    return tf.multiply(x, weight("w", [3], res), name="y")


def _as_old_op(meta: Any) -> None:
    for one in meta.graph_def.node:
        if one.op == "VariableV2":
            one.op = "Variable"


@case("Variables", EQUAL, "the op of TensorFlow's first year", edit=_as_old_op)
def op_Variable(x: Any) -> Any:
    return x * weight("w", [3], False)


@case("Variables", EQUAL, "an output that is the variable itself")
def output_is_a_resource_variable(x: Any) -> Any:
    w = weight("w", [3])
    return {"w:0": w.read_value()}


@case("Variables", EQUAL, "an output that is the variable itself")
def output_is_a_ref_variable(x: Any) -> Any:
    return {"w:0": weight("w", [3], False).read_value()}


DTYPES = "float16 bfloat16 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 complex64 complex128 bool string"
SMALL_DTYPES = "qint8 quint8 qint32 float8_e4m3fn float8_e5m2 int4 uint4"


def _of_dtype(x: Any, dtype: str, res: bool) -> Any:
    kind = tf.as_dtype(dtype)
    if dtype == "string":
        value: Any = tf.constant([b'a,"\x00', b"\xff\n", b""])
    elif kind.is_quantized:
        value = tf.constant(np.array([1, 0, 3], kind.as_numpy_dtype[0]).view(kind.as_numpy_dtype), kind)
    else:
        value = tf.constant(np.array([1, 0, 3]).astype(kind.as_numpy_dtype), kind)
    return v1.get_variable(f"v_{dtype}", initializer=value, use_resource=res).read_value()


for _dtype in f"{DTYPES} {SMALL_DTYPES}".split():
    case("Variables", EQUAL, f"a variable of {_dtype}", name=_dtype)(partial(_of_dtype, dtype=_dtype, res=True))


@case("Variables", EQUAL, "a ref variable of every dtype that may be one", name="every dtype as ref")
def _every_ref(x: Any) -> Any:
    return [_of_dtype(x, dtype, False) for dtype in DTYPES.split()]


@case("Variables", EQUAL, "one element of every dtype: the .pb keeps it in another field", name="scalar of every dtype")
def _every_scalar(x: Any) -> Any:
    values = {dtype: np.array(1).astype(tf.as_dtype(dtype).as_numpy_dtype) for dtype in DTYPES.split()[:-1]}
    values["string"] = np.array(b"\xff\x00", object)
    return [v1.get_variable(f"s_{d}", initializer=tf.constant(v, d)).read_value() for d, v in values.items()]


@case("Variables", EQUAL, "no dimensions", res=BOTH)
def scalar(x: Any, res: bool) -> Any:
    return x + weight("s", [], res)


@case("Variables", EQUAL, "no elements", res=BOTH)
def empty(x: Any, res: bool) -> Any:
    return tf.concat([x * weight("w", [3], res), weight("none", [2, 0], res)], 1)


@case("Variables", EQUAL, "five dimensions")
def rank_5(x: Any) -> Any:
    return tf.reduce_sum(weight("w", [2, 1, 2, 3, 2]), [0, 1, 2, 4]) * x


@case("Variables", EQUAL, "the graph does not know the shape", res=BOTH)
def unknown_shape(x: Any, res: bool) -> Any:
    return x * v1.Variable(tf.constant([1.0, 2, 3]), validate_shape=False, use_resource=res, name="w")


@case("Variables", EQUAL, "the graph knows a part of the shape")
def partly_unknown_shape(x: Any) -> Any:
    return x * tf.Variable(tf.constant([[1.0, 2, 3]]), shape=[None, 3], name="w")


@case("Variables", EQUAL, "NaN, infinity and negative zero keep their bits")
def odd_floats(x: Any) -> Any:
    w = v1.get_variable("w", initializer=tf.constant([np.nan, np.inf, -0.0], tf.float32))
    return [w.read_value(), x * weight("u", [3])]


@case("Variables", EQUAL, "two handles of one variable, by its shared name")
def two_handles(x: Any) -> Any:
    w = weight("w", [3])
    again = raw.VarHandleOp(dtype=tf.float32, shape=[3], shared_name="w", name="again")
    return x * w + raw.ReadVariableOp(resource=again, dtype=tf.float32)


@case("Variables", EQUAL, "a ref variable by a second node, by its shared name")
def two_ref_nodes(x: Any) -> Any:
    w = v1.Variable([1.0, 2, 3], use_resource=False, name="w")
    again = raw.VariableV2(shape=[3], dtype=tf.float32, shared_name="w", name="again")
    return x * w + tf.identity(again)


@case("Variables", EQUAL, "the shared name is not the node's")
def shared_name_of_another_kind(x: Any) -> Any:
    handle = raw.VarHandleOp(dtype=tf.float32, shape=[3], shared_name="w", name="other")
    weight("w", [3])
    return x * raw.ReadVariableOp(resource=handle, dtype=tf.float32)
