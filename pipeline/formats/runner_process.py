"""What runs in the process of an `SubprocessRunner`: opens the artifact, then answers batch after batch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import DataError, RunnerError
from pipeline.signature import Signature
from pipeline.store.files import SIGNATURE_FILE
from pipeline.workers.worker import Channel

from .runner import RowRange


def serve(opener: str, folder: Path, threads: int, how: Mapping[str, Any], channel: Channel) -> None:
    """Answers batches until the other side hangs up.

    Args:
        opener: `package.module:open_runner` of a format.
        how: what else that takes.
    """
    module, _, name = opener.partition(":")
    signature = Signature.read(folder / SIGNATURE_FILE)
    runner = getattr(importlib.import_module(module), name)(folder, signature, threads, **how)
    while True:
        try:
            asked = channel.recv()
        except (EOFError, OSError):
            return
        try:
            batch = asked.rows.read(asked.start, asked.stop) if isinstance(asked, RowRange) else asked
            channel.send(("result", runner.run(batch), None))
        except (RunnerError, DataError) as exc:
            channel.send(("result", exc, None))
