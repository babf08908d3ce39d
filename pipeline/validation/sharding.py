"""Divides validation rows over the workers of an executor; verdict and results.csv stay the same, byte for byte.

A shard is a span of consecutive validation rows. A worker runs it on both sides, compares the outputs and returns its
part of results.csv with statistics that can be merged exactly: counts, maxima, integers. Results are merged in the
order of the rows, whichever worker finishes first.

Workers need the output root as a shared folder, at the same path as in the main process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

from pipeline.errors import PipelineError, StoreError
from pipeline.formats.runner import RowRange, SubprocessRunner
from pipeline.settings import ValidationSettings
from pipeline.signature import Array
from pipeline.store.file_names import RESULTS_FILE
from pipeline.workers.child import Limits
from pipeline.workers.executor.interface import Ended, Executor, Started
from pipeline.workers.folders import run_folder

from .checks.material import Material, checkpoint_limits, read_material
from .checks.passes import SEGMENT_BATCHES, compare_rows, set_score_bins
from .checks.sizes import Sizes
from .checks.stability import StabilitySample
from .checks.unoptimized import OptimizerDifferences, UnoptimizedPair
from .compare.decisions import Flips, Scores
from .compare.precision import Precision
from .results.findings import Finding
from .results.recorder import ResultsRecorder

_IDLE_SECONDS = 30.0  # after which a worker closes unused runners

Runners: TypeAlias = (
    "list[SubprocessRunner]"  # checkpoint, candidate; and once needed, both again with the optimizer off
)


@dataclass(frozen=True)
class Sharding:
    """Way to compare many validation rows on an executor.

    Args:
        rows: approximate number of rows in a shard; a validation with no more rows is not divided.
    """

    open_executor: Callable[[], Executor]
    rows: int


@dataclass(frozen=True)
class ShardContext:
    """Arguments of a validation that a worker needs; see `validate.validate`.

    Args:
        fixed_size: the only batch size that a candidate accepts; None if it accepts any.
        sizes: how many rows are held at a time, the same on every worker; None for those of rows without bytes.
        precisions: what outputs are computed in.
        proved: outputs whose graph was proved equal, by format.
    """

    model: str
    checkpoint: Path
    candidates: Mapping[str, Path]
    settings: ValidationSettings
    tolerance_classes: Mapping[str, str]
    threads: int
    fixed_size: int | None
    sizes: Sizes | None = None
    precisions: Mapping[str, Precision] = field(default_factory=dict)
    proved: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class ShardResult:
    """Result of one shard.

    Args:
        results: its lines of results.csv.
        error: the error that ended the shard, if any; the other fields are the results before it.
        is_reference_error: the error comes from the checkpoint.
        has_ended: the candidate's process has ended.
    """

    findings: list[Finding]
    flips: Flips | None
    scores: dict[str, Scores]
    sample: StabilitySample
    resolved: OptimizerDifferences
    results: bytes
    error: PipelineError | None = None
    is_reference_error: bool = False
    has_ended: bool = False


@dataclass
class ShardedPass:
    """Runs a check over all validation rows on the workers of an executor; see `material.RunSharded`.

    Args:
        rows: approximate number of rows in a shard, which consists of whole segments, see `passes.compare_rows`.
        folder: holds results that wait for those of earlier rows.
    """

    executor: Executor
    rows: int
    context: ShardContext
    folder: Path

    def __call__(
        self,
        recorder: ResultsRecorder,
        reference: SubprocessRunner,
        candidate: SubprocessRunner,
        material: Material,
        check: str,
    ) -> None:
        """Runs the check.

        Raises:
            PipelineError: the error of the same check in one process; or the executor gave up on a shard, which is then
                `reference.last_error`, because no candidate caused it.
        """
        format, count = candidate.format, len(material.rows)
        if material.score_bins is None and material.signature.decision is not None:
            first = RowRange(material.rows, 0, min(material.batch_size, count))
            set_score_bins(material, reference.run(first), first.stop)
        segment = SEGMENT_BATCHES * material.batch_size
        step = max(1, self.rows // segment) * segment
        context = replace(self.context, proved=dict(recorder.proved))
        items = [
            (context, format, check, start, min(start + step, count), material.score_bins)
            for start in range(0, count, step)
        ]
        is_first_candidate, resolved = not material.flips, OptimizerDifferences()
        try:
            with closing(self._in_row_order(items)) as results:
                while (item := self._next(results, reference)) is not None:
                    result, lines = item
                    recorder.merge(result.findings, lines)
                    resolved.merge(result.resolved)
                    _merge(material, format, result, is_first_candidate)
                    if result.error is not None:
                        if result.is_reference_error:
                            reference.last_error = result.error
                        candidate.has_ended = candidate.has_ended or result.has_ended
                        raise result.error
        finally:
            resolved.record(recorder, format, check)

    def _next(
        self, results: Iterator[tuple[ShardResult, Path]], reference: SubprocessRunner
    ) -> tuple[ShardResult, Path] | None:
        try:
            return next(results, None)
        except PipelineError as exc:
            reference.last_error = exc
            raise

    def _in_row_order(self, items: list[tuple[Any, ...]]) -> Generator[tuple[ShardResult, Path]]:
        """Yields results in the order of their rows, each with the file of its lines, kept until the next one."""
        pending: dict[int, ShardResult] = {}
        next_number = 0
        with (
            TemporaryDirectory(prefix=".shards-", dir=self.folder) as folder,
            closing(_events(self.executor.map("pipeline.validation.sharding:compare_shard", items))) as events,
        ):
            for event in events:
                if not isinstance(event, Ended):
                    continue
                if isinstance(event.result, PipelineError):
                    raise event.result
                Path(folder, str(event.number)).write_bytes(event.result.results)
                pending[event.number] = replace(event.result, results=b"")
                while next_number in pending:
                    lines = Path(folder, str(next_number))
                    yield pending.pop(next_number), lines
                    lines.unlink()
                    next_number += 1


def _events(events: Iterator[Started | Ended]) -> Generator[Started | Ended]:
    yield from events  # a generator, so that closing it cancels the remaining work


def _merge(material: Material, format: str, result: ShardResult, is_first_candidate: bool) -> None:
    """Merges a shard's result into the material; the checkpoint's decisions only once, with the first candidate."""
    material.sample(format).merge(result.sample)
    if result.flips is not None:
        material.flips.setdefault(format, Flips(result.flips.decision)).merge(result.flips)
    for side, scores in result.scores.items():
        if side == format or is_first_candidate:
            material.scores.setdefault(side, Scores(scores.decision, scores.bins)).merge(scores)


def compare_shard(
    context: ShardContext, format: str, check: str, start: int, stop: int, score_bins: Array | None
) -> ShardResult:
    """Compares the rows of one shard, on a worker.

    Args:
        check: `equal`, or `decisions` alone.
        start, stop: row numbers; stop is excluded.
        score_bins: see `Material`.

    Raises:
        StoreError: an artifact does not exist on this worker.
    """
    for artifact in (context.checkpoint, context.candidates[format]):
        if not artifact.is_dir():
            raise StoreError(
                "a worker does not see this artifact",
                where=artifact,
                next_step="Give an --output-root in a folder that all workers share, by the same path on each",
            )
    material = read_material(context.checkpoint, context.settings, context.fixed_size)
    material.score_bins, material.sizes = score_bins, context.sizes or material.sizes
    error, is_reference_error, has_ended = None, False, False
    with TemporaryDirectory(prefix="shard-", dir=run_folder()) as folder:
        results = Path(folder, RESULTS_FILE)
        recorder = ResultsRecorder(
            context.model, material.signature, context.settings, results, context.tolerance_classes, is_part=True
        )
        recorder.precisions, recorder.proved = context.precisions, dict(context.proved)
        with recorder, _open_runners(context, format) as runners:
            reference, candidate, *unoptimized_pair = runners
            recorder.expect(format, check, None if check == "equal" else ())
            unoptimized = UnoptimizedPair(recorder, check, reference, candidate, unoptimized_pair)
            try:
                # One process at a time, because a worker has as many threads as cores.
                pair = unoptimized if check == "equal" else None
                compare_rows(recorder, reference, candidate, material, range(start, stop), pair, prefetch=0)
            except PipelineError as exc:
                error, is_reference_error, has_ended = exc, exc is reference.last_error, candidate.has_ended
            finally:
                runners[2:] = unoptimized_pair
        return ShardResult(
            list(recorder.findings.values()),
            material.flips.get(format),
            material.scores,
            material.sample(format),
            unoptimized.resolved,
            results.read_bytes(),
            error,
            is_reference_error,
            has_ended,
        )


@dataclass
class _RunnerCache:
    """Runners of the last shard in this process, for the next shard of the same pair; closed when idle."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    by_key: dict[tuple[Any, ...], Runners] = field(default_factory=dict)
    timer: threading.Timer | None = None

    def take(self, key: tuple[Any, ...]) -> Runners | None:
        """Takes the runners of a pair out of the cache, if it has them, and closes all others."""
        with self.lock:
            self._stop_timer()
            taken, others = self.by_key.pop(key, None), list(self.by_key.values())
            self.by_key.clear()
        _close(others)
        return taken

    def put(self, key: tuple[Any, ...], runners: Runners) -> None:
        """Adds runners to the cache."""
        with self.lock:
            self._stop_timer()
            others = [self.by_key.pop(key)] if key in self.by_key else []
            self.by_key[key] = runners
            self.timer = threading.Timer(_IDLE_SECONDS, self.take, [()])  # () is no pair's key, so all are closed
            self.timer.daemon = True
            self.timer.start()
        _close(others)

    def _stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


_runner_cache = _RunnerCache()


@contextmanager
def _open_runners(context: ShardContext, format: str) -> Iterator[Runners]:
    """Opens both sides; they stay open for the next shard, unless a process has ended."""
    artifact, limits = context.candidates[format], Limits(*context.settings.limits)
    key = (context.checkpoint, artifact, format, context.threads, limits)
    runners = _runner_cache.take(key) or [
        SubprocessRunner(
            "checkpoint", context.checkpoint, context.threads, checkpoint_limits(context.checkpoint, limits)
        ),
        SubprocessRunner(format, artifact, context.threads, limits),
    ]
    try:
        yield runners
    except BaseException:
        _close([runners])
        raise
    if any(runner.has_ended for runner in runners):
        _close([runners])
    else:
        _runner_cache.put(key, runners)


def _close(pairs: list[Runners]) -> None:
    for runners in pairs:
        for runner in runners:
            runner.close()
