"""Summary of a run: the verdict, and where the results are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pipeline.errors import ValidationFailed
from pipeline.formats.registry import CANDIDATES, FORMATS, read_refusal
from pipeline.report import gist
from pipeline.report.wording import count_noun, join_names
from pipeline.settings import PASSED, PROVED, TESTED
from pipeline.store.artifact import ArtifactState
from pipeline.store.file_names import COSTS_TABLE_FILE, REPORT_FILE, RESULTS_FILE, SIGNATURE_FILE, VERDICT_FILE

from .chain.job import Job
from .chain.plan import Chain
from .chain.results import count_made_up_rows, read_verdict

_MOST_CAUSES = 3  # of a failed validation
_MOST_LEFT = 6  # weights of a checkpoint


def summary_lines(chain: Chain, last: str, states: Mapping[str, ArtifactState] | None = None) -> list[str]:
    """Return the lines that a run prints at its end: the verdict, and where the results are.

    Args:
        last: the requested stage.
        states: what `chain.examine(last)` has returned, if nothing was made since.
    """
    job, states = chain.job, states or chain.examine(last)
    done = [stage for stage, state in states.items() if state.is_complete]
    files = {
        **{name: job.display_path(name, FORMATS[name].model_file) for name in CANDIDATES},
        **{stage: job.display_path(stage, FORMATS[name].model_file) for name, stage in job.candidates.items()},
        "validation": job.display_path("validation", RESULTS_FILE),
        "costs": job.display_path("costs", COSTS_TABLE_FILE),
        "report": job.display_path("report", REPORT_FILE),
    }
    lines = _verdict_lines(job) if "validation" in done else []
    lines += _signature_lines(job) if job.imported is not None and "checkpoint" in done else []
    shown = [stage for stage in done if stage in files or stage == last]
    width = max([12, *map(len, shown)])
    for stage in shown:
        refusal = read_refusal(job.folder(stage)) if stage in CANDIDATES else None
        path = files.get(stage, job.display_path(stage))
        lines.append(f"{stage:<{width}} {path if refusal is None else f'refused: {refusal}'}")
    if "checkpoint" not in done:
        return lines
    return [*lines, *_lines_beside(job, states["checkpoint"]), *_lines_left_out(states["checkpoint"])]


def _lines_left_out(state: ArtifactState) -> list[str]:
    """Return what a checkpoint holds that the model's code has nothing for: the code may lack a part."""
    left = state.manifest.notes.get("left_out") if state.manifest is not None else None
    if not left:
        return []
    more = f" and {len(left) - _MOST_LEFT} more" if len(left) > _MOST_LEFT else ""
    return [f"left out     {', '.join(left[:_MOST_LEFT])}{more}: in the checkpoint, and not in the code"]


def _lines_beside(job: Job, state: ArtifactState) -> list[str]:
    """Return what may be wanted beside the outputs that were found in a checkpoint, with the command."""
    beside = state.manifest.notes.get("beside") if state.manifest is not None else None
    if job.imported is None or job.imported.outputs or not beside:
        return []
    from pipeline.freezing.asking import command_beside  # loads protobuf, which most runs do not need

    return [f"also there   {beside['words']}: {command_beside(job.imported, beside['outputs'])}"]


def _signature_lines(job: Job) -> list[str]:
    """Return the inputs and outputs of a checkpoint that somebody brought, which were named or found."""
    from pipeline.signature import Signature  # most runs start from no checkpoint

    signature = Signature.read(job.folder("checkpoint") / SIGNATURE_FILE)
    lines = [f"input        {spec}" for spec in signature.inputs]
    return [*lines, *(f"output       {spec}" for spec in signature.outputs)]


