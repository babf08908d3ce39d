"""Settings: their ranges, tasks.cfg, and what overrides it."""

from __future__ import annotations

import configparser
import json
import math
import os
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError, asdict, fields
from pathlib import Path
from typing import Any

import luigi
import pytest
from commands import SHARED_SERVER
from luigi.cmdline_parser import CmdlineParser
from luigi.task_register import Register

from pipeline.errors import PipelineError, SettingError
from pipeline.settings import (
    CHECKS,
    CostsSettings,
    ExportSettings,
    GraphSettings,
    Operations,
    Settings,
    SplitSettings,
    TrainingSettings,
    ValidationSettings,
)
from pipeline.signature import DTYPES
from pipeline.tasks.chain.parameters import Parameters
from pipeline.tasks.config import check_config, config_files, read_settings
from pipeline.tasks.config_file import render, sections
from pipeline.tasks.model import ModelTask  # and known keys are those of what is loaded
from pipeline.training.models.source import PROJECT
from pipeline.validation.compare.tolerance import Tolerance, tolerance_for

NAN, INF = math.nan, math.inf
CONFIG = PROJECT / "tasks.cfg"


@pytest.mark.parametrize(
    ("section", "name", "wrong", "right"),
    [
        (SplitSettings, "validation_share", [0, 1, -0.1, 1.1, NAN], [1e-9, 0.999]),
        (GraphSettings, "learning_rate", [0, -1, INF, NAN], [1e-12, 10.0]),
        (GraphSettings, "moving_average", [-0.1, 1, NAN], [0, 0.9999]),
        (TrainingSettings, "steps", [0, -1], [1]),
        (TrainingSettings, "batch_size", [0, -1], [1]),
        (TrainingSettings, "threads", [0, -1], [1]),
        (TrainingSettings, "evaluate_every_steps", [0, -1], [1]),
        (TrainingSettings, "goldens", [0, -1], [1]),
        (TrainingSettings, "save_every_steps", [-1], [0, 1]),
        (TrainingSettings, "save_every_minutes", [-0.1, INF, NAN], [0, 0.5]),
        (TrainingSettings, "keep", [-1], [0, 1]),
        (TrainingSettings, "keep_every_hours", [-0.1, INF, NAN], [0, 0.5]),
        (ExportSettings, "step", ["", "Best", "first"], ["last", "best"]),
        (ExportSettings, "variables", ["", " "], ["all", "dense*,b", "a=b"]),
        (ValidationSettings, "batch_size", [0, -1], [1]),
        (ValidationSettings, "memory_limit_gb", [-1, INF, NAN, "", "80%", "automatic"], [0, 0.5, "auto"]),
        (CostsSettings, "seconds", [-0.1, INF, NAN], [0, 0.5]),
        (CostsSettings, "threads", [0, -1], [1]),
        (CostsSettings, "limit_seconds", [0, -1, INF, NAN], [0.1]),
        (CostsSettings, "batch_sizes", ["", " , ", "0", "1,many", "1.5", "-1"], ["1", "64, 1"]),
        *(
            (ValidationSettings, f"{dtype}_{bound}", [-1e-9, INF, NAN], [0, 1.0])
            for dtype in ("float64", "float32", "float16", "bfloat16")
            for bound in ("rtol", "atol")
        ),
    ],
)
def test_a_setting_out_of_its_range_is_refused_by_name(section: Any, name: str, wrong: Any, right: Any) -> None:
    for value in wrong:
        with pytest.raises(SettingError, match=rf"\[\w+\] {name}: out of range .*wanted") as caught:
            section(**{name: value})
        assert caught.value.got == str(value)
    for value in right:
        assert getattr(section(**{name: value}), name) == value


def test_a_refusal_names_the_section_as_it_stands_in_the_file() -> None:
    sections = {item.name: item.default_factory for item in fields(Settings)}
    with pytest.raises(SettingError) as caught:
        sections["validation"](batch_size=0)  # type: ignore[operator, misc]
    assert caught.value.where == "[validation] batch_size"


def test_every_check_is_chosen_unless_some_are_named() -> None:
    assert ValidationSettings().chosen_checks == ValidationSettings(checks=" all ").chosen_checks == CHECKS
    assert ValidationSettings(checks=" stable,equal ").chosen_checks == ("stable", "equal")


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().graph.seed = 8  # type: ignore[misc]


