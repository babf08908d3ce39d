"""What a task does when its artifact is complete."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.store.artifact import ArtifactState, ArtifactStatus
from pipeline.tasks.chain.plan import Chain
from pipeline.tasks.model import BuildGraph


@pytest.mark.parametrize(
    ("status", "looks"),
    [(ArtifactStatus.COMPLETE, ["graph"]), (ArtifactStatus.MISSING, ["graph", "graph"])],
)
def test_what_was_found_complete_is_not_looked_at_again_for_the_closing_lines(
    status: ArtifactStatus, looks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def examine(_: Chain, last: str) -> dict[str, ArtifactState]:
        seen.append(last)
        return {last: ArtifactState(status)}

    monkeypatch.setattr(Chain, "examine", examine)
    task = BuildGraph(model="multiply_add", output_root=str(tmp_path))
    is_complete = status is ArtifactStatus.COMPLETE
    assert task.complete() == is_complete
    assert len(task.summary_lines()) == is_complete
    assert seen == looks
