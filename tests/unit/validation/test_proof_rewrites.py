"""Rules for what other tools leave: each proves its pair and no near miss; TensorFlow gives the same bits for both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import tensorflow as tf
from proof_graphs import FLOAT, INT32, X, const, model, node

from pipeline.graph.protos import AttrValue, GraphDef, NodeDef
from pipeline.validation.proof.folded_values import compute
from pipeline.validation.proof.prove import Proof, compare_models
from pipeline.validation.proof.rewrites import REWRITES

Nodes = list[NodeDef]
tiny, huge = np.finfo(np.float32).tiny, np.finfo(np.float32).max
ODD = [
    0.0,
    -0.0,
    1.0,
    -1.5,
    3.14159274,
    1e-45,
    -tiny,
    tiny / 3,
    huge,
    -huge,
    np.inf,
    -np.inf,
    np.nan,
    0.1,
    7e-39,
    16777217,
]
INPUT = np.array(ODD, np.float32).reshape(4, 4)


def number(value: float, name: str = "c") -> NodeDef:
    return const(name, value, shape=[])


def ints(name: str, *values: int, shape: Sequence[int] | None = None) -> NodeDef:
    return const(name, *values, dtype=INT32, shape=shape)


def many(*texts: str) -> AttrValue:
    return AttrValue(list=AttrValue.ListValue(s=[text.encode() for text in texts]))


def i(value: int) -> AttrValue:
    return AttrValue(i=value)


def chain(*nodes: NodeDef) -> Nodes:
    """The nodes, of which the last is the output `y`."""
    *rest, last = nodes
    new = NodeDef()
    new.CopyFrom(last)
    new.name = "y"
    return [X, *rest, new]


def y(op: str, *inputs: str, **attributes: object) -> NodeDef:
    return node("y", op, *inputs, **({"T": FLOAT} | attributes))


EXP = node("e", "Exp", "x", T=FLOAT)
MATRIX = const("m", *range(16), shape=[4, 4])
BIAS = const("b", 1, -2, 3, 0.1)
NEG = node("n", "Neg", "e", T=FLOAT)

# By rule: a pair that it proves, and a near miss of the second that it must not prove.
PAIRS: dict[str, tuple[Nodes, Nodes, Nodes]] = {
    "add": (chain(EXP, y("Add", "x", "e")), chain(EXP, y("AddV2", "e", "x")), chain(EXP, y("AddV2", "e", "e"))),
    "add_n": (
        chain(EXP, y("AddN", "x", "e", "x", N=i(3))),
        chain(EXP, node("a", "AddV2", "x", "e", T=FLOAT), y("AddV2", "a", "x")),
        chain(EXP, node("a", "AddV2", "x", "x", T=FLOAT), y("AddV2", "a", "e")),
    ),
    "add_negative": (
        chain(EXP, NEG, y("AddV2", "x", "n")),
        chain(EXP, y("Sub", "x", "e")),
        chain(EXP, y("Sub", "e", "x")),
    ),
    "subtract": (
        chain(number(0.1), y("Sub", "x", "c")),
        chain(number(-0.1), y("AddV2", "x", "c")),
        chain(number(0.1), y("AddV2", "x", "c")),
    ),
    "subtract nothing": (chain(number(0.0), y("Sub", "x", "c")), chain(y("Identity", "x")), chain(y("Abs", "x"))),
    "subtract negative": (
        chain(EXP, NEG, y("Sub", "x", "n")),
        chain(EXP, y("AddV2", "x", "e")),
        chain(EXP, y("Sub", "x", "e")),
    ),
    "multiply": (chain(number(1.0), y("Mul", "c", "x")), chain(y("Identity", "x")), chain(y("Neg", "x"))),
    "multiply itself": (chain(y("Mul", "x", "x")), chain(y("Square", "x")), chain(y("Abs", "x"))),
    "divide": (
        chain(number(0.25), y("RealDiv", "x", "c")),
        chain(number(4.0), y("Mul", "x", "c")),
        chain(number(0.25), y("Mul", "x", "c")),
    ),
    "divide by one": (chain(number(1.0), y("Div", "x", "c")), chain(y("Identity", "x")), chain(y("Reciprocal", "x"))),
    "undo": (
        chain(node("n", "Neg", "x", T=FLOAT), y("Neg", "n")),
        chain(y("Identity", "x")),
        chain(y("Neg", "x")),
    ),
    "square": (
        chain(EXP, node("d", "Sub", "x", "e", T=FLOAT), y("Square", "d")),
        chain(EXP, y("SquaredDifference", "x", "e")),
        chain(EXP, y("SquaredDifference", "x", "x")),
    ),
    "add_bias": (
        chain(BIAS, y("BiasAdd", "x", "b")),
        chain(BIAS, y("AddV2", "x", "b")),
        chain(BIAS, y("Mul", "x", "b")),
    ),
    "pack_one": (
        chain(y("Pack", "x", N=i(1), axis=i(1))),
        chain(ints("a", 1, shape=[]), y("ExpandDims", "x", "a", Tdim=INT32)),
        chain(ints("a", 0, shape=[]), y("ExpandDims", "x", "a", Tdim=INT32)),
    ),
    "expand": (
        chain(ints("a", -1, shape=[1]), y("ExpandDims", "x", "a", Tdim=INT32)),
        chain(ints("a", -1, shape=[]), y("ExpandDims", "x", "a", Tdim=INT32)),
        chain(ints("a", 1, shape=[]), y("ExpandDims", "x", "a", Tdim=INT32)),
    ),
    "expand a mean": (
        chain(ints("a", 1, shape=[1]), y("Mean", "x", "a", Tidx=INT32, keep_dims=AttrValue(b=True))),
        chain(
            *(ints("a", 1, shape=[1]), node("n", "Mean", "x", "a", T=FLOAT, Tidx=INT32), ints("d", 1, shape=[])),
            y("ExpandDims", "n", "d", Tdim=INT32),
        ),
        chain(
            *(ints("a", 1, shape=[1]), node("n", "Mean", "x", "a", T=FLOAT, Tidx=INT32), ints("d", 0, shape=[])),
            y("ExpandDims", "n", "d", Tdim=INT32),
        ),
    ),
    "reshape": (
        chain(ints("s", 2, 8), ints("t", 16), node("r", "Reshape", "x", "s", T=FLOAT), y("Reshape", "r", "t")),
        chain(ints("t", 16), y("Reshape", "x", "t")),
        chain(ints("t", 1, 16), y("Reshape", "x", "t")),
    ),
    "transpose": (
        chain(ints("p", 1, 0), node("t", "Transpose", "x", "p", T=FLOAT), y("Transpose", "t", "p")),
        chain(y("Identity", "x")),
        chain(ints("p", 1, 0), y("Transpose", "x", "p")),
    ),
    "multiply_transposed": (
        chain(
            ints("p", 1, 0), MATRIX, node("t", "Transpose", "x", "p", T=FLOAT), y("MatMul", "t", "m", transpose_a=True)
        ),
        chain(MATRIX, y("MatMul", "x", "m")),
        chain(MATRIX, y("MatMul", "x", "m", transpose_b=True)),
    ),
    "unfuse": (
        chain(MATRIX, BIAS, y("_FusedMatMul", "x", "m", "b", num_args=i(1), fused_ops=many("BiasAdd", "Tanh"))),
        chain(
            *(MATRIX, BIAS, node("p", "MatMul", "x", "m", T=FLOAT), node("q", "BiasAdd", "p", "b", T=FLOAT)),
            y("Tanh", "q"),
        ),
        chain(
            *(MATRIX, BIAS, node("p", "MatMul", "x", "m", T=FLOAT), node("q", "BiasAdd", "p", "b", T=FLOAT)),
            y("Sigmoid", "q"),
        ),
    ),
    "decompose": (
        chain(y("_UnaryOpsComposition", "x", op_names=many("Abs", "Sqrt"))),
        chain(node("a", "Abs", "x", T=FLOAT), y("Sqrt", "a")),
        chain(node("a", "Sqrt", "x", T=FLOAT), y("Abs", "a")),
    ),
    "folding": (
        chain(
            number(0.1),
            number(0.7, "d"),
            node("s", "Sin", "c", T=FLOAT),
            node("p", "Mul", "s", "d", T=FLOAT),
            y("Mul", "x", "p"),
        ),
        chain(number(float(np.sin(np.float32(0.1)) * np.float32(0.7))), y("Mul", "x", "c")),
        chain(
            number(float(np.nextafter(np.sin(np.float32(0.1)) * np.float32(0.7), np.float32(1)))), y("Mul", "x", "c")
        ),
    ),
}


def proof(one: Nodes, other: Nodes) -> Proof:
    return compare_models(model("checkpoint", one), model("candidate", other), compute)


def answer(nodes: Nodes, are_zeros: bool = False) -> np.ndarray:
    """What TensorFlow gives for numbers of every kind, at each place of a matrix.

    Args:
        are_zeros: numbers so small that arithmetic takes them as zero are zero.
    """
    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph, config=config) as session:
        tf.import_graph_def(tf.compat.v1.GraphDef.FromString(GraphDef(node=nodes).SerializeToString()), name="")
        given = np.where(np.abs(INPUT) < tiny, np.copysign(np.float32(0), INPUT), INPUT) if are_zeros else INPUT
        found = np.asarray(session.run("y:0", {"x:0": given}))
    return np.where(np.isnan(found), np.float32(np.nan), found)  # a NaN's bits mean nothing


def is_same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and one.tobytes() == other.tobytes()


NO_ARITHMETIC = {"multiply", "subtract nothing", "divide by one", "undo"}  # is left on one side


@pytest.mark.parametrize("name", PAIRS)
def test_a_rule_proves_its_pair_and_tensorflow_gives_the_same_bits(name: str) -> None:
    one, other, near_miss = PAIRS[name]
    assert proof(one, other).word == proof(other, one).word == "proved", proof(one, other).reasons
    answers = [answer(nodes, name in NO_ARITHMETIC) for nodes in (one, other, near_miss)]
    if name in ("unfuse", "multiply_transposed"):  # another kernel, which may round otherwise
        np.testing.assert_allclose(answers[0], answers[1], rtol=1e-6)
    else:
        assert is_same(answers[0], answers[1])
    assert not is_same(answers[0], answers[2])
    assert proof(one, near_miss).word == proof(other, near_miss).word == "tested"


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_is_proved_by_its_rule_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rule is needed: without it, its pair is tested."""
    one, other, _ = PAIRS[name]
    if name == "folding":
        assert compare_models(model("checkpoint", one), model("candidate", other)).word == "tested"
        return
    rule = name.split()[0]
    rules = {op: own for op, own in REWRITES.items() if own.__name__ != rule}
    assert len(rules) < len(REWRITES)
    monkeypatch.setattr("pipeline.validation.proof.prove.REWRITES", rules)
    assert proof(one, other).word == "tested"


