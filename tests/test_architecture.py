"""The house stands: imports go down only, and nothing heavy is loaded before it is needed."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = PROJECT / "pipeline"

# By the module's place below the package; a name stands for all that lies below it too, the longest name wins.
FLOORS = {
    0: ["errors", "signature", "fingerprint", "settings", "operations"],
    1: [
        "manifest",
        "store",
        "arrays",
        "data",
        "datafile",
        "compare",
        "edges",
        "metrics",
        "prefix",
        "apart",
        "process",
        "engine",
        "report",
        "preload",
        "progress",
        "protos",
        "bundle",
        "freezer",
        "discovery",
        "freezing",
        "adoption",
        "candidates",
        "rows",
        "rowfile",
        "resultsfile",
        "decisions",
        "stability",
        "inspection",
        "bits",
        "tensors",
        "weighing",
        "tracing",
        "resemblance",
        "traces",
        "onednn",
        "leangraph",
        "recommendation",
        "metering",
        "safety",
        "confinement",
        "storage",
    ],
    2: ["models"],
    3: [
        "randomness",
        "building",
        "checkpoint",
        "filling",
        "formats",
        "divergence",
        "instability",
        "replaying",
        "walking",
        "training",
        "keras",
    ],
    4: [
        "checks",
        "findings",
        "lines",
        "comparing",
        "comparison",
        "rerunning",
        "worst",
        "causes",
        "plain",
        "sharding",
        "validation",
        "costs",
    ],
    5: [
        "job",
        "request",
        "facts",
        "stages",
        "chain",
        "config",
        "existing",
        "closing",
        "tasks",
        "console",
        "batch",
        "batches",
        "nightly",
        "nights",
    ],
    6: ["commands", "__main__", ""],
}
HEAVY = {"tensorflow", "keras"}  # tensorboard.compat.proto holds the messages without TensorFlow
# The process that runs Luigi imports these: none of them may lead to TensorFlow.
LUIGIS = [
    "checks",
    "findings",
    "lines",
    "comparing",
    "comparison",
    "engine",
    "engine.cluster",
    "sharding",
    "storage",
    "causes",
    "rerunning",
    "worst",
    "plain",
    "validation",
    "costs",
    "chain",
    "closing",
    "existing",
    "config",
    "request",
    "safety",
    "safety.graphs",
    "safety.models",
    "tasks",
    "batch",
    "batch.listing",
    "batch.outcome",
    "batch.running",
    "batch.seen",
    "batch.progress",
    "batches",
    "nights",
    "nightly",
    "nightly.drift",
    "nightly.exposition",
    "nightly.history",
    "nightly.page",
    "nightly.places",
    "nightly.running",
    "nightly.telling",
    "console",
    "formats",
    "formats.serving",
    "engine",
    "engine.local",
    "models",
    "models.source",
    "report",
    "commands",
    "commands.freeze",
    "commands.inspect",
    "commands.rerun",
    "commands.verify",
    "commands.why",
    "__main__",
    "",
]


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def floor_of(module: str) -> int | None:
    """The floor of a module or of the nearest package above it; the top package stands for itself alone."""
    floors = {name: floor for floor, names in FLOORS.items() for name in names}
    while module not in floors:
        module, dot, _ = module.rpartition(".")
        if not dot:
            return None
    return floors[module]


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def import_nodes(node: ast.AST, lazy: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements, without those for type checkers; without those inside functions unless `lazy`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif is_for_types(child) or (isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not lazy):
            continue
        else:
            yield from import_nodes(child, lazy)


def imports_of(module: str, lazy: bool = True) -> Iterator[str]:
    """What a module imports: modules of the package by their place below it as `.place`, others by their name."""
    path = FILES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in import_nodes(ast.parse(path.read_bytes()), lazy):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif node.level:
            above = package.split(".") if package else []
            base = ".".join([*above[: len(above) - node.level + 1], *([node.module] if node.module else [])])
            names = [f"pipeline.{base}.{alias.name}".replace("..", ".") for alias in node.names]
        else:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            yield own_module(name) if name.split(".")[0] == "pipeline" else name


def own_module(name: str) -> str:
    """`pipeline.data.split` is `.data`: the longest beginning that is a module."""
    place = name.removeprefix("pipeline").removeprefix(".")
    while place not in FILES:
        place = place.rpartition(".")[0]
    return f".{place}"


def own_imports(module: str, lazy: bool = True) -> set[str]:
    return {name[1:] for name in imports_of(module, lazy) if name.startswith(".")} - {module}


def libraries(module: str) -> set[str]:
    return {name.split(".")[0] for name in imports_of(module) if not name.startswith(".")}


def test_the_walk_sees_every_form_of_import() -> None:
    assert {"config", "console", "chain"} <= own_imports("tasks")
    assert {"job", "process", "report", "validation"} <= own_imports("stages")
    assert {"report", "validation"}.isdisjoint(own_imports("stages", lazy=False))
    assert {"process", "errors"} <= own_imports("formats")
    assert "luigi" in libraries("tasks")
    assert "tensorflow" in libraries("building")
    assert "data" not in own_imports("models")  # for type checkers alone


@pytest.mark.parametrize("module", FILES)
def test_every_module_stands_on_a_floor(module: str) -> None:
    assert floor_of(module) is not None


def test_every_name_of_a_floor_is_a_module() -> None:
    assert {name for names in FLOORS.values() for name in names} <= FILES.keys()
    assert set(LUIGIS) <= FILES.keys()


@pytest.mark.parametrize("module", FILES)
def test_imports_go_down_only(module: str) -> None:
    own = floor_of(module)
    assert own is not None
    higher = {name: floor_of(name) for name in own_imports(module) if (floor_of(name) or 0) > own}
    assert higher == {}


def cycles(graph: Mapping[str, set[str]]) -> list[str]:
    """Modules that cannot be put in order, once all that lead nowhere new are taken away."""
    left = {name: set(targets) for name, targets in graph.items()}
    while free := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in free:
            del left[name]
    return sorted(left)


def test_cycles_are_seen() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]
    assert cycles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_imports_go_round_in_a_circle() -> None:
    assert cycles({module: own_imports(module) for module in FILES}) == []


@pytest.mark.parametrize("module", [module for module in FILES if (floor_of(module) or 0) <= 1 and module != "preload"])
def test_the_two_lowest_floors_know_neither_tensorflow_nor_luigi(module: str) -> None:
    assert libraries(module).isdisjoint(HEAVY | {"luigi"})


@pytest.mark.parametrize("module", FILES)
def test_luigi_is_known_on_the_upper_floors_alone(module: str) -> None:
    assert "luigi" not in libraries(module) or (floor_of(module) or 0) >= 5


@pytest.mark.parametrize("module", LUIGIS)
def test_no_chain_of_imports_leads_from_luigis_process_to_tensorflow(module: str) -> None:
    seen, waiting = set[str](), [module]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += own_imports(name)
    assert {name for name in seen if libraries(name) & HEAVY} == set()


def test_the_bottom_needs_the_standard_library_alone() -> None:
    for module in FLOORS[0]:
        assert libraries(module) <= sys.stdlib_module_names


def loaded_by(statement: str, folder: Path) -> set[str]:
    """The top names of all modules that a statement loads in a fresh process in another folder."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"import sys\n{statement}\nprint(*sys.modules)"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return {name.split(".")[0] for name in done.stdout.split()}


