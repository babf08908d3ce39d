"""The three words for a candidate: proved, tested or differs; and what stands behind each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.settings import DIFFERS, PROVED, TESTED

from ..compare.tolerance import EXACT
from ..proof.prove import Proof
from .csv_file import text_line
from .findings import Finding
from .recorder import ResultsRecorder

_CONFIDENT = 3  # of n rows without one that differs: with 95 % confidence fewer than 3 in n do (rule of three)


def record_proof(recorder: ResultsRecorder, format: str, proof: Proof) -> None:
    """Records the check `graph`: a line for each output, with the word as the candidate's value.

    An output that is not proved fails only if a proof is required (`[validation] require`).
    """
    is_required = recorder.settings.require == PROVED
    recorder.proved[format] = frozenset(
        output.name for output in proof.outputs if output.is_proved and not output.within
    )
    for output in proof.outputs:
        has_passed = output.is_proved or not is_required
        finding = Finding(format, "graph", output.name, "", EXACT)
        recorder.findings[format, "graph", output.name, ""] = finding
        proved = f"{PROVED}, {output.within}" if output.within else PROVED
        word = proved if output.is_proved else f"{TESTED}: {'; '.join(output.reasons)}"
        recorder.add_line(finding, text_line("graph", "", word, has_passed), has_passed)
        if not has_passed:
            finding.fail(f"graph of {output.name}: it is not proved: {'; '.join(output.reasons)}")


def proofs_of(
    proofs: Mapping[str, Proof], formats: Iterable[str], findings: Iterable[Finding], data_rows: int
) -> dict[str, Any]:
    """Returns for each format its word, and what stands between it and a proof, as verdict.json has it.

    Args:
        proofs: of the formats whose graph was compared.
        formats: all that were compared.
        data_rows: number of rows of the data that were compared; 0 if all rows were made up.
    """
    own: dict[str, list[Finding]] = {}
    for finding in findings:
        own.setdefault(finding.format, []).append(finding)
    found = {}
    for format in formats:
        has_failed = any(not finding.has_passed for finding in own.get(format, ()) if not finding.runtime)
        proof = proofs.get(format)
        is_proved = proof is not None and proof.word == PROVED
        word = DIFFERS if has_failed else PROVED if is_proved else TESTED
        reasons = list(proof.reasons) if proof is not None else ["its file is no graph of TensorFlow's"]
        outputs = {} if proof is None else {one.name: PROVED if one.is_proved else TESTED for one in proof.outputs}
        if word == TESTED and data_rows >= 2 * _CONFIDENT:
            reasons.append(
                f"0 of {data_rows:,} rows differ: with 95 % confidence fewer than 1 in {data_rows // _CONFIDENT:,} "
                "such rows do"
            )
        found[format] = {"word": word, "outputs": outputs, "reasons": [] if is_proved else reasons}
        if is_proved and proof is not None and proof.within:
            found[format]["within"] = proof.within
    return found
