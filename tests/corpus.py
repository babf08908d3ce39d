"""The corner cases of freezing: models with one peculiarity each, and what must become of them.

`python tests/corpus.py --table` writes docs/corner_cases.md: what TensorFlow's tools and ours do with each.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import concurrent.futures
import contextlib
import logging
import multiprocessing
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import function as legacy
from tensorflow.python.tools import freeze_graph

from pipeline.engine.assembling import freeze_checkpoint_files
from pipeline.engine.writing import write_pb

v1, raw = tf.compat.v1, tf.raw_ops
Array = np.ndarray[Any, Any]
Answers = list[Array]

X = np.arange(6, dtype=np.float32).reshape(2, 3) - 2
IDS = np.array([0, 2, 1], np.int32)
WORDS = np.array([b"a", b"b", b"zz", b"c"], object)
EQUAL, REFUSED = "equal", "refused"
BOTH = (False, True)
GROUPS: dict[str, list[Case]] = {}


@dataclass(frozen=True)
class Case:
    """A model, and what must become of it.

    Args:
        name: unique, in words.
        build: makes the graph from the placeholders of `feeds`, in their order. Returns the output's tensor; or
            several; or, where the live session fetches by another name, live tensors by the outputs' names.
        must: `equal`, a .pb with the outputs of the restored session, or `refused`, an error and no .pb.
        why: what is peculiar.
        feeds: arrays by the placeholders' names; a name with a port is a tensor that `build` makes.
        is_v2: whether control flow is built as functions (v2) or as Switch and Enter nodes (v1).
        has_weights: whether other weights must give another output.
        saver: makes the Saver; by default one of all variables by their names.
        edit: changes the .meta after it was written.
        damage: changes the checkpoint's files after they were written.
        mentions: a part of the refusal's message.
    """

    name: str
    build: Callable[..., Any]
    must: str
    why: str
    feeds: Mapping[str, Array] = field(default_factory=lambda: {"x": X})
    is_v2: bool = True
    has_weights: bool = True
    saver: Callable[[], Any] = v1.train.Saver
    edit: Callable[[Any], None] | None = None
    damage: Callable[[Path], None] | None = None
    mentions: str = ""


@dataclass(frozen=True)
class Stored:
    """A case on disk: checkpoints with the same graph and different weights, and the restored sessions' answers."""

    prefixes: list[Path]
    outputs: list[str]
    answers: list[Answers | None]
    by_v1_util: bytes | Exception | None


def case(group: str, must: str, why: str, *, name: str = "", **options: Any) -> Callable[..., Any]:
    """Registers a builder as a case; with `res` or `is_v2` of several values, as several."""

    def register(build: Callable[..., Any]) -> Callable[..., Any]:
        res, flow = options.pop("res", (None,)), options.pop("flow", (True,))
        for is_v2 in flow:
            for is_resource in res:
                words = [name or build.__name__.replace("_", " ").strip()]
                words += [] if is_resource is None else ["resource" if is_resource else "ref"]
                words += [] if len(flow) == 1 else ["v2" if is_v2 else "v1"]
                made = build if is_resource is None else partial(build, res=is_resource)
                GROUPS.setdefault(group, []).append(Case(", ".join(words), made, must, why, is_v2=is_v2, **options))
        return build

    return register


def weight(name: str, shape: Sequence[int], res: bool = True, dtype: Any = tf.float32, **options: Any) -> Any:
    """A variable whose first values follow from its name."""
    drawn = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape) * 3
    value = tf.constant(drawn.astype(tf.as_dtype(dtype).as_numpy_dtype))
    return v1.get_variable(name, initializer=value, use_resource=res, **options)


# ---------------------------------------------------------------------------------------------- making and judging


@contextlib.contextmanager
def control_flow(is_v2: bool) -> Iterator[None]:
    """Control flow as functions or as nodes."""
    before = v1.control_flow_v2_enabled()
    (v1.enable_control_flow_v2 if is_v2 else v1.disable_control_flow_v2)()
    try:
        yield
    finally:
        (v1.enable_control_flow_v2 if before else v1.disable_control_flow_v2)()


def plain() -> Any:
    """A session's options under which a graph is run as it stands."""
    config = v1.ConfigProto(allow_soft_placement=False, operation_timeout_in_ms=20_000)
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    config.graph_options.optimizer_options.opt_level = -1
    return config


def store(case: Case, folder: Path, versions: int = 2, with_v1_util: bool = False) -> Stored:
    """Builds a case and saves it with several sets of weights, none of them the initial one."""
    config = plain()
    config.allow_soft_placement = True  # the live session; what is frozen has to do without
    prefixes, answers, frozen = [], [], None
    with control_flow(case.is_v2), tf.Graph().as_default() as graph:
        given = [
            v1.placeholder(tf.as_dtype(array.dtype), [None, *array.shape[1:]] if array.ndim else [], name=name)
            for name, array in case.feeds.items()
            if ":" not in name
        ]
        built = case.build(*given)
        if not isinstance(built, dict):
            tensors = list(built) if isinstance(built, list | tuple) else [built]
            built = {tensor.name: tensor for tensor in tensors}
        saver = case.saver()
        with v1.Session(graph=graph, config=config) as session:
            session.run([v1.global_variables_initializer(), v1.tables_initializer()])
            for number in range(versions):
                for variable in v1.global_variables():
                    _load(variable, session)
                (folder / f"v{number}").mkdir(parents=True)
                prefixes.append(Path(saver.save(session, str(folder / f"v{number}" / "model.ckpt"))))
        for prefix in prefixes:
            _meddle(case, prefix)
            with v1.Session(graph=graph, config=config) as session:
                answers.append(_restored_answers(case, saver, session, prefix, built))
                if with_v1_util and prefix is prefixes[0] and case.damage is None:
                    frozen = _by_v1_util(case, session, graph, built)
        return Stored(prefixes, list(built), answers, frozen)


def _load(variable: Any, session: Any) -> None:
    """Other values than the variable has."""
    value = _array(session.run(variable))
    if value.dtype == object:
        new = np.array([item + b"!" for item in value.ravel()], object).reshape(value.shape)
    elif value.dtype.names:  # quantized
        new = (value.view(value.dtype[0]) + 1).view(value.dtype)
    elif value.dtype == bool:
        new = ~value
    else:
        new = (value + np.ones_like(value)).astype(value.dtype)
    session.run(variable.initializer, {variable.initializer.inputs[1]: new})


def _meddle(case: Case, prefix: Path) -> None:
    if case.edit is not None:
        path = Path(f"{prefix}.meta")
        meta = v1.MetaGraphDef.FromString(path.read_bytes())
        case.edit(meta)
        path.write_bytes(meta.SerializeToString())
    if case.damage is not None:
        case.damage(prefix)


def _restored_answers(case: Case, saver: Any, session: Any, prefix: Path, built: Mapping[str, Any]) -> Answers | None:
    try:
        saver.restore(session, str(prefix))
        session.run(v1.tables_initializer())
        return _run(session, list(built.values()), case.feeds)
    except (tf.errors.OpError, ValueError):
        if case.must == EQUAL:
            raise
        return None


def _run(session: Any, fetches: list[Any], feeds: Mapping[str, Array]) -> Answers:
    named = {name if ":" in name else f"{name}:0": array for name, array in feeds.items()}
    return [_array(answer) for answer in session.run(fetches, named)]


