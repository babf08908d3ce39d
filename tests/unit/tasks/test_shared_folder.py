"""Two models of one file have one default name: the second does not replace the artifacts of the first unasked."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import SettingError
from pipeline.store import artifact
from pipeline.store.artifact import ArtifactPaths
from pipeline.tasks.model import BuildGraph, SaveCheckpoint, WriteReport
from pipeline.tasks.nightly.task import NightlyRun

TWO = "class {}:\n    def forward(self, inputs, training): ...\n\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "fruit.py").write_text(TWO.format("Apple") + TWO.format("Pear"))
    return tmp_path / "fruit.py"


def make_graph_of(folder: Path, class_name: str) -> None:
    """A graph as a run with the class leaves it."""
    paths = ArtifactPaths(folder.parent, folder.name)
    artifact.build(paths, "graph", lambda: {"model": {"class": class_name, "fruit.py": "0" * 64}}, lambda _: {})


def test_a_second_class_in_the_folder_of_the_first_is_refused(file: Path, tmp_path: Path) -> None:
    make_graph_of(tmp_path / "output/fruit", "Apple")
    root = str(tmp_path / "output")
    for task in (BuildGraph, WriteReport):
        with pytest.raises(SettingError, match=r"another model \(got Pear, wanted Apple\).*--name"):
            task(model=f"{file}:Pear", output_root=root).complete()
        assert not task(model=f"{file}:Apple", output_root=root).complete(), "its own folder is stale, not refused"


def test_whoever_names_the_folder_may_replace_what_is_in_it(file: Path, tmp_path: Path) -> None:
    make_graph_of(tmp_path / "output/fruit", "Apple")
    assert not BuildGraph(model=f"{file}:Pear", output_root=str(tmp_path / "output"), name="fruit").complete()
    assert not BuildGraph(model=f"{file}:Pear", output_root=str(tmp_path / "output"), name="pear").complete()


def test_a_checkpoint_does_not_replace_a_trained_model_unasked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    artifact.build(ArtifactPaths(tmp_path / "output", "spam"), "checkpoint", dict, lambda _: {"exported": "last"})
    given = {"checkpoint": str(tmp_path / "in" / "spam"), "output_root": str(tmp_path / "output")}
    with pytest.raises(SettingError, match=r"holds a model that was trained .*--name spam replaces the other"):
        SaveCheckpoint(**given).complete()
    assert "held a trained model" not in caplog.text
    assert not SaveCheckpoint(**given, name="spam").complete()
    assert "output/spam held a trained model: its artifacts are replaced by those of" in caplog.text
    assert not SaveCheckpoint(**given, name="mine").complete()


def test_nights_of_one_class_are_not_continued_by_another(file: Path, tmp_path: Path) -> None:
    make_graph_of(tmp_path / "output/fruit/2026-01-01", "Apple")
    (tmp_path / "output/fruit/current").symlink_to("2026-01-01")
    given = {"date": "2026-01-02", "output_root": str(tmp_path / "output")}
    with pytest.raises(SettingError, match="another model"):
        NightlyRun.from_str_params({**given, "model": f"{file}:Pear"}).complete()
    assert not NightlyRun.from_str_params({**given, "model": f"{file}:Apple"}).complete()
    assert not NightlyRun.from_str_params({**given, "model": f"{file}:Pear", "name": "fruit"}).complete()