def test_every_rule_has_its_pair() -> None:
    assert {rule.__name__ for rule in REWRITES.values()} | {"folding"} == {name.split()[0] for name in PAIRS}


# What looks like a rule, and is another function for some input.
UNSOUND: dict[str, tuple[Nodes, Nodes]] = {
    "x + 0 is not x: -0": (chain(number(0.0), y("AddV2", "x", "c")), chain(y("Identity", "x"))),
    "x - -0 is not x: -0": (chain(number(-0.0), y("Sub", "x", "c")), chain(y("Identity", "x"))),
    "x * 0 is not 0: infinity": (chain(number(0.0), y("Mul", "x", "c")), chain(y("ZerosLike", "x"))),
    "x / 49 is not x * (1 / 49)": (
        chain(number(49.0), y("RealDiv", "x", "c")),
        chain(number(1 / 49), y("Mul", "x", "c")),
    ),
    "sums in another order": (
        chain(number(1e30), node("a", "AddV2", "x", "c", T=FLOAT), number(-1e30, "d"), y("AddV2", "a", "d")),
        chain(number(0.0), y("AddV2", "x", "c")),
    ),
    "1 of another shape makes another shape": (
        chain(const("c", 1, shape=[1, 1, 1]), y("Mul", "x", "c")),
        chain(y("Identity", "x")),
    ),
    "a fused Relu gives 0 for NaN": (
        chain(MATRIX, BIAS, y("_FusedMatMul", "x", "m", "b", num_args=i(1), fused_ops=many("BiasAdd", "Relu"))),
        chain(
            *(MATRIX, BIAS, node("p", "MatMul", "x", "m", T=FLOAT), node("q", "BiasAdd", "p", "b", T=FLOAT)),
            y("Relu", "q"),
        ),
    ),
    "Log(1 + x) is not Log1p(x)": (
        chain(number(1.0), node("a", "AddV2", "x", "c", T=FLOAT), y("Log", "a")),
        chain(y("Log1p", "x")),
    ),
}