def _array(value: Any) -> Array:
    """What a session gave, where a single string comes as bytes, which numpy would cut at a zero byte."""
    return np.array(value, object) if isinstance(value, bytes) else np.asarray(value)


def _by_v1_util(case: Case, session: Any, graph: Any, built: Mapping[str, Any]) -> bytes | Exception:
    graph_def = graph.as_graph_def()
    if case.edit is not None:
        meta = v1.MetaGraphDef(graph_def=graph_def)
        case.edit(meta)
        graph_def = meta.graph_def
    try:
        names = [name.split(":")[0] for name in built]
        return bytes(v1.graph_util.convert_variables_to_constants(session, graph_def, names).SerializeToString())
    except Exception as exc:
        return exc


def by_us(prefix: Path, outputs: Sequence[str], inputs: Sequence[str], path: Path) -> bytes:
    """Our .pb of a checkpoint.

    Raises:
        PipelineError: it is refused; then there is no file.
    """
    write_pb(*freeze_checkpoint_files(prefix, outputs, inputs), path)
    return path.read_bytes()


def by_freeze_graph(prefix: Path, outputs: Sequence[str], path: Path) -> bytes:
    """TensorFlow's .pb of a checkpoint, by its `.meta`."""
    names = ",".join(name.split(":")[0] for name in outputs)
    restore, filename = "save/restore_all", "save/Const:0"
    with tf.Graph().as_default(), contextlib.redirect_stdout(None):
        freeze_graph.freeze_graph(
            "", "", True, str(prefix), names, restore, filename, str(path), True, "", input_meta_graph=f"{prefix}.meta"
        )
    return path.read_bytes()


def answers_of(pb: bytes, outputs: Sequence[str], feeds: Mapping[str, Array]) -> Answers:
    """What a .pb gives in a new graph."""
    with tf.Graph().as_default() as graph, v1.Session(graph=graph, config=plain()) as session:
        tf.import_graph_def(v1.GraphDef.FromString(pb), name="")
        return _run(session, list(outputs), feeds)


def is_same(one: Answers, other: Answers) -> bool:
    """Whether answers are the same to the bit."""
    return len(one) == len(other) and all(
        a.dtype == b.dtype
        and a.shape == b.shape
        and (a.tolist() == b.tolist() if a.dtype == object else a.tobytes() == b.tobytes())
        for a, b in zip(one, other, strict=True)
    )


# --------------------------------------------------------------------------------------------- variables and values


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


# -------------------------------------------------------------------------------------------- passing references on


@case("References", EQUAL, "passed on by Identity", res=BOTH)
def identity(x: Any, res: bool) -> Any:
    w = weight("w", [3], res)
    return x * (raw.ReadVariableOp(resource=tf.identity(w.handle), dtype=tf.float32) if res else tf.identity(w._ref()))


@case("References", EQUAL, "passed on by RefIdentity")
def RefIdentity(x: Any) -> Any:
    return x * tf.identity(raw.RefIdentity(input=weight("w", [3], False)._ref()))


@case("References", EQUAL, "passed on by RefSwitch and RefMerge")
def RefSwitch_and_RefMerge(x: Any) -> Any:
    w = weight("w", [3], False)
    off, on = raw.RefSwitch(data=w._ref(), pred=tf.reduce_sum(x) > 0)
    merged = raw.RefMerge(inputs=[raw.RefIdentity(input=off), raw.RefIdentity(input=on)])
    return x * tf.identity(merged.output)


@case("References", EQUAL, "passed on by RefSwitch, joined by Merge")
def RefSwitch(x: Any) -> Any:
    off, on = raw.RefSwitch(data=weight("w", [3], False)._ref(), pred=tf.reduce_sum(x) > 0)
    return x * raw.Merge(inputs=[off * 2.0, on * 3.0]).output


@case("References", EQUAL, "into a loop's frame by RefEnter", flow=(False,))
def RefEnter(x: Any) -> Any:
    w = weight("w", [3], False)
    entered = raw.RefEnter(data=w._ref(), frame_name="frame", is_constant=True)
    inside = raw.Enter(data=x, frame_name="frame")
    return raw.Exit(data=inside * entered)


@case("References", REFUSED, "one reference of several, chosen by an index")
def RefSelect(x: Any) -> Any:
    chosen = raw.RefSelect(
        index=tf.cast(tf.reduce_sum(x) > 0, tf.int32),
        inputs=[weight("w", [3], False)._ref(), weight("u", [3], False)._ref()],
    )
    return x * tf.identity(chosen)


@case("References", EQUAL, "handles through IdentityN, of two dtypes")
def IdentityN(x: Any) -> Any:
    w, u = weight("w", [3]), weight("u", [3], dtype=tf.float64)
    first, second, _ = raw.IdentityN(input=[w.handle, u.handle, x])
    read = raw.ReadVariableOp(resource=second, dtype=tf.float64)
    return x * raw.ReadVariableOp(resource=first, dtype=tf.float32) * tf.cast(read, tf.float32)


# ------------------------------------------------------------------------------------------------------ control flow

FLOW: dict[str, Any] = {"res": BOTH, "flow": BOTH}


@case("Control flow", EQUAL, "variables in the branches", **FLOW)
def cond(x: Any, res: bool) -> Any:
    w, u = weight("w", [3, 2], res), weight("u", [3, 2], res)
    return tf.cond(tf.reduce_sum(x) > 0, lambda: x @ w, lambda: tf.sin(x @ u))


@case("Control flow", EQUAL, "variables in the body", **FLOW)
def loop(x: Any, res: bool) -> Any:
    w = weight("w", [3, 3], res)
    return tf.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, tf.tanh(a @ w)), [0, x])[1]


@case("Control flow", EQUAL, "a variable in the condition", **FLOW)
def loop_condition(x: Any, res: bool) -> Any:
    w, u = weight("w", [], res), weight("u", [3], res)
    return tf.while_loop(lambda a: tf.reduce_max(a) < 100 + w, lambda a: tf.abs(a) * 2 + tf.abs(u) + 1, [x])


@case("Control flow", EQUAL, "a branch in a loop", **FLOW)
def cond_in_loop(x: Any, res: bool) -> Any:
    w, u = weight("w", [3, 3], res), weight("u", [3, 3], res)

    def body(i: Any, a: Any) -> Any:
        return i + 1, tf.cond(tf.reduce_sum(a) > 0, lambda: tf.tanh(a @ w), lambda: tf.sin(a @ u))

    return tf.while_loop(lambda i, a: i < 3, body, [0, x])[1]


@case("Control flow", EQUAL, "a loop in a loop", **FLOW)
def loop_in_loop(x: Any, res: bool) -> Any:
    w = weight("w", [3, 3], res)

    def inner(a: Any) -> Any:
        return tf.while_loop(lambda j, b: j < 2, lambda j, b: (j + 1, tf.tanh(b @ w)), [0, a])[1]

    return tf.while_loop(lambda i, a: i < 2, lambda i, a: (i + 1, inner(a) * 2), [0, x])[1]


@case("Control flow", EQUAL, "a loop in a branch", **FLOW)
def loop_in_cond(x: Any, res: bool) -> Any:
    w = weight("w", [3, 3], res)

    def many() -> Any:
        return tf.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, tf.tanh(a @ w)), [0, x])[1]

    return tf.cond(tf.reduce_sum(x) > -9, many, lambda: x)