@pytest.mark.parametrize(
    ("dtype", "own"),
    [("float32", "float32"), ("complex64", "float32"), ("float64", "float64"), ("complex128", "float64")],
)
def test_complex_numbers_have_the_tolerance_of_their_parts(dtype: str, own: str) -> None:
    settings = ValidationSettings(float32_rtol=0.1, float32_atol=0.2, float64_rtol=0.3, float64_atol=0.4)
    wanted = {"float32": Tolerance(0.1, 0.2), "float64": Tolerance(0.3, 0.4)}
    assert tolerance_for(settings, dtype) == wanted[own]


def test_half_precisions_have_a_tolerance_each() -> None:
    settings = ValidationSettings(float16_rtol=0.1, float16_atol=0.2, bfloat16_rtol=0.3, bfloat16_atol=0.4)
    assert tolerance_for(settings, "float16") == Tolerance(0.1, 0.2)
    assert tolerance_for(settings, "bfloat16") == Tolerance(0.3, 0.4)


@pytest.mark.parametrize("dtype", sorted(name for name in DTYPES if "float" not in name and "complex" not in name))
def test_what_is_no_float_has_no_tolerance(dtype: str) -> None:
    assert tolerance_for(ValidationSettings(), dtype) == Tolerance(0.0, 0.0)


# tasks.cfg


def test_the_projects_file_holds_every_setting_at_its_default() -> None:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(CONFIG, encoding="utf-8")
    for section, values in asdict(Settings()).items():
        assert {key: type(values[key])(parser[section][key]) for key in parser[section]} == values


def test_the_projects_file_is_generated_from_the_classes() -> None:
    assert CONFIG.read_text(encoding="utf-8") == render(), "run: python -m pipeline.tasks.config_file > tasks.cfg"


def test_every_key_of_the_projects_file_has_its_description() -> None:
    text = CONFIG.read_text(encoding="utf-8")
    for declaration in sections().values():
        for item in fields(declaration):
            first_words = " ".join(item.metadata["description"].split()[:3])
            assert f"# {first_words[0].upper()}{first_words[1:]}" in text
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("group", [Settings, Operations])
def test_a_setting_is_a_parameter_of_luigi_with_its_default_and_description(group: type) -> None:
    for section in fields(group):
        declared = {
            item.name: (item.default, item.metadata["description"]) for item in fields(sections()[section.name])
        }
        parameters = Register.get_task_cls(section.name).get_params()
        assert {name: (kind._default, kind.description) for name, kind in parameters} == declared


def test_the_parameters_of_a_task_are_those_that_are_declared() -> None:
    declared = [(item.name, item.default, item.metadata["description"]) for item in fields(Parameters)]
    forced, *parameters = ModelTask.get_params()
    assert (forced[0], forced[1].positional) == ("force_stage", False), "of a run alone"
    assert [(name, kind._default, kind.description) for name, kind in parameters] == declared
    optional = {name for name, kind in parameters if isinstance(kind, luigi.OptionalParameter)}
    assert optional == {item.name for item in fields(Parameters)} - {"output_root"}
    assert ModelTask(model="spam").parameters == Parameters(model="spam")


def test_the_projects_file_is_accepted() -> None:
    check_config(CONFIG)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "other.cfg"


