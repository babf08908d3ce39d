"""Finds dangers in a third-party graph: every op in its nodes and functions, and the ops that loading runs.

Two kinds of ops that touch files are in many honest models. Ops left by training (savers, readers of its files) are
allowed as long as nothing runs them: no output, no initializer; restoring may only read the checkpoint being restored.
And a lookup table may be filled from a file that came with the model. Neither is run in the graphs of a SavedModel that
no loader takes, because they have other tags; whatever else acts is refused there too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from pipeline.graph.graph import Graph
from pipeline.graph.meta_graph import MetaGraph
from pipeline.graph.nodes import node_of, normalize_tensor
from pipeline.graph.protos import AssetFileDef, DecodeError, FunctionDef, MetaGraphDef, NodeDef
from pipeline.graph.variables import strings_of

from . import Danger, dangers, harm_of, is_idle, printable, safe_ops
from .at_load import functions_at_load
from .reach import Calls, Reached

# What a loader runs: the collections and the signature of TensorFlow's loaders (saved_model/constants.py).
_AT_START = ("saved_model_main_op", "legacy_init_op", "table_initializer")
_INIT_OP = "__saved_model_init_op"
_ASSETS = "saved_model_assets"
_FILLS_TABLES = ("InitializeTable", "LookupTableImport")
_FROM_FILE = frozenset({"InitializeTableFromTextFile", "InitializeTableFromTextFileV2"})
_RESTORES = frozenset({"Restore", "RestoreSlice", "RestoreV2"})


def find_dangers_of_all(metas: Sequence[MetaGraph], home: Path | None) -> list[Danger]:
    """Finds the dangers of all graphs of a file.

    Args:
        metas: the one that is taken first. A loader takes the graph whose set of tags is the one asked for.
        home: as for `find_dangers`.
    """
    tags = [set(meta.rest.meta_info_def.tags) for meta in metas]
    return [
        danger
        for meta, own in zip(metas, tags, strict=True)
        for danger in find_dangers(meta, home, is_loaded=own == tags[0])
    ]


def find_dangers(meta: MetaGraph, home: Path | None, with_files: bool = False, is_loaded: bool = True) -> list[Danger]:
    """Finds everything that a graph could do besides computing, in any node or function, or when it is loaded.

    Args:
        home: the model's folder, whose files may fill its tables; None if there is none.
        with_files: allow ops that map the files of the format mmap; opening the folder checks these.
        is_loaded: a loader may take this graph, not another one of its file.

    Returns:
        The dangers in graph order; empty for a graph that only computes.
    """
    calls = Calls(meta.graph)
    harmless = safe_ops() | meta.graph.functions.keys() - dangers().keys()
    found, idle = list[Danger](), list[Placed]()
    for function, node in meta.graph.placed_nodes():
        op = node.op
        if op in harmless or (with_files and op == "ImmutableConst"):
            continue
        if is_idle(op) or (op in _FROM_FILE and not is_loaded):
            idle.append((node, function))
            continue
        harm = _harm_of_file(node, function, meta, calls, home) if op in _FROM_FILE else harm_of(op)
        if harm is not None:
            found.append(Danger(op, node.name, harm, function))
    return [*found, *(_acting_at_start(meta, calls, idle) if idle and is_loaded else ())]


def find_active_ops(graph: Graph, outputs: Iterable[str], fed: Iterable[str] = ()) -> list[Danger]:
    """Finds ops left by training that computing outputs would run.

    Args:
        outputs: tensors or nodes.
        fed: tensors whose values are fed.
    """
    idle = [(node, function) for function, node in graph.placed_nodes() if is_idle(node.op)]
    if not idle:
        return []
    calls = Calls(graph)
    return [_danger(*one) for one in _run(idle, calls.reach(outputs, fed=set(map(normalize_tensor, fed))))]


Placed: TypeAlias = tuple[NodeDef, str]  # a node, and the function that contains it


def _run(idle: Iterable[Placed], reached: Reached) -> Iterator[Placed]:
    """Yields the idle nodes that are run."""
    nodes, functions = reached
    for node, function in idle:
        if function in functions if function else node.name in nodes:
            yield node, function


def fills_table(node: NodeDef) -> bool:
    """Returns True if a node fills a table, which is done when a checkpoint is restored."""
    return str(node.op).startswith(_FILLS_TABLES)


def _danger(node: NodeDef, function: str) -> Danger:
    return Danger(node.op, node.name, harm_of(node.op) or "", function)


def _acting_at_start(meta: MetaGraph, calls: Calls, idle: Sequence[Placed]) -> Iterator[Danger]:
    """Yields idle ops that loading or restoring would run."""
    message = meta.rest
    held = [message.collection_def[key] for key in _AT_START if key in message.collection_def]  # asking makes an entry
    starts = [name for collection in held for name in collection.node_list.value]
    if _INIT_OP in message.signature_def:
        starts += [info.name for info in message.signature_def[_INIT_OP].outputs.values()]
    at_start = calls.reach(starts, functions_at_load(message.object_graph_def))
    yield from (_danger(*one) for one in _run(idle, at_start))
    saver = message.saver_def
    filename = normalize_tensor(saver.filename_tensor_name) if saver.filename_tensor_name else ""
    # Tables are filled when the checkpoint is restored; some are stored in it.
    restores = [node.name for node in meta.graph.node if fills_table(node)]
    restoring = calls.reach([*restores, saver.restore_op_name], fed={filename})
    for node, function in _run(idle, restoring):
        if node.op not in _RESTORES or not _reads_only(calls, function, node, filename):
            yield _danger(node, function)


def _reads_only(calls: Calls, function: str, node: NodeDef, filename: str) -> bool:
    """Returns True if a restoring op reads only the checkpoint that it is given."""
    origins = list(calls.origins(function, node.input[0])) if node.input else []
    outside = [(scope, one, name) for scope, one, name in origins if one is not None]
    return bool(outside) and all(not scope and normalize_tensor(name) == filename for scope, _, name in outside)


# Tables from files.


def _harm_of_file(node: NodeDef, function: str, meta: MetaGraph, calls: Calls, home: Path | None) -> str | None:
    """Returns the harm of filling a table from a file; None if the file came with the model."""
    assets = set(_assets(meta.rest))
    filled = _filled_from(meta.graph, assets)
    for scope, one, name in calls.origins(function, node.input[1] if len(node.input) > 1 else ""):
        if one is None:
            if not scope or not _are_assets(meta.rest, meta.graph.functions[scope], scope, name, calls):
                return "read files"
        elif not scope and (
            normalize_tensor(name) in assets or (one.op == "ReadVariableOp" and node_of(one.input[0]) in filled)
        ):
            continue
        else:
            paths = strings_of(one) or []
            outside = [path for path in paths if not _is_at(path, home)]
            if outside or not paths:
                return f"read the file {printable(outside[0])}" if outside else "read files"
    return None


def _is_at(path: str, home: Path | None) -> bool:
    """Returns True if a file is in the model's folder or its assets, and not hidden."""
    if home is None or "\0" in path:
        return False
    place = Path(path).resolve()
    return place.parent in (home.resolve(), home.resolve() / "assets") and not place.name.startswith(".")


