"""Cache of outcomes, so that checking a finished model again costs a few system calls per file.

    <output-root>/<name>/.seen.json                  a model that passed
    <output-root>/batch/.failed/<list>/<name>.json   a model that did not, until the tables of that batch are written

Each file holds the outcome and two digests: one of the settings, code and versions, one of the size, time stamp and
inode of every file that was read or made. If a digest differs, the manifests are read and decide; if both are equal,
`store.examine` would find everything complete.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.hashing import hash_values
from pipeline.store.file_names import MANIFEST_FILE
from pipeline.store.manifest import Manifest

from ..chain.input_files import InputFiles
from ..chain.job import Job
from ..chain.plan import Chain
from .outcome import Outcome

_SEEN = ".seen.json"
_POINTER = "checkpoint"  # a Saver's file that names the newest checkpoint of a folder


def passed_file(job: Job) -> Path:
    """Return the cache file of a model that passed."""
    return job.paths.home / _SEEN


def failed_file(root: Path, stem: str, name: str) -> Path:
    """Return the cache file of a model of a batch that did not pass.

    Args:
        root: the output root.
        stem: the name of the batch.
    """
    return root / "batch" / ".failed" / stem / f"{name}.json"


def store(path: Path, chain: Chain, outcome: Outcome) -> None:
    """Store an outcome; it is valid until something that decided it changes."""
    files = sorted(set(_files_read(chain.job)) | set(_files_made(chain)))
    entry = {
        "rules": _hash_static_inputs(chain),
        "files": files,
        "digest": _hash_states(files),
        "outcome": asdict(outcome),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps(entry), encoding="utf-8")
    fresh.replace(path)


def load(path: Path, chain: Chain) -> Outcome | None:
    """Load a stored outcome; return None if there is none, or if something that decided it has changed."""
    try:
        entry: dict[str, Any] = json.loads(path.read_bytes())
        if entry["rules"] != _hash_static_inputs(chain) or entry["digest"] != _hash_states(entry["files"]):
            return None
        outcome = Outcome(**entry["outcome"])
    except (OSError, ValueError, KeyError, TypeError):  # missing, or not a file of ours: the manifests decide
        return None
    # The files are those of the local mirror; what is published has to be examined.
    is_local = chain.job.remote is None or not outcome.has_passed
    return outcome if is_local or chain.examine("report")["report"].is_complete else None


def _hash_static_inputs(chain: Chain) -> str:
    """Hash everything that decides a model besides its files."""
    job = chain.job
    # With its own folder: the files are named in full, and those of a copied output root are not those of the original.
    given = {
        "home": str(job.paths.home),
        "place": "" if job.imported is None else job.imported.place,
        "data": str(job.data),
    }
    return hash_values("rules", {**given, "stages": {name: chain.static_inputs(name) for name in chain.up_to()}})


def _files_read(job: Job) -> Iterator[str]:
    """Yield the files from outside, and what decides which files these are."""
    look = InputFiles(job)
    try:
        files = [*look.given.values(), *look.candidate.values()]
    except PipelineError:  # the stage that reads them has reported this
        files = []
    if job.imported is not None:
        files.append(Path(job.imported.place))
    for file in files:
        # The time stamp of a folder changes with the names in it.
        yield from (str(file), str(file.parent), str(file.parent / _POINTER))


def _files_made(chain: Chain) -> Iterator[str]:
    for stage in chain.up_to():
        link = chain.job.paths.artifact(stage)
        yield str(link)
        try:
            files = Manifest.read(link).files
        except PipelineError:  # the model failed before this stage
            files = {}
        yield from (str(link / name) for name in (MANIFEST_FILE, *files))


def _hash_states(files: Iterable[str]) -> str:
    """Hash the states of files and folders: sizes, time stamps and inodes, and the targets of links."""
    return hash_values("files", [[file, *_file_state(file)] for file in files])


def _file_state(file: str) -> Sequence[int | str]:
    try:
        if os.path.islink(file):
            return [os.readlink(file)]
        state = os.stat(file)
    except OSError:
        return []
    return [state.st_size, state.st_mtime_ns, state.st_ino]
