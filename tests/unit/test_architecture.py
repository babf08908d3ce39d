"""The plan of the house: few rooms, imports that go down only, and nothing heavy is loaded before it is needed."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest
from commands import SHARED_SERVER

from pipeline.store import file_names

PROJECT = Path(__file__).resolve().parents[2]
PACKAGE = PROJECT / "pipeline"

# A package imports packages of lower floors only. Below all of them are the modules at the top of `pipeline/`.
FLOORS = [
    {"graph", "store"},
    {"checkpoint", "data", "report", "workers"},
    {"safety"},
    {"freezing"},
    {"formats"},
    {"training", "validation"},
    {"tasks"},
    {"cli"},
]
MOST_PACKAGES, MOST_MODULES, MOST_FLOORS = 13, 5, 8
NO_NAMES = {"core", "common", "utils", "base", "misc"}  # they say nothing of what is inside
HEAVY = {"tensorflow", "keras"}  # tensorboard.compat.proto holds the messages without TensorFlow
# The packages that may import a library; all others may not.
KNOWN_BY = {
    "tensorflow": {"formats", "training", "validation", "workers"},  # workers: what a fork server loads ahead
    "keras": {"formats", "training"},
    "luigi": {"cli", "tasks"},
}


def module_name(path: Path) -> str:
    """The module's name below the package: `store.manifest`; the package's own is empty."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
PACKAGES = {name for name, path in FILES.items() if name and "." not in name and path.name == "__init__.py"}
MODULES = {name for name in FILES if name and "." not in name} - PACKAGES - {"__main__"}
FACES = {"", "__main__"}  # they hand on to the packages, and nothing imports them


def package_of(module: str) -> str:
    return module.partition(".")[0]


@cache
def imports_of(module: str) -> frozenset[str]:
    """All imports of a module, those for type checkers and inside functions too: ours by name with a leading dot."""
    path = FILES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return frozenset(imports_in(path.read_text(encoding="utf-8"), package))


