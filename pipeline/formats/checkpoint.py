"""The format `checkpoint`: what a Saver wrote, restored into a session by its own `.meta`."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from ..checkpoint import checkpoint_errors, find_checkpoint
from ..signature import Signature
from .session import SessionRunner, session_config

v1 = tf.compat.v1


def open_runner(folder: Path, signature: Signature, threads: int) -> SessionRunner:
    """Opens `model.ckpt` in an artifact's folder.

    Raises:
        CheckpointError: its files are damaged.
        RunnerError: the graph is not the signature's.
    """
    prefix = folder / "model.ckpt"
    find_checkpoint(prefix).verify()
    session = v1.Session(graph=tf.Graph(), config=session_config(threads))
    with session.graph.as_default(), checkpoint_errors(prefix):
        v1.train.import_meta_graph(f"{prefix}.meta", clear_devices=True).restore(session, str(prefix))
    return SessionRunner(session, signature)