def test_importing_the_package_loads_nothing_heavy(tmp_path: Path) -> None:
    loaded = loaded_by("import luigi, pipeline\nassert 'pipeline.tasks' in sys.modules", tmp_path)
    assert {"pipeline", "luigi"} <= loaded
    assert loaded.isdisjoint({*HEAVY, "numpy", "pandas", "sklearn", "matplotlib"})


def test_luigi_is_loaded_only_for_who_runs_it_or_asks_for_a_task(tmp_path: Path) -> None:
    engine = "import pipeline.__main__, pipeline.freezing"
    assert loaded_by(engine, tmp_path).isdisjoint({*HEAVY, "luigi", "numpy"})
    assert "luigi" in loaded_by("import pipeline; pipeline.FreezeModel", tmp_path)


@pytest.mark.parametrize(
    "statement",
    ["import luigi, pipeline", "from pipeline import FreezeModel", "import pipeline.tasks, pipeline.config"],
)
def test_whoever_loads_the_tasks_has_the_projects_settings_once(tmp_path: Path, statement: str) -> None:
    check = """
import luigi, pipeline.tasks
paths = luigi.configuration.LuigiConfigParser._config_paths
assert [path.endswith("/tasks.cfg") for path in paths].count(True) == 1, paths
assert len(pipeline.tasks.ROOT_HOOKS) == 1"""
    loaded_by(statement + check, tmp_path)


def test_the_package_gives_each_of_its_names_and_no_other(tmp_path: Path) -> None:
    loaded_by("from pipeline import *\nassert FreezeModel.__name__ == 'FreezeModel'", tmp_path)
    loaded_by("import pipeline\nassert {*pipeline.__all__} == {*pipeline._HOMES} <= {*dir(pipeline)}", tmp_path)
    loaded_by("import pipeline\nassert not hasattr(pipeline, 'ThawModel')", tmp_path)


@pytest.mark.parametrize("module", [f".{name}" for name in LUIGIS if name not in ("", "__main__")])
def test_no_module_of_luigis_process_loads_tensorflow(tmp_path: Path, module: str) -> None:
    assert loaded_by(f"import pipeline{module}", tmp_path).isdisjoint(HEAVY)


def test_the_work_of_luigis_process_loads_no_tensorflow(tmp_path: Path) -> None:
    imports = "import pipeline.validation, pipeline.chain, pipeline.report, pipeline.data, pipeline.metrics"
    assert loaded_by(imports, tmp_path).isdisjoint(HEAVY)
