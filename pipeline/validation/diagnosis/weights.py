"""Causes found in the weights: those that differ, and their similarities."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.store.file_names import CHECKPOINT_PREFIX

from .evidence import Cause, Evidence
from .similarity import BFLOAT16, FLOAT16, TRANSPOSED, Similarity, ValueSource

_MAX_NAMED = 3
_NEARLY_ALL = 0.9
_AGAIN = "Freeze the checkpoint again"


def averages_not_used(evidence: Evidence) -> Cause | None:
    """The candidate holds raw variables instead of the checkpoint's moving averages, or the reverse."""
    found = evidence.similarities
    for source in _common_sources(found):
        opposite = ValueSource(source.prefix, not source.is_average)
        is_own = source.prefix == str(evidence.checkpoint / CHECKPOINT_PREFIX)
        if is_own or all(opposite in one.reference_sources for one in found):
            has = "moving averages" if source.is_average else "raw variables"
            wants = "raw variables" if source.is_average else "moving averages"
            return Cause(
                "averages_not_used",
                f"the candidate holds the {has} of {_list_names(found)} where the checkpoint deploys the {wants}: "
                f"its values are those of {source.title} under the "
                f"{'key of the average' if source.is_average else 'plain key'}. Restore the {wants} before freezing",
            )
    return None


def wrong_step(evidence: Evidence) -> Cause | None:
    """The candidate's weights are those of another checkpoint."""
    found = evidence.similarities
    for source in _common_sources(found):
        return Cause(
            "wrong_step",
            f"the candidate's weights are those of another checkpoint, {source.title}: {_list_names(found)} "
            f"differ{'s' * (len(found) == 1)} from the checkpoint to be deployed and agree there to the bit. {_AGAIN}, "
            "or deploy that step",
        )
    return None


def _common_sources(found: Sequence[Similarity]) -> list[ValueSource]:
    """Lists the sources that hold all of the candidate's values that differ."""
    if not found:
        return []
    common = frozenset.intersection(*(one.sources for one in found))
    return sorted(common, key=lambda source: (source.is_average, source.prefix))


def transposed_weights(evidence: Evidence) -> Cause | None:
    """A kernel equals its own transpose."""
    found = [one for one in evidence.similarities if TRANSPOSED in one.kinds]
    if not found or len(found) < len(evidence.similarities):
        return None
    return Cause(
        "transposed_weights",
        f"kernels are transposed: the candidate's {_list_names(found)} hold{'s' * (len(found) == 1)} the checkpoint's "
        f"values in another order of axes ({_cite(found[0])}). Transpose them where the file is written, or do not",
    )


def half_precision(evidence: Evidence) -> Cause | None:
    """Weights are rounded to half precision in a file that claims to be exact."""
    found = evidence.similarities
    for kind in (FLOAT16, BFLOAT16):
        rounded = [one for one in found if kind in one.kinds]
        if rounded and len(rounded) == len(found):
            return Cause(
                "half_precision",
                f"the weights were rounded to {kind}: {_list_names(rounded)} equal{'s' * (len(rounded) == 1)} the "
                f"checkpoint's value rounded ({_cite(rounded[0])}), in a file that is said to be exact. {_AGAIN}, "
                "or freeze it with [freezing] weights = float16, which is then held to that",
            )
    return None


def other_training(evidence: Evidence) -> Cause | None:
    """Nearly all weights differ."""
    found, weights = evidence.similarities, evidence.weights
    if weights is None or len(weights.variables) < 2:
        return None
    is_whole = len(found) >= _NEARLY_ALL * len(weights.variables)
    share = sum(one.differing for one in found) / max(1, sum(one.elements for one in found))
    if not is_whole or share < _NEARLY_ALL:
        return None
    return Cause(
        "other_training",
        f"{_share(len(found), len(weights.variables))} weights are of another training: {share:.0%} of their elements "
        f"differ ({_cite(found[0])}), and no other checkpoint that is known here has their values. {_AGAIN}, or find "
        "the checkpoint that the file was made from",
    )


def weights_differ(evidence: Evidence) -> Cause | None:
    """Some weights differ."""
    weights = evidence.weights
    if weights is None:
        return None
    found = [one for one in weights.variables if not one.is_equal]
    if not found:
        return None
    more = f"; and {len(found) - _MAX_NAMED} more" if len(found) > _MAX_NAMED else ""
    named = "; ".join(one.sentence() for one in found[:_MAX_NAMED])
    whole = _share(len(found), len(weights.variables))
    return Cause("weights_differ", f"{whole} weights differ: variable{'s' * (len(found) > 1)} {named}{more}. {_AGAIN}")


def _share(part: int, whole: int) -> str:
    return f"all {whole}" if part == whole > 1 else f"{part} of {whole}"


def _list_names(found: Sequence[Similarity]) -> str:
    names = [one.name for one in found[:_MAX_NAMED]]
    more = len(found) - len(names)
    return f"{', '.join(names)}{f' and {more} more' if more else ''}"


def _cite(one: Similarity) -> str:
    largest = "" if one.largest is None else f", largest difference {one.largest:g}"
    return f"{one.name}: {one.candidate} instead of {one.reference}{largest}"
