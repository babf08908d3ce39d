"""A wrong data file stops a run before anything is made; how it is read decides what is made of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jobs
import pytest

from pipeline.errors import DataError, PipelineError
from pipeline.inputs import DataOptions
from pipeline.tasks.chain.plan import Chain
from pipeline.tasks.model import WriteReport

CONTENT = "x;y\n" + "".join(f"{number};{number + 1}\n" for number in range(9))


def table(folder: Path, content: str) -> Path:
    path = folder / "rows.csv"
    path.write_text(content)
    return path


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (CONTENT.replace("5;", "five;"), "rows.csv:7: column x has a value that is not int32 .got 'five'"),
        (None, "no such data file"),
    ],
)
def test_a_wrong_data_file_stops_before_the_graph_is_made(tmp_path: Path, content: str | None, said: str) -> None:
    data = tmp_path / "rows.csv" if content is None else table(tmp_path, content)
    job = jobs.job_for(tmp_path / "out", data=data)
    with pytest.raises(DataError, match=said):
        Chain(job).build("graph")
    assert not job.paths.artifact("graph").exists()


def test_luigi_asks_for_the_given_data_first(tmp_path: Path) -> None:
    task = WriteReport(model="multiply_add", data=str(tmp_path / "absent.csv"), output_root=str(tmp_path))
    while task.stage != "graph":
        task = next(iter(task.requires()))
    assert [dependency.path for dependency in task.requires()] == [str(tmp_path / "absent.csv")]
    assert list(task.clone(data="").requires()) == []  # the model's own data is not needed for a graph


def test_the_separator_decides_the_rows_and_the_fingerprint(tmp_path: Path) -> None:
    data = table(tmp_path, CONTENT.replace(";", ":"))
    job = jobs.job_for(tmp_path / "out", data=data)
    with pytest.raises(PipelineError, match="no column named x, y"):
        Chain(job).build("graph")
    told = replace(job, data_options=DataOptions(separator=":"))
    assert jobs.run(told, "training") == {"graph", "training"}
    assert Chain(told).examine("training")["training"].is_complete
    reasons = Chain(job).examine("training")["training"].reasons
    assert any("data" in reason for reason in reasons), reasons
