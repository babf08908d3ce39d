"""Causes found in the outputs recorded when the model was trained."""

from __future__ import annotations

from pipeline.errors import PipelineError
from pipeline.formats.registry import FORMATS
from pipeline.store.file_names import CHECKPOINT_PREFIX

from ..compare.tolerance import EXACT, all_within
from .evidence import Cause, Evidence
from .onednn import SWITCH, is_on, run_with


def recorded_at_another_step(evidence: Evidence) -> Cause | None:
    """The weights of another step, or the moving averages, reproduce the recorded outputs."""
    if evidence.format != "checkpoint":
        return None
    source = evidence.recorded_source
    if source is None:
        return None
    what = "moving averages" if source.is_average else "weights"
    if source.prefix == str(evidence.checkpoint / CHECKPOINT_PREFIX) or _is_same_step(evidence, source.prefix):
        held = "raw variables" if source.is_average else "moving averages"
        return Cause(
            "averages_not_used",
            f"the recorded outputs are those of the {what} of {source.title}, and the checkpoint deploys its {held}. "
            f"Export the {what}",
        )
    return Cause(
        "wrong_step",
        f"the recorded outputs are those of another checkpoint: the {what} of {source.title} give them. Export that "
        "step, or record the outputs again",
    )


def _is_same_step(evidence: Evidence, prefix: str) -> bool:
    """Returns True if another checkpoint holds the deployed values too, as raw variables or as averages."""
    from pipeline.checkpoint.bundle import open_checkpoint

    from .similarity import AVERAGE

    try:
        own, other = (open_checkpoint(each) for each in (evidence.checkpoint / CHECKPOINT_PREFIX, prefix))
        for key in own.tensors:
            plain = key.removesuffix(AVERAGE)
            sources = [each for each in (plain, plain + AVERAGE) if each in other.tensors]
            if not any(other.read(each).tobytes() == own.read(key).tobytes() for each in sources):
                return False
    except PipelineError:
        return False
    return True


def onednn_on_one_side(evidence: Evidence) -> Cause | None:
    """With oneDNN's kernels switched on or off, the recorded outputs are reproduced."""
    if evidence.format != "checkpoint":
        return None
    inputs, recorded = evidence.goldens
    switched = not is_on()
    try:
        opener = FORMATS[evidence.format].opener
        answers = run_with(switched, opener, evidence.artifact, inputs, evidence.threads)
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
