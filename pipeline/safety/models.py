"""Checks third-party checkpoints, SavedModels and GraphDefs by all content of their files, before any is opened."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from pipeline.checkpoint.bundle import open_checkpoint
from pipeline.checkpoint.files import files_of, folder_of
from pipeline.checkpoint.opened import Source
from pipeline.checkpoint.savedmodel import read_meta_graphs
from pipeline.errors import PipelineError, UnsafeModel
from pipeline.graph.lazy import load_lazily
from pipeline.graph.lazy_nodes import whole_node
from pipeline.graph.meta_graph import MetaGraph
from pipeline.graph.protos import MetaGraphDef, NodeDef
from pipeline.graph.variables import Saved, identity_of
from pipeline.store.file_names import GRAPH_FILE, WEIGHTS_FOLDER

from . import Danger, printable, require_safe
from .graphs import find_active_ops, find_dangers, find_dangers_of_all
from .growth.values import MOST_NUMBERS, Value
from .named_files import require_beside, require_own_content
from .sizes import require_bounded, require_stored

_CHUNKED = "saved_model.cpb"


def require_safe_source(source: Source, allowed: Collection[str] = ()) -> list[str]:
    """Refuses a checkpoint or SavedModel that could do more than compute, or would exceed the memory.

    Args:
        allowed: ops that the user allows.

    Returns, Raises: as `require_safe_graph`.

    """
    if source.kind == "SavedModel":
        require_own_files(Path(source.path))
    allowances = require_safe(source.graph_file, find_source_dangers(source), allowed)
    require_bounded_source(source)
    return allowances


def require_bounded_source(source: Source) -> None:
    """Refuses a checkpoint or SavedModel that would exceed the memory.

    Raises:
        UnsafeModel: it is refused.
    """
    stored_bytes = sum(path.stat().st_size for path in _stored_files(source) if path.is_file())
    for meta in source.metas:
        require_bounded(meta.graph, source.graph_file, stored_bytes, stored=partial(_small_value, source))
    require_stored(source.bundle, source.path, stored_bytes)


def _small_value(source: Source, variable: NodeDef) -> Value | None:
    """Returns what the checkpoint holds of a variable, if it is small: it may decide the size of something else."""
    identity = identity_of(whole_node(variable))
    key = source.keys.get(identity, Saved(identity[1])).key
    stored = source.bundle.tensors.get(key)
    if stored is None or not 0 < stored.elements <= MOST_NUMBERS or stored.kind.code[1:2] not in ("i", "u"):
        return None
    with suppress(PipelineError, OSError):  # whoever reads it for its value says what is wrong
        numbers = stored.kind.numbers(b"".join(source.bundle.stream(key)))
        return Value(tuple(stored.shape), stored.kind.size_bytes).with_numbers(numbers)
    return None


def require_still(
    source: Source, outputs: Iterable[str], fed: Iterable[str], allowed: Collection[str] = ()
) -> list[str]:
    """Refuses a graph in which computing the outputs would save, or read files of a training.

    Args:
        outputs: tensors.
        fed: tensors whose values are fed.

    Returns, Raises: as `require_safe_source`.
    """
    found = find_active_ops(source.metas[0].graph, outputs, fed) if source.metas else []
    return require_safe(source.graph_file, found, allowed)


def require_safe_graph(path: Path, allowed: Collection[str], *, is_mapped: bool = False) -> list[str]:
    """Refuses a GraphDef, or a folder of the format mmap, that could do more than compute.

    Args:
        path: the `.pb`, or the folder.
        allowed: ops that the user allows.

    Returns:
        The allowed dangers, as sentences.

    Raises:
        UnsafeModel: the model is refused.
        DataError: the file cannot be read.
    """
    file = path / GRAPH_FILE if is_mapped else path
    if is_mapped:
        require_own_files(path)
    lean = load_lazily(file)
    if is_mapped:
        for node in lean.graph.all_nodes():
            if node.op == "ImmutableConst":
                require_mapped(path, node)
    allowances = require_safe(
        file, find_dangers(MetaGraph(lean.graph, MetaGraphDef()), file.parent, is_mapped), allowed
    )
    require_bounded(lean.graph, file, contents={name: len(content) for name, content in lean.contents.items()})
    return allowances


def require_mapped(folder: Path, node: NodeDef) -> Path:
    """Returns the file of weights that a node of the format mmap names.

    Raises:
        UnsafeModel: it is not in the folder of weights, or is no plain file.
    """
    name = node.attr["memory_region_name"].s.decode("utf-8", "surrogateescape")
    path = require_beside(folder, name, f"node {printable(node.name)}", folder / GRAPH_FILE)
    if Path(name).parts[0] != WEIGHTS_FOLDER:
        raise UnsafeModel(
            f"this model could read files: node {printable(node.name)} is not in the folder of weights",
            where=folder / GRAPH_FILE,
            got=repr(printable(name)),
            wanted=f"a file in {WEIGHTS_FOLDER}",
        )
    return path


def require_safe_saved_model(folder: Path, allowed: Collection[str]) -> list[str]:
    """Refuses a SavedModel that could do more than compute.

    Returns, Raises: as `require_safe_graph`.
    """
    require_own_files(folder)
    file, metas = read_meta_graphs(folder)
    allowances = require_safe(file, find_dangers_of_all(metas, folder), allowed)
    variables = [path for path in (folder / "variables").glob("*") if path.is_file()]
    stored_bytes = sum(path.stat().st_size for path in variables)
    for meta in metas:
        require_bounded(meta.graph, file, stored_bytes)
        outputs = [info.name for signature in meta.rest.signature_def.values() for info in signature.outputs.values()]
        allowances += require_safe(file, find_active_ops(meta.graph, outputs), allowed)
    if variables:
        require_stored(open_checkpoint(folder / "variables" / "variables"), folder, stored_bytes)
    return list(dict.fromkeys(allowances))


def find_source_dangers(source: Source) -> list[Danger]:
    """Finds everything that a checkpoint or SavedModel could do besides computing; nothing of it is run."""
    home = Path(source.path) if source.kind == "SavedModel" else source.graph_file.parent
    return find_dangers_of_all(source.metas, home)


def _stored_files(source: Source) -> Iterator[Path]:
    """Yields the files of a model's variables."""
    if source.kind == "SavedModel":
        yield from (Path(source.path) / "variables").glob("*")
    elif source.kind == "checkpoint" and folder_of(str(source.path)).is_dir():
        yield from files_of(source.path)


def require_own_files(folder: Path) -> None:
    """Checks that the folder of a SavedModel, or of the format mmap, contains its own files.

    Raises:
        UnsafeModel: a link leads out of the folder; it contains a pipe or a device; or a second graph, which TensorFlow
            would load instead of the checked one.
    """
    if (folder / _CHUNKED).exists():
        raise UnsafeModel(
            "next to the checked graph is another one, which TensorFlow may load instead",
            where=folder / _CHUNKED,
            wanted="saved_model.pb alone",
            next_step="Export the model again, in one piece",
        )
    require_own_content(folder)
