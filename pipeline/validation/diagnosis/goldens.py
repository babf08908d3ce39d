"""Causes that show in what was recorded when the model was trained."""

from __future__ import annotations

from pipeline.errors import PipelineError
from pipeline.formats.registry import FORMATS

from ..compare.tolerance import EXACT, all_within
from .evidence import Cause, Evidence
from .onednn import SWITCH, answers_with, is_on


def recorded_at_another_step(evidence: Evidence) -> Cause | None:
    """The weights of another step, or the averages, give the recorded outputs."""
    if evidence.format != "checkpoint":
        return None
    place = evidence.recorded_by
    if place is None:
        return None
    what = "moving averages" if place.is_average else "weights"
    if place.prefix == str(evidence.checkpoint / "model.ckpt") or _is_same_step(evidence, place.prefix):
        held = "raw variables" if place.is_average else "moving averages"
        return Cause(
            "averages_not_used",
            f"the recorded outputs are those of the {what} of {place.title}, and the checkpoint deploys its {held}. "
            f"Export the {what}",
        )
    return Cause(
        "wrong_step",
        f"the recorded outputs are those of another checkpoint: the {what} of {place.title} give them. Export that "
        "step, or record the outputs again",
    )


def _is_same_step(evidence: Evidence, prefix: str) -> bool:
    """Whether another checkpoint holds the deployed values too, under the other of plain key and average."""
    from pipeline.checkpoint.bundle import open_checkpoint

    from .similarity import AVERAGE

    try:
        own, other = (open_checkpoint(each) for each in (evidence.checkpoint / "model.ckpt", prefix))
        for key in own.tensors:
            plain = key.removesuffix(AVERAGE)
            places = [each for each in (plain, plain + AVERAGE) if each in other.tensors]
            if not any(other.read(each).tobytes() == own.read(key).tobytes() for each in places):
                return False
    except PipelineError:
        return False
    return True


def onednn_on_one_side(evidence: Evidence) -> Cause | None:
    """With oneDNN's kernels switched over, the recorded outputs come out."""
    if evidence.format != "checkpoint":
        return None
    inputs, recorded = evidence.goldens
    switched = not is_on()
    try:
        opener = FORMATS[evidence.format].opener
        answers = answers_with(switched, opener, evidence.artifact, inputs, evidence.threads)
    except PipelineError:
        return None
    tolerances = evidence.golden_tolerances()
    if not all(
        name in answers and all_within(values, answers[name], tolerances.get(name, EXACT))
        for name, values in recorded.items()
    ):
        return None
    here, there = ("on", "off") if not switched else ("off", "on")
    return Cause(
        "onednn_on_one_side",
        f"oneDNN's kernels were {there} when the outputs were recorded and are {here} here: with {SWITCH}="
        f"{int(switched)} the recorded outputs come out. Set it alike where the model is trained, validated and served",
    )
