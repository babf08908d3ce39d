"""Writes the tables of README.md and docs/ that come from the code: tasks, parameters, settings, exit codes, API.

python docs/generate.py            # rewrites the pages
python docs/generate.py --check    # exits with 1 and names the pages that are not up to date

A page has a place for a table: `<!-- generated: NAME -->`, then the table, then `<!-- end of generated -->`.
"""

from __future__ import annotations

import argparse
import ast
import configparser
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

import luigi  # noqa: E402  # before the package, which then offers its tasks
from luigi.parameter import ParameterVisibility  # noqa: E402

import pipeline  # noqa: E402
from pipeline.cli import COMMANDS  # noqa: E402
from pipeline.formats.registry import CANDIDATES, FORMATS  # noqa: E402
from pipeline.settings import Operations, Settings  # noqa: E402
from pipeline.tasks.model import TASKS, ModelTask  # noqa: E402

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(<!-- generated: ([\w ]+) -->\n).*?(<!-- end of generated -->)", re.DOTALL)
LUIGI_SECTIONS = ("core", "worker", "retcode", "RangeDaily", "RangeDailyBase")


def table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    titles = list(titles)
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def code(text: object) -> str:
    """Text as code; a dash where there is none."""
    return f"`{text}`" if str(text) else "-"


def option(*names: str) -> str:
    """The option of a parameter or of a setting."""
    return "--" + "-".join(names).replace("_", "-")


# --- tasks, parameters, commands, exit codes


def public_tasks() -> dict[str, type[luigi.Task]]:
    """Tasks by name, in the order of the chain."""
    chain = dict.fromkeys(task.__name__ for task in TASKS.values())
    order = ["BuildGraph", "TrainModel", "SaveCheckpoint", "FreezeModel", *chain, "ConvertBatch", "NightlyRun"]
    return {name: getattr(pipeline, name) for name in dict.fromkeys(order)}


def tasks() -> str:
    """What each task does, and where its artifact is."""
    stages: dict[str, list[str]] = {}
    for stage, task in TASKS.items():
        stages.setdefault(task.__name__, []).append(stage)
    stages["ConvertBatch"], stages["NightlyRun"] = ["batch/<list>"], ["<date>", "current"]
    rows = []
    for name, task in public_tasks().items():
        # MakeFormat makes the formats that have no task of their own.
        made = [stage for stage in stages[name] if stage != "frozen" or name == "FreezeModel"]
        places = ", ".join(f"`{stage}/`" for stage in made) if len(made) < 4 else "one folder for each format"
        rows.append([code(name), summary(task), places])
    return table(["task", "what it does", "in `output/<name>/`"], rows)


def parameters() -> str:
    """The parameters of every task on one model."""
    return table(["parameter", "meaning", "default"], _parameters(ModelTask))


def more_parameters() -> str:
    """Parameters of some tasks alone."""
    known = dict(ModelTask.get_params())
    rows = []
    for name in ("MakeFormat", "ConvertBatch", "NightlyRun"):
        own = {key for key, kind in public_tasks()[name].get_params() if _text(kind) != _text(known.get(key))}
        rows += [[code(name), *row] for row in _parameters(public_tasks()[name], own)]
    return table(["task", "parameter", "meaning", "default"], rows)


def _text(kind: Any) -> Any:
    return kind and kind.description


def _parameters(task: type[luigi.Task], only: set[str] | None = None) -> Iterator[list[str]]:
    for name, kind in task.get_params():
        if kind.visibility is ParameterVisibility.PUBLIC and (only is None or name in only):
            default = kind._default  # Luigi's public way needs a task
            is_required = isinstance(default, type(luigi.parameter._no_value))
            given = "required" if is_required else code("false" if default is False else default)
            yield [code(option(name)), kind.description, given]


def commands() -> str:
    """The one-off commands."""
    return table(["command", "what it does"], ([code(f"{name} …"), purpose] for name, purpose in COMMANDS.items()))


def exit_codes() -> str:
    """Exit codes: Luigi's `[retcode]`, as tasks.cfg sets and explains it."""
    rows = [["0", "-", "all is good"]]
    for key, value, comment in keys_of("retcode"):
        meaning = comment.removeprefix("Exit codes: ").rstrip(".")
        rows.append([value, code(key), meaning[0].lower() + meaning[1:]])
    rows.append(["1, 2", "-", "Luigi's own: an unknown task, an unknown option"])
    return table(["exit code", "key of `[retcode]`", "meaning"], rows)


# --- settings


def keys_of(section: str) -> list[tuple[str, str, str]]:
    """The keys of a section of tasks.cfg: name, value, and the comment above it.

    Raises:
        ValueError: there is no such section, or a key without a comment.
    """
    text = (PROJECT / "tasks.cfg").read_text(encoding="utf-8")
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    body = text.partition(f"\n[{section}]\n")[2].partition("\n[")[0]
    comments = re.findall(r"((?:^#.*\n)+)^(\w+) *=", body, re.MULTILINE)
    found = {key: " ".join(line.lstrip("# ") for line in comment.splitlines()) for comment, key in comments}
    if set(found) != set(parser.options(section)):
        raise ValueError(f"[{section}] of tasks.cfg: each key needs a comment: {set(parser.options(section))}")
    return [(key, parser[section][key], found[key]) for key in found]


