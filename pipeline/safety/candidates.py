"""Checks every op of a candidate before any runtime opens its file."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pipeline.checkpoint.bundle import open_checkpoint
from pipeline.checkpoint.savedmodel import read_meta_graphs
from pipeline.graph.lazy import load_lazily
from pipeline.graph.meta_graph import MetaGraph
from pipeline.graph.protos import MetaGraphDef
from pipeline.store.files import GRAPH_FILE

from . import require_safe
from .graphs import find_active_ops, find_dangers
from .models import require_own_files
from .sizes import require_bounded, require_stored


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
    told = require_safe(file, find_dangers(MetaGraph(lean.graph, MetaGraphDef()), file.parent, is_mapped), allowed)
    require_bounded(lean.graph, file, contents={name: len(content) for name, content in lean.contents.items()})
    return told


def require_safe_saved_model(folder: Path, allowed: Collection[str]) -> list[str]:
    """Refuses a SavedModel that could do more than compute.

    Returns, Raises: as `require_safe_graph`.
    """
    require_own_files(folder)
    file, metas = read_meta_graphs(folder)
    told = require_safe(file, [danger for meta in metas for danger in find_dangers(meta, folder)], allowed)
    variables = [path for path in (folder / "variables").glob("*") if path.is_file()]
    stored_bytes = sum(path.stat().st_size for path in variables)
    for meta in metas:
        require_bounded(meta.graph, file, stored_bytes)
        outputs = [info.name for signature in meta.rest.signature_def.values() for info in signature.outputs.values()]
        told += require_safe(file, find_active_ops(meta.graph, outputs), allowed)
    if variables:
        require_stored(open_checkpoint(folder / "variables" / "variables"), folder, stored_bytes)
    return list(dict.fromkeys(told))
