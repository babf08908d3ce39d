"""What stages have written is read with its shape looked at: a manifest that fits says nothing of what is inside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from reports import check

from pipeline.errors import DamagedArtifact
from pipeline.settings import Settings
from pipeline.store.artifact import ArtifactPaths
from pipeline.tasks.chain.job import Job
from pipeline.tasks.chain.results import read_costs, read_verdict

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


def test_an_older_verdict_is_read(job: Job, tmp_path: Path) -> None:
    write(tmp_path)
    assert read_verdict(job) == VERDICT
    (tmp_path / "validation/verdict.json").write_text("{")
    with pytest.raises(DamagedArtifact, match="JSONDecodeError"):
        read_verdict(job)
