"""Signatures: what they refuse, and their way through a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ModelError
from pipeline.signature import DTYPES, Decision, Signature, TensorSpec

names = st.text(min_size=1, max_size=8)
shapes = st.none() | st.lists(st.none() | st.integers(0, 2**40), max_size=4).map(tuple)
specs = st.builds(TensorSpec, names, st.sampled_from(sorted(DTYPES)), shapes)
several = st.lists(specs, min_size=1, max_size=3, unique_by=lambda spec: spec.name).map(tuple)
decisions = st.tuples(st.none() | st.floats(allow_nan=False), st.lists(st.text(max_size=4), max_size=3))


@st.composite
def signatures(draw: st.DrawFn) -> Signature:
    outputs = draw(several)
    threshold, labels = draw(decisions)
    decision = Decision(draw(st.sampled_from(outputs)).name, threshold, tuple(labels)) if draw(st.booleans()) else None
    return Signature(draw(several), outputs, decision)


def signature() -> Signature:
    return Signature(
        inputs=(TensorSpec("text", "string", (None,)),),
        outputs=(TensorSpec("probability", "float32", (None,)), TensorSpec("logits", "float32", (None, 2))),
        decision=Decision("probability", 0.5, ("ham", "spam")),
    )


@given(signatures())
def test_a_signature_comes_out_of_json_as_it_went_in(given_signature: Signature) -> None:
    assert Signature.from_dict(json.loads(json.dumps(given_signature.to_dict()))) == given_signature


def test_a_file_holds_the_whole_signature_in_the_same_bytes(tmp_path: Path) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    signature().write(one)
    Signature.read(one).write(two)
    assert Signature.read(two) == signature()
    assert one.read_bytes() == two.read_bytes()
    assert json.loads(one.read_text())["inputs"] == [{"name": "text", "dtype": "string", "shape": [None]}]


def test_a_scalar_is_not_a_tensor_of_any_rank() -> None:
    assert TensorSpec("x", "int32", ()) != TensorSpec("x", "int32", None)
    assert str(TensorSpec("x", "int32", ())) == "x int32 []"
    assert str(TensorSpec("x", "int32")) == "x int32 [...]"  # of any rank, and no vector
    assert str(TensorSpec("x", "int32", (None, 3))) == "x int32 [?, 3]"


def test_a_session_is_fed_by_the_tensors_name() -> None:
    assert TensorSpec("scope/x", "int32").tensor_name == "scope/x:0"


def test_a_list_as_shape_becomes_a_tuple_that_can_be_hashed() -> None:
    assert hash(TensorSpec("x", "int32", [None, 2])) == hash(TensorSpec("x", "int32", (None, 2)))  # type: ignore[arg-type]


def test_an_unknown_dtype_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ModelError, match=r"x: unknown dtype \(got float, wanted one of .*float32"):
        TensorSpec("x", "float")


def test_a_signature_without_outputs_is_refused() -> None:
    with pytest.raises(ModelError, match="at least one output"):
        Signature(signature().inputs, ())


def test_a_name_that_stands_twice_is_refused() -> None:
    twice = (TensorSpec("x", "int32"), TensorSpec("x", "float32"))
    with pytest.raises(ModelError, match=r"input is named twice .*got x"):
        Signature(twice, signature().outputs)
    with pytest.raises(ModelError, match=r"output is named twice .*got x"):
        Signature(signature().inputs, twice)


def test_an_input_and_an_output_may_share_a_name() -> None:
    spec = (TensorSpec("x", "int32"),)
    assert Signature(spec, spec).inputs == spec


def test_a_decision_on_an_output_that_is_not_there_is_refused() -> None:
    with pytest.raises(ModelError, match=r"got text, wanted one of probability, logits"):
        Signature(signature().inputs, signature().outputs, Decision("text"))


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": None},
        {"inputs": [{"name": "x"}]},
        {"inputs": [{"name": "x", "dtype": "int32", "shape": 3}]},
        {"inputs": [{"name": "x", "dtype": ["int32"], "shape": []}]},
        {"inputs": [{"name": "x", "dtype": "int32", "shape": [], "rank": 0}]},
        {"inputs": ["x"]},
        {"decision": "probability"},
        {"decision": {"threshold": 0.5}},
    ],
)
def test_values_that_are_no_signature_are_refused_as_ours(change: dict[str, Any]) -> None:
    with pytest.raises(ModelError):
        Signature.from_dict(signature().to_dict() | change)


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": [{"name": 5, "dtype": "int32", "shape": []}]},
        {"inputs": [{"name": "x", "dtype": "int32", "shape": "ab"}]},
        {"inputs": [{"name": "x", "dtype": "int32", "shape": ["2"]}]},
        {"inputs": [{"name": "x", "dtype": "int32", "shape": [2.5]}]},
        {"decision": {"output": "probability", "threshold": "0.5", "labels": []}},
        {"decision": {"output": "probability", "threshold": 0.5, "labels": "ham"}},
    ],
)
def test_values_of_a_wrong_kind_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ModelError):
        Signature.from_dict(signature().to_dict() | change)


@pytest.mark.parametrize("missing", ["inputs", "outputs"])
def test_a_missing_key_is_refused(missing: str) -> None:
    values = signature().to_dict()
    del values[missing]
    with pytest.raises(ModelError, match=missing):
        Signature.from_dict(values)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b"\xff", b'{"inputs": []}'])
def test_a_file_that_is_no_signature_is_refused(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "signature.json"
    path.write_bytes(raw)
    with pytest.raises(ModelError):
        Signature.read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"absent\.json"):
        Signature.read(tmp_path / "absent.json")
