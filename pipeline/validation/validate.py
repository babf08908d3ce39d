"""Proves that a candidate is equal to its checkpoint, or reports where it is not.

Thirteen checks; the first two compare the files, the others compare outputs:

    graph      the candidate's graph with the checkpoint's, as functions of the inputs, without running either
    weights    the candidate's constants with the checkpoint's tensors, byte for byte, without running either
    equal      the candidate with the checkpoint, on all validation rows
    decisions  the candidate's decisions, by threshold or argmax, with the checkpoint's
    edge       the candidate with the checkpoint, on edge-case rows, which data files rarely hold
    generated  the candidate with the checkpoint, on seeded random rows in batches of several sizes
    stable     the candidate with itself: the same validation rows again, in another order and other batches. A model
               that depends on a row's neighbours or on chance may equal its checkpoint, and is wrong all the same
    golden     the checkpoint and the candidate with the outputs recorded when the model was trained; an imported
               checkpoint has none
    sizes, ladders, boundary, repeated
               what looks where those rows do not (see `checks.searches`): for a candidate that is neither proved to be
               the checkpoint's function, nor found to differ
    runtime    the candidate in other interpreters with the checkpoint, where `[validation] runtimes` names some

By default every check that applies is made, and skipped ones are reported. If checks are requested by name, one that
does not apply fails. Both sides run in their own processes, which see the artifacts but never the model's code. Names
are compared first, then dtypes and shapes, then values. What cannot be compared fails. A model without inputs has one
answer, and an answer for a whole batch is compared as one row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.data.generated import generate_rows, refused_rows
from pipeline.data.held import hold_still
from pipeline.errors import PipelineError, RunnerError
from pipeline.formats.registry import read_refusal
from pipeline.formats.runner import RowRange, SubprocessRunner, fixed_batch_size
from pipeline.freezing.freeze import no_inputs_note
from pipeline.settings import CHECKS, FAILED, PASSED, PROVED, SEARCHES, ValidationSettings
from pipeline.signature import Signature, read_origin
from pipeline.store.file_names import RESULTS_FILE, SIGNATURE_FILE, VERDICT_FILE
from pipeline.workers.child import Limits
from pipeline.workers.progress import part, tell

from .checks.leaks import find_leaks
from .checks.material import Material, checkpoint_limits, read_material
from .checks.registry import CHECK_FUNCTIONS, compare_with_recorded
from .checks.sizes import plan_sizes
from .compare.precision import Precision, find_precisions, with_scales
from .compare.tolerance import tolerance_class_of
from .compare.weights import compare_weights
from .diagnosis import Cause, explain
from .proof.prove import Proof, prove
from .replay.worst_rows import write_worst
from .results.findings import made_up_alone
from .results.proofs import proofs_of, record_proof
from .results.recorder import ResultsRecorder
from .runtimes.check import Runtimes
from .sharding import ShardContext, ShardedPass, Sharding

_VERDICT_SCHEMA = 2
_LENGTHS, _SEED = (64, 512, 16384), 7  # of rows for a model that refuses shorter ones
_GRAPHS = ("frozen", "mmap", "savedmodel")  # formats whose file is a graph of TensorFlow's
_FORMATS_WITH_CONSTANTS = ("frozen", "mmap")  # their weights are constants that can be read


def validate(
    model: str,
    checkpoint: Path,
    candidates: Mapping[str, Path],
    settings: ValidationSettings,
    threads: int,
    folder: Path,
    report_speed: Callable[[str, float], None] = lambda format, rows_per_second: None,
    sharding: Sharding | None = None,
) -> dict[str, Any]:
    """Compares candidates with their checkpoint and writes `results.csv` and `verdict.json`.

    Args:
        model: its name in results.csv.
        checkpoint: the artifact of the checkpoint, with its signature, goldens and validation rows.
        candidates: the artifact's folder by format.
        folder: receives the two files; the same comparison gives the same bytes.
        report_speed: called for each format with the number of validation rows compared per second.
        sharding: compares many validation rows on an executor; the bytes are the same.

    Returns:
        The content of verdict.json.

    Raises:
        SettingError: a tolerance is for an output that does not exist.
        DataError: the validation rows were made up, and the checkpoint refuses them.
        PipelineError: the checkpoint cannot be opened or run. Errors of candidates are findings.
    """
    fixed_size = fixed_batch_size(candidates)
    material = read_material(checkpoint, settings, fixed_size)
    refusals = {format: refusal for format, path in candidates.items() if (refusal := read_refusal(path)) is not None}
    candidates = {format: path for format, path in candidates.items() if format not in refusals}
    classes = {format: tolerance_class_of(format, path) for format, path in candidates.items()}
    recorder = ResultsRecorder(model, material.signature, settings, folder / RESULTS_FILE, classes)
    could = [name for name in CHECKS if name != "runtime" or settings.other_runtimes]
    skipped = {name: "it was not asked for" for name in could if name not in settings.chosen_checks}
    limits, proofs = Limits(*settings.limits), dict[str, Proof]()
    with ExitStack() as opened:
        opened.enter_context(recorder)
        reference = opened.enter_context(
            SubprocessRunner("checkpoint", checkpoint, threads, checkpoint_limits(checkpoint, limits))
        )
        material.sizes = plan_sizes(material.signature, settings, material.rows, reference)
        for sentence in find_leaks(material):
            recorder.note("data", sentence)
        recorder.precisions = _precisions(checkpoint, material, reference)
        if sharding is not None and len(material.rows) > sharding.rows:
            executor = opened.enter_context(sharding.open_executor())
            paths = {format: path.absolute() for format, path in candidates.items()}
            decided = (settings, classes, threads, fixed_size, material.sizes, recorder.precisions)
            context = ShardContext(model, checkpoint.absolute(), paths, *decided)
            material.run_sharded = ShardedPass(executor, sharding.rows, context, folder)
        runtimes = None
        if settings.other_runtimes and "runtime" not in skipped:
            runtimes = opened.enter_context(Runtimes(settings, [*candidates], threads))
        for format, reason in refusals.items():
            recorder.record_unmade_format(format, reason)
        if material.goldens and "golden" not in skipped:
            compare_with_recorded(recorder, reference, material)
        for number, (format, artifact) in enumerate(candidates.items()):
            if "graph" not in skipped:
                _prove(recorder, proofs, format, checkpoint, artifact)
            if format in _FORMATS_WITH_CONSTANTS and "weights" not in skipped:
                recorder.record_weights(format, compare_weights(checkpoint, artifact))
            recorder.note_precisions(format)
            if not material.signature.inputs:
                recorder.note(format, no_inputs_note(read_origin(checkpoint / SIGNATURE_FILE).get("inner_rows")))
            for sentence in read_origin(artifact / SIGNATURE_FILE).get("candidate", {}).get("notes", ()):
                recorder.note(format, sentence)
            whole = part(format, number / len(candidates), (number + 1) / len(candidates))
            with whole, SubprocessRunner(format, artifact, threads, limits) as candidate:
                is_proved = format in proofs and proofs[format].word == PROVED
                skipped |= _check(recorder, reference, candidate, material, is_proved)
                if runtimes is not None:
                    skipped |= runtimes.check(recorder, reference, candidate, material)
    write_worst(folder, recorder, checkpoint, candidates, material, threads)
    recorder.note_rounding()
    causes = explain(recorder, checkpoint, candidates, material, threads)
    data_rows = 0 if material.is_made_up or "equal" in skipped else len(material.rows)
    words = proofs_of(proofs, candidates, recorder.findings.values(), data_rows)
    verdict = _verdict(recorder, material, skipped, causes, words)
    (folder / VERDICT_FILE).write_text(json.dumps(verdict, indent=2) + "\n", encoding="utf-8")
    for format, rows_per_second in material.rows_per_second.items():
        report_speed(format, rows_per_second)
    return verdict


def _prove(recorder: ResultsRecorder, proofs: dict[str, Proof], format: str, checkpoint: Path, artifact: Path) -> None:
    """Makes the check `graph`, which needs no process: nothing runs."""
    if format in _GRAPHS:
        proofs[format] = prove(checkpoint, artifact)
        record_proof(recorder, format, proofs[format])
    elif recorder.settings.require == PROVED or not recorder.settings.is_every_check:
        recorder.fail(format, "graph", f"graph: {format} is no graph of TensorFlow's, so nothing can be proved of it")


def _precisions(checkpoint: Path, material: Material, reference: SubprocessRunner) -> dict[str, Precision]:
    """Finds what outputs are computed in, with their scale in the first batch."""
    found = find_precisions(checkpoint, material.signature)
    if not found or not len(material.rows):
        return found
    try:
        return with_scales(found, reference.run(RowRange(material.rows, 0, material.batch_size)))
    except RunnerError:  # the checks record what the reference refuses
        return found


def _check(
    recorder: ResultsRecorder,
    reference: SubprocessRunner,
    candidate: SubprocessRunner,
    material: Material,
    is_proved: bool,
) -> dict[str, str]:
    """Makes the checks of one candidate; returns reasons for skipped checks, by check."""
    format, settings, skipped = candidate.format, recorder.settings, dict[str, str]()
    for number, (name, check) in enumerate(CHECK_FUNCTIONS.items()):
        if name not in settings.chosen_checks:
            continue
        if name in SEARCHES and settings.is_every_check and (why := _needs_no_search(recorder, format, is_proved)):
            skipped[f"{', '.join(SEARCHES)} of {format}"] = why
            break  # they are the last ones
        if candidate.has_ended:
            skipped[f"{name} of {format}"] = "its process had ended before"
            continue
        try:
            with part(name, number / len(CHECK_FUNCTIONS), (number + 1) / len(CHECK_FUNCTIONS)):
                tell("begins", 0)
                not_applicable = check(recorder, reference, candidate, material)
        except PipelineError as exc:
            if name in SEARCHES and exc is reference.last_error:  # rows that no data holds prove nothing
                skipped[f"{name} of {format}"] = f"the checkpoint's process ended over rows that were made up: {exc}"
                reference.restart()
                continue
            if material.is_made_up and reference.refuses_rows(exc):
                sentence = exc.got or exc.what if isinstance(exc, RunnerError) else exc
                raise _refused(material, reference, sentence) from exc
            if exc is reference.last_error:
                raise
            recorder.record_crash(format, name, str(exc))
            continue
        if not_applicable is not None and settings.is_every_check:
            skipped[name] = not_applicable
        elif not_applicable is not None:
            recorder.fail(
                format, name, f"{name} was asked for ([validation] checks), and does not apply: {not_applicable}"
            )
        elif name == "stable":
            others = {spec.name for spec in material.signature.outputs} - set(material.sample(format).outputs)
            skipped |= {f"stable of {output}": "it has not one answer for each row" for output in sorted(others)}
    return skipped


def _needs_no_search(recorder: ResultsRecorder, format: str, is_proved: bool) -> str:
    """Returns why a candidate's rows need not be searched for; nothing if they must be."""
    if is_proved:
        return "its graph is proved to be the checkpoint's function, for every input"
    if any(one.format == format and not one.has_passed and one.check != "made" for one in recorder.findings.values()):
        return "it differs already"
    return ""


