"""Causes found in the values of outputs. They need no names of inner tensors, so they apply to every format."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from pipeline.signature import Array

from ..compare.tolerance import all_within
from ..results.findings import COMPARED, Finding
from .evidence import Cause, Evidence
from .node_findings import Divergence

_BYTES = {8: "a byte", 16: "two bytes", 32: "four bytes"}


def outputs_swapped(evidence: Evidence) -> Cause | None:
    """Two outputs of the candidate are the checkpoint's, exchanged."""
    failed = sorted(evidence.failed_outputs(*COMPARED, "golden"))
    if len(failed) < 2:
        return None
    for one, other in combinations(failed, 2):
        crossed = [evidence.flat(one, other), evidence.flat(other, one)]
        own = [evidence.flat(one), evidence.flat(other)]
        if all(_is_within(evidence, one, sides) for sides in crossed) and not any(
            _is_within(evidence, one, sides) for sides in own
        ):
            return Cause(
                "outputs_swapped",
                f"outputs are swapped: the candidate's {one} gives what the checkpoint's {other} gives, and the "
                "reverse. Swap their names in the file that was converted, or in the signature",
            )
    return None


def _is_within(evidence: Evidence, output: str, sides: tuple[Array, Array] | None) -> bool:
    if sides is None:
        return False
    finding = next(one for one in evidence.failed if one.output == output)
    return all_within(*sides, finding.tolerance)


def nan(evidence: Evidence) -> Cause | None:
    """The candidate gives NaN where the checkpoint gives numbers."""
    for output in sorted(evidence.failed_outputs(*COMPARED)):
        sides = evidence.flat(output)
        if sides is None or sides[0].dtype.kind not in "fcV":
            continue
        is_new = np.isnan(sides[1].astype(np.float64)) & ~np.isnan(sides[0].astype(np.float64))
        if is_new.any():
            where = _first_nan(evidence)
            return Cause(
                "nan",
                f"the candidate gives NaN where the checkpoint gives numbers, in {int(is_new.sum())} of {is_new.size} "
                f"values of {output} that were looked at{where}. Look at what this node is given: a root or a "
                "logarithm of a negative number, or 0/0",
            )
    return None


def _first_nan(evidence: Evidence) -> str:
    found = evidence.divergence
    if not isinstance(found, Divergence):
        return ""
    first = "the first node that gives it is" if found.candidate == "nan" else "before that"
    return f"; {first} {found.tensor.split(':')[0]}: {found.sentence()}"


def wrapped_integers(evidence: Evidence) -> Cause | None:
    """Integers differ by multiples of the range of a smaller integer type."""
    for output in sorted(evidence.failed_outputs(*COMPARED)):
        sides = evidence.flat(output)
        if sides is None:
            continue
        gaps = _whole_differences(*sides)
        bits = next((bits for bits in (32, 16, 8) if len(gaps) and not (gaps % 2**bits).any()), None)
        if bits is not None:
            found = evidence.divergence
            where = f": {found.sentence()}" if isinstance(found, Divergence) else ""
            return Cause(
                "wrapped_integers",
                f"integers wrap around: all {len(gaps)} differences of {output} are multiples of {2**bits}, as where "
                f"a number is held in {_BYTES[bits]}{where}. Compute in a wider type, and convert last",
            )
    return None


def _whole_differences(expected: Array, actual: Array) -> Array:
    """Computes the gaps differences, int64 `[n]`; empty if a value is no integer below 2^53."""
    nothing = np.zeros(0, np.int64)
    if expected.dtype.kind not in "iuf":
        return nothing
    wide = [side.astype(np.float64) for side in (expected, actual)]
    if not all(np.isfinite(side).all() and (np.abs(side) < 2**53).all() and (side % 1 == 0).all() for side in wide):
        return nothing
    differences = np.abs(wide[0] - wide[1]).astype(np.int64)
    return np.asarray(differences[differences != 0])


def decision_at_the_edge(evidence: Evidence) -> Cause | None:
    """All values are within their tolerance, but a decision differs."""
    failed = {one.check for one in evidence.failed}
    decision = evidence.signature.decision
    if failed != {"decisions"} or decision is None:
        return None
    found = next(one for one in evidence.failed if one.check == "decisions")
    at = "a tie of the largest values" if decision.threshold is None else f"the threshold {decision.threshold:g}"
    return Cause(
        "decision_at_the_edge",
        f"{found.rows_failed} of {found.rows} rows are decided otherwise though {decision.output} is within its "
        f"tolerance: they lie at {at}, where a last bit decides{_cite(found)}. Move the threshold away from the "
        "rows, or decide ties by a rule of your own",
    )


def _cite(found: Finding) -> str:
    worst = found.worst or {}
    if "row" not in worst:
        return ""
    return f" (row {worst['row']}: class {worst.get('reference')} became {worst.get('candidate')})"
