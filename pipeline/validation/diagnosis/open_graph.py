"""Opens a candidate's graph so that every tensor in it can be fetched: node by node, TensorFlow's optimizer off."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.compat import v1

from pipeline.errors import RunnerError
from pipeline.formats.frozen import import_frozen
from pipeline.formats.mmap import read_graph
from pipeline.formats.session import session_config
from pipeline.store.files import FROZEN_FILE, GRAPH_FILE, SAVED_MODEL_FILE


def open_graph(folder: Path, threads: int) -> v1.Session:
    """Opens `model.pb`, `graph.pb` with its weight files, or `saved_model.pb`.

    Raises:
        RunnerError: none of them exists, or its import failed.
    """
    session = v1.Session(graph=tf.Graph(), config=session_config(threads, is_unoptimized=True))
    try:
        if (folder / GRAPH_FILE).is_file():
            with session.graph.as_default():
                tf.import_graph_def(read_graph(folder), name="")
        elif (folder / SAVED_MODEL_FILE).is_file():
            v1.saved_model.load(session, ["serve"], str(folder))
        else:
            import_frozen(session, folder / FROZEN_FILE)
    except (OSError, DecodeError, ValueError, KeyError, RuntimeError, tf.errors.OpError) as exc:
        got = str(exc).split("\n", 1)[0][:300]
        raise RunnerError("a graph whose tensors cannot be fetched", where=folder, got=got) from exc
    return session
