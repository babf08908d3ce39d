"""The check `runtime`: a candidate in other interpreters, as `[validation] runtimes` names them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import numpy as np

from pipeline.errors import PipelineError, RunnerError
from pipeline.formats.runner import SubprocessRunner
from pipeline.formats.whole_inputs import run_by_rows
from pipeline.settings import ValidationSettings
from pipeline.signature import Array, Batch, Signature
from pipeline.store.file_names import SIGNATURE_FILE
from pipeline.workers.child import Limits
from pipeline.workers.progress import tell

from ..checks.material import Material, row_count
from ..checks.passes import record_answers
from ..checks.unoptimized import Answer
from ..compare.differences import is_finite
from ..results.csv_file import text_line
from ..results.recorder import ResultsRecorder
from .client import Runtime
from .requests import LIBRARIES, OpenRequest, kind_of

CHECK = "runtime"
_LIBRARY_NAMES = {"tensorflow-cpu": "tensorflow", "tensorflow-intel": "tensorflow"}


class Runtimes(AbstractContextManager["Runtimes"]):
    """The interpreters of one validation, each with the name that the results call it by.

    Args:
        formats: the formats that will be opened.

    Raises:
        SettingError: one cannot be started, or has no library for any of the formats.
    """

    def __init__(self, settings: ValidationSettings, formats: Sequence[str], threads: int) -> None:
        self._threads, self._rows = threads, settings.runtime_rows
        self._stack = ExitStack()
        limits = Limits(*settings.limits)
        try:
            self._runtimes = [self._stack.enter_context(Runtime(one, limits)) for one in settings.other_runtimes]
            for runtime in self._runtimes:
                runtime.require_library([kind_of(format) for format in formats])
        except PipelineError:
            self._stack.close()
            raise

    def check(
        self, recorder: ResultsRecorder, reference: SubprocessRunner, candidate: SubprocessRunner, material: Material
    ) -> dict[str, str]:
        """Compares a candidate in each interpreter with the checkpoint; returns which were skipped, with the reason."""
        format, artifact, skipped = candidate.format, candidate.folder, dict[str, str]()
        request = OpenRequest.of_artifact(format, artifact, self._threads)
        expected = [(label, batch, _ask(reference, batch)) for label, batch in self._rows_of_data(material)]
        expected += _edge_cases(recorder, reference, candidate, material)
        for runtime, name in zip(self._runtimes, self._names(request.kind), strict=True):
            if name is None:
                skipped[f"{CHECK} of {format} in {runtime.command}"] = (
                    f"it has no {' or '.join(LIBRARIES[request.kind])}"
                )
                continue
            tell(name, 0)
            with recorder.answering_in(name):
                _check_one(recorder, runtime, format, artifact, request, expected)
        return skipped

    def _names(self, kind: str) -> list[str | None]:
        """Returns what each interpreter is called: the library with its version, and what tells two alike apart."""
        names: list[str | None] = []
        for runtime in self._runtimes:
            library = runtime.library_of(kind)
            if library is None:
                names.append(None)
                continue
            name, _, version = library.partition(" ")
            full = f"{_LIBRARY_NAMES.get(name, name)} {version}"
            if full in names:
                full += f", python {runtime.facts['python']}"
            count = sum(1 for one in names if one and one.startswith(full))
            names.append(f"{full}, {count + 1}" if count else full)
        return names

    def _rows_of_data(self, material: Material) -> Iterator[tuple[str, Batch]]:
        size, most = material.batch_size, min(self._rows, len(material.rows))
        for start in range(0, most, size):
            yield str(start), material.rows.read(start, min(start + size, most))

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()


def _edge_cases(
    recorder: ResultsRecorder, reference: SubprocessRunner, candidate: SubprocessRunner, material: Material
) -> Iterator[tuple[str, Batch, Answer]]:
    """Yields the edge cases to which the candidate gives the checkpoint's answer here.

    Those without are another check's matter; and so are NaN, infinities and overflow, which kernels treat as they like.
    """
    for label, batch in material.edge_cases.items():
        if not all(values.dtype.kind not in "fcV" or _is_small(values) for values in batch.values()):
            continue
        expected, actual = _ask(reference, batch), _ask(candidate, batch)
        if isinstance(expected, RunnerError) or isinstance(actual, RunnerError):
            continue
        if not recorder.difference_kinds(candidate.format, expected, actual, row_count(batch)):
            yield label, batch, expected


def _is_small(values: Array) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(is_finite(values * values).all())


def _ask(runner: SubprocessRunner, batch: Batch) -> Answer:
    try:
        return runner.run(batch)
    except RunnerError as exc:
        return exc


def _check_one(
    recorder: ResultsRecorder,
    runtime: Runtime,
    format: str,
    artifact: Path,
    request: OpenRequest,
    expected: Sequence[tuple[str, Batch, Answer]],
) -> None:
    recorder.expect(format, CHECK)
    name = recorder.runtime
    try:
        unknown = runtime.unknown(request.ops, request.consumer)
        if unknown:
            _record_unopened(recorder, format, f"{name} is older than the file: {'; '.join(unknown)}")
            return
        signature = Signature.read(artifact / SIGNATURE_FILE)
        runner = run_by_rows(runtime.open(request, signature), signature)
        for label, batch, answer in expected:
            count = row_count(batch)
            labels = range(int(label), int(label) + count) if label.isdecimal() else _labels(label, count)
            try:
                actual: Answer = runner.run(batch)
            except RunnerError as exc:
                actual = exc
            record_answers(recorder, CHECK, format, label, (answer, actual), labels)
    except PipelineError as exc:
        _record_unopened(recorder, format, f"{name} does not run the file: {exc.got or exc.what}")


def _labels(label: str, count: int) -> list[str]:
    return [label] if count == 1 else [f"{label}/{row}" for row in range(count)]


def _record_unopened(recorder: ResultsRecorder, format: str, reason: str) -> None:
    for spec in recorder.signature.outputs:
        finding = recorder.finding(format, CHECK, spec.name)
        recorder.add_line(finding, text_line("", "answered", f"failed: {reason}", False), False)
        finding.fail(reason)
