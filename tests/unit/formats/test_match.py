"""A candidate's tensors match by a given name, by their own name, or as the only ones left; never by position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from pipeline.errors import CandidateError
from pipeline.formats.external.match import TensorMatch, bare_name, match_tensors
from pipeline.formats.external.tensors import CandidateTensor
from pipeline.signature import TensorSpec

ROWS = (None, 2)


def spec(
    name: str, tensor: str | None = None, dtype: str = "float32", shape: tuple[int | None, ...] = ROWS
) -> TensorSpec:
    return TensorSpec(name, dtype, shape, tensor)


def tensor(
    tensor: str, name: str = "", dtype: str = "float32", shape: tuple[int | None, ...] | None = ROWS
) -> CandidateTensor:
    return CandidateTensor(tensor, dtype, shape, name)


def match(
    specs: Sequence[TensorSpec],
    tensors: Sequence[CandidateTensor],
    said: Mapping[str, str] | None = None,
    inner: Sequence[CandidateTensor] = (),
) -> TensorMatch:
    known = {bare_name(each.graph_name): each for each in inner}
    find = (lambda name: known.get(bare_name(name))) if inner else None
    return match_tensors("output", specs, tensors, find, said or {})


def found(matched: TensorMatch) -> dict[str, str]:
    return {name: each.graph_name for name, each in matched.found.items()}


@pytest.mark.parametrize("name", ["y:0", "y", "serving_default_y:0"])
def test_a_tensor_of_the_same_name_matches(name: str) -> None:
    matched = match([spec("y")], [tensor("z:0"), tensor(name)])
    assert found(matched) == {"y": name}
    assert not matched.reasons
    assert [each.graph_name for each in matched.rest] == ["z:0"]


def test_what_the_candidate_s_signature_calls_so_is_it() -> None:
    matched = match([spec("scores", "dense/Softmax:0")], [tensor("Call:1", "other"), tensor("Call:0", "scores")])
    assert found(matched) == {"scores": "Call:0"}
    assert matched.reasons == ("output scores is scores float32 [?, 2], tensor Call:0, by its name",)


def test_a_name_of_its_own_is_stronger_than_a_numbered_tensor() -> None:
    specs = [spec("a", "Call:0"), spec("b", "Call:1")]
    assert found(match(specs, [tensor("Call:0", "b"), tensor("Call:1", "a")])) == {"a": "Call:1", "b": "Call:0"}


def test_a_signature_that_swaps_the_names_of_tensors_is_in_doubt() -> None:
    with pytest.raises(CandidateError, match=r"not clear which output of the candidate is y .*candidate-names y="):
        match([spec("y"), spec("z")], [tensor("y:0", "z"), tensor("z:0", "y")])


def test_an_inner_tensor_may_be_an_output() -> None:
    assert found(match([spec("y")], [tensor("z:0")], inner=[tensor("y:0")])) == {"y": "y:0"}


def test_what_is_said_is_stronger_than_names_and_goes_by_either_name() -> None:
    tensors = [tensor("y:0", "a"), tensor("z:0", "b")]
    for said in ("b", "z:0", "z"):
        matched = match([spec("y")], tensors, {"y": said})
        assert found(matched) == {"y": "z:0"}
        assert "as --candidate-names says" in matched.reasons[0]
    with pytest.raises(CandidateError, match=r"candidate-names y: .*got zz.*Known are a, b, y:0, z:0"):
        match([spec("y")], tensors, {"y": "zz"})


def test_the_only_one_left_is_it_and_the_reason_is_told() -> None:
    matched = match([spec("y"), spec("p")], [tensor("y:0"), tensor("Identity:0", shape=(7, 2))])
    assert found(matched) == {"y": "y:0", "p": "Identity:0"}
    assert matched.reasons == (
        "output p is Identity:0 float32 [7, 2], the only one that is left, of its dtype and shape",
    )
    assert found(match([spec("y")], [tensor("z", shape=None)])) == {"y": "z"}


@pytest.mark.parametrize(
    "tensors",
    [
        [tensor("z:0", dtype="float64")],
        [tensor("z:0", shape=(None, 3))],
        [tensor("z:0", shape=(None,))],
        [tensor("z:0"), tensor("other:0")],
        [tensor("z:0"), tensor("other:0", dtype="int64")],
        [],
    ],
)
def test_another_dtype_or_shape_or_a_choice_is_no_pair(tensors: list[CandidateTensor]) -> None:
    matched = match([spec("y")], tensors)
    assert (matched.found, matched.missing, matched.rest) == ({}, (spec("y"),), tuple(tensors))


def test_two_of_either_side_are_never_paired_by_their_order() -> None:
    matched = match([spec("y"), spec("p")], [tensor("a:0"), tensor("b:0")])
    assert not matched.found
    assert len(matched.missing) == len(matched.rest) == 2
