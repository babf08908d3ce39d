"""Finds a model's source file without importing it, and imports the model when it is needed.

Finding a model must not import it: a run that has nothing to do loads no TensorFlow.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
)
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any, cast

from pipeline.errors import ModelError, nearest, this_command
from pipeline.safety.own_classes import export_module_commands

from . import Model

if TYPE_CHECKING:
    from importlib.abc import PathEntryFinder

PROJECT = Path(__file__).resolve().parents[3]
_PACKAGE = str(PROJECT / "pipeline")
# The folder with tasks.cfg and data/: the root of a checkout; an installed package has a copy inside (see setup.py).
_PACKAGED_FILES = PROJECT / "pipeline/project"
PROJECT_FILES = _PACKAGED_FILES if _PACKAGED_FILES.is_dir() else PROJECT

BUNDLED = {
    "multiply_add": "pipeline.training.models.multiply_add:MultiplyAdd",
    "spam": "pipeline.training.models.spam:Spam",
}
_EXAMPLES = (
    "Add it, so that rows of data can be read (docs/own_model.md): def examples(self, path): return "
    "Examples(dict(numpy.load(path)), None), with Examples of the package pipeline; and give --data rows.npz"
)
_KERAS = ("keras", "tf_keras")
_BUNDLED_MODULES = {place.partition(":")[0] for place in BUNDLED.values()}


@dataclass(frozen=True)
class ModelSource:
    """Location of a model's code.

    Args:
        name: default for `--name`.
        class_name: the model's class; empty for the code that a Keras file needs (see `is_code`).
        file: the source file with the class.
        module: dotted name of the module; None for a file outside any package.
        data: the model's own data file; None if it names none.
        is_keras: True if the class builds a Keras model, False if it builds a graph.
    """

    name: str
    class_name: str
    file: Path
    module: str | None
    data: Path | None
    is_keras: bool = False

    @property
    def is_code(self) -> bool:
        """True if it is no model, but the file whose classes and functions a Keras file's model is made of."""
        return not self.class_name

    @property
    def roots(self) -> tuple[Path, ...]:
        """Folders whose modules belong to the model's own code."""
        depth = self.module.count(".") + (self.file.name == "__init__.py") if self.module else 0
        return (self.file.parents[depth], PROJECT)

    @property
    def own_code(self) -> tuple[str, ...]:
        """The model's file, and the folders, with a slash at the end, whose code is the model's own."""
        root, top = self.roots[0], (self.module or "").partition(".")[0]
        if top == __name__.partition(".")[0]:  # a bundled model
            return (str(self.file),)
        folders = [root] if not _is_for_installed(root) else [root / top] if (root / top).is_dir() else []
        return (str(self.file), *(f"{folder}/" for folder in folders))

    @property
    def local_code(self) -> tuple[str, ...]:
        """`own_code`, and the project: the modules that a model may import from there count by their source."""
        return (*self.own_code, *(f"{root}/" for root in self.roots if not _is_for_installed(root)))


def _is_for_installed(folder: Path) -> bool:
    return folder.name in ("site-packages", "dist-packages")


def find_model(reference: str, *, may_be_code: bool = False) -> ModelSource:
    """Finds a model's source.

    Args:
        reference: a bundled name, `package.module:Name`, or `path/to/file.py:Name`.
        may_be_code: True where a Keras file brings the model: then a file or module without a name is the code of its
            layers, and so is the class of one of them.

    Raises:
        ModelError: no model has that name; the error suggests the nearest names.
    """
    bundled = BUNDLED.get(reference)
    location, colon, class_name = (bundled or reference).rpartition(":")
    if not colon and (may_be_code or reference.endswith(".py")):
        location, class_name = reference, ""
    if not location:
        raise ModelError(
            "unknown model",
            got=repr(reference),
            wanted="a bundled name, package.module:Name or path/to/file.py:Name",
            next_step=nearest(reference, BUNDLED),
        )
    if location.endswith(".py"):
        file, module = Path(location).resolve(), None
        if not file.is_file():
            raise ModelError("no such model file", where=location, next_step=_elsewhere(file))
    else:
        file, module = _module_file(location), location
    stem = file.parent.name if file.name == "__init__.py" else file.stem
    name = reference if bundled else re.sub(r"[^A-Za-z0-9._-]", "_", stem).strip("._-") or "model"
    if not class_name and not may_be_code:
        raise _without_class(file, location)
    tree = _parse(file)
    if may_be_code and (not class_name or _is_layer(tree, class_name)):
        return ModelSource(name, "", file, module, None, is_keras=True)
    body = _class_body(tree, file, class_name)
    methods = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    is_keras = "build" in methods and "forward" not in methods
    return ModelSource(name, class_name, file, module, _data_file(file, body), is_keras)