@case("Control flow", EQUAL, "a branch is the variable itself", **FLOW)
def variable_as_result(x: Any, res: bool) -> Any:
    w, u = weight("w", [3], res), weight("u", [3], res)
    return x * tf.cond(tf.reduce_sum(x) > 0, lambda: w, lambda: u)


@case("Control flow", EQUAL, "the first value of a loop is a variable", **FLOW)
def variable_as_loop_start(x: Any, res: bool) -> Any:
    w = weight("w", [3], res)
    return x * tf.while_loop(lambda a: tf.reduce_sum(a) < 50, lambda a: tf.abs(a) + 1, [w])


@case("Control flow", EQUAL, "one branch of several by an index", res=BOTH, flow=BOTH)
def switch_case(x: Any, res: bool) -> Any:
    ws = [weight(f"w{i}", [3], res) for i in range(3)]
    chosen = tf.cast(tf.reduce_sum(x), tf.int32) % 3
    return tf.switch_case(chosen, [lambda w=w: x * w + tf.reduce_sum(ws[0]) for w in ws])


@case("Control flow", EQUAL, "the first branch whose condition holds", flow=BOTH)
def tf_case(x: Any) -> Any:
    w, u = weight("w", [3]), weight("u", [3])
    return tf.case([(tf.reduce_sum(x) > 99, lambda: x * w), (tf.reduce_sum(x) > 0, lambda: x * u)], lambda: x + w)


@case("Control flow", EQUAL, "handles joined behind a branch", flow=BOTH)
def handle_as_result(x: Any) -> Any:
    w, u = weight("w", [3]), weight("u", [3])
    chosen = tf.cond(tf.reduce_sum(x) > 0, lambda: tf.identity(w.handle), lambda: tf.identity(u.handle))
    return x * raw.ReadVariableOp(resource=chosen, dtype=tf.float32)


@case("Control flow", EQUAL, "map_fn", flow=BOTH)
def map_fn(x: Any) -> Any:
    w = weight("w", [3])
    return tf.map_fn(lambda row: row * w, x)


@case("Control flow", EQUAL, "scan", flow=BOTH)
def scan(x: Any) -> Any:
    w = weight("w", [3])
    return tf.scan(lambda a, row: tf.tanh(a * w + row), x, initializer=tf.zeros([3]))


@case("Control flow", EQUAL, "a recurrent net by TensorArray", flow=BOTH)
def recurrent(x: Any) -> Any:
    w, u = weight("w", [3, 3]), weight("u", [3, 3])
    rows = tf.TensorArray(tf.float32, 2).unstack(x)

    def step(i: Any, state: Any, out: Any) -> Any:
        state = tf.tanh(rows.read(i)[None] @ w + state @ u)
        return i + 1, state, out.write(i, state)

    start = (0, tf.zeros([1, 3]), tf.TensorArray(tf.float32, 2))
    return tf.while_loop(lambda i, *_: i < 2, step, start)[2].concat()


@case("Control flow", EQUAL, "gradients through a loop", flow=BOTH)
def gradient(x: Any) -> Any:
    w = weight("w", [3, 3])
    end = tf.while_loop(lambda i, a: i < 3, lambda i, a: [i + 1, tf.tanh(a @ w)], [0, x], maximum_iterations=3)[1]
    return tf.gradients(tf.reduce_sum(end), x)[0]


# --------------------------------------------------------------------------------------------------------- functions


@case("Functions", EQUAL, "a function in a function")
def nested_function(x: Any) -> Any:
    w = weight("w", [3, 3])
    inner = tf.function(lambda a: tf.tanh(a @ w))
    return tf.function(lambda a: inner(inner(a)) + 1)(x)


@case("Functions", EQUAL, "a loop and a branch in a function")
def flow_in_function(x: Any) -> Any:
    w = weight("w", [3, 3])

    @tf.function
    def run(a: Any) -> Any:
        def body(i: Any, b: Any) -> Any:
            return i + 1, tf.cond(tf.reduce_sum(b) > 0, lambda: tf.tanh(b @ w), lambda: tf.sin(b @ w))

        return tf.while_loop(lambda i, b: i < 3, body, [0, a])[1]

    return run(x)


@case("Functions", EQUAL, "a ref variable read outside of a function")
def function_of_ref(x: Any) -> Any:
    w = weight("w", [3], False)
    return tf.function(lambda a, b: a * b)(x, w.value())


@case("Functions", EQUAL, "a function of the old kind, called by its name as an op")
def legacy_function(x: Any) -> Any:
    w = weight("w", [3])

    @legacy.Defun(tf.float32)
    def times(a: Any) -> Any:
        return a * w

    return times(x) + times(x + 1)


@case("Functions", EQUAL, "an old function that calls another")
def legacy_nested(x: Any) -> Any:
    w = weight("w", [3])

    @legacy.Defun(tf.float32)
    def times(a: Any) -> Any:
        return a * w

    @legacy.Defun(tf.float32)
    def twice(a: Any) -> Any:
        return times(times(a)) + w

    return twice(x)


@case("Functions", EQUAL, "an old function with a gradient of its own, which the library keeps beside it")
def legacy_gradient(x: Any) -> Any:
    w = weight("w", [3])

    @legacy.Defun(tf.float32, tf.float32)
    def slope(a: Any, dy: Any) -> Any:
        return dy * 7.0

    @legacy.Defun(tf.float32, grad_func=slope)
    def sine(a: Any) -> Any:
        return tf.sin(a)

    return tf.gradients(sine(x * w), x)[0]


def _shape_function() -> Any:
    @tf.function(input_signature=[tf.TensorSpec([], tf.resource)], autograph=False)
    def size(handle: Any) -> Any:
        return tf.cast(raw.VariableShape(input=handle), tf.float32)

    return size.get_concrete_function()


@case("Functions", EQUAL, "one function that is given variables of two dtypes")
def two_dtypes(x: Any) -> Any:
    w, u, size = weight("w", [3]), weight("u", [3], dtype=tf.float64), _shape_function()
    first, second = (raw.PartitionedCall(args=[v.handle], Tout=[tf.float32], f=size)[0] for v in (w, u))
    return x * w + tf.cast(u, tf.float32) + first + second


def _passing_function() -> Any:
    @tf.function(input_signature=[tf.TensorSpec([], tf.resource), tf.TensorSpec(None, tf.float32)], autograph=False)
    def pass_on(handle: Any, a: Any) -> Any:
        return tf.identity(handle), a * 2

    return pass_on.get_concrete_function()


@case("Functions", EQUAL, "a function that returns a handle, for variables of two dtypes")
def handle_from_function(x: Any) -> Any:
    w, u, pass_on = weight("w", [3]), weight("u", [3], dtype=tf.float64), _passing_function()
    first, a = raw.PartitionedCall(args=[w.handle, x], Tout=[tf.resource, tf.float32], f=pass_on)
    second, b = raw.PartitionedCall(args=[u.handle, x], Tout=[tf.resource, tf.float32], f=pass_on)
    read = raw.ReadVariableOp(resource=second, dtype=tf.float64)
    return a * raw.ReadVariableOp(resource=first, dtype=tf.float32) + b * tf.cast(read, tf.float32)


@case("Functions", EQUAL, "a function that returns the variable's value, and nothing else")
def value_from_function(x: Any) -> Any:
    w = weight("w", [3])
    return x * tf.function(lambda: w.read_value())()


