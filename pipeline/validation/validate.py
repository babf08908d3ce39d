"""Proves a candidate equal to its checkpoint, or says where it is not.

Seven checks, one on every variable, the others on outputs:

    weights    the candidate's constants against the checkpoint's tensors, byte for byte, before anything is run
    equal      the candidate against the checkpoint, on all validation rows
    decisions  what the candidate decides, at the threshold or by argmax, against what the checkpoint does
    edge       the same on rows that no data file holds
    generated  the same on seeded random rows, in batches of several sizes
    stable     the candidate against itself: the same validation rows again, in another order and other batches; what
               depends on a row's neighbours or on chance is equal to its checkpoint, and wrong all the same
    golden     the checkpoint and the candidate against the outputs recorded when the model was trained; none were
               where the checkpoint came from elsewhere

All are made where they apply, and what is skipped is said; or those that were asked for, and then one that does not
apply has failed. Both run in processes of their own that see the artifacts alone, never the model's code. Names are
compared first, then dtypes and shapes, then values. Whatever cannot be compared has failed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.formats.registry import FORMATS, refusal_of
from pipeline.formats.runner import SubprocessRunner, fixed_batch
from pipeline.settings import CHECKS, FAILED, PASSED, ValidationSettings
from pipeline.store.files import RESULTS_FILE, SIGNATURE_FILE, VERDICT_FILE
from pipeline.workers.child import Limits

from .checks.material import Material, limits_of, read_material
from .checks.registry import TABLE, check_recorded
from .compare.weights import compare_weights
from .diagnosis import Cause, explain
from .replay.worst_rows import write_worst
from .results.recorder import ResultsRecorder
from .sharding import Pair, Sharding, Shards

_VERDICT_SCHEMA = 2
_WEIGHED = ("frozen", "mmap")  # formats whose files hold the weights as constants


def validate(
    model: str,
    checkpoint: Path,
    candidates: Mapping[str, Path],
    settings: ValidationSettings,
    threads: int,
    folder: Path,
    tell_speed: Callable[[str, float], None] = lambda format, rows_per_second: None,
    sharding: Sharding | None = None,
) -> dict[str, Any]:
    """Compares candidates with their checkpoint and writes `results.csv` and `verdict.json`.

    Args:
        model: the name that stands in results.csv.
        checkpoint: the artifact of the checkpoint, with its signature, goldens and validation rows.
        candidates: the artifact's folder by format.
        folder: where the two files are written; the same comparison gives the same bytes.
        tell_speed: called with each format and how many validation rows were compared in a second.
        sharding: who compares many validation rows in the place of this process; the bytes are the same.

    Returns:
        The content of verdict.json.

    Raises:
        SettingError: a tolerance is for an output that is not there.
        PipelineError: the checkpoint itself cannot be opened or run; what a candidate cannot do is a finding.
    """
    batch = fixed_batch(candidates)
    material = read_material(checkpoint, settings, batch)
    refusals = {format: reason for format, place in candidates.items() if (reason := refusal_of(place)) is not None}
    candidates = {format: place for format, place in candidates.items() if format not in refusals}
    bounds = {format: _bounds_of(format, place) for format, place in candidates.items()}
    validation = ResultsRecorder(model, material.signature, settings, folder / RESULTS_FILE, bounds)
    skipped = {name: "it was not asked for" for name in CHECKS if name not in settings.chosen_checks}
    limits = Limits(*settings.limits)
    with ExitStack() as opened:
        opened.enter_context(validation)
        if sharding is not None and len(material.rows) > sharding.rows:
            engine = opened.enter_context(sharding.open_executor())
            places = {format: place.absolute() for format, place in candidates.items()}
            pair = Pair(model, checkpoint.absolute(), places, settings, bounds, threads, batch)
            material.compare_elsewhere = Shards(engine, sharding.rows, pair, folder)
        reference = opened.enter_context(
            SubprocessRunner("checkpoint", checkpoint, threads, limits_of(checkpoint, limits))
        )
        for format, reason in refusals.items():
            validation.tell_unmade(format, reason)
        if material.goldens and "golden" not in skipped:
            check_recorded(validation, reference, material)
        for format, artifact in candidates.items():
            if format in _WEIGHED and "weights" not in skipped:
                validation.tell_weights(format, compare_weights(checkpoint, artifact))
            with SubprocessRunner(format, artifact, threads, limits) as candidate:
                skipped |= _check(validation, reference, candidate, material)
    write_worst(folder, validation, checkpoint, candidates, material, threads)
    causes = explain(validation, checkpoint, candidates, material, threads)
    verdict = _verdict(validation, material, skipped, causes)
    (folder / VERDICT_FILE).write_text(json.dumps(verdict, indent=2) + "\n", encoding="utf-8")
    for format, rows_per_second in material.rows_per_second.items():
        tell_speed(format, rows_per_second)
    return verdict


def _check(
    validation: ResultsRecorder, reference: SubprocessRunner, candidate: SubprocessRunner, material: Material
) -> dict[str, str]:
    """Makes the checks of one candidate.

    Returns:
        Why a check was skipped, by its name.
    """
    format, settings, skipped = candidate.format, validation.settings, dict[str, str]()
    for name, check in TABLE.items():
        if name not in settings.chosen_checks:
            continue
        if candidate.has_ended:
            skipped[f"{name} of {format}"] = "its process had ended before"
            continue
        try:
            unfit = check(validation, reference, candidate, material)
        except PipelineError as exc:
            if exc is reference.last_error:
                raise
            validation.tell_crash(format, name, str(exc))
            continue
        if unfit is not None and settings.is_every_check:
            skipped[name] = unfit
        elif unfit is not None:
            validation.fail(format, name, f"{name} was asked for ([validation] checks), and does not apply: {unfit}")
        elif name == "stable":
            without = {spec.name for spec in material.signature.outputs} - set(material.sample(format).outputs)
            skipped |= {f"stable of {output}": "it has not one answer for each row" for output in sorted(without)}
    return skipped


def _bounds_of(format: str, artifact: Path) -> str:
    """Whose bounds a candidate's floats are held to: its format's, or those of how its weights are stored."""
    origin = json.loads((artifact / SIGNATURE_FILE).read_text(encoding="utf-8")).get("origin", {})
    return FORMATS[format].bounds or ("half" if origin.get("weights") == "float16" else "")


def _verdict(
    validation: ResultsRecorder, material: Material, skipped: Mapping[str, str], causes: Mapping[str, Cause]
) -> dict[str, Any]:
    findings = [validation.findings[key] for key in sorted(validation.findings)]
    reasons = [finding.sentence() for finding in findings if not finding.has_passed]
    if not findings:
        reasons.append("nothing was compared")
    reasons += [f"{format}: {cause.sentence}" for format, cause in causes.items()]
    rows = {name: 0 if name in skipped else material.rows_of(name) for name in TABLE}
    metrics = {format: scores.metrics() for format, scores in material.scores.items()}
    return {
        "schema": _VERDICT_SCHEMA,
        "verdict": FAILED if reasons else PASSED,
        "model": validation.model,
        "reasons": reasons,
        "causes": {format: cause.to_dict() for format, cause in causes.items()},
        "rows": {{"equal": "validation"}.get(name, name): count for name, count in rows.items()},
        "skipped": {**validation.skipped, **skipped},
        "notes": validation.notes,
        "checks": [finding.to_dict() for finding in findings],
        "metrics": {format: figures for format, figures in metrics.items() if figures},
        "decisions": {format: flips.to_dict() for format, flips in material.flips.items()},
        "scores": {format: scores.to_dict() for format, scores in material.scores.items()},
    }