def imports_in(source: str, package: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            above = package.split(".") if package else []
            base = [*above[: len(above) - node.level + 1], *([node.module] if node.module else [])]
            names = [".".join(["pipeline", *base, alias.name]) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield own_module(name) if name.split(".")[0] == "pipeline" else name


def own_module(name: str) -> str:
    """`pipeline.data.readers.split` is `.data.readers`: the longest beginning that is a module."""
    place = name.removeprefix("pipeline").removeprefix(".")
    while place not in FILES:
        place = place.rpartition(".")[0]
    return f".{place}"


@cache
def own_imports(module: str) -> set[str]:
    return {name[1:] for name in imports_of(module) if name.startswith(".")} - {module}


@cache
def libraries(module: str) -> set[str]:
    """The libraries that a module may load, whenever it does: all that it imports but those for type checkers."""
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = [ast.Pass()]
    return {name.split(".")[0] for name in imports_in(ast.unparse(tree), "") if not name.startswith(".")}


def between_packages() -> dict[str, set[str]]:
    """For each package the packages that it imports."""
    found: dict[str, set[str]] = {name: set() for name in PACKAGES}
    for module in FILES:
        if package_of(module) in PACKAGES:
            found[package_of(module)] |= {package_of(name) for name in own_imports(module)} & PACKAGES
    return {name: targets - {name} for name, targets in found.items()}


def cycles(graph: Mapping[str, set[str]]) -> list[str]:
    """Names that cannot be put in order, once all that lead nowhere new are taken away."""
    left = {name: set(targets) for name, targets in graph.items()}
    while free := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in free:
            del left[name]
    return sorted(left)


def height(name: str, graph: Mapping[str, set[str]]) -> int:
    """The floor that a package really stands on: one above the highest that it imports."""
    return 1 + max((height(below, graph) for below in graph[name]), default=0)


def test_the_walk_sees_every_form_of_import() -> None:
    source = (
        "from __future__ import annotations\nfrom typing import TYPE_CHECKING\nfrom ..signature import Signature\n"
        "from . import manifest\nimport luigi.target\nif TYPE_CHECKING:\n"
        "    from pipeline.data.readers import Examples\ndef late():\n    from pipeline.workers.child import Child\n"
    )
    found = set(imports_in(source, "store"))
    assert {".signature", ".store.manifest", ".data.readers", ".workers.child", "luigi.target"} <= found
    assert {"tensorflow"} <= libraries("training.graphs")


def test_cycles_are_seen() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]
    assert cycles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_few_rooms_stand_at_the_top_and_their_names_say_something() -> None:
    assert len(PACKAGES) <= MOST_PACKAGES
    assert len(MODULES) <= MOST_MODULES
    assert {part for name in FILES for part in name.split(".") if FILES[name].name == "__init__.py"} & NO_NAMES == set()
    assert set() == MODULES & NO_NAMES


def test_every_package_has_one_floor() -> None:
    assert sorted(name for floor in FLOORS for name in floor) == sorted(PACKAGES)
    assert len(FLOORS) <= MOST_FLOORS
    graph = between_packages()
    assert cycles(graph) == []
    assert max(height(name, graph) for name in PACKAGES) <= MOST_FLOORS


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_imports_go_down_only(package: str) -> None:
    lower = set[str]()
    for floor in FLOORS:
        if package in floor:
            break
        lower |= floor
    assert between_packages()[package] - lower == set()


def test_the_modules_at_the_top_are_the_ground() -> None:
    for module in MODULES:
        assert own_imports(module) <= MODULES
        assert libraries(module) <= sys.stdlib_module_names


def artifact_file_names() -> set[str]:
    """The names of files and folders in artifacts, but those that are plain words with another meaning too."""
    values = {value for name, value in vars(file_names).items() if name.isupper() and isinstance(value, str)}
    return values - {file_names.WEIGHTS_FOLDER, file_names.WORST_FOLDER}


def strings_in(source: str) -> Iterator[str]:
    """All string constants of a module, parts of f-strings too, but no docstrings."""
    tree = ast.parse(source)
    statements = (node for node in ast.walk(tree) if isinstance(node, ast.Expr))
    docstrings = {id(node.value) for node in statements if isinstance(node.value, ast.Constant)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def names_in(text: str) -> set[str]:
    """The parts of a path or pattern; none of a sentence."""
    return set() if " " in text else {part.strip("*\n") for part in text.split("/")}


def test_names_of_files_are_seen_in_paths_and_patterns() -> None:
    source = '"signature.json"\ny = x / "verdict.json", f"{x}/report.html", ("saved_model/*", "see results.csv.")'
    found = set[str]().union(*map(names_in, strings_in(source)))
    assert found & artifact_file_names() == {"verdict.json", "report.html", "saved_model"}


def test_each_name_of_a_file_in_artifacts_is_written_once() -> None:
    values = [value for name, value in vars(file_names).items() if name.isupper() and isinstance(value, str)]
    assert len(values) == len(set(values)) > 20
    found = {
        (module, name)
        for module, path in FILES.items()
        if module != "store.file_names"
        for text in strings_in(path.read_text(encoding="utf-8"))
        for name in names_in(text) & artifact_file_names()
    }
    assert found == set()


def test_nothing_imports_the_faces() -> None:
    for module in FILES:
        if module not in FACES:
            assert own_imports(module).isdisjoint(FACES), module


def test_no_imports_go_round_in_a_circle() -> None:
    assert cycles({module: own_imports(module) for module in FILES}) == []


@pytest.mark.parametrize("library", KNOWN_BY)
def test_a_library_is_imported_only_where_it_belongs(library: str) -> None:
    found = {package_of(module) for module in FILES if library in libraries(module)}
    assert found <= KNOWN_BY[library]


def test_no_chain_of_imports_leads_from_luigis_process_to_tensorflow() -> None:
    seen, waiting = set[str](), [name for name in FILES if package_of(name) in {"tasks", "cli", *FACES}]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += own_imports(name)
    assert {name for name in seen if libraries(name) & HEAVY} == set()


def modules_loaded_by(statement: str, folder: Path) -> set[str]:
    """All modules that a statement loads in a fresh process in another folder."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"import sys\n{statement}\nprint(*sys.modules)"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([SHARED_SERVER, str(PROJECT)])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def loaded_by(statement: str, folder: Path) -> set[str]:
    """The top names of those modules."""
    return {name.split(".")[0] for name in modules_loaded_by(statement, folder)}


NEEDED_TO_MAKE = {
    *("difflib", "pipeline.checkpoint.file_kinds", "pipeline.checkpoint.missing", "pipeline.tasks.chain.data_check"),
    *("pipeline.signature", "pipeline.tasks.chain.report_facts", "pipeline.workers.child"),
    *("pipeline.workers.machine", "pipeline.workers.memory", "pipeline.workers.reads"),
}


def test_importing_the_package_loads_nothing_heavy(tmp_path: Path) -> None:
    modules = modules_loaded_by("import luigi, pipeline\nassert 'pipeline.tasks.model' in sys.modules", tmp_path)
    loaded = {name.split(".")[0] for name in modules}
    assert {"pipeline", "luigi"} <= loaded
    assert loaded.isdisjoint({*HEAVY, "numpy", "pandas", "sklearn", "matplotlib", "google", "tensorboard"})
    # What only makes something, or only says what is wrong, is loaded by the run that needs it.
    assert modules.isdisjoint(NEEDED_TO_MAKE)
    assert len([name for name in modules if name.split(".")[0] == "pipeline"]) <= 52


def test_luigi_is_loaded_only_for_who_runs_it_or_asks_for_a_task(tmp_path: Path) -> None:
    engine = "import pipeline.__main__, pipeline.freezing.freeze"
    assert loaded_by(engine, tmp_path).isdisjoint({*HEAVY, "luigi", "numpy"})
    assert "luigi" in loaded_by("import pipeline; pipeline.FreezeModel", tmp_path)


@pytest.mark.parametrize(
    "statement",
    [
        "import luigi, pipeline",
        "from pipeline import FreezeModel",
        "import pipeline.tasks.model, pipeline.tasks.config",
    ],
)
def test_whoever_loads_the_tasks_has_the_projects_settings_once(tmp_path: Path, statement: str) -> None:
    check = """
import luigi, pipeline.tasks.model
assert luigi.configuration.get_config().get("training", "steps") == "600"
assert len(pipeline.tasks.model.ROOT_HOOKS) == 1"""
    loaded_by(statement + check, tmp_path)


@pytest.mark.tensorflow
def test_the_package_gives_each_of_its_names_and_no_other(tmp_path: Path) -> None:
    loaded_by(
        "from pipeline import *\nassert FreezeModel.__name__ == 'FreezeModel'\n"
        "import pipeline\nassert {*pipeline.__all__} == {*pipeline._HOMES} <= {*dir(pipeline)}\n"
        "assert not hasattr(pipeline, 'ThawModel')",
        tmp_path,
    )


def test_the_types_of_the_public_names_are_declared() -> None:
    """`__init__.pyi` names what `__init__.py` loads on demand, from the same modules."""
    import pipeline

    declared = {
        alias.asname or alias.name: node.module
        for node in ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8")).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert declared == pipeline._HOMES


def test_no_module_of_luigis_process_loads_tensorflow(tmp_path: Path) -> None:
    names = [f"pipeline.{name}" for name in FILES if package_of(name) in {"tasks", "cli"}]
    names += ["pipeline.report", "pipeline.validation.validate", "pipeline.formats.registry", "pipeline.__main__"]
    names += ["pipeline.formats.runner_process", "pipeline.training.models.source", "pipeline.workers.executor.local"]
    assert loaded_by(f"import {', '.join(names)}", tmp_path).isdisjoint(HEAVY)