@case("Functions", EQUAL, "an argument of a function returned as it came")
def argument_returned(x: Any) -> Any:
    w = weight("w", [3])
    a, b = tf.function(lambda a: (a, a * w))(x)
    return a + b


@case("Functions", EQUAL, "functions that nobody calls, one of them with what may not be in a .pb")
def unused_function(x: Any) -> Any:
    w = weight("w", [3])
    tf.function(lambda a: tf.random.uniform([3]) * w * a)(x)
    return x * w


@case("Functions", EQUAL, "devices on nodes and in the bodies of functions")
def devices(x: Any) -> Any:
    w = weight("w", [3])
    with tf.device("/device:GPU:0"):
        y = x * w
        return tf.cond(tf.reduce_sum(x) > 0, lambda: y * w, lambda: y)


@case("Functions", EQUAL, "a function with control inputs only between its stateless nodes")
def control_edges_in_function(x: Any) -> Any:
    w = weight("w", [3])

    @tf.function
    def run(a: Any) -> Any:
        with tf.control_dependencies([tf.debugging.assert_greater(tf.size(a), 0)]):
            return a * w

    return run(x)


@case("Functions", EQUAL, "a custom gradient by a tf.function")
def custom_gradient(x: Any) -> Any:
    w = weight("w", [3])

    @tf.custom_gradient
    def half(a: Any) -> Any:
        return a * 2.0, lambda dy: dy * 0.5

    return tf.gradients(half(x) * w, x)[0] + x


# ------------------------------------------------------------------------------------------- questions to a variable


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


# ----------------------------------------------------------------------------------------------- keys of a checkpoint


def _variables() -> dict[str, Any]:
    return {variable.op.name: variable for variable in v1.global_variables()}


def _swapped() -> Any:
    found = _variables()
    return v1.train.Saver({"w": found["u"], "u": found["w"]})


def _two_savers(renamed_last: bool) -> Any:
    first = v1.train.Saver({f"old/{name}": variable for name, variable in _variables().items()})
    second = v1.train.Saver()
    return first if not renamed_last else second


@case(
    "Keys",
    EQUAL,
    "other keys than names",
    res=BOTH,
    saver=lambda: v1.train.Saver({f"layer/{name}": variable for name, variable in _variables().items()}),
)
def renamed(x: Any, res: bool) -> Any:
    return x * weight("w", [3], res) + weight("u", [3], res)


@case("Keys", EQUAL, "each variable under the other's name", res=BOTH, saver=_swapped)
def swapped(x: Any, res: bool) -> Any:
    return x * weight("w", [3], res) + weight("u", [3], res)


def _averages() -> Any:
    return v1.train.Saver(_AVERAGES[-1].variables_to_restore(moving_avg_variables=v1.trainable_variables()))


_AVERAGES: list[Any] = []


@case("Keys", EQUAL, "the variables restored from their moving averages", res=BOTH, saver=_averages)
def averaged(x: Any, res: bool) -> Any:
    w = weight("w", [3], res)
    _AVERAGES[:] = [tf.train.ExponentialMovingAverage(0.5)]
    return x * w


@case("Keys", EQUAL, "averages beside the variables, by a Saver of all", res=BOTH, flow=(False,))
def averages_beside(x: Any, res: bool) -> Any:
    w = weight("w", [3], res)
    average = tf.train.ExponentialMovingAverage(0.5)
    average.apply([w])
    return x * average.average(w)


@case("Keys", EQUAL, "two Savers, of which the first saved", saver=lambda: _two_savers(False))
def first_saver(x: Any) -> Any:
    return x * weight("w", [3])


@case("Keys", EQUAL, "two Savers, of which the second saved", saver=lambda: _two_savers(True))
def second_saver(x: Any) -> Any:
    return x * weight("w", [3])


def _cross_savers() -> Any:
    kept = v1.train.Saver()
    _swapped()
    return kept


@case("Keys", EQUAL, "a later Saver that only reads swaps the keys; the one that saved does not", saver=_cross_savers)
def swapping_saver_beside(x: Any) -> Any:
    return x * weight("w", [3]) + weight("u", [3])


@case("Keys", EQUAL, "a Saver that writes shards", res=BOTH, saver=lambda: v1.train.Saver(sharded=True))
def sharded(x: Any, res: bool) -> Any:
    return x * weight("w", [3], res)


@case("Keys", EQUAL, "a Saver that reshapes", res=BOTH, saver=lambda: v1.train.Saver(reshape=True))
def reshaping(x: Any, res: bool) -> Any:
    return x * weight("w", [3], res)


@case("Keys", EQUAL, "the V1 format", res=BOTH, saver=lambda: v1.train.Saver(write_version=v1.train.SaverDef.V1))
def v1_format(x: Any, res: bool) -> Any:
    return x * weight("w", [3], res) + weight("s", [], res)


def _partitioned(x: Any, res: bool, axis: int) -> Any:
    parts = weight("w", [3, 4], res, partitioner=v1.fixed_size_partitioner(2, axis=axis))
    return x @ tf.convert_to_tensor(parts)


case("Keys", EQUAL, "parts along axis 0", name="partitioned by rows", res=BOTH)(partial(_partitioned, axis=0))
case("Keys", EQUAL, "parts along axis 1", name="partitioned by columns", res=BOTH)(partial(_partitioned, axis=1))
case(
    "Keys",
    EQUAL,
    "parts in the V1 format",
    name="partitioned in the V1 format",
    res=BOTH,
    saver=lambda: v1.train.Saver(write_version=v1.train.SaverDef.V1),
)(partial(_partitioned, axis=1))


@case("Keys", EQUAL, "one part of a partitioned variable", res=BOTH)
def one_part(x: Any, res: bool) -> Any:
    parts = weight("w", [6], res, partitioner=v1.fixed_size_partitioner(2))
    return x * list(parts)[1]


@case("Keys", EQUAL, "lookup in a partitioned variable", res=BOTH, feeds={"i": np.array([0, 3, 1, 2, 4], np.int32)})
def partitioned_lookup(i: Any, res: bool) -> Any:
    parts = weight("w", [5, 2], res, partitioner=v1.fixed_size_partitioner(2))
    return v1.nn.embedding_lookup(parts, i, partition_strategy="div")


@case("Keys", EQUAL, "a partitioned variable of strings")
def partitioned_strings(t: Any) -> Any:
    value = tf.constant([b"a", b"", b"ccc", b"\xff"])
    parts = v1.get_variable("w", initializer=value, partitioner=v1.fixed_size_partitioner(2))
    return tf.strings.join([t, tf.convert_to_tensor(parts)])


@case("Keys", EQUAL, "a partitioned variable under another key", saver=lambda: v1.train.Saver({"other": _PARTS[-1]}))
def partitioned_renamed(x: Any) -> Any:
    _PARTS[:] = [weight("w", [3], True, partitioner=v1.fixed_size_partitioner(3))]
    return x * tf.convert_to_tensor(_PARTS[0])


_PARTS: list[Any] = []


# ------------------------------------------------------------------------------------------------------------- names


@case("Names", EQUAL, "a variable has the name of another's reader", res=BOTH)
def named_like_a_read(x: Any, res: bool) -> Any:
    trap = weight("w/Read/ReadVariableOp" if res else "w/read", [3], res)
    return x * weight("w", [3], res) + trap


@case("Names", EQUAL, "names of ops, functions and ports as names of variables")
def odd_names(x: Any) -> Any:
    names = ["cond", "save/restore_all", "Const", "output", "value", "a.b/c-d_e", "while/body"]
    return tf.add_n([x * weight(f"v/{name}", [3]) for name in names])


