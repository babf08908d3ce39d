"""Checks that look where the rows of the others do not: for a candidate that agrees so far, and is not proved.

sizes     rows of the data in batches of many sizes, around that of the validation too
ladders   rows that climb over the whole range of what the inputs take (`data.ladders`)
boundary  rows around the edge between two decisions, found by search
repeated  the same batch a thousand times, and usual rows behind unusual ones
"""

from __future__ import annotations

import numpy as np

from pipeline.data.between import Classes
from pipeline.errors import RunnerError
from pipeline.formats.runner import SubprocessRunner
from pipeline.signature import Array, Batch, Signature, batch_size_of

from ..compare.decisions import decide, has_decisions
from ..results.recorder import ResultsRecorder
from .material import Material, row_count
from .row_trial import RowTrial
from .search_rows import search_of

_CALLS_AT_ONCE = 100  # so that a slow model is within its time limit
_MOST_OUTPUTS = 4
_PARTS = "the inputs {} are one value together, of several rows"


def check_sizes(
    recorder: ResultsRecorder, reference: SubprocessRunner, candidate: SubprocessRunner, material: Material
) -> str | None:
    """Compares the candidate with the checkpoint on the same rows in batches of many sizes."""
    if not material.signature.inputs:
        return "the model has no inputs"
    size = batch_size_of(material.signature)
    if size is not None and material.value is None:
        return f"the size of a batch is fixed: {size}"
    sizes, left_out = search_of(material).sizes
    with RowTrial(recorder, "sizes", reference, candidate, material) as trial:
        for size in sizes:
            batch = search_of(material).batch_of(size)
            trial.feed([f"batch of {size}/{row}" for row in range(row_count(batch))], batch, is_cut=False)
    if left_out:
        named = ", ".join(map(str, left_out))
        recorder.note(candidate.format, f"sizes: no batches of {named}, by [validation] search_rows and batch_mb")
    return _refused_all(trial)


def check_ladders(
    recorder: ResultsRecorder, reference: SubprocessRunner, candidate: SubprocessRunner, material: Material
) -> str | None:
    """Compares the candidate with the checkpoint on rows that climb over the whole range of the inputs."""
    if not material.signature.inputs:
        return "the model has no inputs"
    if material.parts_of_one:
        return _PARTS.format(", ".join(material.parts_of_one))
    if not search_of(material).ladders:
        return "no kind of its rows is one that the inputs take"
    with RowTrial(recorder, "ladders", reference, candidate, material) as trial:
        for ladder in search_of(material).ladders:
            trial.climb(ladder.labels, ladder.rows, ladder.is_alone)
    return _refused_all(trial)


def check_boundary(
    recorder: ResultsRecorder, reference: SubprocessRunner, candidate: SubprocessRunner, material: Material
) -> str | None:
    """Compares the candidate with the checkpoint on rows around the edge between two decisions."""
    if material.parts_of_one:
        return _PARTS.format(", ".join(material.parts_of_one))
    if not material.signature.inputs or not len(material.rows):
        return "the model has no inputs"
    if not search_of(material).edges:
        try:
            deciding = _deciding(reference, material)
            if not deciding:
                return "no output decides"
            search_of(material).find_edges(deciding)
        except RunnerError as exc:
            return f"the checkpoint refuses rows between those of the data: {exc.got or exc.what}"
    if not search_of(material).edges:
        return "all rows of the data are decided alike"
    with RowTrial(recorder, "boundary", reference, candidate, material) as trial:
        for ladder in search_of(material).edges:
            trial.climb(ladder.labels, ladder.rows)
    return _refused_all(trial)


def _refused_all(trial: RowTrial) -> str | None:
    if trial.rows:
        return None
    if trial.refused:
        return "these rows were made up, and the checkpoint refuses all of them"
    return "none of its rows has an answer that can be compared"


