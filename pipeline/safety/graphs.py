"""What a stranger's graph could do: every op in its nodes and in its function library, and what loading it runs.

Two kinds of ops that touch files stand in many honest models. What training leaves behind (savers, readers of its
files) may stand there as long as nothing runs it: no output, no initializer, and of the restoring only the reading of
the checkpoint that is being restored. And a lookup table may be filled from a file that came with the model.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from pipeline.graph.graph import Graph
from pipeline.graph.meta_graph import MetaGraph
from pipeline.graph.nodes import node_of, normalized
from pipeline.graph.protos import AssetFileDef, DecodeError, FunctionDef, MetaGraphDef, NodeDef
from pipeline.graph.variables import strings_of

from . import Danger, dangers, harm_of, is_idle, safe_ops, shown
from .reach import Calls, Reached

# What a loader runs, by the collections and the signature of TensorFlow's loaders (saved_model/constants.py).
_AT_START = ("saved_model_main_op", "legacy_init_op", "table_initializer")
_INIT_OP = "__saved_model_init_op"
_ASSETS = "saved_model_assets"
_FILLS_TABLES = ("InitializeTable", "LookupTableImport")
_FROM_FILE = frozenset({"InitializeTableFromTextFile", "InitializeTableFromTextFileV2"})
_RESTORES = frozenset({"Restore", "RestoreSlice", "RestoreV2"})


def find_dangers(meta: MetaGraph, home: Path | None, with_files: bool = False) -> list[Danger]:
    """What a graph could do besides computing, wherever it stands in it, and at being loaded.

    Args:
        home: the folder that the model came in, whose files may fill its tables; None for none.
        with_files: ops that read files are no danger where they read what the format mmap maps: that is checked
            where the folder is opened.

    Returns:
        In the order of the graph; empty for a graph that only computes.
    """
    calls = Calls(meta.graph)
    harmless = safe_ops() | meta.graph.functions.keys() - dangers().keys()
    found, idle = list[Danger](), list[Placed]()
    for function, node in meta.graph.placed_nodes():
        op = node.op
        if op in harmless or (with_files and op == "ImmutableConst"):
            continue
        if is_idle(op):
            idle.append((node, function))
            continue
        harm = _harm_of_file(node, function, meta, calls, home) if op in _FROM_FILE else harm_of(op)
        if harm is not None:
            found.append(Danger(op, node.name, harm, function))
    return [*found, *(_acting_at_start(meta, calls, idle) if idle else ())]


def find_acting(graph: Graph, outputs: Iterable[str], fed: Iterable[str] = ()) -> list[Danger]:
    """What training left behind in a graph and asking for outputs would run.

    Args:
        outputs: tensors or nodes.
        fed: tensors whose values are given.
    """
    idle = [(node, function) for function, node in graph.placed_nodes() if is_idle(node.op)]
    if not idle:
        return []
    calls = Calls(graph)
    return [_danger(*one) for one in _run(idle, calls.reach(outputs, fed=set(map(normalized, fed))))]


Placed: TypeAlias = tuple[NodeDef, str]  # a node, and the function that it stands in


def _run(idle: Iterable[Placed], reached: Reached) -> Iterator[Placed]:
    """Those that are run."""
    for node, function in idle:
        if function in reached.functions if function else node.name in reached.nodes:
            yield node, function


def _danger(node: NodeDef, function: str) -> Danger:
    return Danger(node.op, node.name, harm_of(node.op) or "", function)


def _acting_at_start(meta: MetaGraph, calls: Calls, idle: Sequence[Placed]) -> Iterator[Danger]:
    """What loading and restoring would run of what may only stand idle."""
    message = meta.rest
    held = [message.collection_def[key] for key in _AT_START if key in message.collection_def]  # asking makes an entry
    starts = [name for collection in held for name in collection.node_list.value]
    if _INIT_OP in message.signature_def:
        starts += [info.name for info in message.signature_def[_INIT_OP].outputs.values()]
    # A SavedModel of TensorFlow 2 makes its objects by functions that no node has to call.
    at_start = calls.reach(starts, message.object_graph_def.concrete_functions)
    yield from (_danger(*one) for one in _run(idle, at_start))
    saver = message.saver_def
    filename = normalized(saver.filename_tensor_name) if saver.filename_tensor_name else ""
    # Tables are filled where the checkpoint is restored; those that it holds itself are filled from it.
    restores = [node.name for node in meta.graph.node if node.op.startswith(_FILLS_TABLES)]
    restoring = calls.reach([*restores, saver.restore_op_name], fed={filename})
    for node, function in _run(idle, restoring):
        if node.op not in _RESTORES or not _reads_only(calls, function, node, filename):
            yield _danger(node, function)


def _reads_only(calls: Calls, function: str, node: NodeDef, filename: str) -> bool:
    """Whether a restoring op reads the checkpoint that it is given, and no other file."""
    origins = list(calls.origins(function, node.input[0])) if node.input else []
    outside = [(scope, one, name) for scope, one, name in origins if one is not None]
    return bool(outside) and all(not scope and normalized(name) == filename for scope, _, name in outside)


# Tables from files.


def _harm_of_file(node: NodeDef, function: str, meta: MetaGraph, calls: Calls, home: Path | None) -> str | None:
    """What filling a table from a file could do; None where the file came with the model."""
    assets = set(_assets(meta.rest))
    filled = _filled_from(meta.graph, assets)
    for scope, one, name in calls.origins(function, node.input[1] if len(node.input) > 1 else ""):
        if one is None:
            if not scope or not _are_assets(meta.rest, meta.graph.functions[scope], scope, name, calls):
                return "read files"
        elif not scope and (
            normalized(name) in assets or (one.op == "ReadVariableOp" and node_of(one.input[0]) in filled)
        ):
            continue
        else:
            paths = strings_of(one) or []
            outside = [path for path in paths if not _is_at(path, home)]
            if outside or not paths:
                return f"read the file {shown(outside[0])}" if outside else "read files"
    return None


def _is_at(path: str, home: Path | None) -> bool:
    """Whether a file lies in the folder that a model came in, or among its assets, and is not a hidden one."""
    if home is None or "\0" in path:
        return False
    place = Path(path).resolve()
    return place.parent in (home.resolve(), home.resolve() / "assets") and not place.name.startswith(".")


def _assets(meta: MetaGraphDef) -> Iterator[str]:
    """The tensors that a SavedModel's loader gives the paths of its own files, which are checked where it is opened."""
    listed = list(meta.asset_file_def)
    if not listed and _ASSETS in meta.collection_def:  # a loader looks at the one or the other
        try:
            listed = [AssetFileDef.FromString(item.value) for item in meta.collection_def[_ASSETS].any_list.value]
        except DecodeError:
            return
    yield from (normalized(asset.tensor_info.name) for asset in listed)


def _filled_from(graph: Graph, assets: Collection[str]) -> set[str]:
    """The variables that hold the path of an asset, and are given nothing else."""
    given: dict[str, bool] = {}
    for node in graph.node:
        if node.op == "AssignVariableOp" and len(node.input) > 1:
            name = node_of(node.input[0])
            given[name] = given.get(name, True) and normalized(node.input[1]) in assets
    return {name for name, is_asset in given.items() if is_asset}


def _are_assets(meta: MetaGraphDef, function: FunctionDef, name: str, argument: str, calls: Calls) -> bool:
    """Whether what a function's argument has captured is an asset; an argument that a call gives is looked at there."""
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