@case("Names", EQUAL, "nodes of a function's body have the names of nodes and variables of the graph")
def same_names_in_function(x: Any) -> Any:
    w, u = weight("w", [3]), weight("u", [3])

    @tf.function
    def run(u_value: Any) -> Any:
        return tf.identity(u_value * w, name="u")

    return run(x * u)


@case("Names", EQUAL, "a name scope opened twice")
def scopes(x: Any) -> Any:
    with v1.variable_scope("a"):
        y = x * weight("w", [3])
    with v1.variable_scope("a", auxiliary_name_scope=False):
        return y + weight("v", [3])


@case("Outputs", EQUAL, "another port than the first")
def port(x: Any) -> Any:
    return tf.split(x * weight("w", [3]), 3, axis=1, name="split")[1]


@case("Outputs", EQUAL, "several outputs, one of them twice used")
def several(x: Any) -> Any:
    y = x * weight("w", [3])
    values, where = tf.nn.top_k(y, 2)
    return [y, values, tf.cast(where, tf.float32) + weight("s", [])]


@case("Outputs", REFUSED, "a port that the node does not have", mentions="split")
def no_such_port(x: Any) -> Any:
    y = tf.split(x * weight("w", [3]), 3, axis=1, name="split")
    return {"split:7": y[0]}


@case("Outputs", REFUSED, "a node that is not there", mentions="probs")
def no_such_output(x: Any) -> Any:
    return {"probs:0": tf.multiply(x, weight("w", [3]), name="prob")}


# --------------------------------------------------------------------------------------- what is waited for, and state


@case("State", EQUAL, "waits for a check")
def waits_for_assert(x: Any) -> Any:
    w = weight("w", [3])
    with tf.control_dependencies([v1.assert_greater(tf.size(x), 0), tf.debugging.Assert(tf.size(x) > 0, [x])]):
        return x * w


@case("State", EQUAL, "waits for something printed")
def waits_for_print(x: Any) -> Any:
    w = weight("w", [3])
    with tf.control_dependencies([tf.print("", output_stream=sys.stderr, end="")]):
        return x * w


@case("State", EQUAL, "waits for a count of steps that it does not use", res=BOTH)
def waits_for_a_count(x: Any, res: bool) -> Any:
    step = v1.get_variable("step", initializer=np.int64(0), use_resource=res, trainable=False)
    w = weight("w", [3], res)
    with tf.control_dependencies([v1.assign_add(step, 1)]):
        return tf.identity(x * w)


@case("State", EQUAL, "waits for an assignment to a variable that is not read", res=BOTH)
def waits_for_unread(x: Any, res: bool) -> Any:
    w, other = weight("w", [3], res), weight("other", [3], res)
    with tf.control_dependencies([v1.assign(other, x[0])]):
        return tf.identity(x * w)


@case("State", EQUAL, "waits for its own value being copied elsewhere", res=BOTH)
def waits_for_copy(x: Any, res: bool) -> Any:
    w, other = weight("w", [3], res), weight("other", [3], res)
    with tf.control_dependencies([v1.assign(other, w.read_value())]):
        return tf.identity(x * w)


@case("State", EQUAL, "waits for a function that reads it and counts another")
def waits_for_reading_function(x: Any) -> Any:
    w, other = weight("w", [3]), weight("other", [3])
    with tf.control_dependencies([tf.function(lambda: other.assign_add(w))()]):
        return x * w.read_value()


@case("State", EQUAL, "waits for a summary")
def waits_for_summary(x: Any) -> Any:
    w = weight("w", [3])
    with tf.control_dependencies([v1.summary.scalar("mean", tf.reduce_mean(x))]):
        return tf.identity(x * w)


@case("State", EQUAL, "a training step beside the output, slots in the checkpoint", res=BOTH)
def trained(x: Any, res: bool) -> Any:
    y = tf.matmul(x, weight("w", [3, 2], res), name="y")
    v1.train.AdamOptimizer().minimize(tf.reduce_sum(y**2), global_step=v1.train.get_or_create_global_step())
    return y


@case("State", REFUSED, "waits for an assignment to a variable that is read", res=BOTH, mentions="changes state")
def waits_for_read(x: Any, res: bool) -> Any:
    w = weight("w", [3], res)
    with tf.control_dependencies([v1.assign_add(w, [1.0, 1, 1])]):
        return x * tf.identity(w)


@case("State", REFUSED, "waits for a function that assigns to a variable that is read", mentions="changes state")
def waits_for_function(x: Any) -> Any:
    w = weight("w", [3])
    with tf.control_dependencies([tf.function(lambda: w.assign_add([1.0, 1, 1]))()]):
        return x * w.read_value()


@case(
    "State", REFUSED, "waits for a branch that assigns to a variable that is read", mentions="changes state", flow=BOTH
)
def waits_for_branch(x: Any) -> Any:
    w = weight("w", [3])
    count = tf.cond(tf.size(x) > 0, lambda: tf.identity(w.assign_add([1.0, 1, 1])), lambda: tf.zeros([3]))
    with tf.control_dependencies([count]):
        return x * w.read_value()


@case(
    "State", REFUSED, "waits for an assignment by another handle of a variable that is read", mentions="changes state"
)
def waits_for_another_handle(x: Any) -> Any:
    w = weight("w", [3])
    again = raw.VarHandleOp(dtype=tf.float32, shape=[3], shared_name="w", name="again")
    with tf.control_dependencies([raw.AssignAddVariableOp(resource=again, value=tf.ones([3]))]):
        return x * w.read_value()


@case("State", EQUAL, "waits for a function that counts what is not read")
def waits_for_counting_function(x: Any) -> Any:
    w, step = weight("w", [3]), v1.get_variable("step", initializer=0)
    with tf.control_dependencies([tf.function(lambda: step.assign_add(1))()]):
        return x * w.read_value()


@case("State", REFUSED, "an assignment's result", res=BOTH, mentions="changes state")
def assigned(x: Any, res: bool) -> Any:
    return x * v1.assign_add(weight("w", [3], res), [1.0, 1, 1])


@case("State", REFUSED, "an assignment in a branch", flow=BOTH, mentions="changes state")
def assigned_in_cond(x: Any) -> Any:
    w = weight("w", [3])
    return tf.cond(tf.reduce_sum(x) > 0, lambda: x * w.assign_add([1.0, 1, 1]), lambda: x * w)


@case("State", REFUSED, "an assignment in a function", mentions="changes state")
def assigned_in_function(x: Any) -> Any:
    w = weight("w", [3])
    return tf.function(lambda a: a * w.assign_add([1.0, 1, 1]))(x)


@case("State", REFUSED, "a scatter into a variable", res=BOTH, mentions="changes state")
def scattered(x: Any, res: bool) -> Any:
    return x * v1.scatter_update(weight("w", [3], res), [0], [1.0])


@case("State", REFUSED, "Python code", mentions="Python")
def py_function(x: Any) -> Any:
    return tf.py_function(lambda a: a, [x * weight("w", [3])], tf.float32)


@case("State", REFUSED, "Python code in a branch", mentions="Python", flow=BOTH)
def numpy_function_in_cond(x: Any) -> Any:
    w = weight("w", [3])
    return tf.cond(tf.size(x) > 0, lambda: tf.numpy_function(lambda a: a, [x * w], tf.float32), lambda: x)


