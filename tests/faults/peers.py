"""What other tools' comparison rules make of the outputs of a reference and a candidate.

Each rule is written anew, in short, after the file that is named in its docstring, at its defaults. Only the rule is
taken: how a tool gets its outputs, and which rows it asks, is left aside, so that each is given the rows that
validation has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Batch = Mapping[str, Array]

PASSES, FAILS, WARNS = "passes", "fails", "warns"
_OLIVE_BOUND = 1e-5  # its own default is none


def polygraphy(reference: Batch, candidate: Batch) -> str:
    """`CompareFunc.simple`, tools/Polygraphy/polygraphy/comparator/compare.py in NVIDIA/TensorRT.

    Outputs are paired by name, else by a part of the name, else by position; one without a partner is left out. An
    element fails if it is beyond the absolute *and* the relative bound.
    """
    pairs = [(name, _partner(name, number, reference, candidate)) for number, name in enumerate(reference)]
    pairs = [(name, other) for name, other in pairs if other is not None]
    if not pairs:
        return f"{FAILS} (no output in common)"
    for name, other in pairs:
        ours, theirs = reference[name], candidate[other]
        if ours.shape != theirs.shape:
            return f"{FAILS} (shape)"
        if ours.dtype.kind in "OSU":
            return f"{FAILS} (cannot subtract strings)"
        with np.errstate(all="ignore"):
            wide = [side.astype(np.float64 if side.dtype.kind == "f" else np.int64) for side in (ours, theirs)]
            apart = np.abs(wide[0] - wide[1])
            relative = apart / np.abs(np.where(wide[1] == 0, np.finfo(float).eps, wide[1]))
        if np.any(((apart > 1e-5) | np.isnan(apart)) & ((relative > 1e-5) | np.isnan(relative))):
            return FAILS
    return f"{PASSES} ({len(pairs)} of {len(reference)} outputs)" if len(pairs) < len(reference) else PASSES


def _partner(name: str, number: int, reference: Batch, candidate: Batch) -> str | None:
    if name in candidate:
        return name
    alike = [other for other in candidate if name.lower() in other.lower() or other.lower() in name.lower()]
    found = (alike or list(candidate)[number : number + 1] or [None])[0]
    return None if found in reference else found


def model_navigator(reference: Batch, candidate: Batch) -> str:
    """`correctness`, in triton-inference-server/model_navigator.

    That is model_navigator/commands/correctness/correctness_script.py there.

    The number of outputs must be the same, and the candidate must hold no NaN and no infinity. Differences are noted as
    the tolerance that would be needed, and nothing is held against a bound; shapes are broadcast.
    """
    if len(reference) != len(candidate):
        return f"{FAILS} (number of outputs)"
    needed = 0.0
    for name in reference:
        if name not in candidate:
            return f"{FAILS} (name)"
        if reference[name].dtype.kind in "OSU":
            return f"{FAILS} (cannot take strings)"
        if not np.isfinite(candidate[name]).all():
            return f"{FAILS} (NaN or infinity)"
        try:
            with np.errstate(all="ignore"):
                needed = max(needed, float(np.max(np.abs(reference[name] - candidate[name]))))
        except ValueError:
            return f"{FAILS} (shape)"
    return f"{PASSES} (notes {needed:.2g})" if needed else PASSES


def olive(reference: Batch, candidate: Batch) -> str:
    """`OnnxDiscrepancyCheck`, olive/passes/onnx/discrepancy_check.py in microsoft/Olive.

    The first output alone; the largest absolute difference against `max_mae`, which is not set by default and 1e-5
    here. A NaN is larger than nothing.
    """
    ours, theirs = next(iter(reference.values())), next(iter(candidate.values()))
    if ours.dtype.kind in "OSU":
        return f"{FAILS} (cannot convert strings)"
    try:
        with np.errstate(all="ignore"):
            largest = float(np.max(np.abs(ours.astype(np.float64) - theirs.astype(np.float64))))
    except ValueError:
        return f"{FAILS} (shape)"
    return FAILS if largest > _OLIVE_BOUND else PASSES


def optimum(reference: Batch, candidate: Batch) -> str:
    """`validate_model_outputs`, optimum/exporters/onnx/convert.py in huggingface/optimum.

    The candidate's outputs must be among the reference's; shapes must agree; values by `numpy.allclose` with an
    absolute bound of 1e-5 and numpy's relative one. The command that exports raises a ShapeError, and turns the errors
    of names and values into a warning (optimum/exporters/onnx/__main__.py).
    """
    if not set(candidate) <= set(reference):
        return f"{WARNS} (names)"
    if any(reference[name].shape != candidate[name].shape for name in candidate):
        return f"{FAILS} (shape)"
    if any(reference[name].dtype.kind in "OSU" for name in candidate):
        return PASSES  # an exception of the comparison is passed over
    is_close = all(np.allclose(reference[name], candidate[name], atol=1e-5) for name in candidate)
    return PASSES if is_close else WARNS


RULES: dict[str, Callable[[Batch, Batch], str]] = {
    "Polygraphy": polygraphy,
    "model_navigator": model_navigator,
    "Olive": olive,
    "Optimum": optimum,
}
