"""Proves a candidate equal to its checkpoint, or says where it is not.

Three checks, each on every output, and one on every variable:

    weights  the candidate's constants against the checkpoint's tensors, byte for byte, before anything is run
    equal    the candidate against the checkpoint, on all validation rows
    edge     the same on rows that no data file holds
    golden   the checkpoint and the candidate against the outputs recorded when the model was trained; none were where
             the checkpoint came from elsewhere, and then that is said

Both run in processes of their own that see the artifacts alone, never the model's code. Names are
compared first, then dtypes and shapes, then values. Whatever cannot be compared has failed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import load_arrays, of_kind
from .edges import edge_batches
from .errors import PipelineError, RunnerError
from .findings import FAILED, PASSED, Validation
from .formats import ApartRunner, Array, Batch
from .metrics import classification, decide, margins
from .rows import batch_size_of
from .settings import ValidationSettings
from .signature import Signature
from .weighing import compare_weights

_VERDICT_SCHEMA = 1
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
    rows, labels = of_kind("input", stored), stored.get("labels")
    recorded = checkpoint / "goldens.npz"
    goldens = load_arrays(recorded) if recorded.exists() else {}
    halved = frozenset(format for format, place in candidates.items() if _weights_of(place) == "float16")
    validation = Validation(model, signature, settings, folder / "results.csv", halved)
    decisions: dict[str, list[Array]] = {}
    size = batch_size_of(signature) or settings.batch_size
    with ApartRunner("checkpoint", checkpoint, threads) as reference:
        _check_goldens(validation, "checkpoint", reference, goldens, size)
        for format, artifact in candidates.items():
            if format in _WEIGHED:
                validation.tell_weights(format, compare_weights(checkpoint, artifact))
            with ApartRunner(format, artifact, threads) as candidate:
                try:
                    _check_equal(validation, reference, candidate, rows, decisions, size)
                    _check_edges(validation, reference, candidate, rows)
                    _check_goldens(validation, format, candidate, goldens, size)
                except PipelineError as exc:
                    validation.fail(format, "equal", f"the candidate could not be run: {exc}")
    verdict = _verdict(validation, rows, goldens, labels, decisions)
    (folder / "verdict.json").write_text(json.dumps(verdict, indent=2) + "\n", encoding="utf-8")
    return verdict


def _weights_of(artifact: Path) -> str:
    """How an artifact stores its weights, as its `signature.json` tells."""
    origin = json.loads((artifact / "signature.json").read_text(encoding="utf-8")).get("origin", {})
    return str(origin.get("weights", "exact"))


def _batches(rows: Batch, size: int) -> Iterator[tuple[Batch, range]]:
    count = len(next(iter(rows.values())))
    for start in range(0, count, size):
        yield (
            {name: values[start : start + size] for name, values in rows.items()},
            range(start, min(start + size, count)),
        )


def _check_equal(
    validation: Validation,
    reference: ApartRunner,
    candidate: ApartRunner,
    rows: Batch,
    decisions: dict[str, list[Array]],
    size: int,
) -> None:
    validation.expect(candidate.format, "equal")
    for batch, numbers in _batches(rows, size):
        reference.ask(batch)
        candidate.ask(batch)
        ours, theirs = reference.answer(), candidate.answer()
        validation.compare(candidate.format, "equal", ours, theirs, numbers)
        decision = validation.signature.decision
        if decision is not None:
            for format, outputs in (("checkpoint", ours), (candidate.format, theirs)):
                if decision.output in outputs:
                    decisions.setdefault(format, []).append(outputs[decision.output])


def _check_edges(validation: Validation, reference: ApartRunner, candidate: ApartRunner, rows: Batch) -> None:
    for label, batch in edge_batches(validation.signature, rows).items():
        answers: dict[str, Batch] = {}
        refusals: dict[str, str | None] = {"reference": None, "candidate": None}
        for side, runner in (("reference", reference), ("candidate", candidate)):
            try:
                answers[side] = runner.run(batch)
            except RunnerError as exc:
                refusals[side] = exc.got or exc.what
        if any(refusals.values()):
            validation.tell_refusals(candidate.format, label, refusals)
        else:
            numbers = [label] * len(next(iter(batch.values())))
            validation.compare(candidate.format, "edge", answers["reference"], answers["candidate"], numbers)


def _check_goldens(validation: Validation, format: str, runner: ApartRunner, goldens: Batch, size: int) -> None:
    if not goldens:
        return
    validation.expect(format, "golden")
    inputs, recorded = of_kind("input", goldens), of_kind("output", goldens)
    count = len(next(iter(inputs.values())))
    for batch, numbers in _batches(inputs, size):
        expected = {
            # An output without the batch as its first dimension is recorded as it is, once for all rows.
            name: values[numbers.start : numbers.stop] if values.ndim and len(values) == count else values
            for name, values in recorded.items()
        }
        validation.compare(format, "golden", expected, runner.run(batch), numbers)


def _verdict(
    validation: Validation, rows: Batch, goldens: Batch, labels: Array | None, decisions: Mapping[str, list[Array]]
) -> dict[str, Any]:
    findings = [validation.findings[key] for key in sorted(validation.findings)]
    reasons = [finding.sentence() for finding in findings if not finding.has_passed]
    if not findings:
        reasons.append("nothing was compared")
    outputs = {format: np.concatenate(parts) for format, parts in decisions.items()}
    return {
        "schema": _VERDICT_SCHEMA,
        "verdict": FAILED if reasons else PASSED,
        "model": validation.model,
        "reasons": reasons,
        "rows": {
            "validation": len(next(iter(rows.values()))),
            "edge": len(edge_batches(validation.signature, rows)),
            "golden": len(next(iter(of_kind("input", goldens).values()), ())),
        },
        "skipped": {
            **({} if goldens else {"golden": "no outputs were recorded when the model was trained"}),
            **validation.skipped,
        },
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
