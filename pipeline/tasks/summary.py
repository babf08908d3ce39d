"""Summary of a run: the verdict, and where the results are."""

from __future__ import annotations

from typing import Any

from pipeline.errors import ValidationFailed
from pipeline.formats.registry import CANDIDATES, FORMATS, read_refusal
from pipeline.settings import PASSED
from pipeline.store.file_names import COSTS_TABLE_FILE, REPORT_FILE, RESULTS_FILE, VERDICT_FILE

from .chain.job import Job
from .chain.plan import Chain
from .chain.results import read_verdict

_MOST_REASONS = 3  # of a failed validation


def summary_lines(chain: Chain, last: str) -> list[str]:
    """Return the lines that a run prints at its end: the verdict, and where the results are.

    Args:
        last: the requested stage.
    """
    job, states = chain.job, chain.examine(last)
    done = [stage for stage, state in states.items() if state.is_complete]
    files = {
        **{name: job.display_path(name, FORMATS[name].model_file) for name in CANDIDATES},
        **{stage: job.display_path(stage, FORMATS[name].model_file) for name, stage in job.candidates.items()},
        "validation": job.display_path("validation", RESULTS_FILE),
        "costs": job.display_path("costs", COSTS_TABLE_FILE),
        "report": job.display_path("report", REPORT_FILE),
    }
    lines = _verdict_lines(job) if "validation" in done else []
    shown = [stage for stage in done if stage in files or stage == last]
    width = max([12, *map(len, shown)])
    for stage in shown:
        refusal = read_refusal(job.folder(stage)) if stage in CANDIDATES else None
        path = files.get(stage, job.display_path(stage))
        lines.append(f"{stage:<{width}} {path if refusal is None else f'refused: {refusal}'}")
    return lines


def _verdict_lines(job: Job) -> list[str]:
    verdict = read_verdict(job)
    reasons = verdict["reasons"]
    if len(reasons) > _MOST_REASONS:  # the last is the cause
        rest = f"… {len(reasons) - _MOST_REASONS} more in {job.display_path('validation', VERDICT_FILE)}"
        reasons = [*reasons[: _MOST_REASONS - 1], rest, reasons[-1]]
    return [f"verdict      {verdict['verdict']}{_quality(verdict)}", *(f"             {reason}" for reason in reasons)]


def require_passed(job: Job) -> None:
    """Raise an error if the last comparison failed.

    Raises:
        ValidationFailed: a format is not proven equal.
    """
    verdict = read_verdict(job)
    if verdict["verdict"] != PASSED:
        raise ValidationFailed(
            f"{failed_formats(verdict)} not proven equal to its checkpoint: {verdict['reasons'][0]}",
            where=job.display_path("validation"),
            next_step=f"See {job.display_path('report', REPORT_FILE)}",
        )


def failed_formats(verdict: dict[str, Any]) -> str:
    """Return the formats that failed, with the verb: `frozen is`, `tflite and onnx are`."""
    failed = {check["format"] for check in verdict["checks"] if check["verdict"] != PASSED}
    named = [format for format in CANDIDATES if format in failed] or ["the candidate"]
    return f"{' and '.join(named)} {'is' if len(named) == 1 else 'are'}"


def _quality(verdict: dict[str, Any]) -> str:
    rows = sum(check["rows"] for check in verdict["checks"])
    text = f": {rows} comparisons"
    for format, figures in verdict["metrics"].items():
        if format != "checkpoint":
            text += f"; {format}: F1 {figures['f1']:.3f}, accuracy {figures['accuracy']:.3f}"
    return text