@case("State", REFUSED, "random numbers without a seed", mentions="random")
def unseeded(x: Any) -> Any:
    return x * weight("w", [3]) + tf.random.normal([3])


@case("State", REFUSED, "a dropout that is on", mentions="random")
def dropout(x: Any) -> Any:
    return tf.nn.dropout(x * weight("w", [3]), 0.5)


@case("State", EQUAL, "a dropout of rate 0")
def dropout_of_rate_0(x: Any) -> Any:
    return tf.nn.dropout(x * weight("w", [3]), rate=0)


@case("State", EQUAL, "a dropout in a branch that a constant switches off", flow=BOTH)
def dropout_switched_off(x: Any) -> Any:
    y = x * weight("w", [3])
    return tf.cond(tf.constant(False, name="is_training"), lambda: tf.nn.dropout(y, 0.5), lambda: tf.identity(y))


@case("State", EQUAL, "random numbers by a fixed key")
def stateless_random(x: Any) -> Any:
    return x * weight("w", [3]) * tf.random.stateless_uniform([3], [1, 2])


@case("State", EQUAL, "random initializers are not in the way")
def random_initializer(x: Any) -> Any:
    return x * v1.get_variable("w", [3], initializer=v1.random_normal_initializer())


# ------------------------------------------------------------------------------------------------------------ tables


def words(default: int = -1, name: str = "table") -> Any:
    """A table from constants."""
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([b"a", b"b"], [0, 1]), default, name=name)


def _file(content: bytes) -> str:
    """A vocabulary file, whose path has to live as long as the checkpoint is frozen."""
    path = Path(tempfile.mkdtemp(prefix="vocabulary-")) / "words.txt"
    path.write_bytes(content)
    return str(path)


def _rows(found: Any) -> Any:
    with v1.variable_scope(v1.get_variable_scope(), reuse=tf.compat.v1.AUTO_REUSE):
        return tf.gather(weight("w", [6, 2]), tf.cast(found, tf.int32) + 1)


@case("Tables", EQUAL, "strings to numbers, from constants")
def table(t: Any) -> Any:
    return _rows(words().lookup(t))


@case("Tables", EQUAL, "numbers to strings, from constants", feeds={"k": np.array([7, 8, 9])}, has_weights=False)
def table_of_numbers(k: Any) -> Any:
    weight("w", [1])
    filler = tf.lookup.KeyValueTensorInitializer(tf.constant([7, 8], tf.int64), tf.constant([b"x", b"y"]))
    return tf.lookup.StaticHashTable(filler, b"?").lookup(k)


@case("Tables", EQUAL, "a vocabulary file, by line number")
def table_from_file(t: Any) -> Any:
    known = tf.lookup.StaticHashTable(
        tf.lookup.TextFileInitializer(
            _file(b"a\nb\nc\n"),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        ),
        -1,
    )
    return _rows(known.lookup(t))


@case("Tables", EQUAL, "a vocabulary file, lines to words", feeds={"k": np.array([0, 2, 9])}, has_weights=False)
def table_from_file_to_words(k: Any) -> Any:
    weight("w", [1])
    return v1.raw_ops.LookupTableFindV2(
        table_handle=_words_by_line(_file(b"a\nb\nc")).resource_handle, keys=k, default_value=b"?"
    )


def _words_by_line(path: str) -> Any:
    index = tf.lookup.TextFileIndex
    filler = tf.lookup.TextFileInitializer(path, tf.int64, index.LINE_NUMBER, tf.string, index.WHOLE_LINE)
    return tf.lookup.StaticHashTable(filler, b"?")


@case("Tables", EQUAL, "columns of a file, with another delimiter, and only the first lines")
def table_from_columns(t: Any) -> Any:
    filler = tf.lookup.TextFileInitializer(
        _file(b"a,3\nb,1\nc,4\n"), tf.string, 0, tf.int64, 1, vocab_size=2, delimiter=","
    )
    return _rows(tf.lookup.StaticHashTable(filler, -1).lookup(t))


@case("Tables", EQUAL, "a file with the ends of lines of Windows")
def table_from_windows_file(t: Any) -> Any:
    filler = tf.lookup.TextFileInitializer(
        _file(b"a\r\nb\r\n"),
        tf.string,
        tf.lookup.TextFileIndex.WHOLE_LINE,
        tf.int64,
        tf.lookup.TextFileIndex.LINE_NUMBER,
    )
    return _rows(tf.lookup.StaticHashTable(filler, -1).lookup(t))


@case("Tables", EQUAL, "buckets for unknown words")
def table_with_buckets(t: Any) -> Any:
    filler = tf.lookup.KeyValueTensorInitializer([b"a", b"b"], tf.constant([0, 1], tf.int64))
    return _rows(tf.lookup.StaticVocabularyTable(filler, 3).lookup(t))


_FILES: list[Path] = []


@case(
    "Tables",
    REFUSED,
    "the vocabulary file is gone",
    damage=lambda prefix: _FILES[0].unlink(missing_ok=True),
    mentions="words.txt",
)
def table_from_missing_file(t: Any) -> Any:
    _FILES[:] = [Path(_file(b"a\nb\n"))]
    index = tf.lookup.TextFileIndex
    filler = tf.lookup.TextFileInitializer(str(_FILES[0]), tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER)
    return _rows(tf.lookup.StaticHashTable(filler, -1).lookup(t))


@case("Tables", EQUAL, "used in a branch", flow=BOTH)
def table_in_cond(t: Any) -> Any:
    known = words()
    return _rows(tf.cond(tf.size(t) > 0, lambda: known.lookup(t), lambda: tf.zeros_like(known.lookup(t))))


@case("Tables", EQUAL, "used in a loop", flow=BOTH)
def table_in_loop(t: Any) -> Any:
    known = words()
    return _rows(tf.map_fn(known.lookup, t, fn_output_signature=tf.int32))


@case("Tables", EQUAL, "used in a function")
def table_in_function(t: Any) -> Any:
    known = words()
    return _rows(tf.function(lambda a: known.lookup(a))(t))


@case("Tables", EQUAL, "used twice, and asked for its size")
def table_used_twice(t: Any) -> Any:
    known = words()
    return _rows(known.lookup(t)) + _rows(known.lookup(tf.strings.join([t, ""]))) + tf.cast(known.size(), tf.float32)


@case("Tables", EQUAL, "two tables, one behind the other")
def two_tables(t: Any) -> Any:
    filler = tf.lookup.KeyValueTensorInitializer(tf.constant([0, 1]), tf.constant([2, 3]))
    return _rows(tf.lookup.StaticHashTable(filler, 4).lookup(words().lookup(t)))


@case("Tables", EQUAL, "the old way to make one")
def index_table_from_tensor(t: Any) -> Any:
    return _rows(
        tf.lookup.StaticVocabularyTable(
            tf.lookup.KeyValueTensorInitializer([b"c", b"a"], tf.constant([0, 1], tf.int64)), 1
        ).lookup(t)
    )


@case("Tables", EQUAL, "a table that no output needs")
def table_unused(t: Any) -> Any:
    words().lookup(t)
    tf.lookup.experimental.MutableHashTable(tf.string, tf.int32, -1)
    return tf.strings.join([t, tf.as_string(weight("s", []))])


