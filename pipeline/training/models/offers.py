"""Says which classes of a Python file are models, from its text alone."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

_KERAS = {"Layer", "Model", "Sequential"}


def models_in(tree: ast.Module, file: Path, asked: str = "") -> str:
    """Says which classes of a file `--model` takes, or what to write where there are none.

    Args:
        asked: what was asked for in their place.
    """
    place = typed_path(file)
    models = [node.name for node in tree.body if isinstance(node, ast.ClassDef) and _is_model(node)]
    if models:
        return f"The models in it: {', '.join(f'--model {place}:{name}' for name in sorted(models))}"
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    builds = asked if asked in functions else next((name for name in functions if "build" in name), "")
    made = f"def build(self): return {builds}()" if builds else "def build(self), which returns the keras.Model"
    others = sorted({*functions, *(node.name for node in tree.body if isinstance(node, ast.ClassDef))})
    return (
        f"No class in it is a model (it has {', '.join(others) or 'no class and no function'}). Add one with "
        f"signature, {made}, and examples (docs/own_model.md), and give --model {place}:CLASS"
    )


def is_layer(tree: ast.Module, class_name: str) -> bool:
    """Returns True for a class of Keras's own kind, a layer or a model, which says nothing of rows."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            return _is_of_keras(node) and not _assigns(node.body, "signature")
    return False


def names_of_call(tree: ast.Module, class_name: str) -> tuple[list[str], list[str]]:
    """Returns the names that the method `call` of a class reads from dicts, and returns in them; else `x`, `y`."""
    classes = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name)
    methods = (one for node in classes for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "call")
    called = next(methods, None)
    if called is None:
        return ["x"], ["y"]
    arguments = [one.arg for one in called.args.args[1:] if one.arg not in ("training", "mask")]
    read, returned = list[str](), list[str]()
    for node in ast.walk(called):
        if (
            isinstance(node, ast.Subscript)
            and isinstance(node.slice, ast.Constant)
            and isinstance(node.slice.value, str)
        ):
            read += [node.slice.value] if isinstance(node.value, ast.Name) and node.value.id in arguments else []
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Dict):
            returned += [
                key.value for key in node.value.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)
            ]
    return list(dict.fromkeys(read)) or arguments[:1] or ["x"], list(dict.fromkeys(returned)) or ["y"]


def _is_of_keras(node: ast.ClassDef) -> bool:
    return bool({ast.unparse(base).rpartition(".")[2] for base in node.bases} & _KERAS)


def _is_model(node: ast.ClassDef) -> bool:
    """Returns True for a class that builds a model without being told a shape; a signature may be its base's."""
    has_signature = _assigns(node.body, "signature") or (bool(node.bases) and not _is_of_keras(node))
    methods = {one.name: len(one.args.args) for one in node.body if isinstance(one, ast.FunctionDef)}
    return has_signature and ("forward" in methods or methods.get("build") == 1)


def _assigns(body: Iterable[ast.stmt], name: str) -> bool:
    """Returns True for a body that gives a name a value: an attribute, also of an instance, or a property."""
    for node in (inner for statement in body for inner in ast.walk(statement)):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return True
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == name:
            return True
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr == name:
            return True
    return False


def typed_path(file: Path) -> str:
    """Returns a path as it is typed in the current folder."""
    here = Path.cwd()
    return str(file.relative_to(here) if file.is_relative_to(here) else file)