@pytest.mark.parametrize("name", UNSOUND)
def test_what_is_another_function_for_some_input_is_no_rule(name: str) -> None:
    one, other = UNSOUND[name]
    assert proof(one, other).word == "tested"
    if name != "a fused Relu gives 0 for NaN":  # it does so in the kernels of some processors alone
        assert not is_same(answer(one), answer(other))


def test_folding_takes_only_what_is_computed_from_constants() -> None:
    asked = list[Sequence[str]]()

    def counted(graph: bytes, tensors: Sequence[str]) -> Sequence[object]:
        asked.append(tensors)
        return compute(graph, tensors)

    one, other, _ = PAIRS["folding"]
    found = compare_models(model("checkpoint", one), model("candidate", other), counted)  # type: ignore[arg-type]
    assert found.word == "proved"
    assert [len(tensors) for tensors in asked] == [1]
    asked.clear()
    assert compare_models(model("checkpoint", one), model("candidate", one), counted).word == "proved"  # type: ignore[arg-type]
    assert not asked  # nothing is left over: nothing is computed


def test_of_an_op_with_several_results_each_is_folded_by_itself() -> None:
    split = node("s", "Split", "a", "v", T=FLOAT, num_split=i(2))
    base = [const("v", 1, 2, 3, 4), ints("a", 0, shape=[]), split]
    other = chain(
        const("low", 1, 2), const("high", 3, 4), EXP, node("p", "Mul", "low", "high", T=FLOAT), y("Identity", "p")
    )
    for first, second, word in (("s", "s:1", "proved"), ("s", "s", "tested"), ("s:1", "s:1", "tested")):
        nodes = chain(*base, node("p", "Mul", first, second, T=FLOAT), y("Identity", "p"))
        assert proof(nodes, other).word == word


def test_a_draw_or_a_clock_is_never_folded() -> None:
    draw = node("r", "RandomUniform", "s", dtype=FLOAT, T=INT32)
    nodes = chain(ints("s", 4), draw, y("Mul", "x", "r"))
    assert any("RandomUniform draws" in reason for reason in proof(nodes, nodes).reasons)
    assert proof(nodes, chain(const("r", 1, 1, 1, 1), y("Mul", "x", "r"))).word == "tested"