def _verdict_lines(job: Job) -> list[str]:
    """Return what a person reads first: passed, in how many comparisons; or the cause, what to do, and the figures."""
    verdict = read_verdict(job)
    made_up = count_made_up_rows(job, verdict)
    on = (f", on {count_noun(made_up, 'made-up row')}" if made_up else "") + _few_answers(verdict)
    if verdict["verdict"] == PASSED:
        return [
            f"verdict      passed: {count_noun(gist.count_comparisons(verdict), 'comparison')}{on}{_quality(verdict)}"
            f"{_proved(verdict)}",
            *_proven_nothing(verdict),
        ]
    known = gist.failures(verdict)
    alone = " on made-up rows alone: all rows of the data agree" if gist.fails_on_made_up_rows_alone(verdict) else ""
    lines = [f"verdict      {verdict['verdict']}{alone}"]
    for failure in known[:_MOST_CAUSES]:
        lines.append(f"cause        {failure}")
        lines += [f"next         {failure.next_step}"] if failure.next_step else []
    if len(known) > _MOST_CAUSES:
        lines.append(
            f"             and {len(known) - _MOST_CAUSES} more in {job.display_path('validation', VERDICT_FILE)}"
        )
    return [*lines, f"figures      {gist.figures(verdict)}{on}"]


def _proven_nothing(verdict: Mapping[str, Any]) -> list[str]:
    """Return the notes on checks none of whose rows is one that the model takes; other notes are in the report."""
    notes = (note for notes in (verdict.get("notes") or {}).values() for note in notes)
    of_all = [note for note in dict.fromkeys(notes) if re.match(r"\w+: (\d+) of \1 ", note)]
    skipped = (verdict.get("skipped") or {}).items()
    refused = [f"{check}: {why}" for check, why in skipped if why.startswith(("these rows were made up", "all rows"))]
    return [f"note         {note}" for note in (*of_all, *refused)]


def _proved(verdict: Mapping[str, Any]) -> str:
    """Return the formats that are proved for every input, and those that are tested, in the words of the verdict."""
    proved, tested = (gist.with_word(verdict, word) for word in (PROVED, TESTED))
    parts = [f"; {join_names(proved)} proved for every input"] if proved else []
    return "".join([*parts, *([f"; {join_names(tested)} tested, not proved"] if tested else [])])


def _few_answers(verdict: Mapping[str, Any]) -> str:
    """Return what says that an output has fewer answers than there are rows, as where it is one for a whole batch."""
    equal = [check for check in verdict["checks"] if check["check"] == "equal" and check.get("rows")]
    few = min(equal, key=lambda check: int(check["rows"]), default=None)
    if few is None or few["rows"] >= (verdict.get("rows") or {}).get("validation", 0):
        return ""
    return f"; equal compared {count_noun(few['rows'], 'answer')} of {few['output']}, not one for each row"


def require_passed(job: Job) -> None:
    """Raise an error if the last comparison failed.

    Raises:
        ValidationFailed: a format is not proven equal.
    """
    verdict = read_verdict(job)
    if verdict["verdict"] != PASSED:
        known = gist.failures(verdict)
        is_whole = len(known) != 1 or gist.fails_on_made_up_rows_alone(verdict)
        why = gist.reason(verdict) if is_whole else known[0].detail
        raise ValidationFailed(
            f"{failed_formats(verdict)} not proven equal to its checkpoint: {why}",
            where=job.display_path("validation"),
            next_step=f"See {job.display_path('report', REPORT_FILE)}",
        )


def failed_formats(verdict: Mapping[str, Any]) -> str:
    """Return the formats that failed, with the verb: `frozen is`, `tflite and onnx are`."""
    failed = {check["format"] for check in verdict["checks"] if check["verdict"] != PASSED}
    named = [format for format in CANDIDATES if format in failed] or ["the candidate"]
    return f"{' and '.join(named)} {'is' if len(named) == 1 else 'are'}"


def _quality(verdict: Mapping[str, Any]) -> str:
    """Return the metrics of the format that answers worst."""
    metrics = {format: figures for format, figures in verdict["metrics"].items() if format != "checkpoint"}
    if not metrics:
        return ""
    worst = min(metrics, key=lambda format: (metrics[format]["accuracy"], metrics[format]["f1"]))
    figures = metrics[worst]
    same = all((each["f1"], each["accuracy"]) == (figures["f1"], figures["accuracy"]) for each in metrics.values())
    name = worst if len(metrics) == 1 else "every format" if same else f"lowest {worst}"
    return f"; {name}: F1 {figures['f1']:.3f}, accuracy {figures['accuracy']:.3f}"