def _refused(material: Material, reference: SubprocessRunner, sentence: object) -> PipelineError:
    if material.value is None:
        return refused_rows(_with_longer_rows(material, reference), sentence, material.demands)
    value = {name: values[0] for name, values in material.rows.first.items()}
    return refused_rows(material.value, sentence, material.demands, value)


def _with_longer_rows(material: Material, reference: SubprocessRunner) -> Signature:
    """Returns the signature with a length that the reference takes in place of its open dimensions, if there is one.

    A window over a signal needs as many samples as it is wide.
    """
    signature = material.signature
    if all(None not in (spec.shape or ())[1:] for spec in signature.inputs):
        return signature
    reference.discard_pending()
    for length in _LENGTHS:
        longer = signature.of_length(length)
        rows = generate_rows(longer, 1, _SEED, demands=material.demands)
        if reference.has_ended:
            break
        with suppress(PipelineError):
            reference.run(hold_still(rows, material.whole))
            return longer
    return signature


def _verdict(
    recorder: ResultsRecorder,
    material: Material,
    skipped: Mapping[str, str],
    causes: Mapping[str, Cause],
    proofs: Mapping[str, Any],
) -> dict[str, Any]:
    findings = [recorder.findings[key] for key in sorted(recorder.findings)]
    alone = made_up_alone(findings, material.is_made_up)
    reasons = [*alone.values(), *(finding.sentence() for finding in findings if not finding.has_passed)]
    if not findings:
        reasons.append("nothing was compared")
    reasons += [f"{format}: {cause.sentence}" for format, cause in causes.items()]
    rows = {name: 0 if name in skipped else material.count_rows(name) for name in CHECK_FUNCTIONS}
    metrics = {format: scores.metrics() for format, scores in material.scores.items()}
    return {
        "schema": _VERDICT_SCHEMA,
        "verdict": FAILED if reasons else PASSED,
        "model": recorder.model,
        "reasons": reasons,
        "comparisons": sum(finding.rows for finding in findings),
        "made_up_alone": alone,
        "proofs": proofs,
        "causes": {format: asdict(cause) for format, cause in causes.items()},
        "rows": {{"equal": "validation"}.get(name, name): count for name, count in rows.items()},
        "skipped": {**recorder.skipped, **skipped},
        "notes": recorder.notes,
        "checks": [finding.to_dict() for finding in findings],
        "metrics": {format: figures for format, figures in metrics.items() if figures},
        "decisions": {format: flips.to_dict() for format, flips in material.flips.items()},
        "scores": {format: scores.to_dict() for format, scores in material.scores.items()},
    }