@case("Tables", REFUSED, "a table that is filled while it runs")
def mutable_table(t: Any) -> Any:
    return _rows(tf.lookup.experimental.MutableHashTable(tf.string, tf.int32, -1).lookup(t))


@case("Tables", REFUSED, "a dense table that is filled while it runs")
def dense_table(t: Any) -> Any:
    dense = tf.lookup.experimental.DenseHashTable(tf.string, tf.int32, -1, empty_key="", deleted_key="-")
    return _rows(dense.lookup(t))


@case("Tables", REFUSED, "an assignment to a variable fills the table")
def table_from_variable(t: Any) -> Any:
    values = v1.get_variable("values", initializer=tf.constant([0, 1]))
    with tf.control_dependencies([values.assign([1, 0])]):
        filler = tf.lookup.KeyValueTensorInitializer(tf.constant([b"a", b"b"]), values.read_value())
    return _rows(tf.lookup.StaticHashTable(filler, -1).lookup(t))


# ------------------------------------------------------------------------------------------------------------ inputs


@case("Inputs", EQUAL, "an inner tensor, with a queue in front of it", feeds={"batch:0": X})
def queue(*_: Any) -> Any:
    rows = tf.queue.FIFOQueue(9, tf.float32, [3])
    rows.enqueue(tf.zeros([3]))
    return tf.identity(rows.dequeue_many(2), name="batch") * weight("w", [3])


@case("Inputs", EQUAL, "an inner tensor, with a data set's iterator in front of it", feeds={"batch:0": X})
def iterator(*_: Any) -> Any:
    rows = v1.data.make_initializable_iterator(tf.data.Dataset.from_tensors(np.zeros([2, 3], np.float32)))
    return tf.identity(rows.get_next(), name="batch") * weight("w", [3])


@case("Inputs", EQUAL, "an inner tensor behind random augmentation", feeds={"batch:0": X})
def augmented(*_: Any) -> Any:
    return tf.add(tf.zeros([2, 3]), tf.random.normal([2, 3]), name="batch") * weight("w", [3])


@case("Inputs", EQUAL, "a placeholder that no output uses", feeds={"x": X, "unused": X})
def unused_input(x: Any, unused: Any) -> Any:
    return x * weight("w", [3])


@case("Inputs", EQUAL, "a default that is fed over")
def default_input(x: Any) -> Any:
    return x * weight("w", [3]) + v1.placeholder_with_default([1.0, 2, 3], [3])


@case("Inputs", REFUSED, "a queue in the way", mentions="queue")
def queue_in_the_way(x: Any) -> Any:
    return x * weight("w", [3]) + tf.cast(tf.queue.FIFOQueue(9, tf.float32, [3], name="queue").size(), tf.float32)


# ------------------------------------------------------------------------------------------------------------- layers


LAYERS: dict[str, tuple[Callable[[Any], Any], Mapping[str, Array]]] = {
    "Dense": (lambda x: tf.keras.layers.Dense(2)(x), {"x": X}),
    "LSTM": (lambda s: tf.keras.layers.LSTM(2)(s), {"s": X.reshape(1, 2, 3)}),
    "GRU": (lambda s: tf.keras.layers.GRU(2)(s), {"s": X.reshape(1, 2, 3)}),
    "Embedding": (lambda i: tf.keras.layers.Embedding(3, 2)(i), {"i": IDS}),
    "BatchNormalization": (lambda x: tf.keras.layers.BatchNormalization()(x, training=False), {"x": X}),
}
for _name, (_layer, _feeds) in LAYERS.items():
    case("Layers", EQUAL, "a layer of Keras 3 in a graph", name=f"Keras {_name}", feeds=_feeds)(_layer)


@case("Layers", EQUAL, "convolution and fused normalization in a branch", flow=BOTH)
def normalized_in_cond(x: Any) -> Any:
    image = tf.nn.conv2d(tf.reshape(x, [1, 2, 3, 1]), weight("k", [2, 2, 1, 2]), 1, "SAME")
    scale, offset, mean = (weight(name, [2]) for name in ("scale", "offset", "mean"))
    variance = v1.get_variable("variance", initializer=[1.0, 2.0])
    is_training = v1.placeholder_with_default(False, [])
    return tf.cond(
        is_training,
        lambda: v1.nn.fused_batch_norm(image, scale, offset)[0],
        lambda: v1.nn.fused_batch_norm(image, scale, offset, mean, variance, is_training=False)[0],
    )


# -------------------------------------------------------------------------------------------------------- stale graphs


def _stale_shapes(meta: Any) -> None:
    for one in [*meta.graph_def.node, *(n for f in meta.graph_def.library.function for n in f.node_def)]:
        shapes = one.attr["_output_shapes"].list.shape
        shapes.add().dim.add(size=99)


def _stale_class(meta: Any) -> None:
    for one in meta.graph_def.node:
        one.attr["_class"].list.s.append(b"loc:@somewhere/else")


@case("Stale graphs", EQUAL, "_output_shapes that are not so", edit=_stale_shapes, flow=BOTH)
def stale_output_shapes(x: Any) -> Any:
    w = weight("w", [3])
    return tf.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, a * w), [0, x])[1]


@case("Stale graphs", EQUAL, "_class that names a node that is gone", edit=_stale_class, res=BOTH)
def stale_class(x: Any, res: bool) -> Any:
    return x * weight("w", [3], res)


# ------------------------------------------------------------------------------------------------ files that do not fit


