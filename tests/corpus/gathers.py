"""Rows of a variable, its shape, and whether it has a value."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from .cases import BOTH, EQUAL, FLOW, case, raw, v1, weight


@case("Gathers", EQUAL, "ResourceGather", res=BOTH)
def gather(i: Any, res: bool) -> Any:
    return tf.nn.embedding_lookup(weight("w", [3, 2], res), i)


@case("Gathers", EQUAL, "ResourceGather with batch dimensions", feeds={"j": np.array([[0, 2], [1, 1]], np.int32)})
def gather_batch_dims(j: Any) -> Any:
    return raw.ResourceGather(resource=weight("w", [2, 3, 2]).handle, indices=j, dtype=tf.float32, batch_dims=1)


@case("Gathers", EQUAL, "ResourceGather by 64-bit indices", feeds={"k": np.array([0, 2, 1])})
def gather_int64(k: Any) -> Any:
    return raw.ResourceGather(resource=weight("w", [3, 2]).handle, indices=k, dtype=tf.float32)


@case("Gathers", EQUAL, "ResourceGatherNd", feeds={"j": np.array([[0, 1], [2, 0]], np.int32)})
def gather_nd(j: Any) -> Any:
    return raw.ResourceGatherNd(resource=weight("w", [3, 2]).handle, indices=j, dtype=tf.float32)


@case("Gathers", EQUAL, "in a loop", **FLOW)
def gather_in_loop(i: Any, res: bool) -> Any:
    w = weight("w", [3, 2], res)
    return tf.map_fn(lambda k: tf.gather(w, k), i, fn_output_signature=tf.float32)


@case("Gathers", EQUAL, "ResourceGatherNd in a loop", flow=BOTH)
def gather_nd_in_loop(i: Any) -> Any:
    w = weight("w", [3, 2])

    def one(k: Any) -> Any:
        return raw.ResourceGatherNd(resource=w.handle, indices=k[None], dtype=tf.float32)

    return tf.map_fn(one, i, fn_output_signature=tf.float32)


@case("Gathers", EQUAL, "at the top, where a loop stands elsewhere in the graph", flow=BOTH)
def gather_beside_loop(i: Any) -> Any:
    rows = tf.gather(weight("w", [3, 2]), i)
    return tf.while_loop(lambda n, a: n < 3, lambda n, a: (n + 1, tf.sin(a)), [0, rows])[1]


@case("Gathers", EQUAL, "by a constant index, in a loop", flow=BOTH)
def gather_constant_in_loop(x: Any) -> Any:
    w = weight("w", [3, 3])
    return tf.while_loop(lambda n, a: n < 3, lambda n, a: (n + 1, a + tf.gather(w, [n, 1])), [0, x])[1]


@case("Gathers", EQUAL, "in a branch", **FLOW)
def gather_in_cond(i: Any, res: bool) -> Any:
    w = weight("w", [3, 2], res)
    return tf.cond(tf.reduce_sum(i) > 0, lambda: tf.gather(w, i), lambda: tf.zeros([3, 2]))


@case("Gathers", EQUAL, "in a branch of a loop", flow=BOTH)
def gather_in_cond_in_loop(i: Any) -> Any:
    w = weight("w", [3, 2])

    def one(k: Any) -> Any:
        return tf.cond(k > 0, lambda: tf.gather(w, k), lambda: tf.zeros([2]))

    return tf.map_fn(one, i, fn_output_signature=tf.float32)


@case("Gathers", EQUAL, "in a function in a function")
def gather_in_function(i: Any) -> Any:
    w = weight("w", [3, 2])
    inner = tf.function(
        lambda k: tf.gather(w, k) + raw.ResourceGatherNd(resource=w.handle, indices=k[:, None], dtype=tf.float32)
    )
    return tf.function(lambda k: inner(k) * 2)(i)


@case("Gathers", EQUAL, "a node has the name that a converter gives to a gather's axis")
def gather_axis_name_taken(i: Any) -> Any:
    w = weight("w", [3, 2])
    axis = tf.cast(tf.constant(5, name="lookup/axis"), tf.float32)
    with tf.name_scope("lookup/"):
        axis = axis + tf.cast(tf.constant(1, name="other"), tf.float32)
    return raw.ResourceGather(resource=w.handle, indices=i, dtype=tf.float32, name="lookup") + axis


@case("Gathers", EQUAL, "the taken name stands in a function's body")
def gather_axis_name_taken_in_function(i: Any) -> Any:
    w = weight("w", [3, 2])

    @tf.function
    def run(k: Any) -> Any:
        axis = tf.identity(tf.cast(k[0], tf.float32), name="lookup/axis")
        return raw.ResourceGather(resource=w.handle, indices=k, dtype=tf.float32, name="lookup") + axis

    return run(i)


@case("Questions", EQUAL, "VariableShape at the top, of either width")
def variable_shape(x: Any) -> Any:
    w = weight("w", [3])
    size = raw.VariableShape(input=w.handle), raw.VariableShape(input=w.handle, out_type=tf.int64)
    return x * w + tf.cast(size[0], tf.float32) * tf.cast(size[1], tf.float32)


@case("Questions", EQUAL, "VariableShape in a branch and in a loop", flow=BOTH)
def variable_shape_inside(x: Any) -> Any:
    w = weight("w", [3])

    def size() -> Any:
        return tf.cast(raw.VariableShape(input=w.handle)[0], tf.float32)

    y = tf.cond(tf.reduce_sum(x) > 0, lambda: x + size(), lambda: x)
    return tf.while_loop(lambda n, a: n < 2, lambda n, a: (n + 1, a * w + size()), [0, y])[1]


@case("Questions", EQUAL, "VarIsInitializedOp and IsVariableInitialized at the top", res=BOTH)
def is_initialized(x: Any, res: bool) -> Any:
    w = weight("w", [3], res)
    known = raw.VarIsInitializedOp(resource=w.handle) if res else raw.IsVariableInitialized(ref=w._ref())
    return x * w + tf.cast(known, tf.float32)


@case("Questions", EQUAL, "VarIsInitializedOp in a branch, a loop and a function", flow=BOTH)
def is_initialized_inside(x: Any) -> Any:
    w = weight("w", [3])

    def known() -> Any:
        return tf.cast(raw.VarIsInitializedOp(resource=w.handle), tf.float32)

    y = tf.cond(tf.reduce_sum(x) > 0, lambda: x + known(), lambda: x) + tf.function(known)()
    return tf.while_loop(lambda n, a: n < 2, lambda n, a: (n + 1, a * w + known()), [0, y])[1]


@case("Questions", EQUAL, "the value of a variable that may not be initialized, by the question in a cond", res=BOTH)
def initialized_value(x: Any, res: bool) -> Any:
    w = weight("w", [3], res)
    return x * v1.Variable.initialized_value(w)


@case("Gathers", EQUAL, "a lookup with a largest norm, in parts by remainder")
def lookup_max_norm(i: Any) -> Any:
    parts = [weight(f"w{n}", [2, 2]) for n in range(3)]
    return v1.nn.embedding_lookup(parts, i, partition_strategy="mod", max_norm=2.0)


@case("Gathers", EQUAL, "a lookup of several rows each, one of them of none")
def lookup_sparse(i: Any) -> Any:
    ids = tf.SparseTensor([[0, 0], [0, 1], [2, 0]], tf.cast(i, tf.int64), [3, 2])
    w = weight("w", [3, 2])
    mean = tf.nn.embedding_lookup_sparse(w, ids, None, combiner="mean")
    return [mean, v1.nn.safe_embedding_lookup_sparse(w, ids, None, combiner="sqrtn")]


@case("Gathers", EQUAL, "the gradient by the variable", flow=BOTH)
def gather_gradient(i: Any) -> Any:
    w = weight("w", [3, 2])
    inside = tf.function(lambda k: tf.sin(tf.gather(w, k)))
    found = tf.gradients(tf.reduce_sum(tf.sin(tf.gather(w, i))), w) + tf.gradients(inside(i), w)
    return [tf.convert_to_tensor(one) for one in found]


@case("Gathers", EQUAL, "in a loop in a loop", flow=BOTH)
def gather_in_nested_loops(i: Any) -> Any:
    w = weight("w", [3, 2])

    def body(n: Any, a: Any) -> Any:
        return n + 1, tf.while_loop(lambda j, c: j < 2, lambda j, c: (j + 1, c + tf.gather(w, [j, n, 0])), [0, a])[1]

    return tf.while_loop(lambda n, a: n < 3, body, [0, tf.gather(w, i)])[1]
