"""Says of a failure without a cause of a known kind what it is not, how large it is, and what to examine next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..results.findings import COMPARED
from .evidence import Evidence
from .node_findings import Agreement, Divergence


def explain_unknown(evidence: Evidence, failed: Sequence[str] = ()) -> str:
    """Returns the sentence for the kind `unknown`.

    Args:
        failed: sentences on examinations that could not be made.
    """
    checks = ", ".join(dict.fromkeys(one.check for one in evidence.failed))
    parts = [f"{checks} failed{_extent(evidence)}", f"excluded are {'; '.join(_excluded(evidence))}"]
    unexamined = [*_unexamined(evidence), *failed]
    if unexamined:
        parts.append(f"not examined: {'; '.join(unexamined)}")
    return ". ".join([*(part[0].upper() + part[1:] if number else part for number, part in enumerate(parts))]) + (
        f". {_next_step(evidence)}"
    )


def _extent(evidence: Evidence) -> str:
    """Says how many values of the first output that differs do so, and by how much."""
    if evidence.format == "checkpoint":
        return ""
    for output in sorted(evidence.failed_outputs(*COMPARED)):
        sides = evidence.flat(output)
        if sides is None or sides[0].dtype.kind not in "fiuV":
            continue
        with np.errstate(all="ignore"):
            wide = [side.astype(np.float64) for side in sides]
            distance = np.nan_to_num(np.abs(wide[0] - wide[1]), nan=0.0, posinf=0.0)
        count, size = (
            int((sides[0] != sides[1]).sum()),
            float(np.nan_to_num(np.abs(wide[0]), posinf=0.0).max(initial=0)),
        )
        share = f", {distance.max() / size:.2g} of the largest value" if size and distance.size else ""
        return f" ({count} of {distance.size} values of {output} differ, by up to {distance.max(initial=0):.3g}{share})"
    return ""


def _excluded(evidence: Evidence) -> Iterator[str]:
    if evidence.format == "checkpoint":
        yield "another checkpoint that is known here, for none gives the recorded outputs"
        yield "oneDNN's kernels, with which they do not come out either"
        return
    weights = evidence.weights
    if weights is not None and weights.variables and all(one.is_equal for one in weights.variables):
        yield f"other weights, for all {len(weights.variables)} variables are the checkpoint's to the bit"
    found = evidence.divergence
    if isinstance(found, Agreement):
        yield f"another graph, for all {found.compared} inner tensors agree"
    elif isinstance(found, Divergence):
        yield f"a node of another op or with other attributes, though {found.sentence()}"
    if evidence.has_failed("stable") and evidence.graph is not None:
        yield "a node that answers the same rows otherwise when it is asked again, or among other rows"
    yield "a crash, and outputs that are missing, swapped or of another dtype or shape"


def _unexamined(evidence: Evidence) -> Iterator[str]:
    if evidence.format == "checkpoint":
        return
    if evidence.graph is None:
        yield "weights and inner tensors, of which this format keeps no names"
    elif not evidence.has_saver:
        yield "inner tensors, for the checkpoint is a SavedModel, whose functions keep no names to compare them by"


def _next_step(evidence: Evidence) -> str:
    again = "feed the worst rows again with worst/reproduce.sh"
    if evidence.graph is None and evidence.format != "checkpoint":
        return (
            f"Validate frozen as well (--formats frozen): if it passes, the conversion from it is to blame; and {again}"
        )
    return again.capitalize()
