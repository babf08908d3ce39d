"""Validation rows divided over the workers of an engine: the same verdict and the same results.csv, byte for byte.

A shard is some of the validation rows in a row. A worker answers it with both sides, compares it and sends back its
part of results.csv with its statistics, which are such that those of two parts can be added exactly: counts, largest
values, whole numbers. They are added in the order of the rows, whichever worker was first.

Workers see the artifacts by the same paths as the process that asks: the output root is a folder that they share.
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
from pipeline.store.files import RESULTS_FILE
from pipeline.workers.child import Limits
from pipeline.workers.executor.interface import Ended, Executor, Started

from .checks.material import Material, limits_of, read_material
from .checks.passes import STRETCH, compare_rows, note_score_bins
from .checks.stability import Sample
from .checks.unoptimized import Excused, UnoptimizedPair
from .compare.decisions import Flips, Scores
from .results.findings import Finding
from .results.recorder import ResultsRecorder

_IDLE_SECONDS = 30.0  # after which a worker closes runners that nobody asked again

Runners: TypeAlias = (
    "list[SubprocessRunner]"  # the checkpoint's, the candidate's; once needed, both with the optimizer off
)


@dataclass(frozen=True)
class Sharding:
    """Who compares many validation rows in the place of this process.

    Args:
        open_executor: opens an engine.
        rows: to a shard, about; a validation of no more is not divided.
    """

    open_executor: Callable[[], Executor]
    rows: int


@dataclass(frozen=True)
class Pair:
    """What a worker has to know of a validation; see `validation.validate`.

    Args:
        batch: the number of rows that a candidate takes at once, where that is fixed.
    """

    model: str
    checkpoint: Path
    candidates: Mapping[str, Path]
    settings: ValidationSettings
    bounds: Mapping[str, str]
    threads: int
    batch: int | None


@dataclass(frozen=True)
class Part:
    """What was found on one shard.

    Args:
        results: its lines of results.csv.
        error: why it goes no further, if so; what stands in the rest of it was found before.
        is_references: whether that was the checkpoint's fault.
        has_ended: whether the candidate's process is gone.
    """

    findings: list[Finding]
    flips: Flips | None
    scores: dict[str, Scores]
    sample: Sample
    excused: Excused
    results: bytes
    error: PipelineError | None = None
    is_references: bool = False
    has_ended: bool = False


@dataclass
class Shards:
    """Makes the pass of a check over all validation rows on the workers of an engine; see `checks.Elsewhere`.

    Args:
        rows: to a shard, about: shards are of whole stretches, as `comparing.compare_rows` wants them.
        folder: where parts wait for those before them.
    """

    engine: Executor
    rows: int
    pair: Pair
    folder: Path

    def __call__(
        self,
        validation: ResultsRecorder,
        reference: SubprocessRunner,
        candidate: SubprocessRunner,
        material: Material,
        check: str,
    ) -> None:
        """Makes the pass.

        Raises:
            PipelineError: what the pass in one process would raise; or the engine gave up on a shard, and then it is
                `reference.last_error`, for no candidate is to blame.
        """
        format, count = candidate.format, len(material.rows)
        if material.score_bins is None and material.signature.decision is not None:
            first = RowRange(material.rows, 0, min(material.size, count))
            note_score_bins(material, reference.run(first), first.stop)
        stretch = STRETCH * material.size
        step = max(1, self.rows // stretch) * stretch
        items = [
            (self.pair, format, check, start, min(start + step, count), material.score_bins)
            for start in range(0, count, step)
        ]
        is_first, excused = not material.flips, Excused()
        try:
            with closing(self._in_order(items)) as parts:
                while (found := self._next(parts, reference)) is not None:
                    part, results = found
                    validation.absorb(part.findings, results)
                    excused.absorb(part.excused)
                    _absorb(material, format, part, is_first)
                    if part.error is not None:
                        if part.is_references:
                            reference.last_error = part.error
                        candidate.has_ended = candidate.has_ended or part.has_ended
                        raise part.error
        finally:
            excused.tell(validation, format, check)

    def _next(self, parts: Iterator[tuple[Part, Path]], reference: SubprocessRunner) -> tuple[Part, Path] | None:
        try:
            return next(parts, None)
        except PipelineError as exc:
            reference.last_error = exc
            raise

    def _in_order(self, items: list[tuple[Any, ...]]) -> Generator[tuple[Part, Path]]:
        """The parts in the order of their rows, each with the file of its lines, which is gone at the next one."""
        waiting: dict[int, Part] = {}
        due = 0
        with (
            TemporaryDirectory(prefix=".shards-", dir=self.folder) as place,
            closing(_events(self.engine.map("pipeline.validation.sharding:compare_shard", items))) as events,
        ):
            for event in events:
                if not isinstance(event, Ended):
                    continue
                if isinstance(event.result, PipelineError):
                    raise event.result
                Path(place, str(event.number)).write_bytes(event.result.results)
                waiting[event.number] = replace(event.result, results=b"")
                while due in waiting:
                    results = Path(place, str(due))
                    yield waiting.pop(due), results
                    results.unlink()
                    due += 1


def _events(events: Iterator[Started | Ended]) -> Generator[Started | Ended]:
    yield from events  # so closing it ends the work that is under way


def _absorb(material: Material, format: str, part: Part, is_first: bool) -> None:
    """Adds what was found on a shard to what was found on those before.

    Args:
        is_first: whether no candidate was looked at before: what the checkpoint decides is counted once.
    """
    material.sample(format).absorb(part.sample)
    if part.flips is not None:
        material.flips.setdefault(format, Flips(part.flips.decision)).absorb(part.flips)
    for side, scores in part.scores.items():
        if side == format or is_first:
            material.scores.setdefault(side, Scores(scores.decision, scores.edges)).absorb(scores)


def compare_shard(pair: Pair, format: str, check: str, start: int, stop: int, edges: Array | None) -> Part:
    """Compares the rows of one shard; this is what runs on a worker.

    Args:
        check: `equal`, or `decisions` where that is all that is looked at.
        start, stop: the numbers of the first row, and of the one after the last.
        edges: of the bins in which scores are counted.

    Raises:
        StoreError: the artifacts are not to be seen here.
    """
    for place in (pair.checkpoint, pair.candidates[format]):
        if not place.is_dir():
            raise StoreError(
                "a worker does not see this artifact",
                where=place,
                next_step="Give an --output-root in a folder that all workers share, by the same path on each",
            )
    material = read_material(pair.checkpoint, pair.settings, pair.batch)
    material.score_bins = edges
    error, is_references, has_ended, excused = None, False, False, Excused()
    with TemporaryDirectory(prefix="shard-") as folder:
        results = Path(folder, RESULTS_FILE)
        validation = ResultsRecorder(pair.model, material.signature, pair.settings, results, pair.bounds, is_part=True)
        with validation, _opened(pair, format) as runners:
            reference, candidate, *plain_pair = runners
            validation.expect(format, check, None if check == "equal" else ())
            plain = UnoptimizedPair(validation, check, reference, candidate, plain_pair) if check == "equal" else None
            try:
                # One process at a time: a worker has as many threads as it was given cores.
                compare_rows(validation, reference, candidate, material, range(start, stop), plain, ahead=0)
            except PipelineError as exc:
                error, is_references, has_ended = exc, exc is reference.last_error, candidate.has_ended
            finally:
                runners[2:] = plain_pair
                excused = excused if plain is None else plain.excused
        return Part(
            list(validation.findings.values()),
            material.flips.get(format),
            material.scores,
            material.sample(format),
            excused,
            results.read_bytes(),
            error,
            is_references,
            has_ended,
        )


@dataclass
class _Kept:
    """The runners of the last shard of this process, for the next one of the same pair; closed when none comes."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    by_key: dict[tuple[Any, ...], Runners] = field(default_factory=dict)
    timer: threading.Timer | None = None

    def take(self, key: tuple[Any, ...]) -> Runners | None:
        """The runners of a pair, if they are at hand; those of others are closed."""
        with self.lock:
            self._stop_timer()
            taken, others = self.by_key.pop(key, None), list(self.by_key.values())
            self.by_key.clear()
        _close(others)
        return taken

    def put(self, key: tuple[Any, ...], runners: Runners) -> None:
        """Keeps runners for a while."""
        with self.lock:
            self._stop_timer()
            others = [self.by_key.pop(key)] if key in self.by_key else []
            self.by_key[key] = runners
            self.timer = threading.Timer(_IDLE_SECONDS, self.take, [()])  # no pair has this key: all are closed
            self.timer.daemon = True
            self.timer.start()
        _close(others)

    def _stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


_kept = _Kept()


@contextmanager
def _opened(pair: Pair, format: str) -> Iterator[Runners]:
    """Both sides, opened; they stay open for the next shard unless one has ended."""
    artifact, limits = pair.candidates[format], Limits(*pair.settings.limits)
    key = (pair.checkpoint, artifact, format, pair.threads, limits)
    runners = _kept.take(key) or [
        SubprocessRunner("checkpoint", pair.checkpoint, pair.threads, limits_of(pair.checkpoint, limits)),
        SubprocessRunner(format, artifact, pair.threads, limits),
    ]
    try:
        yield runners
    except BaseException:
        _close([runners])
        raise
    if any(runner.has_ended for runner in runners):
        _close([runners])
    else:
        _kept.put(key, runners)


def _close(pairs: list[Runners]) -> None:
    for runners in pairs:
        for runner in runners:
            runner.close()
