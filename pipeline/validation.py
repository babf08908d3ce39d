"""Proves a candidate equal to its checkpoint, or says where it is not.

Six checks, one on every variable and five on every output:

    weights    the candidate's constants against the checkpoint's tensors, byte for byte, before anything is run
    equal      the candidate against the checkpoint, on all validation rows
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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import load_arrays, of_kind
from .causes import Cause, explain
from .checks import TABLE, Material, check_recorded
from .errors import PipelineError
from .findings import FAILED, PASSED, Validation
from .formats import FORMATS, ApartRunner, Array
from .metrics import classification, decide, margins
from .rows import batch_size_of
from .settings import CHECKS, ValidationSettings
from .signature import Signature
from .weighing import compare_weights
from .worst import write_worst

_VERDICT_SCHEMA = 2
_WEIGHED = ("frozen", "mmap")  # formats whose files hold the weights as constants


def validate(
    model: str,
    checkpoint: Path,
    candidates: Mapping[str, Path],
    settings: ValidationSettings,
    threads: int,
    folder: Path,
) -> dict[str, Any]:
    """Compares candidates with their checkpoint and writes `results.csv` and `verdict.json`.

    Args:
        model: the name that stands in results.csv.
        checkpoint: the artifact of the checkpoint, with its signature, goldens and validation rows.
        candidates: the artifact's folder by format.
        folder: where the two files are written.

    Returns:
        The content of verdict.json.

    Raises:
        PipelineError: the checkpoint itself cannot be opened or run; what a candidate cannot do is a finding.
    """
    signature = Signature.read(checkpoint / "signature.json")
    stored = load_arrays(checkpoint / "validation.npz")
    recorded = checkpoint / "goldens.npz"
    goldens = load_arrays(recorded) if recorded.exists() else {}
    size = batch_size_of(signature) or settings.batch_size
    material = Material(signature, of_kind("input", stored), goldens, size)
    bounds = {format: _bounds_of(format, place) for format, place in candidates.items()}
    validation = Validation(model, signature, settings, folder / "results.csv", bounds)
    skipped = {name: "it was not asked for" for name in CHECKS if name not in settings.chosen_checks}
    with ApartRunner("checkpoint", checkpoint, threads) as reference:
        if goldens and "golden" not in skipped:
            check_recorded(validation, reference, material)
        for format, artifact in candidates.items():
            if format in _WEIGHED and "weights" not in skipped:
                validation.tell_weights(format, compare_weights(checkpoint, artifact))
            with ApartRunner(format, artifact, threads) as candidate:
                skipped |= _check(validation, reference, candidate, material)
    write_worst(folder, validation, checkpoint, candidates, material, threads)
    causes = explain(validation, checkpoint, candidates, material, threads)
    verdict = _verdict(validation, material, skipped, stored.get("labels"), causes)
    (folder / "verdict.json").write_text(json.dumps(verdict, indent=2) + "\n", encoding="utf-8")
    return verdict


def _check(
    validation: Validation, reference: ApartRunner, candidate: ApartRunner, material: Material
) -> dict[str, str]:
    """Makes the checks of one candidate.

    Returns:
        Why a check was skipped, by its name.
    """
    format, settings, skipped = candidate.format, validation.settings, {}
    for name, check in TABLE.items():
        if name not in settings.chosen_checks:
            continue
        try:
            unfit = check(validation, reference, candidate, material)
        except PipelineError as exc:
            validation.fail(format, name, f"the candidate could not be run: {exc}")
            break
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
    origin = json.loads((artifact / "signature.json").read_text(encoding="utf-8")).get("origin", {})
    weights = str(origin.get("weights", "exact"))
    return FORMATS[format].bounds or ("" if weights == "exact" else weights)


def _verdict(
    validation: Validation,
    material: Material,
    skipped: Mapping[str, str],
    labels: Array | None,
    causes: Mapping[str, Cause],
) -> dict[str, Any]:
    findings = [validation.findings[key] for key in sorted(validation.findings)]
    reasons = [finding.sentence() for finding in findings if not finding.has_passed]
    if not findings:
        reasons.append("nothing was compared")
    reasons += [f"{format}: {cause.sentence}" for format, cause in causes.items()]
    outputs = {format: np.concatenate(parts) for format, parts in material.decisions.items()}
    rows = {name: 0 if name in skipped else material.rows_of(name) for name in TABLE}
    return {
        "schema": _VERDICT_SCHEMA,
        "verdict": FAILED if reasons else PASSED,
        "model": validation.model,
        "reasons": reasons,
        "causes": {format: cause.to_dict() for format, cause in causes.items()},
        "rows": {{"equal": "validation"}.get(name, name): count for name, count in rows.items()},
        "skipped": {**validation.skipped, **skipped},
        "checks": [finding.to_dict() for finding in findings],
        "metrics": _metrics(validation.signature, labels, outputs),
        "decisions": _decisions(validation.signature, outputs),
    }


def _metrics(signature: Signature, labels: Array | None, outputs: Mapping[str, Array]) -> dict[str, Any]:
    decision = signature.decision
    if decision is None or labels is None or labels.dtype.kind not in "iu" or not len(labels):
        return {}
    return {
        format: classification(labels, decide(output, decision), decision)
        for format, output in outputs.items()
        if len(output) == len(labels)
    }


def _decisions(signature: Signature, outputs: Mapping[str, Array]) -> dict[str, Any]:
    """For each candidate how many rows are decided otherwise, and how close the nearest row is to that."""
    decision = signature.decision
    if decision is None or "checkpoint" not in outputs:
        return {}
    reference = outputs["checkpoint"]
    distances = margins(reference, decision)
    found = {}
    for format, output in outputs.items():
        if format != "checkpoint" and output.shape == reference.shape:
            flipped = int((decide(output, decision) != decide(reference, decision)).sum())
            nearest = int(np.argmin(distances))
            found[format] = {
                "rows": len(output),
                "flipped": flipped,
                "nearest_row": nearest,
                "nearest_distance": float(distances[nearest]),
            }
    return found