def _change(suffix: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(prefix: Path) -> None:
        path = Path(f"{prefix}{suffix}")
        path.write_bytes(change(path.read_bytes()))

    return damage


def _flip(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
DATA = ".data-00000-of-00001"
DAMAGES: dict[str, Callable[[Path], None]] = {
    "meta cut off": _change(".meta", lambda content: content[: len(content) * 2 // 3]),
    "meta of garbage": _change(".meta", lambda content: bytes(range(256)) * 9),
    "meta empty": _change(".meta", lambda content: b""),
    "meta missing": lambda prefix: Path(f"{prefix}.meta").unlink(),
    "meta a Git LFS pointer": _change(".meta", lambda content: LFS),
    "index cut off": _change(".index", lambda content: content[:-9]),
    "index missing": lambda prefix: Path(f"{prefix}.index").unlink(),
    "index a Git LFS pointer": _change(".index", lambda content: LFS),
    "data cut off": _change(DATA, lambda content: content[:-1]),
    "data with a flipped bit": _change(DATA, _flip),
    "data missing": lambda prefix: Path(f"{prefix}{DATA}").unlink(),
    "data a Git LFS pointer": _change(DATA, lambda content: LFS),
}
for _name, _damage in DAMAGES.items():
    case("Files", REFUSED, "damage", name=_name, damage=_damage, has_weights=False)(
        lambda x: tf.multiply(x, weight("w", [3]), name="y")
    )


def _of_shape(*shape: int) -> Callable[[Any], None]:
    """Gives the variables of a .meta another shape than the checkpoint has."""

    def edit(meta: Any) -> None:
        for one in meta.graph_def.node:
            if one.op in ("VarHandleOp", "VariableV2"):
                del one.attr["shape"].shape.dim[:]
                for size in shape:
                    one.attr["shape"].shape.dim.add(size=size)

    return edit


@case(
    "Files",
    REFUSED,
    "another shape in the checkpoint than in the graph",
    res=BOTH,
    edit=_of_shape(1),
    mentions="is not the graph's",
)
def another_shape(x: Any, res: bool) -> Any:
    return x * weight("w", [3], res)


def _with_key(dtype: Any) -> Callable[[Path], None]:
    def damage(prefix: Path) -> None:
        meta = Path(f"{prefix}.meta").read_bytes()
        with tf.Graph().as_default(), v1.Session() as session:
            saver = v1.train.Saver([v1.get_variable("w", initializer=tf.constant([1, 2, 3], dtype))])
            session.run(v1.global_variables_initializer())
            saver.save(session, str(prefix))
        Path(f"{prefix}.meta").write_bytes(meta)

    return damage


@case(
    "Files",
    REFUSED,
    "another dtype in the checkpoint than in the graph",
    res=BOTH,
    damage=_with_key(tf.int32),
    mentions="is not the graph's",
)
def another_dtype(x: Any, res: bool) -> Any:
    return x * weight("w", [3], res)


@case("Files", REFUSED, "the checkpoint lacks a variable", res=BOTH, damage=_with_key(tf.float32), mentions="lacks")
def lacking(x: Any, res: bool) -> Any:
    return x * weight("w", [3], res) + weight("u", [3], res)


@case(
    "Files",
    EQUAL,
    "the checkpoint lacks a variable that no output needs",
    has_weights=False,
    saver=lambda: v1.train.Saver([variable for variable in v1.global_variables() if variable.op.name == "w"]),
)
def lacking_unneeded(x: Any) -> Any:
    weight("u", [3])
    return x * weight("w", [3])


# ---------------------------------------------------------------------------------------------------------- the corpus

_FEEDS_BY_ARGUMENT = {"i": IDS, "t": WORDS}


def _with_feeds(one: Case) -> Case:
    """Builders name their placeholders: `i` for indices, `t` for text, `x` for floats."""
    build = one.build.func if isinstance(one.build, partial) else one.build
    first = build.__code__.co_varnames[:1]
    if first and first[0] in _FEEDS_BY_ARGUMENT and "x" in one.feeds:
        return Case(**{**one.__dict__, "feeds": {first[0]: _FEEDS_BY_ARGUMENT[first[0]]}})
    return one


GROUPS = {group: [_with_feeds(one) for one in cases] for group, cases in GROUPS.items()}
CASES = [one for cases in GROUPS.values() for one in cases]


# ----------------------------------------------------------------------------------------------------------- the table

PAGE = Path(__file__).parent.parent / "docs" / "corner_cases.md"
_HEAD = """# Corner cases of freezing

What becomes of each case of `tests/corpus.py`, against TensorFlow {version}. Made by `python tests/corpus.py --table`.

- **equal**: a .pb whose outputs are, to the bit, those of a live session that restored the checkpoint
- **wrong**: a .pb that fails when it is imported or run in a new process, or gives other outputs, or of what no .pb
  can hold
- **refused**: an error instead of a .pb

`freeze_graph` is run with `input_meta_graph`; it restores by the graph's first Saver, as its command does by default.
`convert_variables_to_constants` is run in the program that built the graph and restored the variables, so damaged files
never reach it (-). Both are given nodes, for they know no ports. An input that they dropped is not fed.

| | freeze_graph | convert_variables_to_constants | ours |
|---|---|---|---|
"""


@dataclass(frozen=True)
class Row:
    """What the tools do with a case."""

    case: Case
    by_freeze_graph: str
    by_v1_util: str
    by_us: str


def _in_process(pb: bytes, outputs: list[str], feeds: Mapping[str, Array]) -> Answers | str:
    """What a .pb gives in this process, or where it fails."""
    logging.disable()
    try:
        graph_def = v1.GraphDef.FromString(pb)
        with tf.Graph().as_default():
            tf.import_graph_def(graph_def, name="")
    except Exception:
        return "import fails"
    there = {node.name for node in graph_def.node}  # TensorFlow's tools drop inputs that no output uses
    feeds = {name: array for name, array in feeds.items() if name.split(":")[0] in there}
    try:
        return answers_of(pb, outputs, feeds)
    except Exception:
        return "run fails"


class Judge:
    """Runs .pb files in a process that knows nothing of how they were made; a new one where it dies of one."""

    def __init__(self) -> None:
        self._pool = self._fresh()

    def _fresh(self) -> concurrent.futures.ProcessPoolExecutor:
        return concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))

    def verdict(self, case: Case, stored: Stored, make: Callable[[], bytes | Exception | None]) -> str:
        """One cell of the table."""
        try:
            pb = make()
        except Exception:
            return REFUSED
        if not isinstance(pb, bytes):
            return "-" if pb is None else REFUSED
        try:
            found = self._pool.submit(_in_process, pb, stored.outputs, dict(case.feeds)).result(120)
        except concurrent.futures.process.BrokenProcessPool:
            self._pool = self._fresh()
            return "wrong (the process dies)"
        if isinstance(found, str):
            return f"wrong ({found})"
        if stored.answers[0] is None or not is_same(found, stored.answers[0]):
            return "wrong (outputs)"
        return EQUAL if case.must == EQUAL else "wrong (state or chance inside)"

    def row(self, case: Case, folder: Path) -> Row:
        """What the tools do with a case."""
        stored = store(case, folder, versions=1, with_v1_util=True)
        [prefix], outputs = stored.prefixes, stored.outputs
        return Row(
            case,
            self.verdict(case, stored, lambda: by_freeze_graph(prefix, outputs, folder / "theirs.pb")),
            self.verdict(case, stored, lambda: stored.by_v1_util),
            self.verdict(case, stored, lambda: by_us(prefix, outputs, inputs_of(case), folder / "ours.pb")),
        )

    def close(self) -> None:
        """Ends the process."""
        self._pool.shutdown()


def inputs_of(case: Case) -> list[str]:
    """The tensors that a case feeds."""
    return [name if ":" in name else f"{name}:0" for name in case.feeds]


def page(rows: Sequence[Row]) -> str:
    """The table in Markdown, with its sums."""
    found = {row.case.name: row for row in rows}
    lines = []
    for kind in (EQUAL, "wrong", REFUSED):
        counts = [
            sum(cell.startswith(kind) for cell in cells)
            for cells in zip(*((row.by_freeze_graph, row.by_v1_util, row.by_us) for row in rows), strict=True)
        ]
        lines.append(f"| {kind} | {' | '.join(map(str, counts))} |\n")
    for group, cases in GROUPS.items():
        lines.append(
            f"\n## {group}\n\n| case | what is peculiar | freeze_graph | convert_variables_to_constants | ours |\n"
        )
        lines.append("|---|---|---|---|---|\n")
        for one in cases:
            row = found[one.name]
            cells = [one.name, one.why, row.by_freeze_graph, row.by_v1_util, row.by_us]
            lines.append(f"| {' | '.join(cells)} |\n")
    return _HEAD.format(version=tf.__version__) + "".join(lines)


def main() -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="store_true", help=f"write {PAGE.name}")
    if not parser.parse_args().table:
        parser.error("nothing to do")
    logging.disable()
    warnings.simplefilter("ignore")
    judge = Judge()
    with tempfile.TemporaryDirectory() as folder:
        rows = [judge.row(one, Path(folder) / str(number)) for number, one in enumerate(CASES)]
    judge.close()
    PAGE.write_text(page(rows))
    for row in rows:
        if row.by_us != row.case.must:
            print(f"{row.case.name}: {row.by_us}, and must be {row.case.must}", file=sys.stderr)


if __name__ == "__main__":
    main()
