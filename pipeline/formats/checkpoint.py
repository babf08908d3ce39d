"""The format `checkpoint`: files of a Saver, restored into a session with their own graph; or a SavedModel.

It is the reference of every comparison, so it is read by TensorFlow itself, without the freeze engine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.compat import v1

from pipeline.checkpoint.files import files_of, has_files
from pipeline.checkpoint.savedmodel import read_meta_graphs
from pipeline.checkpoint.values import find_checkpoint
from pipeline.checkpoint.vocabularies import open_carried
from pipeline.errors import CheckpointError, first_line
from pipeline.signature import Signature, read_origin
from pipeline.store.file_names import CHECKPOINT_PREFIX, SAVED_MODEL_FOLDER, SIGNATURE_FILE

from .origin import pinned_feeds, with_idle_feeds
from .runner import Runner
from .savedmodel import open_saved_model
from .session import SessionRunner, session_config
from .waiting import Cuts, cut, find_cuts

AVERAGE = "/ExponentialMovingAverage"  # suffix of TensorFlow's moving averages


def open_runner(folder: Path, signature: Signature, threads: int, is_unoptimized: bool = False) -> Runner:
    """Opens `model.ckpt`, or `saved_model/`, in an artifact's folder.

    Raises:
        CheckpointError: its files are damaged.
        RunnerError: the graph does not match the signature.
    """
    if (folder / SAVED_MODEL_FOLDER).is_dir():
        origin = read_origin(folder / SIGNATURE_FILE)
        if origin.get("averages"):
            return _open_with_averages(folder, signature, session_config(threads, is_unoptimized))
        key, pins = origin.get("signature"), origin.get("pins", {})
        return open_saved_model(folder / SAVED_MODEL_FOLDER, key, signature, threads, is_unoptimized, pins=pins)
    prefix = folder / CHECKPOINT_PREFIX
    if has_files(prefix):  # a graph without variables has none
        find_checkpoint(prefix).verify()
    session, constants = open_session(folder, signature, session_config(threads, is_unoptimized))
    return SessionRunner(session, signature, constants)


def _open_with_averages(folder: Path, signature: Signature, config: v1.ConfigProto) -> Runner:
    """Opens a SavedModel of TensorFlow 1 in a session, where the averages of its variables can be restored."""
    place = folder / SAVED_MODEL_FOLDER
    session = v1.Session(graph=tf.Graph(), config=config)
    with session.graph.as_default(), checkpoint_errors(place):
        v1.saved_model.load(session, list(read_meta_graphs(place)[1][0].rest.meta_info_def.tags), str(place))
        _restore_variables(
            session, f"{place}/variables/variables", _restored_from(session.graph.get_operations()), AVERAGE
        )
    pins = read_pins(session.graph, folder)
    return SessionRunner(session, signature, with_idle_feeds(session.graph, signature, pins))


def open_session(folder: Path, signature: Signature, config: v1.ConfigProto) -> tuple[v1.Session, dict[str, Any]]:
    """Restores `model.ckpt` into a session with its own graph.

    Where its outputs would wait for a queue's rows that no branch which is taken observes, the graph is cut there.

    Returns:
        The session, and the values to feed with every batch, by tensor.

    Raises:
        CheckpointError: its files are damaged.
        RunnerError: the graph lacks a pinned placeholder.
    """
    session, prefix = v1.Session(graph=tf.Graph(), config=config), folder / CHECKPOINT_PREFIX
    with session.graph.as_default(), checkpoint_errors(prefix):
        restore(session, prefix)
    pins = read_pins(session.graph, folder)
    outputs, inputs = ([spec.tensor_name for spec in side] for side in (signature.outputs, signature.inputs))
    with suppress(KeyError, ValueError):  # the runner says which tensor the graph lacks
        cuts = find_cuts(session, outputs, inputs, pins)
        if cuts.values or cuts.orders:
            session.close()
            session = v1.Session(graph=tf.Graph(), config=config)
            with session.graph.as_default(), checkpoint_errors(prefix):
                restore(session, prefix, cuts)
            pins |= cuts.feeds
    return session, with_idle_feeds(session.graph, signature, pins)


def restore(session: v1.Session, prefix: Path, cuts: Cuts | None = None) -> None:
    """Restores with the restore ops of the Saver; of a graph without its Saver's definition, variable by variable."""
    path = Path(f"{prefix}.meta")
    try:
        meta = v1.MetaGraphDef.FromString(path.read_bytes())
    except DecodeError as exc:
        raise CheckpointError("not a graph of a Saver, or a damaged one", where=path, got=exc) from exc
    origin = read_origin(prefix.with_name(SIGNATURE_FILE))
    for node in meta.graph_def.node:
        node.device = ""
        node.attr.pop("_output_shapes", None)  # TensorFlow refuses shapes of an older version that disagree
        _open_batches(node)
    _resize(meta.graph_def, origin.get("resized", {}))
    cut(meta.graph_def, cuts or Cuts())
    open_carried(meta.graph_def, prefix.parent)
    tf.import_graph_def(meta.graph_def, name="")
    feed = {meta.saver_def.filename_tensor_name: _place_of(prefix)} if meta.saver_def.restore_op_name else {}
    order = [session.graph.get_operation_by_name(node.name) for node in meta.graph_def.node]
    if feed:
        session.run(meta.saver_def.restore_op_name, feed)
    elif has_files(prefix):
        _restore_variables(session, _place_of(prefix), _restored_from(order))
    if origin.get("averages"):
        _restore_variables(session, _place_of(prefix), _restored_from(order), AVERAGE)
    fills = ("InitializeTable", "LookupTableImport")  # lookup tables, some of them from the checkpoint
    fillers = [each for each in session.graph.get_operations() if each.type.startswith(fills)]
    for each in fillers:
        if each.inputs[1].op.type in ("RestoreV2", "RestoreSlice"):  # of this Saver, or of another one
            feed[each.inputs[1].op.inputs[0]] = _place_of(prefix)
    session.run([each for each in fillers if _can_fill(each)], feed)


