"""The chain of stages: what each reads, what decides it, what makes it, and whether it has to run.

    graph ── training ── checkpoint ── frozen ── validation ── report

A stage is a row of `STAGES`. Its fingerprint is taken over the digests of the very files that it
reads, so a stage that was redone with the same bytes redoes nothing behind it.
"""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from . import store
from .errors import StoreError
from .fingerprint import digest_code, digest_file
from .manifest import Manifest
from .models.source import PROJECT, ModelSource
from .prefix import files_of, find_prefix, name_of
from .process import run_apart
from .settings import Settings, WarmStart
from .store import Condition, Places, State

_PACKAGE = Path(__file__).resolve().parent
_LIBRARIES = ("tensorflow", "numpy")


@dataclass(frozen=True)
class Job:
    """One model on its way through the chain.

    Args:
        formats: the formats to make and to validate.
        data: the data file, None if the model names none and none was given.
    """

    source: ModelSource
    places: Places
    data: Path | None
    warm_start: WarmStart | None
    formats: tuple[str, ...]
    settings: Settings

    def folder(self, stage: str) -> Path:
        """The last finished version of a stage's artifact, by its own path: it stays when the link moves on."""
        return self.places.artifact(stage).resolve()


Notes = Mapping[str, Any]


@dataclass(frozen=True)
class Stage:
    """A row of the chain.

    Args:
        make: fills a folder; returns notes for the manifest.
        code: the modules that make it; what they import counts too.
        reads: patterns of the files that it reads, by the stage that made them.
        sections: the sections of tasks.cfg that decide it.
        uses_model, uses_data: whether the model's code and the data file decide it.
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
    return _notes(run_apart("pipeline.building:build_graph", job.source, job.settings.graph, folder))


def _make_training(job: Job, folder: Path) -> Notes:
    settings = job.settings
    return _notes(
        run_apart(
            "pipeline.training:train",
            *(job.source, job.data, job.folder("graph"), job.warm_start, settings.split, settings.training, folder),
        )
    )


def _make_checkpoint(job: Job, folder: Path) -> Notes:
    graph, training = job.folder("graph"), job.folder("training")
    return _notes(run_apart("pipeline.checkpoint:export_checkpoint", graph, training, job.settings.export, folder))


def _make_frozen(job: Job, folder: Path) -> Notes:
    from .freezing import freeze_checkpoint

    return freeze_checkpoint(job.folder("checkpoint"), folder)


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
    from .report import write_report

    write_report(folder, report_facts(job))
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
    "frozen": Stage(_make_frozen, ("freezing.py",), {"checkpoint": ("model.ckpt.*", "signature.json")}),
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
RESUMABLE = tuple(name for name, stage in STAGES.items() if stage.is_resumable)


def ingredients(job: Job, name: str, manifests: Mapping[str, Manifest]) -> dict[str, Any]:
    """Everything that decides a stage, by kind.

    Args:
        manifests: those of the stages that it reads, by stage, as far as they are there.
    """
    stage = STAGES[name]
    wanted: dict[str, Any] = {
        "settings": {section: asdict(getattr(job.settings, section)) for section in stage.sections},
        "upstream": {
            f"{upstream}/{path}": digest
            for upstream, patterns in stage.reads.items()
            if upstream in manifests
            for path, digest in manifests[upstream].digests(*patterns).items()
        },
        "code": _pipeline_code(stage.code),
        "versions": _versions(),
    }
    if stage.uses_model:
        wanted["model"] = _model_code(job.source)
    if stage.uses_data:
        wanted["files"] = {label: _digest_if_there(path) for label, path in input_files(job).items()}
        if job.warm_start is not None:
            wanted["settings"]["warm_start_map"] = dict(job.warm_start.keys)
    if stage.is_named:
        wanted["name"] = job.places.name
    return wanted


@lru_cache(maxsize=64)
def _pipeline_code(modules: tuple[str, ...]) -> dict[str, str]:
    digests: dict[str, str] = {}
    for module in modules:
        digests |= digest_code(_PACKAGE / module, [PROJECT])
    return digests


def _model_code(source: ModelSource) -> dict[str, str]:
    return {"class": source.class_name, **digest_code(source.file, source.roots)}


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    return {library: version(library) for library in _LIBRARIES}


def input_files(job: Job) -> dict[str, Path]:
    """The files from outside that a job reads, by what they are to it.

    Raises:
        CheckpointError: the warm start's checkpoint is not there.
    """
    files = {} if job.data is None else {"data": job.data}
    if job.warm_start is not None:
        prefix = find_prefix(job.warm_start.prefix)
        files |= {f"warm start{path.name.removeprefix(name_of(prefix))}": path for path in files_of(prefix)}
    return files


def _digest_if_there(path: Path) -> str | None:
    return digest_file(path) if path.is_file() else None


def examine(job: Job, last: str) -> dict[str, State]:
    """The state of a stage and of all before it, in the order of the chain.

    A stage behind one that has to run is never complete here; whether it really runs is known
    once that one has its new bytes.
    """
    states: dict[str, State] = {}
    for name in _up_to(last):
        artifact, wanted = job.places.artifact(name), ingredients(job, name, _manifests(states))
        waits_for = [upstream for upstream in STAGES[name].reads if not states[upstream].is_complete]
        state = store.examine(artifact, name, wanted, ignored=("upstream",) if waits_for else ())
        if waits_for and state.is_complete:
            reason = f"if {' or '.join(waits_for)} gives other bytes"
            state = replace(state, condition=Condition.WAITING, reasons=(reason,))
        states[name] = replace(state, reasons=tuple(_in_words(reason, job) for reason in state.reasons))
    return states


def _up_to(last: str) -> Iterator[str]:
    """A stage and those that it hangs on, in the order of the chain."""
    needed = {last}
    for name in reversed(STAGES):
        if name in needed:
            needed |= set(STAGES[name].reads)
    return (name for name in STAGES if name in needed)


def _manifests(states: Mapping[str, State]) -> dict[str, Manifest]:
    return {name: state.manifest for name, state in states.items() if state.manifest is not None}


def _in_words(reason: str, job: Job) -> str:
    """Files from outside are ingredients by their bytes alone; people know them by their paths."""
    for label, path in input_files(job).items():
        if reason.startswith((f"{label} changed", f"{label} is ")):
            return reason.replace(label, str(path), 1)
    return reason


def build(job: Job, name: str) -> State:
    """Makes a stage, unless it is complete; its upstream must be.

    Raises:
        PipelineError: whatever its maker refuses; see `store.build` besides.
    """
    stage = STAGES[name]

    def want() -> dict[str, Any]:
        states = {upstream: examine(job, upstream)[upstream] for upstream in stage.reads}
        for upstream, state in states.items():
            if not state.is_complete:
                reason = state.reasons[0] if state.reasons else "it was changed meanwhile"
                raise StoreError(
                    f"{name} needs {upstream}, which is not complete", got=reason, next_step="Run the chain again"
                )
        return ingredients(job, name, _manifests(states))

    def make(folder: Path) -> Notes:
        for upstream, patterns in stage.reads.items():
            store.verify(job.folder(upstream), *patterns)
        made: dict[str, Any] = {
            "command": shlex.join(sys.argv),
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        if stage.uses_data:
            made["inputs"] = {label: str(path.resolve()) for label, path in input_files(job).items()}
        return {**stage.make(job, folder), **made, "python": platform.python_version(), "platform": platform.platform()}

    return store.build(job.places, name, want, make, RESUMABLE)


def read_verdict(job: Job) -> dict[str, Any]:
    """The content of the last verdict.json."""
    verdict: dict[str, Any] = json.loads((job.folder("validation") / "verdict.json").read_text(encoding="utf-8"))
    return verdict


def report_facts(job: Job) -> Any:
    """What the report tells, gathered from the artifacts."""
    from .report import ReportFacts, StageFacts
    from .signature import Signature

    made = [name for name in STAGES if name != "report"]
    manifests = {name: Manifest.read(job.folder(name)) for name in made}
    exported = manifests["checkpoint"].notes
    steps = manifests["training"].notes["steps"]
    return ReportFacts(
        name=job.places.name,
        verdict=read_verdict(job),
        results=job.folder("validation") / "results.csv",
        history=job.folder("training") / "history.csv",
        signature=Signature.read(job.folder("checkpoint") / "signature.json"),
        exported=f"{exported['exported']} step, {exported['step']} of {steps}"
        if steps
        else "initial values, nothing trained",
        sizes={
            f"{stage}/{path}": entry.size_bytes
            for stage in ("checkpoint", *job.formats)
            for path, entry in sorted(manifests[stage].files.items())
            if path.startswith("model.")
        },
        settings=asdict(job.settings),
        versions={**_versions(), "python": platform.python_version()},
        stages=[
            StageFacts(name, manifest.content_digest, manifest.fingerprint, manifest.notes.get("seconds"))
            for name, manifest in manifests.items()
        ],
        command=shlex.join(sys.argv),
    )
