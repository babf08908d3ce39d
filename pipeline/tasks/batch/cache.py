"""What came of models when they were last looked at, so that looking again costs a few system calls for each file.

    <output-root>/<name>/.seen.json                  of a model that passed
    <output-root>/batch/.failed/<list>/<name>.json   of one that did not, until the tables of that batch are written

Each holds the outcome, and a digest over everything that it came from: settings, code and versions, and the size, time
stamp and inode of every file that was read or made. If that digest is another one, the manifests are read, and they
decide; if it is the same, all is as `store.examine` would find it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.hashing import hash_values
from pipeline.store.manifest import MANIFEST, Manifest

from ..chain import plan
from ..chain.job import Job
from ..chain.stages import stages_before
from .outcome import Outcome

_LAST = "report"
_SEEN = ".seen.json"
_POINTER = "checkpoint"  # a Saver's file that says which of its checkpoints is the newest


def all_stages(job: Job) -> list[str]:
    """The stages of a whole chain, in their order."""
    return [*stages_before(job, _LAST), _LAST]


def place_of(job: Job) -> Path:
    """Where it is kept that a model passed."""
    return job.paths.home / _SEEN


def place_of_failure(root: Path, stem: str, name: str) -> Path:
    """Where it is kept that a model of a batch did not pass.

    Args:
        root: the output root.
        stem: the name of the batch.
    """
    return root / "batch" / ".failed" / stem / f"{name}.json"


def remember(place: Path, job: Job, outcome: Outcome) -> None:
    """Keeps an outcome until something that it came from changes."""
    files = sorted(set(_files_read(job)) | set(_files_made(job)))
    told = {"rules": _rules(job), "files": files, "digest": _digest_of(files), "outcome": json.loads(outcome.to_json())}
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = place.with_name(f"{place.name}.{os.getpid()}")
    fresh.write_text(json.dumps(told), encoding="utf-8")
    fresh.replace(place)


def recall(place: Path, job: Job) -> Outcome | None:
    """The outcome that was kept; None if there is none, or if something that it came from has changed."""
    try:
        told: dict[str, Any] = json.loads(place.read_bytes())
        if told["rules"] != _rules(job) or told["digest"] != _digest_of(told["files"]):
            return None
        outcome = Outcome.from_dict(told["outcome"])
        # What these files say of a mirror, they do not say of where it is published.
        is_there = job.remote is None or not outcome.has_passed or plan.examine(job, _LAST)[_LAST].is_complete
        return outcome if is_there else None
    except (OSError, ValueError, KeyError, TypeError):  # not there, or not ours: the manifests decide
        pass
    return None


def _rules(job: Job) -> str:
    """A digest over what decides a model besides its files."""
    request = {"place": "" if job.imported is None else job.imported.place, "data": str(job.data)}
    return hash_values("rules", {**request, "stages": {name: plan.rules(job, name) for name in all_stages(job)}})


def _files_read(job: Job) -> Iterator[str]:
    """The files from outside; and what says which files these are."""
    try:
        files = [*plan.input_files(job).values(), *plan.candidate_files(job).values()]
    except PipelineError:  # what makes the stage has said it
        files = []
    if job.imported is not None:
        files.append(Path(job.imported.place))
    for file in files:
        # A folder's time stamp changes with the names in it.
        yield from (str(file), str(file.parent), str(file.parent / _POINTER))


def _files_made(job: Job) -> Iterator[str]:
    for stage in all_stages(job):
        link = job.paths.artifact(stage)
        yield str(link)
        try:
            files = Manifest.read(link).files
        except PipelineError:  # of a model that failed
            files = {}
        yield from (str(link / name) for name in (MANIFEST, *files))


def _digest_of(files: Iterable[str]) -> str:
    """A digest over the states of files and folders: sizes, time stamps, inodes; and where links lead."""
    return hash_values("files", [[file, *_state_of(file)] for file in files])


def _state_of(file: str) -> Sequence[int | str]:
    try:
        if os.path.islink(file):
            return [os.readlink(file)]
        state = os.stat(file)
    except OSError:
        return []
    return [state.st_size, state.st_mtime_ns, state.st_ino]
