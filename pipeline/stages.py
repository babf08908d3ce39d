"""The stages of a chain, as a table: what each reads, what decides it, what makes it.

    graph ── training ── checkpoint ── frozen ── validation ── report

A chain may start at a checkpoint that exists already: then nothing is trained, and without a model's code no graph is
built either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .job import Job
from .process import run_apart

Notes = Mapping[str, Any]


@dataclass(frozen=True)
class Stage:
    """A row of the chain.

    Args:
        make: fills a folder; returns notes for the manifest.
        code: the modules that make it; what they import counts too.
        reads: patterns of the files that it reads, by the stage that made them.
        sections: the sections of tasks.cfg that decide it.
        uses_model, uses_data: whether the model's code and the files from outside decide it.
        is_named: whether the run's name is written into it.
        is_resumable: whether a killed run is gone on with.
    """

    make: Callable[[Job, Path], Notes]
    code: tuple[str, ...]
    reads: Mapping[str, tuple[str, ...]]
    sections: tuple[str, ...] = ()
    uses_model: bool = False
    uses_data: bool = False
    is_named: bool = False
    is_resumable: bool = False


def _make_graph(job: Job, folder: Path) -> Notes:
    return _notes(run_apart("pipeline.building:build_graph", job.model, job.settings.graph, folder))


def _make_training(job: Job, folder: Path) -> Notes:
    settings = job.settings
    return _notes(
        run_apart(
            "pipeline.training:train",
            *(job.model, job.data, job.folder("graph"), job.warm_start, settings.split, settings.training, folder),
        )
    )


def _make_checkpoint(job: Job, folder: Path) -> Notes:
    graph, training = job.folder("graph"), job.folder("training")
    return _notes(run_apart("pipeline.checkpoint:export_checkpoint", graph, training, job.settings.export, folder))


def _make_adopted(job: Job, folder: Path) -> Notes:
    from .adoption import adopt_checkpoint

    assert job.adopted is not None  # such chains alone have this stage
    return adopt_checkpoint(job.adopted, job.data, job.settings.split.seed, folder)


def _make_filled(job: Job, folder: Path) -> Notes:
    assert job.adopted is not None
    return _notes(
        run_apart(
            "pipeline.filling:fill_checkpoint", job.model, job.data, job.folder("graph"), job.adopted.place, folder
        )
    )


def _make_frozen(job: Job, folder: Path) -> Notes:
    from .freezing import freeze_checkpoint

    return freeze_checkpoint(job.folder("checkpoint"), folder, job.settings.freezing.weights)


def _make_validation(job: Job, folder: Path) -> Notes:
    from .validation import validate

    candidates = {format: job.folder(format) for format in job.formats}
    verdict = validate(
        job.places.name,
        job.folder("checkpoint"),
        candidates,
        job.settings.validation,
        job.settings.training.threads,
        folder,
    )
    return {"verdict": verdict["verdict"], "rows": verdict["rows"]}


def _make_report(job: Job, folder: Path) -> Notes:
    from .facts import report_facts
    from .report import write_report

    write_report(folder, report_facts(job, [name for name in stages_of(job) if name != "report"]))
    return {}


def _notes(result: Any) -> Notes:
    return dict(result)


_ALL = ("*",)

STAGES: dict[str, Stage] = {
    "graph": Stage(_make_graph, ("building.py",), {}, ("graph",), uses_model=True),
    "training": Stage(
        _make_training,
        ("training/__init__.py",),
        {"graph": _ALL},
        ("split", "training"),
        uses_model=True,
        uses_data=True,
        is_resumable=True,
    ),
    "checkpoint": Stage(
        _make_checkpoint,
        ("checkpoint.py",),
        {"graph": ("inference.meta", "signature.json"), "training": ("deploy/*", "validation.npz")},
        ("export",),
    ),
    "frozen": Stage(
        _make_frozen,
        ("freezing.py",),
        {"checkpoint": ("model.ckpt*", "saved_model/*", "signature.json")},
        ("freezing",),
    ),
    "validation": Stage(
        _make_validation,
        ("validation.py", "formats/serving.py", "formats/checkpoint.py", "formats/frozen.py"),
        {"checkpoint": _ALL, "frozen": _ALL},
        ("validation",),
        is_named=True,
    ),
    "report": Stage(
        _make_report,
        ("report/__init__.py",),
        {"training": ("history.csv",), "checkpoint": _ALL, "frozen": _ALL, "validation": _ALL},
        is_named=True,
    ),
}
_REPORT = replace(STAGES["report"], reads={"checkpoint": _ALL, "frozen": _ALL, "validation": _ALL})
# The chain of a checkpoint that brings its own graph.
_ADOPTED: dict[str, Stage] = {
    "checkpoint": Stage(_make_adopted, ("adoption.py",), {}, ("split",), uses_data=True),
    **{name: STAGES[name] for name in ("frozen", "validation")},
    "report": _REPORT,
}
# The chain of a model's own graph and somebody else's weights.
_FILLED: dict[str, Stage] = {
    "graph": STAGES["graph"],
    "checkpoint": Stage(
        _make_filled,
        ("filling.py",),
        {"graph": ("inference.meta", "signature.json")},
        uses_model=True,
        uses_data=True,
    ),
    **{name: STAGES[name] for name in ("frozen", "validation")},
    "report": _REPORT,
}


def stages_of(job: Job) -> dict[str, Stage]:
    """The stages of a job's chain, by name and in their order."""
    if job.adopted is None:
        return STAGES
    return _ADOPTED if job.source is None else _FILLED


RESUMABLE = tuple(name for name, stage in STAGES.items() if stage.is_resumable)
