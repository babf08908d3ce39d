"""Causes that show in what was recorded when the model was trained."""

from __future__ import annotations

import numpy as np

from pipeline.errors import PipelineError
from pipeline.formats.registry import FORMATS
from pipeline.signature import Batch
from pipeline.store.files import CHECKPOINT_PREFIX

from ..compare import differences
from ..compare.differences import Tolerance
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
    if place.prefix == str(evidence.checkpoint / CHECKPOINT_PREFIX) or _is_same_step(evidence, place.prefix):
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
        own, other = (open_checkpoint(each) for each in (evidence.checkpoint / CHECKPOINT_PREFIX, prefix))
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
    if not _are_within(recorded, answers, evidence.golden_bounds()):
        return None
    here, there = ("on", "off") if not switched else ("off", "on")
    return Cause(
        "onednn_on_one_side",
        f"oneDNN's kernels were {there} when the outputs were recorded and are {here} here: with {SWITCH}="
        f"{int(switched)} the recorded outputs come out. Set it alike where the model is trained, validated and served",
    )


def _are_within(recorded: Batch, answers: Batch, bounds: dict[str, tuple[float, float]]) -> bool:
    for name, values in recorded.items():
        if name not in answers or differences.disagreement(values, answers[name]) is not None:
            return False
        if values.size:
            flat = [np.asarray(side).reshape(1, -1) for side in (values, answers[name])]
            bound = Tolerance(*bounds.get(name, (0.0, 0.0)))
            if not differences.judge(differences.measure(flat[0], flat[1]), bound).all():
                return False
    return True
