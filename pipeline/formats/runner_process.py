"""The subprocess of a `SubprocessRunner`: opens the artifact, then computes outputs batch by batch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import DataError, RunnerError
from pipeline.signature import Array, Signature
from pipeline.store.file_names import SIGNATURE_FILE
from pipeline.workers.worker import Channel

from .runner import RepeatedBatch, RowBytesQuestion, RowRange, Runner
from .whole_inputs import run_by_rows

_MOST_KEPT = 8  # answers that differ


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
            if isinstance(request, RepeatedBatch):
                channel.send(("result", run_repeatedly(runner, request), None))
                continue
            batch = request.rows.read(request.start, request.stop) if isinstance(request, RowRange) else request
            channel.send(("result", runner.run(batch), None))
        except (RunnerError, DataError) as exc:
            channel.send(("result", exc, None))


def run_repeatedly(runner: Runner, request: RepeatedBatch) -> dict[int, dict[str, Array]]:
    """Runs a batch again and again; see `SubprocessRunner.run_repeatedly`."""
    kept, seen = dict[int, dict[str, Array]](), set[tuple[Any, ...]]()
    for call in range(1, request.calls + 1):
        outputs = runner.run(request.batch)
        bits = tuple((name, values.shape, _bits(values)) for name, values in outputs.items())
        if call == request.calls or (bits not in seen and len(kept) < _MOST_KEPT):
            kept[call] = outputs
            seen.add(bits)
    return kept


def _bits(values: Array) -> bytes:
    return repr(values.tolist()).encode() if values.dtype == object else values.tobytes()