# For `batch-size`, Luigi would go by the batch_size of the project's file, and say nothing.
@pytest.mark.parametrize(
    ("text", "got", "hint"),
    [
        ("[training]\nstep = 5\n", "step", "'steps'"),
        ("[training]\nSTEPZ = 5\n", "STEPZ", "'steps'"),
        ("[trainin]\nsteps = 5\n", "[trainin]", "'training'"),
        ("[ValidateModel]\nmodle = a\n", "modle", "'model'"),
        ("[core]\nworkerz = 2\n", "workerz", "'workers'"),
        ("[training]\nbatch-size = 5\n", "batch-size", "'batch_size'"),
        ("[core]\nlocal-scheduler = false\n", "local-scheduler", "'local_scheduler'"),
        ("[DEFAULT]\nstep = 5\n[training]\nsteps = 4\n", "step", "'steps'"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_one(config: Path, text: str, got: str, hint: str) -> None:
    config.write_text(text)
    with pytest.raises(SettingError, match=f"unknown.*{re.escape(hint)}") as caught:
        check_config(config)
    assert caught.value.got == got
    assert str(config) in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[training]\nsteps = 5\n",
        "[ValidateModel]\nmodel = spam\n",
        "[resources]\ngpu = 1\n",
        "[core]\nlocal_scheduler = true\n",
        "[validation]\n# 100 %\nfloat32_rtol = 1e-3\n",
    ],
)
def test_known_names_are_accepted(config: Path, text: str) -> None:
    config.write_text(text)
    check_config(config)


@pytest.mark.parametrize(
    "raw", [b"steps = 5\n", b"[training\n", b"[a]\n[a]\n", b"[training]\nsteps=1\nsteps=2", b"\xff"]
)
def test_a_file_that_is_no_settings_is_refused(config: Path, raw: bytes) -> None:
    config.write_bytes(raw)
    with pytest.raises(SettingError, match="cannot be read") as caught:
        check_config(config)
    assert caught.value.where == str(config)


def test_a_missing_file_is_refused(config: Path) -> None:
    with pytest.raises(SettingError, match="cannot be read"):
        check_config(config)


def test_the_override_comes_after_the_projects_file(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LUIGI_CONFIG_PATH", raising=False)
    assert list(config_files()) == [CONFIG]
    monkeypatch.setenv("LUIGI_CONFIG_PATH", str(config))
    assert list(config_files()) == [CONFIG, config]


def test_an_unknown_name_in_the_override_stops_the_reading(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text("[training]\nstep = 5\n")
    monkeypatch.setenv("LUIGI_CONFIG_PATH", str(config))
    with pytest.raises(SettingError, match="step"):
        read_settings()


READ = """
import dataclasses, json, sys
from pipeline.tasks.config import read_settings
from pipeline.errors import PipelineError
try:
    print(json.dumps(dataclasses.asdict(read_settings())))
except PipelineError as exc:
    print(json.dumps({"error": str(exc)}))
"""


def read_apart(folder: Path, override: Path | None = None) -> dict[str, Any]:
    """The settings as a fresh process in another folder reads them."""
    environment = {key: value for key, value in os.environ.items() if key != "LUIGI_CONFIG_PATH"}
    environment["PYTHONPATH"] = os.pathsep.join([SHARED_SERVER, str(PROJECT)])
    environment |= {"LUIGI_CONFIG_PATH": str(override)} if override else {}
    command = [sys.executable, "-W", "ignore", "-c", READ]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_the_projects_file_is_found_from_any_folder(tmp_path: Path) -> None:
    assert read_apart(tmp_path) == asdict(Settings())


def test_the_override_is_stronger_and_need_not_be_whole(config: Path) -> None:
    config.write_text("[training]\nsteps = 5\nbatch_size = 3\n[validation]\nfloat32_rtol = 1e-3\n")
    settings = read_apart(config.parent, config)
    assert settings["training"] == asdict(TrainingSettings(steps=5, batch_size=3))
    assert settings["validation"] == asdict(ValidationSettings(float32_rtol=1e-3))
    assert settings["graph"] == asdict(GraphSettings())


@pytest.mark.parametrize("value", ["0", "many", "1.5", ""])
def test_a_wrong_value_in_a_file_is_an_error_that_names_it(config: Path, value: str) -> None:
    config.write_text(f"[training]\nsteps = {value}\n")
    error = read_apart(config.parent, config)["error"]
    assert "[training]" in error
    assert "steps" in error


# The command line


def test_luigi_builds_each_parser_once() -> None:
    parser = CmdlineParser._build_parser(root_task="WriteReport")
    assert CmdlineParser._build_parser(root_task="WriteReport", help_all=False) is parser
    assert CmdlineParser._build_parser() is CmdlineParser._build_parser() is not parser
    assert CmdlineParser._build_parser(root_task="WriteReport", help_all=True) is not parser


def test_a_parser_that_is_used_again_knows_nothing_of_the_first_command() -> None:
    parser = CmdlineParser._build_parser(root_task="WriteReport")
    first = parser.parse_args(["WriteReport", "--model", "spam", "--training-steps", "5"])
    second = parser.parse_args(["WriteReport"])
    assert (first.model, first.training_steps) == ("spam", "5")
    assert (second.model, second.training_steps) == (None, None)


def test_a_task_that_is_defined_later_has_its_parameters() -> None:
    before = CmdlineParser._build_parser()
    added = type("AddedLater", (luigi.Task,), {"size": luigi.IntParameter(default=1), "__module__": __name__})
    try:
        parser = CmdlineParser._build_parser()
        assert parser is not before
        assert parser.parse_args(["--AddedLater-size", "3"]).AddedLater_size == "3"
    finally:
        Register._reg.remove(added)
    assert CmdlineParser._build_parser() is before


def test_every_setting_is_an_option_of_the_command() -> None:
    options = CmdlineParser._build_parser(help_all=True).format_help()
    for name, declaration in sections().items():
        for item in fields(declaration):
            flag = f"{'' if name == 'core' else name + '-'}{item.name}".replace("_", "-")
            assert re.search(rf"\[?--{flag}[\s\]]", options), flag


def test_a_setting_error_is_one_of_ours() -> None:
    assert issubclass(SettingError, PipelineError)
