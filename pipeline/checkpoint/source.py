"""Opens any source of a graph: a Saver's checkpoint, a SavedModel, or a GraphDef with or without a checkpoint.

    checkpoint   PREFIX.index, PREFIX.data-…      its graph is PREFIX.meta, that of its series, or a GraphDef
    SavedModel   saved_model.pb or .pbtxt         in a folder with variables/ and assets/
    GraphDef     NAME.pb or NAME.pbtxt            as tf.io.write_graph and freezing write it

The messages are those of tensorflow/core/framework/graph.proto and tensorflow/core/protobuf/meta_graph.proto; either
may be written as text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from shlex import quote
from typing import Any

from pipeline.errors import CheckpointError
from pipeline.graph.meta_graph import MetaGraph, parse_graph, parse_meta_graph
from pipeline.graph.protos import DecodeError, GraphDef, MetaGraphDef, SavedModel, parse_text
from pipeline.graph.validity import validate_graph
from pipeline.graph.variables import VARIABLE_OPS, restored_keys
from pipeline.inputs import read_file
from pipeline.signature import read_origin
from pipeline.store.file_names import CHECKPOINT_PREFIX, SAVED_MODEL_FILES, SAVED_MODEL_FOLDER, SIGNATURE_FILE

from .averages import take_averages
from .bundle import Bundle, open_checkpoint
from .file_kinds import broken_file
from .files import complete_prefixes, find_prefix, folder_of, has_files, name_of, stem_of, step_of
from .objects import holds_objects, listed, stored_shapes
from .opened import Source
from .served import served_class
from .tables import fill_from_checkpoint
from .vocabularies import find_vocabularies

_TABLE_END = bytes.fromhex("57fb808b247547db")  # of a checkpoint's index


def open_source(
    place: Path | str,
    graph: Path | None = None,
    signature_key: str | None = None,
    outputs: Sequence[str] = (),
    is_key_needed: bool = True,
    tags: Sequence[str] = (),
) -> Source:
    """Opens a prefix, one of its files, a series, a folder, a SavedModel or a GraphDef.

    Of a folder with numbered versions, as TensorFlow Serving reads it, the newest is opened.

    Args:
        graph: the file of the graph, if it is not next to the checkpoint: a `.meta`, `.pb` or `.pbtxt`.
        signature_key: the name of one signature of a SavedModel with several; or of a function, if it has none.
        outputs: tensors that are needed, if they are named.
        is_key_needed: raise an error if the signature is ambiguous and no outputs are named.
        tags: those of the graph to take, of a SavedModel with several; empty for the one to serve.

    Raises:
        CheckpointError: the source is missing, damaged, of another kind, or has no graph.
        FreezeError: the signature does not exist in the SavedModel, or is ambiguous.
    """
    path = Path(place)
    folder = path.parent if path.name in SAVED_MODEL_FILES else path
    versions = versions_in(folder) if graph is None else []
    if graph is None and (versions or _is_saved_model(folder)):
        from .savedmodel import read_saved_model  # a Saver's checkpoint does without

        newest = versions[-1] if versions else folder
        source = read_saved_model(newest, signature_key, outputs, is_key_needed, tags)
        return replace(source, notes=(*_chosen(versions), *source.notes))
    is_graph = path.suffix in (".pb", ".pbtxt") and path.is_file()
    prefix = str(place) if is_graph else find_prefix(place)
    if tags:
        raise CheckpointError(
            "only a SavedModel has graphs with tags", where=path, got=",".join(tags), next_step="Leave --tags out"
        )
    if is_graph:
        return _of_graph_file(path)
    bundle = open_checkpoint(prefix)  # first, because its errors name the kind of a foreign file
    if graph is None and holds_objects(bundle) and not any(folder_of(prefix).glob("*.meta")):
        raise _without_graph(bundle)
    return _of_checkpoint(prefix, bundle, graph or _graph_beside(prefix))


def versions_in(folder: Path) -> list[Path]:
    """Returns the SavedModels of a folder that TensorFlow Serving reads: folders whose names are numbers, in order."""
    if not folder.is_dir() or _is_saved_model(folder) or any(folder.glob("*.index")):
        return []
    numbered = [path for path in folder.iterdir() if path.name.isdecimal() and _is_saved_model(path)]
    return sorted(numbered, key=lambda path: int(path.name))


def _is_saved_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in SAVED_MODEL_FILES)


def _chosen(versions: Sequence[Path]) -> list[str]:
    names = ", ".join(path.name for path in versions)
    if len(versions) < 2:
        return [f"version {names} is taken"] if versions else []
    return [f"version {versions[-1].name} is taken, the newest of {names}; another is given by its path: {versions[0]}"]


def open_artifact(checkpoint: Path, signature: str | None) -> Source:
    """Opens the checkpoint of an artifact, with the averages of its variables if they were asked for.

    Args:
        signature: of a SavedModel, the signature's name.
    """
    saved_model, prefix = checkpoint / SAVED_MODEL_FOLDER, checkpoint / CHECKPOINT_PREFIX
    if not saved_model.is_dir() and not has_files(prefix):  # the graph has no variables
        return _of_graph_file(Path(f"{prefix}.meta"))
    source = open_source(saved_model if saved_model.is_dir() else prefix, None, signature)
    return take_averages(source) if read_origin(checkpoint / SIGNATURE_FILE).get("averages") else source


def _of_checkpoint(prefix: Path | str, bundle: Bundle, file: Path) -> Source:
    home = folder_of(prefix)
    meta = find_vocabularies(read_graph(file), (home, file.parent, home.parent))
    keys = restored_keys(meta.graph, meta.rest.saver_def.restore_op_name or None)
    definitions = {op.name: op for op in meta.rest.meta_info_def.stripped_op_list.op}
    graph = fill_from_checkpoint(meta.graph)
    return Source(prefix, "checkpoint", graph, file, bundle, keys, definitions=definitions, metas=(meta,))


def _without_graph(bundle: Bundle) -> CheckpointError:
    home = folder_of(bundle.prefix).parent
    return CheckpointError(
        "a checkpoint of TensorFlow 2's objects, which holds no graph",
        where=bundle.prefix,
        got=listed(stored_shapes(bundle)),
        wanted="the code of the model",
        next_step=f"It is a SavedModel's: give {quote(str(home))}"
        if _is_saved_model(home)
        else "Write its class in a file, with build or forward (docs/own_model.md), and give both: luigi --module "
        f"pipeline WriteReport --model FILE.py:CLASS --checkpoint {quote(str(bundle.prefix))}\n"
        "For a Keras model these lines are enough, with your names, dtypes and shapes:\n"
        + served_class("MyModel()", "from my_code import MyModel", ["x"], ["y"]),
    )


def _of_graph_file(path: Path) -> Source:
    """Opens a GraphDef; if it has variables, with the checkpoint next to it."""
    meta = find_vocabularies(read_graph(path), (path.parent,))
    alone = Source(path, "GraphDef", meta.graph, path, Bundle(path, {}), metas=(meta,))
    if not alone.has_variables:
        return alone
    beside = path.with_suffix("")
    found = list(complete_prefixes(path.parent))
    prefix = str(beside) if str(beside) in found else find_prefix(path.parent) if found else None
    if prefix is None:
        raise CheckpointError(
            "this graph has variables, and no checkpoint is next to it",
            where=path,
            next_step="Give the checkpoint, and this file as its graph (--graph)",
        )
    return _of_checkpoint(prefix, open_checkpoint(prefix), path)


def read_graph(path: Path) -> MetaGraph:
    """Reads a `.meta` or a GraphDef, binary or text; a GraphDef becomes a MetaGraph without other content.

    Raises:
        CheckpointError: the file is missing, damaged, empty, or of another kind.
    """
    raw, is_meta = _read_bytes(path), path.name.endswith(".meta")
    if _is_text(path, raw):
        meta = MetaGraph.of(_parse_message(path, raw))
    else:
        try:
            meta = parse_meta_graph(raw) if is_meta else MetaGraph(parse_graph(raw), MetaGraphDef())
        except DecodeError as exc:
            raise _damaged(path, exc) from exc
    if not meta.graph.node:
        raise _renamed(path) or _empty(path)
    validate_graph(meta.graph, path)
    return meta


def _empty(path: Path) -> CheckpointError:
    if path.suffix != ".pbtxt" or not path.stat().st_size:
        return broken_file(path, "the graph is empty", got="0 nodes")
    step = "Give the .pbtxt of the graph, which begins with `node {`"
    return CheckpointError("a text that holds no graph", where=path, got="0 nodes", next_step=step)


def read_message(path: Path) -> MetaGraphDef:
    """Reads the same files as one message.

    Raises:
        CheckpointError: the file is missing, damaged, or of another kind.
    """
    return _parse_message(path, _read_bytes(path))


def _parse_message(path: Path, raw: bytes) -> MetaGraphDef:
    meta = MetaGraphDef()
    is_meta = path.name.endswith(".meta")
    graph = meta if is_meta else meta.graph_def
    try:
        graph.ParseFromString(_binary(raw, is_meta) if _is_text(path, raw) else raw)
    except DecodeError as exc:
        raise _damaged(path, exc) from exc
    return meta


@lru_cache(maxsize=2)
def _binary(text: bytes, is_meta: bool) -> bytes:
    """Returns a message that was written as text in its binary form.

    Text takes a second for 2,000 nodes, and a run opens the same graph for each of its stages.
    """
    message = MetaGraphDef() if is_meta else GraphDef()
    parse_text(text, message)
    return bytes(message.SerializeToString())


def _damaged(path: Path, cause: DecodeError) -> CheckpointError:
    kind = "a graph of a Saver" if path.name.endswith(".meta") else "a GraphDef"
    return _renamed(path) or broken_file(path, f"not {kind}, or a damaged one", got=cause)


def _renamed(path: Path) -> CheckpointError | None:
    """Returns the error for a file of TensorFlow's that has the name of another kind; None if it is none."""
    content = read_file(path)
    if content.endswith(_TABLE_END):
        what, step = "the index of a checkpoint", f"Call it {path.stem}.index, beside {path.stem}.data-…"
    elif _has_graph(SavedModel, content):
        what, step = (
            "the graph of a SavedModel",
            f"Call it {SAVED_MODEL_FILES[0]}, in a folder with variables/, and give that",
        )
    elif not path.name.endswith(".meta") and _has_graph(MetaGraphDef, content):
        what, step = (
            "the graph of a Saver",
            f"Call it {path.stem}.meta, and give its checkpoint: --graph {path.stem}.meta",
        )
    else:
        return None
    return CheckpointError(f"{what}, under the name of another kind of file", where=path, next_step=step)


