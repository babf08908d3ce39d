"""The subprocess of a `SubprocessRunner`: opens the artifact, then computes outputs batch by batch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import DataError, RunnerError
from pipeline.signature import Signature
from pipeline.store.file_names import SIGNATURE_FILE
from pipeline.workers.worker import Channel

from .runner import RowBytesQuestion, RowRange
from .whole_inputs import run_by_rows


def serve(opener: str, folder: Path, threads: int, options: Mapping[str, Any], channel: Channel) -> None:
    """Computes outputs for batches until the channel is closed.

    Args:
        opener: `package.module:open_runner` of a format.
        options: further keyword arguments of the opener.
    """
    module, _, name = opener.partition(":")
    signature = Signature.read(folder / SIGNATURE_FILE)
    opened = getattr(importlib.import_module(module), name)(folder, signature, threads, **options)
    runner = run_by_rows(opened, signature)
    while True:
        try:
            request = channel.recv()
        except (EOFError, OSError):
            return
        if isinstance(request, RowBytesQuestion):
            count = opened.inner_row_bytes() if hasattr(opened, "inner_row_bytes") else 0
            channel.send(("result", {"bytes": count}, None))
            continue
        try:
            batch = request.rows.read(request.start, request.stop) if isinstance(request, RowRange) else request
            channel.send(("result", runner.run(batch), None))
        except (RunnerError, DataError) as exc:
            channel.send(("result", exc, None))
