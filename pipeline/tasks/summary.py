"""The few lines at the end of a run: the verdict, and where things are."""

from __future__ import annotations

from typing import Any

from pipeline.errors import ValidationFailed
from pipeline.formats.registry import CANDIDATES, FORMATS, read_refusal

from .chain import plan
from .chain.facts import read_verdict
from .chain.job import Job


def summary_lines(job: Job, last: str) -> list[str]:
    """What a person wants to know at the end of a run: the verdict, and where things are.

    Args:
        last: the stage that was asked for.
    """
    states = plan.examine(job, last)
    done = [stage for stage, state in states.items() if state.is_complete]
    files = {
        **{name: job.told(name, FORMATS[name].model_file) for name in CANDIDATES},
        **{stage: job.told(stage, FORMATS[name].model_file) for name, stage in job.candidates.items()},
        "validation": job.told("validation", "results.csv"),
        "costs": job.told("costs", "costs.csv"),
        "report": job.told("report", "report.html"),
    }
    lines = []
    if "validation" in done:
        verdict = read_verdict(job)
        lines.append(f"verdict      {verdict['verdict']}{_quality(verdict)}")
        lines += [f"             {reason}" for reason in verdict["reasons"][:3]]
    shown = [stage for stage in done if stage in files or stage == last]
    width = max([12, *map(len, shown)])
    for stage in shown:
        refusal = read_refusal(job.folder(stage)) if stage in CANDIDATES else None
        lines.append(
            f"{stage:<{width}} {files.get(stage, job.told(stage)) if refusal is None else f'refused: {refusal}'}"
        )
    return lines


def require_passed(job: Job) -> None:
    """Says that the last comparison has failed, if it has.

    Raises:
        ValidationFailed: a format is not proven equal.
    """
    verdict = read_verdict(job)
    if verdict["verdict"] != "passed":
        raise ValidationFailed(
            f"{failed_formats(verdict)} not proven equal to its checkpoint: {verdict['reasons'][0]}",
            where=job.paths.artifact("validation"),
            next_step=f"See {job.paths.artifact('report') / 'report.html'}",
        )


def failed_formats(verdict: dict[str, Any]) -> str:
    """Which formats failed, and the verb: `frozen is`, `tflite and onnx are`."""
    failed = {check["format"] for check in verdict["checks"] if check["verdict"] != "passed"}
    named = [format for format in CANDIDATES if format in failed] or ["the candidate"]
    return f"{' and '.join(named)} {'is' if len(named) == 1 else 'are'}"


def _quality(verdict: dict[str, Any]) -> str:
    rows = sum(check["rows"] for check in verdict["checks"])
    text = f": {rows} comparisons"
    for format, figures in verdict["metrics"].items():
        if format != "checkpoint":
            text += f"; {format}: F1 {figures['f1']:.3f}, accuracy {figures['accuracy']:.3f}"
    return text