def _can_fill(filler: tf.Operation) -> bool:
    """Returns False if the file of a table is missing: freezing has refused the graph if an output needs it."""
    path = tf.get_static_value(filler.inputs[1]) if "TextFile" in filler.type else None
    return path is None or Path(path.item().decode("utf-8", "surrogateescape")).is_file()


def _resize(graph: Any, resized: Mapping[str, str]) -> None:
    """Takes the shapes of dropouts from the rows: of a queue's, which are always as many, the graph has constants."""
    nodes = {node.name: node for node in graph.node}
    for name, rows in resized.items():
        kind, source = nodes[name].attr["dtype"].type, nodes[rows.split(":")[0]]
        nodes[name].CopyFrom(v1.NodeDef(name=name, op="Shape", input=[rows.removesuffix(":0")]))
        nodes[name].attr["T"].type = source.attr["T"].type
        nodes[name].attr["out_type"].type = kind


def _open_batches(node: Any) -> None:
    """Lets what an iterator gives be fed in batches of any size."""
    if node.op.startswith("IteratorGetNext"):
        for shape in node.attr["output_shapes"].list.shape:
            if shape.dim:
                shape.dim[0].size = -1


def _place_of(prefix: Path) -> str:
    """Returns what TensorFlow restores: the prefix, or of shards in the V1 format the pattern of their names."""
    files = files_of(prefix)
    shards = [found[1] for path in files if (found := re.search(r"-\d{5}(-of-\d{5})$", path.name))]
    is_old = bool(shards) and len(shards) == len(files)  # in the V2 format there is an index too
    return f"{prefix}-?????{shards[0]}" if is_old else str(prefix)