def _deciding(reference: SubprocessRunner, material: Material) -> list[tuple[str, Classes]]:
    """Returns the outputs that decide: the model's decision, and those with a few whole numbers, words or truths."""
    first = _answers(reference, material, search_of(material).usual)
    count, decision, found = (
        row_count(search_of(material).usual),
        material.signature.decision,
        list[tuple[str, Classes]](),
    )

    def decided(batch: Batch) -> Array:
        assert decision is not None
        return decide(_answers(reference, material, batch)[decision.output], decision)

    def classes_of(name: str) -> Classes:
        return lambda batch: _answers(reference, material, batch)[name].reshape(row_count(batch))

    if decision is not None and decision.output in first and has_decisions(first[decision.output], decision, count):
        found.append((decision.output, decided))
    for name, values in first.items():
        is_one = values.ndim and values.shape[0] == count == values.size and values.dtype.kind in "biuO"
        if is_one and len(set(values.ravel().tolist())) <= max(2, count // 2):
            found.append((name, classes_of(name)))
    return found[:_MOST_OUTPUTS]


def _answers(reference: SubprocessRunner, material: Material, rows: Batch) -> dict[str, Array]:
    """Returns the checkpoint's answers to rows, run in batches; of outputs that have one for each row."""
    count, fixed = row_count(rows), batch_size_of(material.signature)
    size = fixed or min(material.batch_size, material.sizes.held)
    parts = list[tuple[int, Batch]]()
    for start in range(0, count, size):
        numbers = np.minimum(np.arange(start, start + size if fixed else min(start + size, count)), count - 1)
        answers = reference.run({name: values[numbers] for name, values in rows.items()})
        parts.append((min(size, count - start), {k: v for k, v in answers.items() if v.shape[:1] == numbers.shape}))
    names = [name for name in parts[0][1] if len({part.get(name, np.zeros(0)).shape[1:] for _, part in parts}) == 1]
    return {name: np.concatenate([part[name][:kept] for kept, part in parts]) for name in names}


def check_repeated(
    recorder: ResultsRecorder, reference: SubprocessRunner, candidate: SubprocessRunner, material: Material
) -> str | None:
    """Asks the candidate the same again and again, and usual rows behind unusual ones: neither may change an answer."""
    if not len(material.rows):
        return "there are no rows"
    batch, format = search_of(material).again, candidate.format
    count, calls = row_count(batch), _calls(recorder, material)
    try:
        reference.run(batch)
    except RunnerError as exc:
        return f"the checkpoint refuses a batch of {count} of these rows: {exc.got or exc.what}"
    first, done = dict[str, Array](), 0
    while done < calls:
        now = min(_CALLS_AT_ONCE, calls - done)
        for number, answers in sorted(candidate.run_repeatedly(batch, now).items()):
            first = first or answers
            is_told = done + number == calls or any(
                values.shape != first[name].shape or values.tolist() != first[name].tolist()
                for name, values in answers.items()
                if name in first
            )
            if is_told:
                labels = [f"call {done + number}/{row}" for row in range(count)]
                recorder.compare(format, "repeated", first, answers, labels)
        done += now
    material.searched["repeated"] = max(material.searched.get("repeated", 0), calls * count)
    if material.signature.inputs and not material.parts_of_one:
        _ask_behind(recorder, reference, candidate, material, first)
    if calls < recorder.settings.repeated_calls:
        recorder.note(format, f"repeated: {calls} calls, because a row takes much of [validation] batch_mb")
    return None


def _calls(recorder: ResultsRecorder, material: Material) -> int:
    return min(recorder.settings.repeated_calls, max(8, 8 * material.sizes.held))


def _ask_behind(
    recorder: ResultsRecorder,
    reference: SubprocessRunner,
    candidate: SubprocessRunner,
    material: Material,
    first: Batch,
) -> None:
    """Asks usual rows behind unusual ones: in the next call, and in the same batch."""
    usual, fixed = search_of(material).again, batch_size_of(material.signature)
    labels = row_count(usual)
    with RowTrial(recorder, "repeated", reference, candidate, material) as trial:
        for name, unusual in search_of(material).unusual.items():
            try:
                candidate.run(unusual)
            except RunnerError:
                continue  # the other checks record it
            try:
                recorder.compare(
                    candidate.format,
                    "repeated",
                    first,
                    candidate.run(usual),
                    [f"behind {name}/{row}" for row in range(labels)],
                )
            except RunnerError as exc:
                recorder.fail(candidate.format, "repeated", f"repeated: usual rows are refused behind {name}: {exc}")
                return
            if fixed is None and all(unusual[each].shape[1:] == usual[each].shape[1:] for each in usual):
                _ask_beside(trial, name, unusual, usual, material.signature)


def _ask_beside(trial: RowTrial, name: str, unusual: Batch, usual: Batch, signature: Signature) -> None:
    both = {each: np.concatenate([unusual[each], usual[each][:1]]) for each in usual}
    try:
        sides = trial.reference.run(both), trial.candidate.run(both)
    except RunnerError:
        return
    kept = {
        spec.name
        for spec in signature.outputs
        if all(spec.name in side and side[spec.name].shape[:1] == (2,) for side in sides)
    }
    expected, actual = ({each: side[each][1:] for each in side if each in kept} for side in sides)
    if len(kept) == len(signature.outputs):
        trial.judge([f"beside {name}"], {each: values[1:] for each, values in both.items()}, expected, actual)