def _assets(meta: MetaGraphDef) -> Iterator[str]:
    """Yields the tensors that receive paths of the SavedModel's own files, which opening it checks."""
    listed = list(meta.asset_file_def)
    if not listed and _ASSETS in meta.collection_def:  # a loader looks at the one or the other
        try:
            listed = [AssetFileDef.FromString(item.value) for item in meta.collection_def[_ASSETS].any_list.value]
        except DecodeError:
            return
    yield from (normalize_tensor(asset.tensor_info.name) for asset in listed)


def _filled_from(graph: Graph, assets: Collection[str]) -> set[str]:
    """Returns the variables that only ever hold the path of an asset."""
    given: dict[str, bool] = {}
    for node in graph.node:
        if node.op == "AssignVariableOp" and len(node.input) > 1:
            name = node_of(node.input[0])
            given[name] = given.get(name, True) and normalize_tensor(node.input[1]) in assets
    return {name for name, is_asset in given.items() if is_asset}


def _are_assets(meta: MetaGraphDef, function: FunctionDef, name: str, argument: str, calls: Calls) -> bool:
    """Returns True if a function's argument has captured an asset, or is passed by a call, which is checked there."""
    concrete = meta.object_graph_def.concrete_functions
    if name not in concrete:
        return True
    bound = list(concrete[name].bound_inputs)
    names = [one.name for one in function.signature.input_arg]
    at = names.index(argument) - (len(names) - len(bound)) if argument in names else -1
    if at < 0:
        return name in calls.call_sites
    objects = meta.object_graph_def.nodes
    return 0 <= bound[at] < len(objects) and bool(objects[bound[at]].HasField("asset"))
