"""The files that fill a graph's lookup tables: where they are, and how an artifact carries them.

A graph names such a file by a path of the machine and the folder where it was trained. A relative path is looked for
where TensorFlow looks, in the working folder; then, as for a path that leads nowhere, beside the checkpoint and beside
the graph. An artifact has copies in `assets/`, under names with their sha256, so its bytes decide what is computed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any

from pipeline.graph.graph import Graph
from pipeline.graph.meta_graph import MetaGraph
from pipeline.graph.nodes import data_inputs, node_of
from pipeline.graph.protos import NodeDef
from pipeline.graph.variables import strings_of
from pipeline.inputs import read_file

FROM_FILE = frozenset({"InitializeTableFromTextFileV2", "InitializeTableFromTextFile"})
_FOLDER = "assets"


def name_of_vocabulary(node: NodeDef, nodes: Mapping[str, NodeDef]) -> NodeDef | None:
    """Returns the constant with the path that an op of `FROM_FILE` reads; None if it is none."""
    given = data_inputs(node)
    for _ in range(len(nodes)):
        source = nodes.get(node_of(given[-1])) if given else None
        if source is None or source.op != "Identity":
            return source if strings_of(source) else None
        given = data_inputs(source)
    return None


def vocabularies_of(graph: Graph) -> dict[str, Path]:
    """Returns the paths of the files that fill tables, by the constants that name them."""
    fillers = [node for node in graph.node if node.op in FROM_FILE]
    names = [name_of_vocabulary(node, graph.nodes) for node in fillers]
    return {one.name: Path((strings_of(one) or [""])[0]) for one in names if one is not None}


def find_vocabularies(meta: MetaGraph, folders: Iterable[Path]) -> MetaGraph:
    """Returns the graph with absolute paths of the files that fill its tables.

    Args:
        folders: where the checkpoint and the graph are; a file is looked for in them if its own path leads nowhere.
    """
    named = vocabularies_of(meta.graph)
    if not named:
        return meta
    from .savedmodel import set_asset_paths  # most checkpoints do without

    folders = list(folders)
    found = {name: _find(path, folders) for name, path in named.items()}
    return MetaGraph(set_asset_paths(meta.graph, found), meta.rest)


def _find(path: Path, folders: Iterable[Path]) -> Path:
    own = Path(os.path.abspath(path))
    is_inside = not path.is_absolute() and ".." not in path.parts
    beside = [folder / name for folder in folders for name in ([path] if is_inside else []) + [Path(path.name)]]
    return next((Path(os.path.abspath(one)) for one in (own, *beside) if one.is_file()), own)


def carry_vocabularies(graph: Any, found: Mapping[str, Path], folder: Path) -> None:
    """Copies the files that fill a graph's tables into an artifact, and names the copies in its graph.

    Args:
        graph: the GraphDef that the artifact gets; changed in place.
        found: see `vocabularies_of`.
        folder: the artifact.
    """
    for node in graph.node:
        path = found.get(node.name)
        if path is not None and path.is_file():
            content = read_file(path)
            name = f"{_FOLDER}/{hashlib.sha256(content).hexdigest()[:16]}-{path.name}"
            (folder / _FOLDER).mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
            node.attr["value"].tensor.string_val[:] = [name.encode()]


def open_carried(graph: Any, folder: Path) -> None:
    """Gives a graph the places of the files that its artifact carries; the GraphDef is changed in place."""
    for node in graph.node:
        values = node.attr["value"].tensor.string_val if node.op == "Const" else []
        if len(values) == 1 and values[0].startswith(f"{_FOLDER}/".encode()):
            path = folder / PurePath(values[0].decode("utf-8", "surrogateescape"))
            if path.is_file() and path.parent == folder / _FOLDER:
                values[:] = [str(path.absolute()).encode()]
