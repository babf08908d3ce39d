"""The format `mmap`: `graph.pb` and weight files, which are memory-mapped and never copied."""

from __future__ import annotations

import math
import stat
from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.compat import v1

from pipeline.errors import RunnerError, first_line
from pipeline.graph.graph import Graph
from pipeline.signature import Signature
from pipeline.store.file_names import GRAPH_FILE

from .origin import constant_feeds, fill_tables
from .session import SessionRunner, session_config


def open_runner(folder: Path, signature: Signature, threads: int, is_unoptimized: bool = False) -> SessionRunner:
    """Opens an artifact's folder.

    Raises:
        RunnerError: see `load_mmap`; or the graph does not match the signature.
    """
    session = _open_session(folder, mapping_config(threads, is_unoptimized))
    fill_tables(session, folder)
    return SessionRunner(session, signature, constant_feeds(session, folder))


def load_mmap(folder: Path | str, threads: int = 0) -> tf.compat.v1.Session:
    """Opens a folder of the format mmap. Do not move or change the folder while the session is in use.

    Args:
        threads: number of threads of the session; 0 for TensorFlow's default.

    Returns:
        A session that needs no initialization.

    Raises:
        RunnerError: the folder or the graph is missing; or a weight file is missing, has another size than the graph
            says, or lies outside of the folder.
    """
    return _open_session(Path(folder), mapping_config(threads))


def _open_session(folder: Path, config: v1.ConfigProto) -> v1.Session:
    session, path = v1.Session(graph=tf.Graph(), config=config), folder / GRAPH_FILE
    try:
        with session.graph.as_default():
            tf.import_graph_def(read_graph(folder), name="")
    except (ValueError, tf.errors.OpError) as exc:
        raise _graph_error(path, exc) from exc
    return session


def read_graph(folder: Path) -> v1.GraphDef:
    """Reads the graph of a folder, checks its weight files and makes their paths absolute.

    Raises:
        RunnerError: see `load_mmap`.
    """
    path = folder / GRAPH_FILE
    try:
        graph = v1.GraphDef.FromString(path.read_bytes())
    except (OSError, DecodeError) as exc:
        raise _graph_error(path, exc) from exc
    _make_paths_absolute(graph, folder.absolute())
    return graph


def _graph_error(path: Path, cause: Exception) -> RunnerError:
    return RunnerError(
        "not a graph with mapped weights",
        where=path,
        got=first_line(cause),
        wanted=f"{GRAPH_FILE} and weights/ in one folder, as freezing with --format mmap makes it",
    )


def mapping_config(threads: int, is_unoptimized: bool = False) -> v1.ConfigProto:
    """Configures a session that does not copy mapped weights.

    At the default level L1 the runtime computes everything that depends on no input once and keeps it. For an
    ImmutableConst this is a copy of the weights. Grappler folds only `Const`, so it may stay on.
    """
    config = session_config(threads, is_unoptimized)
    config.graph_options.optimizer_options.opt_level = v1.OptimizerOptions.L0
    return config


def _make_paths_absolute(graph: v1.GraphDef, folder: Path) -> None:
    """Makes the paths in a graph absolute, because TensorFlow resolves them against the working directory."""
    for node in (node for node in Graph.of(graph).all_nodes() if node.op == "ImmutableConst"):
        path = folder / node.attr["memory_region_name"].s.decode("utf-8", "surrogateescape")
        if not path.resolve().is_relative_to(folder.resolve()):
            raise RunnerError("a file of weights lies outside of the folder", where=path, got=f"node {node.name}")
        _check_size(path, node)
        node.attr["memory_region_name"].s = str(path).encode("utf-8", "surrogateescape")


def _check_size(path: Path, node: v1.NodeDef) -> None:
    # A mapped file that is too short would kill the process (SIGBUS) instead of raising an error.
    wanted = math.prod(dim.size for dim in node.attr["shape"].shape.dim) * tf.as_dtype(node.attr["dtype"].type).size
    try:
        status = path.stat()
    except OSError as exc:
        raise RunnerError(
            "a file of weights is missing",
            where=path,
            got=exc.strerror,
            next_step=f"Copy {path.name} beside the others; or make all of it again: --format mmap",
        ) from exc
    if not stat.S_ISREG(status.st_mode):
        raise RunnerError(
            "weights are in no file", where=path, next_step="Put the file itself there, no folder or pipe"
        )
    size = status.st_size
    if size != wanted:
        raise RunnerError(
            "a file of weights is not as large as its variable",
            where=path,
            got=f"{size} bytes",
            wanted=f"{wanted} bytes of {node.name}",
            next_step=f"It is not the file of this graph: copy {path.name} and the graph from one folder",
        )
