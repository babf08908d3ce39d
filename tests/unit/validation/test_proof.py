"""The check `graph` on small graphs written by hand: what is proved, what is not, and why."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from proof_graphs import BOOL, FLOAT, INT32, INT64, READ, STRING, TEXT, TIMES_W, VARIABLE, X, const, node, prove, words

from pipeline.graph.protos import AttrValue, FunctionDef, NodeDef


def test_a_variable_is_the_constant_of_its_bits_whatever_it_is_called() -> None:
    frozen = [X, const("any", 1, 2), node("id", "Identity", "any", T=FLOAT), node("y", "Mul", "x", "id", T=FLOAT)]
    assert prove(TIMES_W, frozen, 1, 2).word == "proved"
    found = prove(TIMES_W, frozen, 1, 2.0000002384185791)  # one ulp
    assert found.word == "tested"
    assert found.reasons == ["checkpoint has the constant w (float32 [2]), candidate the constant any (float32 [2])"]


def test_a_decoy_with_the_variables_name_proves_nothing() -> None:
    frozen = [X, const("w", 1, 2), const("other", 1, 3), node("y", "Mul", "x", "other", T=FLOAT)]
    assert "candidate the constant other" in prove(TIMES_W, frozen, 1, 2).reasons[0]


@pytest.mark.parametrize(
    "last",
    [
        node("y", "Add", "x", "w", T=FLOAT),
        node("y", "Mul", "x", "x", T=FLOAT),
        node("y", "Neg", "x", T=FLOAT),
    ],
)
def test_another_op_or_input_is_not_proved(last: NodeDef) -> None:
    assert prove(TIMES_W, [X, const("w", 1, 2), last], 1, 2).word == "tested"


@pytest.mark.parametrize(
    ("op", "dtype", "word"), [("Mul", FLOAT, "proved"), ("Sub", FLOAT, "tested"), ("Add", 7, "tested")]
)
def test_the_order_of_inputs_counts_where_it_matters(op: str, dtype: int, word: str) -> None:
    def graph(*order: str) -> list[NodeDef]:
        return [X, node("z", "Exp", "x", T=FLOAT), node("y", op, *order, T=dtype)]

    assert prove(graph("x", "z"), graph("z", "x")).word == word


def test_attributes_count_where_they_mean_something_and_defaults_do_not() -> None:
    plain = [X, node("y", "MatMul", "x", "x", T=FLOAT)]
    named = [X, node("y", "MatMul", "x", "x", T=FLOAT, transpose_a=False, _class=AttrValue(s=b"loc:@x"))]
    other = [X, node("y", "MatMul", "x", "x", T=FLOAT, transpose_a=True)]
    assert prove(plain, named).word == "proved"
    assert prove(plain, other).word == "tested"


@pytest.mark.parametrize(
    ("op", "reason"),
    [
        ("Timestamp", "reads the clock when it runs"),
        ("RandomStandardNormal", "draws random numbers"),
        ("EagerPyFunc", "calls Python code"),
        ("ReadFile", "reads or writes files"),
        ("DeviceIndex", "something outside of the graph"),
        ("SomebodysOp", "is none of TensorFlow's ops"),
    ],
)
def test_what_is_no_function_of_the_inputs_is_named_and_not_proved(op: str, reason: str) -> None:
    same = [X, node("c", op, "x"), node("y", "Add", "x", "c", T=FLOAT)]
    found = prove(same, same)
    assert found.word == "tested"
    assert any(reason in one and "node c" in one for one in found.reasons)


def test_a_check_may_be_left_out_and_none_may_be_added() -> None:
    checked = [X, node("ok", "Cast", "x"), node("a", "Assert", "ok", "x"), node("y", "Identity", "x", "^a", T=FLOAT)]
    bare = [X, node("y", "Identity", "x", T=FLOAT)]
    assert prove(checked, checked).word == prove(checked, bare).word == "proved"
    assert "Assert is run that the checkpoint does not run" in prove(bare, checked).reasons[0]


def test_a_variable_that_is_changed_before_it_is_read_is_not_the_checkpoints() -> None:
    changed = [X, VARIABLE, node("a", "AssignVariableOp", "w", "x", dtype=FLOAT)]
    changed += [node("r", "ReadVariableOp", "w", "^a", dtype=FLOAT), node("y", "Mul", "x", "r", T=FLOAT)]
    found = prove(changed, [X, const("c", 1, 2), node("y", "Mul", "x", "c", T=FLOAT)], 1, 2)
    assert any("variable w is changed" in reason for reason in found.reasons)


@pytest.mark.parametrize(("size", "word"), [(None, "proved"), (4, "tested")])
def test_an_input_that_takes_fewer_shapes_is_not_proved(size: int | None, word: str) -> None:
    def graph(dim: int | None) -> list[NodeDef]:
        x = node("x", "Placeholder", dtype=FLOAT)
        x.attr["shape"].shape.dim.add(size=-1 if dim is None else dim)
        return [x, node("y", "Neg", "x", T=FLOAT)]

    found = prove(graph(None), graph(size))
    assert found.word == word
    assert word == "proved" or "takes shape (4,) alone" in found.reasons[0]


# Branches.


def branch_of_tensorflow_1(condition: str, on_true: str, on_false: str) -> list[NodeDef]:
    return [
        node("p", "Greater", condition, "zero", T=FLOAT),
        node("s", "Switch", "x", "p", T=FLOAT),
        node("then", on_true, "s:1", T=FLOAT),
        node("else", on_false, "s:0", T=FLOAT),
        node("y", "Merge", "else", "then", T=FLOAT),
    ]


def function(name: str, op: str) -> FunctionDef:
    new = FunctionDef()
    new.signature.name = name
    new.signature.input_arg.add(name="a", type=FLOAT)
    new.signature.output_arg.add(name="r", type=FLOAT)
    new.node_def.append(node("n", op, "a", T=FLOAT))
    new.ret["r"] = "n:y:0"
    return new


BRANCHES = [function("neg", "Neg"), function("exp", "Exp")]
ZERO = const("zero", 0, shape=[])


def branch_of_tensorflow_2(then: str, otherwise: str) -> list[NodeDef]:
    test = node("p", "Greater", "x", "zero", T=FLOAT)
    return [X, ZERO, test, node("y", "StatelessIf", "p", "x", then_branch=then, else_branch=otherwise)]


def test_a_condition_of_tensorflow_1_is_the_one_of_tensorflow_2() -> None:
    old = [X, ZERO, *branch_of_tensorflow_1("x", "Neg", "Exp")]
    assert prove(old, branch_of_tensorflow_2("neg", "exp"), functions=BRANCHES).word == "proved"
    assert prove(old, branch_of_tensorflow_2("exp", "neg"), functions=BRANCHES).word == "tested"


def test_a_condition_is_part_of_the_function_even_if_its_branches_are_constants() -> None:
    def graph(condition: str) -> list[NodeDef]:
        rest = branch_of_tensorflow_1(condition, "Neg", "Exp")
        one, two = const("one", 1, shape=[]), const("two", 2, shape=[])
        one.input.append("^then")
        two.input.append("^else")
        merge = node("y", "Merge", "two", "one", T=FLOAT)
        return [X, ZERO, node("z", "Neg", "x", T=FLOAT), *rest[:-1], one, two, merge]

    assert prove(graph("x"), graph("x")).word == "proved"
    assert prove(graph("x"), graph("z")).word == "tested"


def test_a_branch_that_a_constant_takes_is_that_branch() -> None:
    old = [X, ZERO, *branch_of_tensorflow_1("x", "Neg", "Exp")[1:], const("p", 1, dtype=BOOL, shape=[])]
    assert prove(old, [X, node("y", "Neg", "x", T=FLOAT)]).word == "proved"
    assert prove(old, [X, node("y", "Exp", "x", T=FLOAT)]).word == "tested"


def test_what_the_checkpoints_branch_leaves_out_may_not_be_computed_always() -> None:
    old = [X, ZERO, *branch_of_tensorflow_1("x", "Neg", "Exp")]
    eager = [X, ZERO, node("p", "Greater", "x", "zero", T=FLOAT), node("n", "Neg", "x", T=FLOAT)]
    eager += [node("s", "Switch", "n", "p", T=FLOAT), node("t", "Switch", "x", "p", T=FLOAT)]
    eager += [node("e", "Exp", "t:0", T=FLOAT), node("y", "Merge", "e", "s:1", T=FLOAT)]
    assert "Neg is computed where the checkpoint does not" in prove(old, eager).reasons[0]


def test_what_changes_in_a_branch_that_is_never_taken_changes_nothing() -> None:
    never = const("p", 0, dtype=BOOL, shape=[])
    reads = [X, VARIABLE, never, node("s", "Switch", "x", "p", T=FLOAT)]
    reads += [node("a", "AssignVariableOp", "w", "s:1", dtype=FLOAT), node("in", "Identity", "s:1", "^a", T=FLOAT)]
    reads += [node("m", "Merge", "s", "in", T=FLOAT), READ, node("y", "Mul", "m", "w/read", T=FLOAT)]
    assert prove(reads, [X, const("c", 1, 2), node("y", "Mul", "x", "c", T=FLOAT)], 1, 2).word == "proved"


# Loops.


def loop(*order: str, body: str = "AddV2", most: float = 3) -> list[NodeDef]:
    """A loop of TensorFlow 1 with the variables i, v and a third that no result needs, in some order."""
    first = {"i": "zero", "v": "x", "u": "zero"}
    after = {"i": "next_i", "v": "next_v", "u": "u_id"}
    nodes = [X, ZERO, const("one", 1, shape=[], dtype=FLOAT), const("most", most, shape=[])]
    for name in order:
        nodes += [
            node(f"{name}_enter", "Enter", first[name], T=FLOAT),
            node(f"{name}_merge", "Merge", f"{name}_enter", f"{name}_next", T=FLOAT),
            node(f"{name}_switch", "Switch", f"{name}_merge", "cond", T=FLOAT),
            node(f"{name}_id", "Identity", f"{name}_switch:1", T=FLOAT),
            node(f"{name}_next", "NextIteration", after[name], T=FLOAT),
        ]
    for name in ("one", "most"):
        nodes.append(node(f"{name}_in", "Enter", name, T=FLOAT, is_constant=True))
    nodes += [node("less", "Less", "i_merge", "most_in", T=FLOAT), node("cond", "LoopCond", "less")]
    nodes += [node("next_i", "AddV2", "i_id", "one_in", T=FLOAT), node("next_v", body, "v_id", "i_id", T=FLOAT)]
    return [*nodes, node("y", "Exit", "v_switch", T=FLOAT)]


def test_loops_are_equal_whatever_the_order_and_number_of_their_variables() -> None:
    assert prove(loop("i", "v", "u"), loop("v", "i")).word == "proved"


@pytest.mark.parametrize("name", ["v_enter", "one_in"])
def test_an_entrance_that_is_marked_otherwise_is_no_usual_loop(name: str) -> None:
    other = loop("i", "v")
    [enter] = [one for one in other if one.name == name]
    enter.attr["is_constant"].b = not enter.attr["is_constant"].b
    assert "a loop that TensorFlow does not build" in prove(loop("i", "v"), other).reasons[0]


@pytest.mark.parametrize("other", [loop("i", "v", body="Mul"), loop("i", "v", most=4)])
def test_another_body_or_condition_is_another_loop(other: list[NodeDef]) -> None:
    assert prove(loop("i", "v"), other).word == "tested"


def test_a_constant_of_a_loop_that_does_not_wait_for_it_is_of_no_loop() -> None:
    outside = loop("i", "v")
    [total] = [one for one in outside if one.name == "next_v"]
    total.input[1] = "zero"
    assert "node next_v has inputs of several loops" in prove(loop("i", "v"), outside).reasons[0]


def test_a_circle_that_is_no_loop_is_refused_with_a_sentence() -> None:
    circle = [X, node("a", "Add", "x", "y", T=FLOAT), node("y", "Neg", "a", T=FLOAT)]
    assert "a circle" in prove(circle, circle).reasons[0]


# Tables, draws, arrays.


def lookup(keys: Sequence[bytes], values: Sequence[int]) -> list[NodeDef]:
    return [
        TEXT,
        node("t", "HashTableV2", key_dtype=STRING, value_dtype=INT64),
        words("k", *keys),
        const("v", *values, dtype=INT64),
        node("fill", "LookupTableImportV2", "t", "k", "v", Tin=STRING, Tout=INT64),
        const("d", -1, dtype=INT64, shape=[]),
        node("y", "LookupTableFindV2", "t", "x", "d", "^fill", Tin=STRING, Tout=INT64),
    ]


def test_a_table_is_its_content_in_any_order() -> None:
    assert prove(lookup([b"a", b"b"], [1, 2]), lookup([b"b", b"a"], [2, 1])).word == "proved"
    assert prove(lookup([b"a", b"b"], [1, 2]), lookup([b"a", b"b"], [2, 1])).word == "tested"
    assert "one key with two values" in prove(lookup([b"a", b"a"], [1, 2]), lookup([b"a"], [1])).reasons[0]


def test_a_table_with_more_values_than_keys_is_another_table() -> None:
    found = prove(lookup([b"a"], [1]), lookup([b"a"], [1, 2]))
    assert found.word == "tested"
    assert "int64 [2]" in found.reasons[0]


def dropout(keep: float) -> list[NodeDef]:
    return [
        X,
        node("shape", "Shape", "x", T=FLOAT, out_type=INT32),
        node("u", "RandomUniform", "shape", dtype=FLOAT, T=INT32),
        const("keep", keep, shape=[]),
        node("sum", "Add", "keep", "u", T=FLOAT),
        node("mask", "Floor", "sum", T=FLOAT),
        node("y", "Mul", "x", "mask", T=FLOAT),
    ]


def test_a_dropout_that_is_switched_off_draws_nothing() -> None:
    filled = [*dropout(1)[:2], const("one", 1, shape=[]), node("mask", "Fill", "shape", "one", T=FLOAT)]
    filled.append(node("y", "Mul", "x", "mask", T=FLOAT))
    assert prove(dropout(1), filled).word == "proved"
    assert any("RandomUniform draws" in reason for reason in prove(dropout(0.9), dropout(0.9)).reasons)


def arrays(read: str) -> list[NodeDef]:
    """Two arrays of one size, one with x and one with -x; the first is read by some handle."""
    nodes = [X, const("n", 1, dtype=INT32, shape=[]), const("i", 0, dtype=INT32, shape=[])]
    nodes += [node("minus", "Neg", "x", T=FLOAT)]
    for name, value in (("a", "x"), ("b", "minus")):
        nodes += [node(name, "TensorArrayV3", "n", dtype=FLOAT)]
        nodes += [node(f"{name}_w", "TensorArrayWriteV3", name, "i", value, f"{name}:1", T=FLOAT)]
    return [*nodes, node("y", "TensorArrayReadV3", read, "i", "a_w", dtype=FLOAT)]


def test_two_arrays_of_one_size_are_two() -> None:
    assert prove(arrays("a"), arrays("a")).word == "proved"
    assert prove(arrays("a"), arrays("b")).word == "tested"
