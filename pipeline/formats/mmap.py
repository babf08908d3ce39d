"""The format `mmap`: `graph.pb` and the files of weights that it names, which are mapped and never copied."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError

from ..errors import RunnerError
from ..signature import Signature
from .session import SessionRunner, session_config

v1 = tf.compat.v1

_GRAPH_FILE = "graph.pb"


def open_runner(folder: Path, signature: Signature, threads: int) -> SessionRunner:
    """Opens an artifact's folder.

    Raises:
        RunnerError: as `load_mmap`; or the graph is not the signature's.
    """
    return SessionRunner(load_mmap(folder, threads), signature)


def load_mmap(folder: Path | str, threads: int = 0) -> tf.compat.v1.Session:
    """Opens a folder that `write_mmap` has written. The folder must stay where it is as long as the session is used.

    Args:
        threads: how many compute at the same time; 0 leaves it to TensorFlow.

    Returns:
        A session that needs no initialization.

    Raises:
        RunnerError: there is no such folder or graph; a file of weights is missing, is of another size than the graph
            says, or lies outside of the folder.
    """
    folder = Path(folder)
    session = v1.Session(graph=tf.Graph(), config=mapping_config(threads))
    try:
        graph = v1.GraphDef.FromString((folder / _GRAPH_FILE).read_bytes())
        _point_to_files(graph, folder.absolute())
        with session.graph.as_default():
            tf.import_graph_def(graph, name="")
    except (OSError, DecodeError, ValueError, tf.errors.OpError) as exc:
        raise RunnerError(
            "not a graph with mapped weights",
            where=folder / _GRAPH_FILE,
            got=str(exc).split("\n", 1)[0][:300],
            wanted=f"a folder with {_GRAPH_FILE} and weights/, as freezing with --format mmap makes it",
        ) from exc
    return session


def mapping_config(threads: int) -> tf.compat.v1.ConfigProto:
    """A session that leaves mapped weights where they are.

    At its usual level L1 the runtime computes whatever hangs on no input once and keeps it, an ImmutableConst
    included: a copy of every weight. Grappler's folding knows `Const` alone, and may stay on.
    """
    config = session_config(threads)
    config.graph_options.optimizer_options.opt_level = v1.OptimizerOptions.L0
    return config


def _point_to_files(graph: tf.compat.v1.GraphDef, folder: Path) -> None:
    """Makes the paths in a graph absolute, for TensorFlow takes them from the working folder.

    Raises:
        RunnerError: a file is not there, or not as large as its constant.
    """
    for node in _mapped_nodes(graph):
        path = folder / node.attr["memory_region_name"].s.decode("utf-8", "surrogateescape")
        if not path.resolve().is_relative_to(folder.resolve()):
            raise RunnerError("a file of weights lies outside of the folder", where=path, got=f"node {node.name}")
        _check_size(path, node)
        node.attr["memory_region_name"].s = str(path).encode("utf-8", "surrogateescape")


def _check_size(path: Path, node: tf.compat.v1.NodeDef) -> None:
    # A file that is too short and mapped would end the process (SIGBUS) instead of failing.
    wanted = math.prod(dim.size for dim in node.attr["shape"].shape.dim) * tf.as_dtype(node.attr["dtype"].type).size
    try:
        size = path.stat().st_size
    except OSError as exc:
        raise RunnerError(
            "a file of weights is missing", where=path, got=exc.strerror, next_step="Copy the whole folder"
        ) from exc
    if size != wanted:
        raise RunnerError(
            "a file of weights is not as large as its variable",
            where=path,
            got=f"{size} bytes",
            wanted=f"{wanted} bytes of {node.name}",
            next_step="Copy the whole folder, or freeze the checkpoint again",
        )


def _mapped_nodes(graph: tf.compat.v1.GraphDef) -> Iterator[tf.compat.v1.NodeDef]:
    for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
        yield from (node for node in nodes if node.op == "ImmutableConst")