def _has_graph(kind: Any, content: bytes) -> bool:
    try:
        message = kind.FromString(content)
    except DecodeError:
        return False
    graphs = [meta.graph_def for meta in message.meta_graphs] if kind is SavedModel else [message.graph_def]
    return any(node.name and node.op for graph in graphs for node in graph.node)


def _read_bytes(path: Path) -> bytes:
    try:
        return read_file(path)
    except OSError as exc:
        raise CheckpointError("the checkpoint's graph cannot be read", where=path, got=exc.strerror) from exc


def _is_text(path: Path, raw: bytes) -> bool:
    """Returns True if a message is text, such as `node {`; a binary one begins with a tag and a length."""
    return path.suffix == ".pbtxt" or raw.startswith(
        (b"node {", b"meta_info_def {", b"graph_def {", b"versions {", b"library {")
    )


def _graph_beside(prefix: str) -> Path:
    """Finds the graph's file of a checkpoint: PREFIX.meta, else one `.meta` of the series, else the only GraphDef with
    variables."""
    own = Path(f"{prefix}.meta")
    if own.is_file():
        return own
    folder = folder_of(prefix)
    series = [path for path in folder.glob("*.meta") if stem_of(str(path)[: -len(".meta")]) == stem_of(prefix)]
    if series:
        return min(series, key=lambda path: abs(step_of(str(path)[: -len(".meta")]) - step_of(prefix)))
    named = [Path(f"{prefix}.pb"), Path(f"{prefix}.pbtxt")]
    for path in named:
        if path.is_file():
            return path
    found = list(_graphs_with_variables(folder))
    if len(found) == 1:
        return found[0]
    raise CheckpointError(
        "several graphs are next to the checkpoint" if found else "the checkpoint's graph is missing",
        where=own,
        got=", ".join(path.name for path in found) or None,
        wanted=f"{name_of(prefix)}.meta, or one .pb or .pbtxt with the graph's variables",
        next_step="Name the graph's file (--graph), or the model whose code builds it (--model)",
    )


def _graphs_with_variables(folder: Path) -> Iterator[Path]:
    for path in sorted([*folder.glob("*.pb"), *folder.glob("*.pbtxt")]):
        try:
            nodes = read_graph(path).graph.node
        except CheckpointError:
            continue
        if any(node.op in VARIABLE_OPS for node in nodes):
            yield path