def _restore_variables(
    session: v1.Session, place: str, sources: Mapping[str, tuple[str, str]], suffix: str = ""
) -> None:
    """Restores each variable from where the graph's own restore ops read it, else by its name.

    A variable that the checkpoint lacks stays without a value, as the counters of a metric: freezing has refused the
    graph if an output needs it.

    Args:
        sources: key and slice by variable, see `_restored_from`.
        suffix: what follows the key, as in that of an average.
    """
    reader = tf.train.load_checkpoint(place)
    for name, (value, assign) in assigns(session.graph).items():
        shared = session.graph.get_operation_by_name(name).get_attr("shared_name").decode()
        key, part = sources.get(name, (shared or name, ""))
        key += suffix
        if reader.has_tensor(key):
            dtype = value.dtype.base_dtype
            restored = tf.raw_ops.RestoreV2(prefix=place, tensor_names=[key], shape_and_slices=[part], dtypes=[dtype])
            session.run(assign, {value: session.run(restored)[0]})


def _restored_from(operations: Iterable[tf.Operation]) -> dict[str, tuple[str, str]]:
    """Returns for each variable that a RestoreV2 fills its key, and the slice of a partitioned one, by its name.

    Args:
        operations: in the order of the graph's file; the last that fills a variable counts, as for freezing.
    """
    found = {}
    for operation in operations:
        if operation.type not in ("Assign", "AssignVariableOp"):
            continue
        target, value = operation.inputs[0], operation.inputs[1]
        while value.op.type in ("Identity", "Reshape"):
            value = value.op.inputs[0]
        if value.op.type == "RestoreV2":
            keys, parts = (tf.get_static_value(tensor) for tensor in value.op.inputs[1:3])
            if keys is not None and parts is not None:
                at = value.value_index
                found[target.op.name] = keys[at].decode(), parts[at].decode()
    return found


def assigns(graph: tf.Graph) -> dict[str, tuple[Any, Any]]:
    """Returns for each variable a placeholder, and the op that assigns its value."""
    found = {}
    variables = ("VarHandleOp", "VariableV2", "Variable")
    for operation in [each for each in graph.get_operations() if each.type in variables]:
        value, target = v1.placeholder(tf.as_dtype(operation.get_attr("dtype"))), operation.outputs[0]
        if operation.type == "VarHandleOp":
            found[operation.name] = value, tf.raw_ops.AssignVariableOp(resource=target, value=value)
        else:
            found[operation.name] = value, tf.raw_ops.Assign(ref=target, value=value, validate_shape=False).op
    return found


def read_pins(graph: tf.Graph, folder: Path) -> dict[str, Any]:
    """Reads the values to feed for pinned placeholders (constants in the .pb), by tensor.

    Args:
        folder: an artifact with the pins in its `signature.json`.
    """
    return pinned_feeds(graph, read_origin(folder / SIGNATURE_FILE).get("pins", {}))


@contextmanager
def checkpoint_errors(where: object) -> Iterator[None]:
    """Converts TensorFlow's errors about a checkpoint's files to CheckpointError."""
    try:
        yield
    except (tf.errors.OpError, OSError, RuntimeError, ValueError, IndexError) as exc:  # IndexError: data is cut off
        what, next_step = _cause_of(exc)
        raise CheckpointError(what, where=where, got=first_line(exc), next_step=next_step) from exc


def _cause_of(exc: Exception) -> tuple[str, str]:
    """Returns what TensorFlow's error says of a checkpoint, and the next step."""
    if isinstance(exc, tf.errors.NotFoundError):
        return "the checkpoint lacks what its graph restores", "Give the graph that was saved with it: --graph-file"
    if isinstance(exc, tf.errors.DataLossError | tf.errors.OutOfRangeError | IndexError):
        step = "Compare its files with the original (sha256sum): copy what differs, or else take an older one"
        return "the checkpoint is damaged", step
    if isinstance(exc, OSError):
        return "the checkpoint cannot be read", "Make its files readable (chmod u+r)"
    return (
        "TensorFlow cannot restore the checkpoint into its graph",
        "Give the graph that was saved with it: --graph-file",
    )
