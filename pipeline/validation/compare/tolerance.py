"""Tolerance: how far a candidate may be from its checkpoint. It is chosen and applied here alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.formats.registry import FORMATS
from pipeline.settings import ValidationSettings
from pipeline.signature import Array, read_origin
from pipeline.store.file_names import SIGNATURE_FILE

from .differences import Differences, disagreement, measure
from .precision import Precision


@dataclass(frozen=True)
class Tolerance:
    """A candidate is within it where |candidate - reference| <= atol + rtol * |reference|."""

    rtol: float
    atol: float


EXACT = Tolerance(0.0, 0.0)


def tolerance_class_of(format: str, artifact: Path) -> str:
    """Names the settings that a candidate's floats are compared with, such as `half` for `half_rtol` and `half_atol`.

    Returns:
        The class of its format, or of the way its weights are stored, or of integers that it computes in; empty for
        that of each dtype.
    """
    origin = read_origin(artifact / SIGNATURE_FILE)
    if origin.get("candidate", {}).get("computed") == "int8":
        return "int8"
    return FORMATS[format].tolerance_class or ("half" if origin.get("weights") == "float16" else "")


def tolerance_for(settings: ValidationSettings, dtype: str, tolerance_class: str = "", output: str = "") -> Tolerance:
    """Chooses the tolerance for an output; exact for all dtypes but floats.

    Args:
        tolerance_class: replaces the dtype for float32 and float64; `runtime` for float32 alone, because the bounds of
            float64 are wide enough for another runtime.
        output: its name; its own bounds in [validation] tolerances come first.
    """
    if output in settings.output_tolerances:
        return Tolerance(*settings.output_tolerances[output])
    kind = {"complex64": "float32", "complex128": "float64"}.get(dtype, dtype)
    if "float" not in kind:  # `int8_rtol` is for weights stored as int8, not for outputs of that dtype
        return EXACT
    if tolerance_class and kind in ("float32", "float64") and (tolerance_class, kind) != ("runtime", "float64"):
        kind = tolerance_class
    return Tolerance(float(getattr(settings, f"{kind}_rtol", 0.0)), float(getattr(settings, f"{kind}_atol", 0.0)))


def widen(
    settings: ValidationSettings, tolerance: Tolerance, dtype: str, output: str, precision: Precision | None
) -> Tolerance:
    """Widens the tolerance of a float output to that of what it is computed in; its own bounds stay.

    Args:
        precision: see `precision.find_precisions`; None if it is computed in its own dtype.
    """
    if precision is None or output in settings.output_tolerances or not ("float" in dtype or "complex" in dtype):
        return tolerance
    rtol = float(getattr(settings, f"{precision.dtype}_rtol")) * math.sqrt(precision.roundings)
    return Tolerance(max(tolerance.rtol, rtol), max(tolerance.atol, rtol * precision.scale))


def flipped_share_for(settings: ValidationSettings, tolerance_class: str = "") -> float:
    """Chooses the share of rows whose decision may differ; see `tolerance_for` for the class."""
    name = f"{tolerance_class}_flipped_share" if tolerance_class else "flipped_share"
    return float(getattr(settings, name, settings.flipped_share))


def within_tolerance(differences: Differences, tolerance: Tolerance) -> Array:
    """Compares each element with its bound: bool `[rows, elements]`; NaN is never within."""
    with np.errstate(over="ignore"):
        bound = tolerance.atol + tolerance.rtol * differences.magnitude
    # The bound may overflow to infinity, but an infinite difference is never within.
    return np.asarray(np.isfinite(differences.absolute) & (differences.absolute <= bound))


def is_rounding(differences: Differences, tolerance: Tolerance) -> Array:
    """Compares each element with the relative bound of the largest number of its row: bool `[rows, elements]`."""
    largest = differences.magnitude.max(axis=1, keepdims=True, initial=0)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(np.isfinite(differences.absolute) & (differences.absolute <= tolerance.rtol * largest))


def all_within(reference: Array, candidate: Array, tolerance: Tolerance) -> bool:
    """Returns True if two arrays have the same dtype and shape, and all elements are within the tolerance."""
    if disagreement(reference, candidate) is not None:
        return False
    flat = [np.asarray(side).reshape(1, -1) for side in (reference, candidate)]
    return bool(within_tolerance(measure(flat[0], flat[1]), tolerance).all())