def _elsewhere(file: Path) -> str:
    """Says what there is in place of a file that is missing."""
    if not file.parent.is_dir():
        return f"There is no folder {file.parent}: a path starts at the current folder, {Path.cwd()}"
    others = sorted(path.name for path in file.parent.glob("*.py"))
    if not others:
        return f"The folder {file.parent} has no .py file"
    return nearest(file.name, others)


def _module_file(module: str) -> Path:
    if module in _BUNDLED_MODULES:  # always here: no need to have Python look at all folders again
        return PROJECT / f"{module.replace('.', '/')}.py"
    # importlib.util.find_spec only for the top package: for a submodule it would import the parent packages.
    importlib.invalidate_caches()
    top, *parts = module.split(".")
    with _importable(Path.cwd()):
        spec: ModuleSpec | None = importlib.util.find_spec(top) if top else None
        name = top
        for part in parts:
            folders = list(spec.submodule_search_locations or ()) if spec is not None else []
            name = f"{name}.{part}"
            spec = PathFinder.find_spec(name, folders) if part else None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise ModelError("no such module", where=module, next_step="Install it, or give path/to/file.py:Name")
    return Path(spec.origin)


def _parse(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_bytes())
    except SyntaxError as exc:
        raise ModelError("the model's file is not Python", where=f"{file}:{exc.lineno}", got=exc.msg) from exc


def _class_body(tree: ast.Module, file: Path, class_name: str) -> list[ast.stmt]:
    """Returns the statements of a class; empty for a class that the file only imports."""
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    names = {*classes, *(name.id for node in tree.body for name in ast.walk(node) if isinstance(name, ast.Name))}
    imports = (node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom))
    names |= {alias.asname or alias.name for node in imports for alias in node.names}
    if class_name not in names:
        from .offers import models_in  # only where something is wrong

        function = any(isinstance(node, ast.FunctionDef) and node.name == class_name for node in tree.body)
        raise ModelError(
            "a function is no model: --model takes a class" if function else "no such class in the model's file",
            where=file,
            got=class_name,
            next_step=models_in(tree, file, class_name),
        )
    return classes[class_name].body if class_name in classes else []


def _is_layer(tree: ast.Module, class_name: str) -> bool:
    from .offers import is_layer  # only for a Keras file

    return is_layer(tree, class_name)


def _without_class(file: Path, location: str) -> ModelError:
    from .offers import models_in

    return ModelError("the class is missing", where="--model", got=location, next_step=models_in(_parse(file), file))


def _data_file(file: Path, body: list[ast.stmt]) -> Path | None:
    """Returns the file that the class attribute `data` names: next to the model, else in `data/`."""
    literal = next((value for node in body if (value := _assigned_string(node, "data")) is not None), None)
    if literal is None:
        return None
    neighbour = file.parent / literal
    return neighbour if neighbour.exists() else PROJECT_FILES / "data" / literal


def _assigned_string(node: ast.stmt, name: str) -> str | None:
    match node:
        case ast.Assign(targets=[ast.Name(id=target)], value=ast.Constant(value=str(text))) if target == name:
            return text
        case ast.AnnAssign(target=ast.Name(id=target), value=ast.Constant(value=str(text))) if target == name:
            return text
    return None


class _SourceLoader(SourceFileLoader):
    """Runs a module's text itself: bytecode may be of an earlier text with the same time of change and size."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


@cache
def _import_from_source(folders: tuple[str, ...]) -> None:
    """Make the modules in folders be imported from their text, and not from bytecode; not those installed in there."""
    find = FileFinder.path_hook((ExtensionFileLoader, EXTENSION_SUFFIXES), (_SourceLoader, SOURCE_SUFFIXES))

    def find_own(path: str) -> PathEntryFinder:
        own = [folder for folder in folders if f"{path}/".startswith(folder)]
        if not own or path.startswith(_PACKAGE) or "/site-packages" in path.removeprefix(max(own, key=len)):
            raise ImportError("not the model's own code", path=path)
        return find(path)

    sys.path_hooks.insert(0, find_own)
    for path in list(sys.path_importer_cache):
        if any(f"{path}/".startswith(folder) for folder in folders):
            del sys.path_importer_cache[path]


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Puts a folder first on the import path, so that a model can import modules next to it.

    No bytecode is written: Python would use it for a module that was edited within the same second and kept its size.
    """
    writes_no_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.dont_write_bytecode = writes_no_bytecode


