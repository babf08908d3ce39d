"""The command line of our tasks: options that are not known, `--help`, and names that cannot be folders."""

from __future__ import annotations

from argparse import ArgumentParser, HelpFormatter
from pathlib import Path

import pytest
from luigi.cmdline_parser import CmdlineParser

import pipeline.tasks.nightly.task  # noqa: F401  # registers the task
from pipeline.errors import PipelineError, SettingError
from pipeline.freezing.asking import report_door
from pipeline.settings import Settings
from pipeline.tasks.batch.task import ConvertBatch
from pipeline.tasks.chain.job import Job
from pipeline.tasks.chain.parameters import Parameters
from pipeline.tasks.config import set_up_parsers


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["WriteReport", "--training-step", "800"],
            "--training-step: unknown option. Did you mean '--training-steps'?",
        ),
        (["WriteReport", "--modl", "spam"], "--modl: unknown option. Did you mean '--model'"),
        (
            ["RangeDailyBase", "--of", "NightlyRun", "--star", "2026-11-01"],
            "--star: unknown option. Did you mean '--start'",
        ),
        (["FreezeModel", "--zzzz"], "--zzzz: unknown option. `luigi --module pipeline FreezeModel --help` lists"),
    ],
)
def test_an_option_that_is_not_known_is_refused_in_a_sentence(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        CmdlineParser(words)
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith(f"ERROR: {sentence}")
    assert told.count("\n") == 1


def test_help_shows_each_option_once_and_says_what_the_task_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        CmdlineParser(["FreezeModel", "--help"])
    told = capsys.readouterr().out
    assert told.count("an existing checkpoint") == 1
    assert "--FreezeModel-" not in told
    assert "Freeze the checkpoint into one .pb." in told


def test_the_long_form_of_an_option_is_still_taken() -> None:
    assert CmdlineParser(["FreezeModel", "--FreezeModel-model", "spam"]).known_args.FreezeModel_model == "spam"


def test_the_options_of_a_parser_share_one_formatter(monkeypatch: pytest.MonkeyPatch) -> None:
    """One for each of hundreds of options doubles the time that a run takes in which everything is complete."""
    made, make = [], HelpFormatter.__init__
    monkeypatch.setattr(HelpFormatter, "__init__", lambda self, prog: (made.append(prog), make(self, prog))[1])
    set_up_parsers()  # as in a new process: no parser is there yet
    own = ArgumentParser._get_formatter
    CmdlineParser(["FreezeModel"])
    assert 1 <= len(made) <= 3  # one for each parser
    assert ArgumentParser._get_formatter is own


def test_a_folder_whose_name_can_be_no_name_is_answered_with_an_option() -> None:
    with pytest.raises(SettingError, match=r"got '모델'.* add --name my_model"):
        Job.from_parameters(Parameters(checkpoint="somewhere/모델"), Settings())
    assert (
        Job.from_parameters(Parameters(checkpoint="somewhere/모델", name="my_model"), Settings()).paths.name
        == "my_model"
    )


def test_a_batch_without_its_list_says_so_at_the_end(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="the list cannot be read"):
        ConvertBatch(manifest=str(tmp_path / "none.csv")).summary_lines()


def test_a_command_that_is_offered_repeats_what_was_given() -> None:
    given = Parameters(
        checkpoint="a b/x", name="mine", formats="frozen,onnx", outputs="y", pin="k=1", graph_file="x.meta"
    )
    imported = Job.from_parameters(given, Settings()).imported
    assert imported is not None
    offered = (
        "luigi --module pipeline WriteReport --checkpoint 'a b/x' --graph-file x.meta --name mine --formats frozen,onnx"
    )
    assert report_door(imported) == offered
