"""Candidates that are wrong where no usual row looks: none is proved, and what makes them wrong is named."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from proof_graphs import (
    FLOAT,
    HALF,
    INT32,
    INT64,
    STRING,
    TEXT,
    TIMES_W,
    X,
    const,
    model,
    node,
    prove,
    words,
)

from pipeline.errors import DataError
from pipeline.graph.lazy import load_lazily
from pipeline.graph.protos import AttrValue, GraphDef, NodeDef
from pipeline.validation.proof.float16 import CONDITION
from pipeline.validation.proof.model import Model
from pipeline.validation.proof.prove import compare_models

WEIGHTS = (1.0, 2.0)
BATCH = [
    node("shape", "Shape", "x", T=FLOAT, out_type=INT32),
    const("zero", 0, dtype=INT32, shape=[]),
    node("size", "GatherV2", "shape", "zero", "zero", Tparams=INT32, Tindices=INT32, Taxis=INT32),
]
LENGTH = [node("text", "AsString", "x", T=FLOAT), node("size", "StringLength", "text")]


def number(name: str, value: int, dtype: int = INT32) -> NodeDef:
    return const(name, value, dtype=dtype, shape=[])


def between(low: int, high: int, dtype: int = INT32) -> list[NodeDef]:
    return [
        number("low", low, dtype),
        number("high", high, dtype),
        node("above", "GreaterEqual", "size", "low", T=dtype),
        node("below", "LessEqual", "size", "high", T=dtype),
        node("wrong_if", "LogicalAnd", "above", "below"),
    ]


CONDITIONS = {
    "a batch of 3": [*BATCH, number("three", 3), node("wrong_if", "Equal", "size", "three", T=INT32)],
    "a batch of 65 to 255": [*BATCH, *between(65, 255)],
    "a batch over 256": [*BATCH, number("most", 256), node("wrong_if", "Greater", "size", "most", T=INT32)],
    "an x over 8": [
        node("abs", "Abs", "x", T=FLOAT),
        const("eight", 8, shape=[]),
        node("wrong_if", "Greater", "abs", "eight", T=FLOAT),
    ],
    "ids between 100,000 and 200,000": [
        node("size", "Cast", "x", SrcT=FLOAT, DstT=INT64),
        *between(100_000, 200_000, INT64),
    ],
    "text of 500 to 5,000 bytes": [*LENGTH, *between(500, 5000)],
    "another row before": [
        number("one", 1),
        number("axis", 0),
        node("before", "Roll", "x", "one", "axis", T=FLOAT, Tshift=INT32, Taxis=INT32),
        node("wrong_if", "Less", "x", "before", T=FLOAT),
    ],
    "the year 2027": [
        node("now", "Timestamp"),
        node("size", "Cast", "now", SrcT=2, DstT=INT64),
        number("from", 1_798_761_600, INT64),
        node("wrong_if", "Greater", "size", "from", T=INT64),
    ],
    "a thousand calls": [
        node("calls", "VarHandleOp", dtype=INT64),
        number("one", 1, INT64),
        node("count", "AssignAddVariableOp", "calls", "one", dtype=INT64),
        node("size", "ReadVariableOp", "calls", "^count", dtype=INT64),
        number("many", 1000, INT64),
        node("wrong_if", "Greater", "size", "many", T=INT64),
    ],
}


CULPRITS = {
    "a batch of 3": "the constant three (int32 [], 3)",
    "a batch of 65 to 255": "the constant high (int32 [], 255)",
    "a batch over 256": "the constant most (int32 [], 256)",
    "an x over 8": "the constant eight (float32 [], 8.0)",
    "ids between 100,000 and 200,000": "the constant low (int64 [], 100000)",
    "text of 500 to 5,000 bytes": "AsString text, the constant low (int32 [], 500)",
    "another row before": "the constant one (int32 [], 1)",
    "the year 2027": "Timestamp reads the clock when it runs: node now",
    "a thousand calls": "variable calls is changed while the outputs are computed",
}


@pytest.mark.parametrize("name", CONDITIONS)
@pytest.mark.parametrize("is_last", [True, False], ids=["the answer", "a weight"])
def test_what_is_wrong_under_a_condition_is_not_proved_and_the_condition_is_named(name: str, is_last: bool) -> None:
    right = [X, const("any", *WEIGHTS), const("other", 1, 3), *CONDITIONS[name]]
    if is_last:
        wrong = [
            node("good", "Mul", "x", "any", T=FLOAT),
            node("bad", "Mul", "x", "other", T=FLOAT),
            node("y", "SelectV2", "wrong_if", "bad", "good", T=FLOAT),
        ]
    else:
        wrong = [
            node("chosen", "SelectV2", "wrong_if", "other", "any", T=FLOAT),
            node("y", "Mul", "x", "chosen", T=FLOAT),
        ]
    found = prove(TIMES_W, [*right, *wrong], *WEIGHTS)
    assert found.word == "tested"
    assert any("SelectV2 y" in reason or "SelectV2 chosen" in reason for reason in found.reasons)
    assert any(CULPRITS[name] in reason for reason in found.reasons), found.reasons


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("the year 2027", "candidate: Timestamp reads the clock when it runs: node now"),
        ("a thousand calls", "candidate: variable calls is changed while the outputs are computed"),
    ],
)
def test_what_changes_from_call_to_call_is_named_on_its_own(name: str, reason: str) -> None:
    select = node("y", "SelectV2", "wrong_if", "x", "x", T=FLOAT)
    assert reason in prove([X, node("y", "Identity", "x", T=FLOAT)], [X, *CONDITIONS[name], select]).reasons


def test_a_branch_of_functions_or_of_switches_that_is_rarely_taken_counts() -> None:
    test = CONDITIONS["a batch of 3"]
    switch = [
        node("good", "Switch", "x", "wrong_if", T=FLOAT),
        node("bad", "Neg", "good:1", T=FLOAT),
        node("y", "Merge", "good:0", "bad", T=FLOAT),
    ]
    found = prove([X, node("y", "Identity", "x", T=FLOAT)], [X, *test, *switch])
    assert found.word == "tested"
    assert "candidate if" in found.reasons[0]


def test_a_constant_that_nobody_compared_is_named() -> None:
    added = [X, const("w", *WEIGHTS), node("p", "Mul", "x", "w", T=FLOAT), const("planted", 0, 1e-9)]
    found = prove(TIMES_W, [*added, node("y", "AddV2", "p", "planted", T=FLOAT)], *WEIGHTS)
    assert "AddV2 y" in found.reasons[0]


@pytest.mark.parametrize("shape", [[1], [1, 1]])
def test_the_same_numbers_in_another_shape_are_another_constant(shape: Sequence[int]) -> None:
    found = prove(TIMES_W, [X, const("c", 1, shape=shape), node("y", "Mul", "x", "c", T=FLOAT)], 1)
    assert found.word == ("proved" if shape == [1] else "tested")


@pytest.mark.parametrize("other", [-0.0, float("nan")])
def test_zeros_of_another_sign_and_no_numbers_are_other_constants(other: float) -> None:
    candidate = [X, const("c", other), node("y", "Mul", "x", "c", T=FLOAT)]
    assert prove(TIMES_W, candidate, 0.0).word == "tested"
    assert prove(TIMES_W, candidate, other).word == "proved"


@pytest.mark.parametrize(("stored", "is_all"), [(0.1, True), (0.25, False)])
def test_float16_weights_are_named_as_the_condition_if_they_are_all_that_differs(stored: float, is_all: bool) -> None:
    half = [X, const("h", stored, 2, dtype=HALF), node("w", "Cast", "h", SrcT=HALF, DstT=FLOAT)]
    found = prove(TIMES_W, [*half, node("y", "Mul", "x", "w", T=FLOAT)], 0.1, 2)
    assert found.word == "tested"
    assert ([*found.reasons] == [CONDITION]) == is_all, found.reasons


def test_two_rare_words_that_are_swapped_in_a_large_table_are_named() -> None:
    keys = [f"word {number}".encode() for number in range(2000)]

    def graph(values: Sequence[int]) -> list[NodeDef]:
        return [
            TEXT,
            node("t", "HashTableV2", key_dtype=STRING, value_dtype=INT64),
            words("k", *keys),
            const("v", *values, dtype=INT64),
            node("fill", "LookupTableImportV2", "t", "k", "v", Tin=STRING, Tout=INT64),
            number("d", -1, INT64),
            node("y", "LookupTableFindV2", "t", "x", "d", "^fill", Tin=STRING, Tout=INT64),
        ]

    swapped = [*range(2000)]
    swapped[1998], swapped[1999] = swapped[1999], swapped[1998]
    found = prove(graph(range(2000)), graph(swapped))
    assert found.word == "tested"
    assert "int64 [2000]" in found.reasons[0]


def test_one_bit_of_a_large_weight_counts_wherever_it_is() -> None:
    values = [float(number) for number in range(5000)]

    def candidate(changed: int) -> list[NodeDef]:
        return [
            X,
            const("c", *(value + (at == changed) * 2.0**-10 for at, value in enumerate(values))),
            node("y", "Mul", "x", "c", T=FLOAT),
        ]

    assert prove(TIMES_W, candidate(-1), *values).word == "proved"
    for changed in (1, 17, 2503, 4998):
        assert prove(TIMES_W, candidate(changed), *values).word == "tested"


def _twice(path: Path, attribute: str, first: AttrValue, last: AttrValue, nodes: Callable[[], list[NodeDef]]) -> None:
    """Writes a .pb whose last node has an attribute twice, of which TensorFlow's parser takes the last."""
    *rest, node = nodes()
    del node.attr[attribute]
    raw = node.SerializeToString()
    for value in (first, last):
        raw += NodeDef(attr={attribute: value}).SerializeToString()
    graph = GraphDef(node=rest).SerializeToString()
    path.write_bytes(graph + b"\x0a" + _varint(len(raw)) + raw)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


