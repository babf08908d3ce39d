"""What stages have written is read with its shape looked at: a manifest that fits says nothing of what is inside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from reports import check

from pipeline.errors import DamagedArtifact, ValidationFailed
from pipeline.settings import Settings
from pipeline.store.artifact import ArtifactPaths, ArtifactState, ArtifactStatus
from pipeline.store.manifest import Manifest
from pipeline.tasks import summary
from pipeline.tasks.chain.job import Job
from pipeline.tasks.chain.results import read_costs, read_verdict
from pipeline.tasks.summary import require_passed

VERDICT = {"verdict": "passed", "reasons": [], "checks": [check()], "metrics": {}, "decisions": {}}


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A job whose stages have folders and nothing in them."""
    monkeypatch.setattr(Job, "folder", lambda self, stage: tmp_path / stage)
    for stage in ("validation", "costs"):
        (tmp_path / stage).mkdir()
    paths = ArtifactPaths(tmp_path, "m")
    return Job(source=None, paths=paths, data=None, warm_start=None, formats=("frozen",), settings=Settings())


def write(folder: Path, verdict: Any = VERDICT, costs: Any = None) -> None:
    (folder / "validation/verdict.json").write_text(json.dumps(verdict))
    (folder / "costs/costs.json").write_text(json.dumps({"formats": {}} if costs is None else costs))


@pytest.mark.parametrize(
    ("verdict", "place"),
    [
        ([1, 2], "verdict.json is a list"),
        ({"verdict": "passed"}, "verdict.json has no reasons"),
        ({**VERDICT, "reasons": "one"}, "verdict.json, reasons is a text"),
        ({**VERDICT, "checks": [check(), 7]}, r"verdict.json, checks\[1\] is a number"),
        ({**VERDICT, "checks": [check(rows="many")]}, r"verdict.json, checks\[0\], rows is a text"),
        ({**VERDICT, "metrics": {"frozen": {"accuracy": None, "f1": 1}}}, "metrics, frozen, accuracy is null"),
        ({**VERDICT, "causes": {"frozen": "it broke"}}, "verdict.json, causes, frozen is a text"),
        ({**VERDICT, "comparisons": True}, "comparisons is true or false"),
    ],
)
def test_a_verdict_of_another_shape_is_a_sentence(verdict: Any, place: str, job: Job, tmp_path: Path) -> None:
    write(tmp_path, verdict)
    with pytest.raises(DamagedArtifact, match=place) as caught:
        read_verdict(job)
    assert str(caught.value.next_step).startswith(f"Remove {job.display_path('validation')} and run again")
    with pytest.raises(DamagedArtifact, match=place):
        read_costs(job)


@pytest.mark.parametrize(
    "costs", [7, {"formats": []}, {"formats": {"frozen": {}}}, {"formats": {"frozen": {"problem": None}}}]
)
def test_costs_of_another_shape_are_a_sentence(costs: Any, job: Job, tmp_path: Path) -> None:
    write(tmp_path, costs=costs)
    with pytest.raises(DamagedArtifact, match=r"the costs did not write this costs\.json"):
        read_costs(job)


def test_a_model_without_inputs_has_no_rows(job: Job, tmp_path: Path) -> None:
    write(tmp_path, {**VERDICT, "rows": {"validation": 1}})
    place = job.folder("checkpoint") / "signature.json"
    place.parent.mkdir(exist_ok=True)
    place.write_text('{"inputs": [], "outputs": [{"name": "y", "dtype": "float32"}]}')
    assert "row" not in summary._verdict_lines(job)[0]


def test_the_console_does_not_call_a_candidate_wrong_for_made_up_rows_alone(job: Job, tmp_path: Path) -> None:
    edge = check(check="edge", verdict="failed", rows=11, rows_failed=2, max_abs_diff=0.5, reason="2 rows differ")
    told = {**VERDICT, "verdict": "failed", "reasons": ["2 rows differ"], "checks": [check(), edge], "comparisons": 99}
    told["rows"] = {"validation": 1}
    write(tmp_path, {**told, "made_up_alone": {"frozen": "it agrees with the checkpoint on all 64 rows"}})
    with pytest.raises(ValidationFailed, match="on made-up rows alone: all rows of the data agree"):
        require_passed(job)
    assert summary._verdict_lines(job)[0] == "verdict      failed on made-up rows alone: all rows of the data agree"
    write(tmp_path, told)
    assert summary._verdict_lines(job) == [
        "verdict      failed",
        "cause        frozen: 2 of 11 rows differ in probability (check edge)",
        "figures      2 of 99 comparisons failed; largest difference 0.5, on 1 made-up row",
    ]


def test_few_answers_are_not_hidden_behind_many_rows(job: Job, tmp_path: Path) -> None:
    write(tmp_path, {**VERDICT, "checks": [check(rows=64), check(output="mean", rows=1)], "rows": {"validation": 64}})
    assert summary._verdict_lines(job)[0].endswith(
        ", on 64 made-up rows; equal compared 1 answer of mean, not one for each row"
    )


def test_a_check_that_proved_nothing_is_said_on_the_console(job: Job, tmp_path: Path) -> None:
    nothing = "edge: 11 of 11 rows (empty, …) are none that this model takes, so they prove nothing: no feature"
    some = "edge: 1 of 11 rows (empty) are none that this model takes, so they prove nothing: no feature"
    write(tmp_path, {**VERDICT, "notes": {"frozen": [some, nothing], "onnx": [nothing]}})
    refused = "these rows were made up, and the checkpoint refuses all of them: unknown key"
    skipped = {"generated": refused, "decisions": "no output decides"}
    assert summary._verdict_lines(job)[1:] == [f"note         {nothing}"]
    write(tmp_path, {**VERDICT, "skipped": skipped})
    assert summary._verdict_lines(job)[1:] == [f"note         generated: {refused}"]


def test_what_a_checkpoint_holds_and_the_code_lacks_is_said_on_the_console() -> None:
    left = [f"ema/part{number}/ (2 variables)" for number in range(8)]
    state = ArtifactState(ArtifactStatus.COMPLETE, manifest=Manifest("checkpoint", {}, {}, {"left_out": left}))
    [line] = summary._lines_left_out(state)
    assert line.startswith("left out     ema/part0/ (2 variables), ema/part1/")
    assert line.endswith(" and 2 more: in the checkpoint, and not in the code")
    assert summary._lines_left_out(ArtifactState(ArtifactStatus.COMPLETE)) == []


def test_an_older_verdict_is_read(job: Job, tmp_path: Path) -> None:
    write(tmp_path)
    assert read_verdict(job) == VERDICT
    (tmp_path / "validation/verdict.json").write_text("{")
    with pytest.raises(DamagedArtifact, match="JSONDecodeError"):
        read_verdict(job)
