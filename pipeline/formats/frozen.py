"""The format `frozen`: one `model.pb`, a GraphDef whose variables are constants."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.compat import v1

from pipeline.errors import RunnerError, first_line
from pipeline.signature import Signature
from pipeline.store.file_names import FROZEN_FILE

from .origin import constant_feeds, fill_tables
from .session import SessionRunner, session_config


def open_runner(folder: Path, signature: Signature, threads: int, is_unoptimized: bool = False) -> SessionRunner:
    """Opens `model.pb` in an artifact's folder.

    Raises:
        RunnerError: the file is missing, is no GraphDef that can be imported, or does not match the signature.
    """
    session = v1.Session(graph=tf.Graph(), config=session_config(threads, is_unoptimized))
    import_frozen(session, folder / FROZEN_FILE)
    fill_tables(session, folder)
    return SessionRunner(session, signature, constant_feeds(session, folder))


def import_frozen(session: v1.Session, path: Path) -> None:
    """Imports a `.pb` into a session's graph.

    Raises:
        RunnerError: the file is missing or is no GraphDef that can be imported.
    """
    try:
        graph_def = v1.GraphDef.FromString(path.read_bytes())
        with session.graph.as_default():
            tf.import_graph_def(graph_def, name="")
    except (OSError, DecodeError, ValueError, tf.errors.OpError) as exc:
        raise RunnerError("not a frozen graph", where=path, got=first_line(exc)) from exc