@pytest.mark.parametrize("order", [(False, True), (True, False)])
def test_an_attribute_that_is_there_twice_is_refused(tmp_path: Path, order: tuple[bool, bool]) -> None:
    first, last = (AttrValue(b=one) for one in order)
    nodes = [X, node("y", "MatMul", "x", "x", T=FLOAT, transpose_a=False)]
    _twice(tmp_path / "model.pb", "transpose_a", first, last, lambda: nodes)
    with pytest.raises(DataError, match="attribute of node 'y' stands twice"):
        load_lazily(tmp_path / "model.pb")


def test_a_large_weight_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    def weight(last: float) -> AttrValue:
        return const("w", *[1.0] * 20_000, last).attr["value"]

    _twice(tmp_path / "model.pb", "value", weight(1), weight(2), lambda: [X, const("w", 1.0)])
    with pytest.raises(DataError):
        load_lazily(tmp_path / "model.pb")


def test_a_node_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    nodes = [X, const("w", 1), const("w", 2), node("y", "Mul", "x", "w", T=FLOAT)]
    (tmp_path / "model.pb").write_bytes(GraphDef(node=nodes).SerializeToString())
    with pytest.raises(DataError, match="two nodes"):
        load_lazily(tmp_path / "model.pb")


@pytest.mark.parametrize("wanted", [{"x:0": "z", "z:0": "x"}, {"x:0": "x", "z:0": "z"}])
def test_inputs_are_paired_by_the_signature_and_not_by_their_nodes(wanted: dict[str, str]) -> None:
    nodes = [X, node("z", "Placeholder", dtype=FLOAT), node("y", "Sub", "x", "z", T=FLOAT)]
    reference = Model("checkpoint", model("", nodes).graph, {"x:0": "x", "z:0": "z"}, {"y": "y:0"})
    candidate = Model("candidate", model("", nodes).graph, wanted, {"y": "y:0"})
    assert compare_models(reference, candidate).word == ("proved" if wanted["x:0"] == "x" else "tested")