def settings(sections: Any) -> str:
    """All keys of the sections that a class declares."""
    parts = []
    for item in fields(sections):
        if item.default_factory is MISSING or not is_dataclass(item.default_factory):
            continue
        owner: Any = item.default_factory
        rows = [
            [code(key.name), key.metadata["description"], code(key.default), code(option(item.name, key.name))]
            for key in fields(owner)
        ]
        what = summary(owner).partition(": ")[2]
        sentence = f"{what[0].upper()}{what[1:]}"
        parts.append(f"### `[{item.name}]`\n\n{sentence}\n\n")
        parts.append(table(["key", "meaning", "default", "option"], rows) + "\n")
    return "".join(parts)


def luigi_settings() -> str:
    """The keys of Luigi's sections in tasks.cfg."""
    rows = [
        [code(f"[{section}]"), code(key), comment, code(value)]
        for section in LUIGI_SECTIONS
        for key, value, comment in keys_of(section)
    ]
    return table(["section", "key", "meaning", "value"], rows)


# --- formats


def formats() -> str:
    """Where each format comes from, and what it is held to."""
    rows = []
    for name in CANDIDATES:
        line = FORMATS[name]
        needs = code(f"freeze-pipeline[{line.family}]") if line.extras else "-"
        process = "a worker with TensorFlow" if line.needs_subprocess else "no TensorFlow"
        bounds = code(line.tolerance_class) if line.tolerance_class else "its dtype's"
        rows.append([code(name), code(line.origin), process, needs, bounds])
    return table(["format", "made from", "made by", "needs", "class of tolerances"], rows)


# --- Python API


def summary(thing: Any) -> str:
    """The first sentence of a docstring.

    Raises:
        ValueError: it has none.
    """
    text = inspect.getdoc(thing) if thing.__doc__ else None
    if not text:
        raise ValueError(f"{thing} is public and has no docstring")
    return " ".join(text.partition("\n\n")[0].split())


def for_models() -> dict[str, str]:
    """Names that a model's code needs, with the module that the examples import them from."""
    found = {}
    for path in sorted((PROJECT / "examples").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "pipeline":
                found |= {alias.name: str(node.module) for alias in node.names}
    return dict(sorted(found.items()))


def api() -> str:
    """Every public name, with its docstring."""
    names = {name: getattr(pipeline, name) for name in pipeline.__all__}
    tasks = {name: thing for name, thing in names.items() if isinstance(thing, type) and issubclass(thing, luigi.Task)}
    author = for_models()
    parts = ["## Freezing and looking into files\n\n"]
    parts += [_described(f"pipeline.{name}", names[name]) for name in names if name not in {*tasks, *author}]
    parts.append("## For a model's author\n\n")
    parts += [_described(f"{module}.{name}", getattr(import_module(module), name)) for name, module in author.items()]
    parts.append("## Tasks\n\nTheir parameters are [options](tasks.md#parameters) of the same name.\n\n")
    rows = ([code(f"pipeline.{name}"), summary(task)] for name, task in tasks.items())
    return "".join(parts) + table(["class", "what it does"], rows)


def _described(title: str, thing: Any) -> str:
    first, *rest = (inspect.getdoc(thing) or "").split("\n\n")
    summary(thing)
    text = [" ".join(first.split())]
    for part in rest:
        head, _, body = part.partition("\n")
        if head.endswith(":") and head.removesuffix(":") in ("Args", "Returns", "Raises", "Attributes"):
            text.append(f"**{head.removesuffix(':')}**\n\n{_entries(inspect.cleandoc(body))}")
        elif part.startswith(" ") or "\n    " in part:
            text.append(f"```text\n{part}\n```")
        else:
            text.append(" ".join(part.split()))
    # Annotations are shown as strings, which they are in modules that postpone them.
    shown = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(thing))).replace(" -> None", "")
    name = title.rpartition(".")[2]
    return f"### {title}\n\n```text\n{_wrapped(name + shown)}\n```\n\n" + "\n\n".join(text) + "\n\n"


def _wrapped(signature: str) -> str:
    if len(signature) <= 100:
        return signature
    name, _, rest = signature.partition("(")
    inner, _, returned = rest.rpartition(")")
    lines = [f"    {part.strip()}," for part in re.split(r",(?![^\[(]*[\])])", inner)]
    return "\n".join([f"{name}(", *lines, f"){returned}"])


def _entries(text: str) -> str:
    """The entries `name: what it is` of a docstring's section as a list."""
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(" ") and lines:
            lines[-1] += " " + line.strip()
        else:
            lines.append(line)
    if not all(re.match(r"[\w, ]+: ", line) for line in lines):
        return " ".join(lines)
    return "\n".join(re.sub(r"^([\w, ]+): ", r"- `\1`: ", line) for line in lines)


TABLES: dict[str, Callable[[], str]] = {
    "tasks": tasks,
    "parameters": parameters,
    "more parameters": more_parameters,
    "commands": commands,
    "exit codes": exit_codes,
    "settings": lambda: settings(Settings),
    "operations": lambda: settings(Operations),
    "luigi": luigi_settings,
    "formats": formats,
    "api": api,
}


def generated(text: str) -> str:
    """A page with its tables as the code gives them now.

    Raises:
        KeyError: it names a table that there is not.
    """
    return BLOCK.sub(lambda match: f"{match[1]}\n{TABLES[match[2]]().strip()}\n\n{match[3]}", text)


def main() -> int:
    """Rewrites the pages, or names those that are not up to date."""
    parser = argparse.ArgumentParser(description="Write the tables of the documentation that come from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page is not up to date")
    is_check = parser.parse_args().check
    stale = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if generated(text) != text:
            stale.append(page.relative_to(PROJECT))
            if not is_check:
                page.write_text(generated(text), encoding="utf-8")
    for path in stale:
        print(f"{path}: {'not up to date; run python docs/generate.py' if is_check else 'written'}")
    return int(is_check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
