"""Planted faults: each is caught by the checks that should, with its cause; what is right passes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest

import faults
from faults import FAULTS, Fault, Home
from faults.peers import RULES
from faults.table import PAGE
from pipeline.report import __file__ as report
from pipeline.validation.diagnosis import KINDS

SCHEMA = json.loads((Path(report).parent / "verdict.schema.json").read_text())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """What many faults share."""
    return Home(tmp_path_factory.mktemp("faults") / "home")


@pytest.mark.parametrize("one", [pytest.param(one, id=one.name.replace(" ", "-")) for one in FAULTS])
def test_a_planted_fault_is_caught_and_its_cause_is_told(one: Fault, home: Home, tmp_path: Path) -> None:
    found = faults.outcome_of(one, home, tmp_path)
    assert found.verdict["verdict"] == ("passed" if one.is_control else "failed"), found.verdict["reasons"]
    assert found.checks == one.checks
    assert (found.kind, one.mentions in found.sentence) == (one.kind, True), found.sentence
    if not one.is_control:
        assert f"{one.cause_of}: {found.sentence}" in found.verdict["reasons"]
    jsonschema.validate(found.verdict, SCHEMA)
    row = rows_of_the_page()[one.name]
    assert row == [one.what, ", ".join(sorted(one.checks)) or "nothing: passes", f"`{one.kind}`" if one.kind else ""]


def rows_of_the_page() -> dict[str, list[str]]:
    """What the page tells of each fault, without the other tools."""
    rows = re.findall(r"^\| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    cells = [row.split(" | ") for row in rows]
    return {row[0]: row[1:4] for row in cells if len(row) == 4 + len(RULES)}


def test_the_faults_have_names_of_their_own_and_every_kind_of_a_file_is_planted() -> None:
    assert len({one.name for one in FAULTS}) == len(FAULTS)
    # A fault of another interpreter is no fault of a file: see tests/unit/validation/test_runtimes.py.
    assert {one.kind for one in FAULTS} - {""} == set(KINDS) - {"unknown", "other_runtime"}
    assert sum(one.is_control for one in FAULTS) >= 3


def test_the_page_tells_of_every_fault_and_no_other() -> None:
    assert set(rows_of_the_page()) - {"fault"} == {one.name for one in FAULTS}


def test_the_readme_gives_the_page_s_figures() -> None:
    page, readme = PAGE.read_text(), " ".join((PAGE.parents[1] / "README.md").read_text().split())
    counts = re.search(r"^\| of (\d+) faults, notices \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", page, re.M)
    assert counts is not None
    total, ours, *theirs = counts.groups()
    assert total == ours
    assert f"Of {total} planted faults all are caught" in readme
    for name, count in zip(RULES, theirs, strict=True):
        assert re.search(rf"{name}(?:'s)? {count}\b", readme), (name, count)


def test_the_schema_is_one_and_knows_every_kind_and_check() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert set(SCHEMA["$defs"]["kind"]["enum"]) == set(KINDS)


def test_the_example_of_the_docs_is_a_verdict() -> None:
    text = (PAGE.parent / "verdict.md").read_text()
    (example,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    jsonschema.validate(json.loads(example), SCHEMA)
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == {*SCHEMA["properties"], *KINDS}


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "passed"},
        {"more": 1},
        {"schema": 1},
        {"causes": {"frozen": "a sentence"}},
        {"causes": {"frozen": {"kind": "ill will", "sentence": "it does"}}},
    ],
)
def test_what_is_no_verdict_is_refused_by_the_schema(change: dict[str, object]) -> None:
    text = (PAGE.parent / "verdict.md").read_text()
    (example,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**json.loads(example), **change}, SCHEMA)
