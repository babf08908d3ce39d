"""The corner cases: a .pb that is right to the bit, or a refusal; and the page that tells of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import corpus
from corpus import Case
from pipeline.errors import PipelineError

# Each is tested, and not proved: what its gradient keeps on a stack is drawn, and drawn for nothing.
NOT_PROVED = {"dropout in loop gradient, v1"}


def of(must: str) -> list[object]:
    return [pytest.param(case, id=case.name.replace(" ", "-")) for case in corpus.CASES if case.must == must]


@pytest.mark.parametrize("case", of(corpus.EQUAL))
def test_the_pb_gives_what_a_restored_session_gives_to_the_bit_and_follows_the_weights(
    case: Case, tmp_path: Path
) -> None:
    stored = corpus.store(case, tmp_path)
    found, pairs = [], list(zip(stored.prefixes, stored.answers, strict=True))
    for prefix, wanted in pairs:
        pb = corpus.by_us(prefix, stored.outputs, corpus.inputs_of(case), prefix.with_suffix(".pb"))
        found.append(corpus.answers_of(pb, stored.outputs, case.feeds))
        assert wanted is not None
        assert corpus.is_same(found[-1], wanted), (found[-1], wanted)
    if case.has_weights:
        assert all(not corpus.is_same([one], [other]) for one, other in zip(*found, strict=True))
    for reference in stored.prefixes if case.name not in NOT_PROVED else ():
        for (prefix, _), answers in zip(pairs, found, strict=True):
            is_same = corpus.is_same(answers, found[stored.prefixes.index(reference)])
            proof = corpus.proof_of(reference, prefix.with_suffix(".pb"), stored.outputs, corpus.inputs_of(case))
            assert (proof.word == "proved") == is_same, proof.reasons
    _require_that_no_edit_is_proved(case, stored.prefixes[0], stored.outputs, "one", 1)


@pytest.mark.stress
@pytest.mark.parametrize("case", of(corpus.EQUAL))
def test_no_random_edit_of_a_pb_that_changes_what_it_answers_is_proved(case: Case, tmp_path: Path) -> None:
    stored = corpus.store(case, tmp_path, versions=1)
    [prefix] = stored.prefixes
    corpus.by_us(prefix, stored.outputs, corpus.inputs_of(case), prefix.with_suffix(".pb"))
    _require_that_no_edit_is_proved(case, prefix, stored.outputs, "many", 20)


def _require_that_no_edit_is_proved(case: Case, prefix: Path, outputs: list[str], seed: str, count: int) -> None:
    """Edits the .pb of a checkpoint; TensorFlow says of each edit that is proved whether it changed an answer."""
    raw, path = prefix.with_suffix(".pb").read_bytes(), prefix.with_suffix(".edited.pb")
    for what, pb in corpus.edited(raw, f"{seed} {case.name}", count):
        path.write_bytes(pb)
        try:
            proof = corpus.proof_of(prefix, path, outputs, corpus.inputs_of(case))
        except PipelineError:  # it cannot be read
            continue
        assert proof.word != "proved" or not corpus.changes_an_answer(raw, pb, outputs, case.feeds), what


@pytest.mark.parametrize("case", of(corpus.REFUSED))
def test_what_no_right_pb_can_hold_is_refused_and_leaves_no_pb(case: Case, tmp_path: Path) -> None:
    stored = corpus.store(case, tmp_path, versions=1)
    path = tmp_path / "model.pb"
    with pytest.raises(PipelineError) as error:
        corpus.by_us(stored.prefixes[0], stored.outputs, corpus.inputs_of(case), path)
    assert re.search(case.mentions, str(error.value), re.IGNORECASE)
    assert error.value.where


def test_the_cases_have_names_of_their_own() -> None:
    assert len({case.name for case in corpus.CASES}) == len(corpus.CASES) > 100


def test_the_page_tells_of_every_case_what_must_become_of_it() -> None:
    rows = re.findall(r"^\| (.+) \| (.+) \| (.+) \| (.+) \| (.+) \|$", corpus.PAGE.read_text(), re.MULTILINE)
    assert {row[0]: row[4] for row in rows if row[0] not in ("case", "---")} == {
        case.name: case.must for case in corpus.CASES
    }


def test_the_readme_gives_the_page_s_figures() -> None:
    page = corpus.PAGE.read_text()
    right, wrong, refused = (
        re.search(rf"^\| {verdict} \| (\d+) \| \d+ \| (\d+) \|$", page, re.MULTILINE)
        for verdict in ("equal", "wrong", "refused")
    )
    assert right is not None
    assert wrong is not None
    assert refused is not None
    readme = " ".join((corpus.PAGE.parents[1] / "README.md").read_text().split())
    assert wrong[2] == "0"
    assert f"Of {len(corpus.CASES)} corner cases of freezing, {right[2]} give the bits" in readme
    assert f"and {refused[2]} are refused with a sentence" in readme
    assert f"`freeze_graph` it is {right[1]} right, {wrong[1]} wrong, {refused[1]} refused" in readme
