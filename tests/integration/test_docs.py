"""The pages under docs/ and the README say what the code says, and lead nowhere that there is nothing."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from commands import PROJECT

import pipeline
from pipeline.formats.registry import CANDIDATES, FORMATS

DOCS = PROJECT / "docs"
README = PROJECT / "README.md"
PAGES = [*sorted(PROJECT.glob("*.md")), *sorted(DOCS.glob("*.md"))]
BY_NAME = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
# Words that only this project used, and that a reader has to guess.
PRIVATE = ("hangs on", "told by", "tells of", "made anew", "gone on with", "stands beside", "somebody else", " apart")
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def prose_of(path: Path) -> str:
    return FENCE.sub("", path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """`docs/generate.py`, which is a program."""
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "page",
    # To describe the public names loads them, TensorFlow included.
    [pytest.param(page, marks=[pytest.mark.tensorflow] * (page.name == "python_api.md")) for page in PAGES],
    ids=lambda page: page.name,
)
def test_the_tables_are_those_of_the_code(generate: ModuleType, page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert generate.generated(text) == text, "run python docs/generate.py"


def test_every_table_of_the_generator_is_on_a_page(generate: ModuleType) -> None:
    shown = [match[2] for path in PAGES for match in generate.BLOCK.finditer(path.read_text(encoding="utf-8"))]
    assert sorted(shown) == sorted(generate.TABLES)


def test_every_task_parameter_exit_code_and_setting_is_named(generate: ModuleType) -> None:
    import configparser
    from dataclasses import fields

    from luigi.parameter import ParameterVisibility

    from pipeline.settings import Operations, Settings
    from pipeline.tasks.model import TASKS

    text = page("tasks.md")
    for task in [*TASKS.values(), pipeline.ConvertBatch, pipeline.NightlyRun]:
        assert f"`{task.__name__}`" in text
        public = [name for name, kind in task.get_params() if kind.visibility is ParameterVisibility.PUBLIC]
        assert [name for name in public if f"`--{name.replace('_', '-')}`" not in text] == []
    settings = configparser.ConfigParser()
    settings.read(PROJECT / "tasks.cfg")
    assert [code for code in settings["retcode"].values() if f"| {code} |" not in text] == []
    text = page("configuration.md")
    for section in (*fields(Settings), *fields(Operations)):
        for key in fields(section.default_factory):  # type: ignore[arg-type]
            assert f"`--{section.name}-{key.name}`".replace("_", "-") in text


def test_every_public_name_is_described() -> None:
    text = page("python_api.md")
    described = re.findall(r"^### pipeline\.(\w+)$|^\| `pipeline\.(\w+)` \|", text, re.MULTILINE)
    assert sorted("".join(found) for found in described) == sorted(pipeline.__all__)


def test_a_public_name_without_a_docstring_is_an_error(generate: ModuleType) -> None:
    def nameless() -> None:
        pass

    with pytest.raises(ValueError, match="has no docstring"):
        generate._described("pipeline.nameless", nameless)


@pytest.mark.parametrize("name", CANDIDATES)
def test_the_tables_of_formats_name_each_with_its_file(name: str) -> None:
    [row] = [line for line in page("formats.md").splitlines() if line.startswith(f"| `{name}` | `{name}/")]
    assert FORMATS[name].model_file in row
    assert re.search(rf"^\| .*`{name}`.* \| .*{re.escape(FORMATS[name].model_file)}", README.read_text(), re.MULTILINE)


def test_the_checks_of_the_validation_page_are_those_of_the_code() -> None:
    from pipeline.settings import CHECKS

    table = page("validation.md").partition("| check | rows |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == {"made", *CHECKS}


# --- where links and names lead


def anchors_of(path: Path) -> set[str]:
    """The anchors of a page's headings."""
    titles = re.findall(r"^#+ (.*)$", prose_of(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


def links_of(path: Path) -> Iterator[tuple[Path, str]]:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose_of(path)):
        if not link.startswith(("https://", "http://")):
            target, _, anchor = link.partition("#")
            yield (path.parent / target if target else path), anchor


@BY_NAME
def test_links_lead_to_pages_and_headings_that_exist(page: Path) -> None:
    links = list(links_of(page))
    assert [target for target, _ in links if not target.exists()] == []
    assert [(target.name, anchor) for target, anchor in links if anchor and anchor not in anchors_of(target)] == []


@BY_NAME
def test_files_that_a_page_names_exist(page: Path) -> None:
    folders = r"(?:pipeline|tests|examples|benchmarks|deploy|data|docs|\.github)"
    named = re.findall(rf"`({folders}/[\w./-]+)`", prose_of(page))
    assert [name for name in named if not (PROJECT / name).exists()] == []


def test_the_site_leads_to_every_page_and_treats_what_is_broken_as_an_error() -> None:
    site = yaml.safe_load((PROJECT / "mkdocs.yml").read_text(encoding="utf-8"))
    sections = [entry for item in site["nav"] for entry in item.values()]
    listed = [
        name
        for entry in sections
        for item in (entry if isinstance(entry, list) else [{"": entry}])
        for name in item.values()
    ]
    assert sorted(listed) == sorted(path.name for path in DOCS.glob("*.md"))
    assert site["strict"] is True
    assert {level for kind in site["validation"].values() for level in kind.values()} == {"warn"}


# --- the README


def test_the_readme_is_a_page_and_leads_to_all_others() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()
    assert 120 <= len(lines) <= 180
    assert {target for target, _ in links_of(README)} >= set(DOCS.glob("*.md")) - {DOCS / "index.md"}


def test_what_the_readme_says_was_measured_is_what_the_page_of_benchmarks_says() -> None:
    rows = README.read_text(encoding="utf-8").partition("## Measured")[2].partition("\n## ")[0]
    measured = [line for line in rows.splitlines() if line.startswith("| ")][1:]
    assert len(measured) >= 5
    assert [line for line in measured if line not in page("benchmarks.md").splitlines()] == []


@BY_NAME
def test_pages_are_in_plain_words(page: Path) -> None:
    text = " ".join(page.read_text(encoding="utf-8").split()).lower()
    assert [word for word in PRIVATE if word in text] == []


# --- the plan of the house


def floors() -> dict[str, int]:
    """The floor of each package and module, as the picture of the architecture has it."""
    picture = page("architecture.md").partition("```text\n")[2].partition("```")[0]
    names = {path.stem for path in (PROJECT / "pipeline").iterdir() if path.suffix in ("", ".py")}
    return {word: int(line[0]) for line in picture.splitlines() for word in line.split() if word in names}


def test_the_picture_of_the_house_has_every_package_and_no_import_runs_up_in_it() -> None:
    root, found = PROJECT / "pipeline", floors()
    packages = {path.parent.name for path in root.glob("*/__init__.py")}
    modules = {path.stem for path in root.glob("*.py")} - {"__init__", "__main__"}
    assert {name for name, floor in found.items() if floor > 0} == packages
    assert {name for name, floor in found.items() if floor == 0} == modules
    for path in root.glob("*/**/*.py"):
        own = path.relative_to(root).parts[0]
        for other in re.findall(r"^ *(?:from|import) pipeline\.(\w+)", path.read_text(encoding="utf-8"), re.MULTILINE):
            assert other == own or found[other] < found[own], f"{path.relative_to(root)} imports {other}"
