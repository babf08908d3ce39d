"""What runs in the process of an `ApartRunner`: opens the artifact, then answers batch after batch."""

from __future__ import annotations

import importlib
from multiprocessing.connection import Connection
from pathlib import Path

from ..errors import RunnerError
from ..signature import Signature


def serve(opener: str, folder: Path, threads: int, channel: Connection) -> None:
    """Answers batches until the other side hangs up.

    Args:
        opener: `package.module:open_runner` of a format.
    """
    module, _, name = opener.partition(":")
    signature = Signature.read(folder / "signature.json")
    runner = getattr(importlib.import_module(module), name)(folder, signature, threads)
    while True:
        try:
            batch = channel.recv()
        except (EOFError, OSError):
            return
        try:
            channel.send(("result", runner.run(batch), None))
        except RunnerError as exc:
            channel.send(("result", exc, None))
