"""Whether the stages of a job's chain have to run, and running one.

A stage's fingerprint is taken over the digests of the very files that it reads, so a stage that was redone with the
same bytes redoes nothing behind it.
"""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.checkpoint.files import files_of, find_prefix, name_of
from pipeline.errors import CandidateError, CheckpointError, FreezeError, StoreError
from pipeline.hashing import extra_versions, hash_code, hash_file, library_versions
from pipeline.inputs import ImportedCheckpoint, is_keras_file
from pipeline.store import artifact as store
from pipeline.store.artifact import ArtifactStatus, State
from pipeline.store.manifest import Manifest
from pipeline.training.models.source import PROJECT, ModelSource

from .job import Job
from .stages import (
    RESUMABLE,
    Notes,
    Stage,
    stages_before,
    stages_of,
)

_PACKAGE = Path(__file__).resolve().parents[2]


def ingredients(job: Job, name: str, manifests: Mapping[str, Manifest]) -> dict[str, Any]:
    """Everything that decides a stage, by kind.

    Args:
        manifests: those of the stages that it reads, by stage, as far as they are there.
    """
    stage = stages_of(job)[name]
    wanted = rules(job, name)
    wanted["upstream"] = {
        f"{upstream}/{path}": digest
        for upstream, patterns in stage.reads.items()
        if upstream in manifests
        for path, digest in manifests[upstream].digests(*patterns).items()
    }
    if stage.uses_data or stage.uses_candidate:
        wanted["files"] = {label: _digest_if_there(path) for label, path in files_of_stage(job, stage).items()}
    return wanted


def rules(job: Job, name: str) -> dict[str, Any]:
    """What decides a stage besides the bytes that it reads, by kind: settings, code, versions."""
    stage = stages_of(job)[name]
    wanted: dict[str, Any] = {
        "settings": {section: asdict(getattr(job.settings, section)) for section in stage.sections},
        "code": _pipeline_code(stage.code),
        "versions": {**library_versions(), **extra_versions(stage.extras)},
    }
    if stage.reads_formats:
        wanted["settings"]["formats"] = ", ".join(job.formats)
    if stage.uses_model:
        wanted["model"] = _model_code(job.model)
    if stage.uses_candidate and job.candidate is not None:
        told = asdict(job.candidate)
        wanted["settings"]["candidate"] = {name: told[name] for name in ("format", "names", "signature", "allow_ops")}
    if stage.uses_data:
        if job.warm_start is not None:
            wanted["settings"]["warm_start_map"] = dict(job.warm_start.keys)
        if job.imported is not None:
            named = ("inputs", "outputs", "pins", "signature", "allow_ops")
            wanted["settings"]["adopted"] = {name: asdict(job.imported)[name] for name in named}
    if stage.is_named:
        wanted["name"] = job.paths.name
    return wanted


@lru_cache(maxsize=64)
def _pipeline_code(modules: tuple[str, ...]) -> dict[str, str]:
    digests: dict[str, str] = {}
    for module in modules:
        digests |= hash_code(_PACKAGE / module, [PROJECT])
    return digests


def _model_code(source: ModelSource) -> dict[str, str]:
    return {"class": source.class_name, **hash_code(source.file, source.roots)}


def input_files(job: Job) -> dict[str, Path]:
    """The files from outside that a job reads, by what they are to it.

    Raises:
        CheckpointError: the warm start's checkpoint is not there.
    """
    files = {} if job.data is None else {"data": job.data}
    if job.warm_start is not None:
        files |= {f"warm start{name}": path for name, path in _files_of_weights(job.warm_start.prefix).items()}
    if job.imported is not None:
        try:
            files |= {f"checkpoint {name}": path for name, path in _imported_files(job.imported, job.source).items()}
        except (CheckpointError, FreezeError):  # what makes the stage will say it
            files["checkpoint"] = Path(job.imported.place)
    return files


def candidate_files(job: Job) -> dict[str, Path]:
    """The files of the candidate, by what they are to the job."""
    if job.candidate is None:
        return {}
    from pipeline.formats import external

    try:
        return {f"candidate {name}": path for name, path in external.candidate_files(job.candidate).items()}
    except CandidateError:  # what makes the stage will say it
        return {"candidate": job.candidate.place}


def files_of_stage(job: Job, stage: Stage) -> dict[str, Path]:
    """The files from outside that a stage reads, by what they are to it.

    Raises:
        CheckpointError: the warm start's checkpoint is not there.
    """
    files = input_files(job) if stage.uses_data else {}
    return {**files, **candidate_files(job)} if stage.uses_candidate else files


def _imported_files(imported: ImportedCheckpoint, source: ModelSource | None) -> dict[str, Path]:
    if source is not None:  # its code gives the graph, so weights alone may be given
        return _files_of_weights(Path(imported.place))
    from pipeline.training.import_checkpoint import imported_files  # which needs protobuf, and other chains do not

    return imported_files(imported)


def _files_of_weights(place: Path) -> dict[str, Path]:
    """The files of a checkpoint, or the one of Keras's, by what tells them apart."""
    if is_keras_file(place):
        return {place.suffix: place}
    prefix = find_prefix(place)
    return {path.name.removeprefix(name_of(prefix)): path for path in files_of(prefix)}


def _digest_if_there(path: Path) -> str | None:
    return hash_file(path) if path.is_file() else None


def examine(job: Job, last: str) -> dict[str, State]:
    """The state of a stage and of all before it, in the order of the chain.

    A stage behind one that has to run is never complete here; whether it really runs is known
    once that one has its new bytes.
    """
    states: dict[str, State] = {}
    there = None if job.remote is None else job.remote.look()
    for name in (*stages_before(job, last), last):
        artifact, wanted = job.paths.artifact(name), ingredients(job, name, _manifests(states))
        waits_for = [upstream for upstream in stages_of(job)[name].reads if not states[upstream].is_complete]
        ignored = ("upstream",) if waits_for else ()
        state = store.examine(artifact, name, wanted, ignored)
        if there is not None:
            state = there.reconciled(job.paths, name, wanted, ignored, state)
        if waits_for and state.is_complete:
            reason = f"if {' or '.join(waits_for)} gives other bytes"
            state = replace(state, status=ArtifactStatus.WAITING, reasons=(reason,))
        states[name] = replace(state, reasons=tuple(_in_words(reason, job) for reason in state.reasons))
    return states


def _manifests(states: Mapping[str, State]) -> dict[str, Manifest]:
    return {name: state.manifest for name, state in states.items() if state.manifest is not None}


def _in_words(reason: str, job: Job) -> str:
    """Files from outside are ingredients by their bytes alone; people know them by their paths."""
    for label, path in {**input_files(job), **candidate_files(job)}.items():
        if reason.startswith((f"{label} changed", f"{label} is ")):
            return reason.replace(label, str(path), 1)
    return reason


def build(job: Job, name: str) -> State:
    """Makes a stage, unless it is complete; its upstream must be.

    Raises:
        PipelineError: whatever its maker refuses; see `store.build` besides.
    """
    stage = stages_of(job)[name]

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
        if files := files_of_stage(job, stage):
            made["inputs"] = {label: str(path.resolve()) for label, path in files.items()}
        return {**stage.make(job, folder), **made, "python": platform.python_version(), "platform": platform.platform()}

    state = store.build(job.paths, name, want, make, RESUMABLE)
    if job.remote is not None:
        job.remote.push(job.paths, name)
    return state
