"""Causes that show in the weights: which differ, and what they are instead."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.store.files import CHECKPOINT_PREFIX

from .evidence import Cause, Evidence
from .similarity import BFLOAT16, FLOAT16, TRANSPOSED, Place, Resemblance

_MOST_NAMED = 3
_NEARLY_ALL = 0.9
_AGAIN = "Freeze the checkpoint again"


def averages_not_used(evidence: Evidence) -> Cause | None:
    """Raw variables stand where the checkpoint has moving averages, or the reverse."""
    found = evidence.resemblances
    for place in _common_places(found):
        opposite = Place(place.prefix, not place.is_average)
        is_own = place.prefix == str(evidence.checkpoint / CHECKPOINT_PREFIX)
        if is_own or all(opposite in one.own for one in found):
            has = "moving averages" if place.is_average else "raw variables"
            wants = "raw variables" if place.is_average else "moving averages"
            return Cause(
                "averages_not_used",
                f"the candidate holds the {has} of {_named(found)} where the checkpoint deploys the {wants}: "
                f"its values are those of {place.title} under the "
                f"{'key of the average' if place.is_average else 'plain key'}. Restore the {wants} before freezing",
            )
    return None


def wrong_step(evidence: Evidence) -> Cause | None:
    """The candidate's weights are those of another checkpoint."""
    found = evidence.resemblances
    for place in _common_places(found):
        return Cause(
            "wrong_step",
            f"the candidate's weights are those of another checkpoint, {place.title}: {_named(found)} "
            f"differ{'s' * (len(found) == 1)} from the checkpoint to be deployed and agree there to the bit. {_AGAIN}, "
            "or deploy that step",
        )
    return None


def _common_places(found: Sequence[Resemblance]) -> list[Place]:
    """Where all values of the candidate that differ stand together."""
    if not found:
        return []
    common = frozenset.intersection(*(one.places for one in found))
    return sorted(common, key=lambda place: (place.is_average, place.prefix))


def transposed_weights(evidence: Evidence) -> Cause | None:
    """A kernel equals its own transpose."""
    found = [one for one in evidence.resemblances if TRANSPOSED in one.kinds]
    if not found or len(found) < len(evidence.resemblances):
        return None
    return Cause(
        "transposed_weights",
        f"kernels are transposed: the candidate's {_named(found)} hold{'s' * (len(found) == 1)} the checkpoint's "
        f"values in another order of axes ({_example(found[0])}). Transpose them where the file is written, or do not",
    )


def half_precision(evidence: Evidence) -> Cause | None:
    """Weights are rounded to half precision in a file that is said to be exact."""
    found = evidence.resemblances
    for kind in (FLOAT16, BFLOAT16):
        rounded = [one for one in found if kind in one.kinds]
        if rounded and len(rounded) == len(found):
            return Cause(
                "half_precision",
                f"the weights were rounded to {kind}: {_named(rounded)} equal{'s' * (len(rounded) == 1)} the "
                f"checkpoint's value rounded ({_example(rounded[0])}), in a file that is said to be exact. {_AGAIN}, "
                "or freeze it with [freezing] weights = float16, which is then held to that",
            )
    return None


def other_training(evidence: Evidence) -> Cause | None:
    """Nearly every weight is another."""
    found, weights = evidence.resemblances, evidence.weights
    if weights is None or len(weights.weights) < 2:
        return None
    is_whole = len(found) >= _NEARLY_ALL * len(weights.weights)
    share = sum(one.differing for one in found) / max(1, sum(one.elements for one in found))
    if not is_whole or share < _NEARLY_ALL:
        return None
    return Cause(
        "other_training",
        f"{len(found)} of {len(weights.weights)} variables are others, in {share:.0%} of their elements "
        f"({_example(found[0])}): the candidate comes from another training run, and no other checkpoint that is known "
        f"here has its values. {_AGAIN}, or find the checkpoint that the file was made from",
    )


def weights_differ(evidence: Evidence) -> Cause | None:
    """Some weights are others."""
    weights = evidence.weights
    if weights is None:
        return None
    found = [one for one in weights.weights if not one.is_equal]
    if not found:
        return None
    more = f"; and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    named = "; ".join(one.sentence() for one in found[:_MOST_NAMED])
    return Cause(
        "weights_differ",
        f"the weights differ: variable{'s' * (len(found) > 1)} {named}{more}. {_AGAIN}",
    )


def _named(found: Sequence[Resemblance]) -> str:
    names = [one.name for one in found[:_MOST_NAMED]]
    more = len(found) - len(names)
    return f"{', '.join(names)}{f' and {more} more' if more else ''}"


def _example(one: Resemblance) -> str:
    largest = "" if one.largest is None else f", largest difference {one.largest:g}"
    return f"{one.name}: {one.candidate} instead of {one.reference}{largest}"