def load_model(source: ModelSource, *, reads_rows: bool = True) -> Model:
    """Imports a model's code and creates the model.

    Args:
        reads_rows: False if it needs no method `examples`, as where its rows are made up.

    Raises:
        ModelError: the code cannot be imported, the class is missing or takes arguments, or it lacks
            a required member (see `pipeline.training.models`).
    """
    from multiprocessing import parent_process  # not needed in a run in which everything is complete

    where = f"{source.file}:{source.class_name}"
    folder = source.file.parent if source.module is None else Path.cwd()
    _import_from_source(source.local_code)
    if parent_process() is not None:  # a worker, for this model alone: its methods may import, too
        sys.path.append(str(folder))
    try:
        with _importable(folder):
            module = _import_module(source)
            kind = getattr(module, source.class_name)
            lacking = _lacking_arguments(kind)
            model: Any = None if lacking else kind()
    except Exception as exc:  # Third-party code may raise anything; the user needs the line.
        raise _not_imported(exc, where) from exc
    if lacking:
        raise ModelError(
            "the class needs arguments, and the model is made without any",
            where=where,
            got=f"{source.class_name}({', '.join(lacking)})",
            wanted=f"{source.class_name}()",
            next_step="Write a class beside it, with signature, build and examples (docs/own_model.md): in build it "
            f"makes what {source.class_name} needs, and returns the keras.Model",
        )
    from pipeline.signature import Signature  # needed only by who runs a model's code

    if not isinstance(getattr(model, "signature", None), Signature):
        raise ModelError(
            "the model has no signature",
            where=where,
            wanted="an attribute `signature` of class Signature",
            next_step=_describe_it(source, model),
        )
    if not model.signature.inputs:
        raise ModelError("the model's signature needs at least one input", where=where, got="none")
    for method in ("build" if source.is_keras else "forward", *(["examples"] if reads_rows else [])):
        if not callable(getattr(model, method, None)):
            is_elsewhere = method == "forward" and callable(getattr(model, "build", None))
            raise ModelError(
                f"the model has no method {method}",
                where=where,
                wanted="the contract of pipeline.training.models",
                next_step="Define build in the class itself, not in a base class"
                if is_elsewhere
                else _EXAMPLES
                if method == "examples"
                else None,
            )
    return cast(Model, model)


def load_code(source: ModelSource) -> Mapping[str, Any]:
    """Imports the code of a Keras file's model, and returns what it defines and imports, by name.

    Raises:
        ModelError: it cannot be imported.
    """
    folder = source.file.parent if source.module is None else Path.cwd()
    _import_from_source(source.local_code)
    sys.path.append(str(folder))  # this process is for one model: its methods may import, too
    try:
        with _importable(folder):
            return vars(_import_module(source))
    except Exception as exc:  # third-party code may raise anything
        raise _not_imported(exc, str(source.file)) from exc


def _not_imported(exc: Exception, where: str) -> ModelError:
    last = traceback.extract_tb(exc.__traceback__)[-1]
    return ModelError(
        "the model cannot be imported",
        where=where,
        got=f"{type(exc).__name__}: {exc} (at {last.filename}:{last.lineno})",
        next_step="Correct it; python -c 'import …' shows the whole traceback",
    )


def _lacking_arguments(kind: object) -> list[str]:
    """Returns the arguments that a class cannot be made without."""
    start = inspect.signature(kind.__init__) if isinstance(kind, type) else None  # type: ignore[misc]
    named = list(start.parameters.values())[1:] if start is not None else []
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [one.name for one in named if one.default is one.empty and one.kind not in variadic]


def _describe_it(source: ModelSource, model: object) -> str | None:
    """Says what to do with a class that is the model itself, and describes no inputs and outputs."""
    if any(hasattr(sys.modules.get(name), "Model") and isinstance(model, sys.modules[name].Model) for name in _KERAS):
        from pipeline.checkpoint.served import served_class

        from .offers import names_of_call, typed_path

        name, place = source.class_name, typed_path(source.file.with_name("served.py"))
        imported = f"from {source.module or source.file.stem} import {name}"
        text = served_class(f"{name}()", imported, *names_of_call(_parse(source.file), name))
        return (
            f"Write a class whose build returns {name}() (docs/own_model.md) into {place}, with your dtypes and "
            f"shapes:\n{text}\nand then: {this_command({'--model': f'{place}:Served'})}"
        )
    tensorflow = sys.modules.get("tensorflow")
    is_module = tensorflow is not None and isinstance(model, tensorflow.Module)
    return export_module_commands(source.file, source.class_name) if is_module else None


def _import_module(source: ModelSource) -> object:
    if source.module is not None:
        return importlib.import_module(source.module)
    name = f"model_file_{source.file.stem}"
    spec = importlib.util.spec_from_file_location(name, source.file, loader=_SourceLoader(name, str(source.file)))
    assert spec is not None  # a .py file always has a spec
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