def test_a_table_that_the_graph_fills_while_it_answers_is_told() -> None:
    same = [
        X,
        node("t", "MutableHashTableV2", key_dtype=STRING, value_dtype=INT64),
        node("in", "LookupTableInsertV2", "t", "x", "x", Tin=STRING, Tout=INT64),
        number("d", -1, INT64),
        node("y", "LookupTableFindV2", "t", "x", "d", "^in", Tin=STRING, Tout=INT64),
    ]
    assert "a table changes" in prove(same, same).reasons[0]


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        (
            [X, node("id", "Identity", "x", T=INT32), node("y", "Neg", "id", T=FLOAT)],
            "node id (Identity) is given float",
        ),
        ([X, node("y", "Neg", "x", "x", T=FLOAT)], "node y (Neg) is given 2 inputs, and takes 1"),
        ([X, node("y", "Neg", "x", T=FLOAT), node("z", "Exp", "x", T=INT32)], "node z (Exp) is given float32 x"),
    ],
)
def test_a_candidate_that_no_tensorflow_loads_is_not_proved(nodes: list[NodeDef], reason: str) -> None:
    found = prove([X, node("y", "Neg", "x", T=FLOAT)], nodes)
    assert found.word == "tested"
    assert any(reason in one for one in found.reasons), found.reasons


def test_an_inner_tensor_that_is_fed_has_the_dtype_that_its_placeholder_has() -> None:
    inner = [const("c", 1), node("x", "Neg", "c", T=FLOAT)]
    double = node("x", "Placeholder", dtype=2)
    sides = [model("checkpoint", inner), model("candidate", [double])]
    sides = [Model(side.side, side.graph, {"x:0": "x"}, {"y": "x:0"}) for side in sides]
    assert compare_models(*sides).reasons == ["candidate: the input x is of another dtype"]


def test_the_comparison_loads_no_code_of_freezing_and_no_tensorflow() -> None:
    """A proof must not repeat the prover's mistake: code that reads files may be shared, code that rewrites may not."""
    code = "import sys, pipeline.validation.proof.prove; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not [
        name for name in loaded if re.match(r"tensorflow|pipeline\.(freezing|graph\.(discovery|demands))\b", name)
    ]
