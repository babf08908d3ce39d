"""Which test files load TensorFlow, as far as their imports tell."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PACKAGE = TESTS.parent / "pipeline"
HEAVY = {"tensorflow", "keras"}
# The helpers that run stages in processes of their own.
RUNNERS = {"batch_kills", "batches", "clusters", "jobs", "kills"}


@cache
def loads_tensorflow(path: Path) -> bool:
    """Whether a test file loads TensorFlow when it is imported, in a function of its own, or by a helper."""
    seen, waiting = set[Path](), [path]
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            is_heavy, files = _needs(file)
            if is_heavy:
                return True
            waiting += files
    return False


@cache
def _needs(file: Path) -> tuple[bool, frozenset[Path]]:
    """Whether a file itself needs TensorFlow, and the files of this project that it needs."""
    names = _imported(file)
    is_heavy = any(name.partition(".")[0] in HEAVY for name in names)
    is_heavy |= file.stem in RUNNERS and TESTS in file.parents
    return is_heavy, frozenset(found for name in names for found in _files_of(name, file.parent))


def _imported(file: Path) -> frozenset[str]:
    """The full names that a file imports: those of the package at their top level alone, those of tests anywhere."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    is_ours = PACKAGE in file.parents
    return frozenset(name for node in (_top_level(tree) if is_ours else ast.walk(tree)) for name in _names(node, file))


def _top_level(tree: ast.AST) -> Iterator[ast.AST]:
    """What runs when a module is imported."""
    for node in ast.iter_child_nodes(tree):
        is_for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if not is_for_types and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            yield from _top_level(node)


def _names(node: ast.AST, file: Path) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            package = file.parents[node.level - 1].relative_to(TESTS.parent).parts
            base = ".".join([*package, *([base] if base else [])])
        yield base
        yield from (f"{base}.{alias.name}" for alias in node.names)


@cache
def _files_of(name: str, folder: Path) -> list[Path]:
    """The files of this project that an import of a name runs."""
    found = []
    for root in (TESTS.parent, TESTS, TESTS / "helpers", TESTS / "stress", folder):
        place = root
        for part in name.split("."):
            place /= part
            if (file := Path(f"{place}.py")).is_file():
                found.append(file)
            if not place.is_dir():
                break
            if (file := place / "__init__.py").is_file():
                found.append(file)
    return [file for file in found if PACKAGE in file.parents or TESTS in file.parents]
