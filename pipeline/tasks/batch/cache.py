"""Cache of outcomes, so that checking a finished model again costs a few system calls per file.

    <output-root>/<name>/.seen.json                  a model that passed
    <output-root>/batch/.failed/<list>/<name>.json   a model that did not, until the tables of that batch are written

Each file holds the outcome and two digests: one of the parameters, settings, code and versions, one of the states of
all files that were read or made; and the hashes of the environment variables that the model's code has read. If one
differs, the manifests are read and decide. If all are equal, `Chain.examine` would find everything complete, as it did
when the outcome was stored: a state holds the time of change of the inode, which the kernel sets at every write, and
which cannot be set back as the time of change can.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError, StoreError
from pipeline.store.file_names import MANIFEST_FILE
from pipeline.store.folder import read_file, write_file
from pipeline.store.manifest import MOST_BYTES, Manifest

from ..chain.input_files import InputFiles
from ..chain.job import Job
from ..chain.model_reads import variable_now
from ..chain.plan import Chain
from .outcome import Outcome, read_outcome

_SEEN = ".seen.json"
_POINTER = "checkpoint"  # a Saver's file that names the newest checkpoint of a folder
_TICK_NS = 50_000_000  # two writes within a tick of the kernel's clock may have the same time stamp


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


@dataclass(frozen=True)
class Inputs:
    """What decides a model, at one moment.

    Args:
        rules: the hash of everything besides files and environment variables.
        read: files and folders.
        digest: the hash of their states.
        variables: the hashes of environment variables, by name.
    """

    rules: str
    read: tuple[str, ...]
    digest: str
    variables: Mapping[str, str | None]

    @classmethod
    def look(cls, chain: Chain) -> Inputs:
        """Look at everything; whatever is examined afterwards is not older."""
        recorded, names = chain.recorded_reads()
        read = tuple(sorted({*_files_read(chain.job), *recorded}))
        _wait_for_next_tick(read)
        variables = {name: variable_now(name) for name in names}
        return cls(_hash_static_inputs(chain), read, _hash_states(read), variables)

    def look_again(self, chain: Chain) -> Inputs:
        """Look at the same files and variables again."""
        variables = {name: variable_now(name) for name in self.variables}
        return Inputs(_hash_static_inputs(chain), self.read, _hash_states(self.read), variables)


def look(chain: Chain, inputs: Inputs | None = None) -> tuple[dict[str, Any], bool]:
    """Return what decides an outcome, for `store`, and whether it is certain that everything is complete.

    Args:
        inputs: a look before everything was examined; it is certain if nothing has changed since. None for a look that
            comes first.
    """
    now = Inputs.look(chain) if inputs is None else inputs.look_again(chain)
    made, digest, is_as_finished = _look_at_made(chain)
    return {**asdict(now), "made": made, "digest_of_made": digest}, now == inputs and is_as_finished


def store(path: Path, looked: Mapping[str, Any], outcome: Outcome) -> None:
    """Store an outcome; it is valid until something that decided it changes.

    Args:
        looked: the first result of `look`; if that was not certain, everything was examined afterwards.
    """
    root = path.parents[1] if path.name == _SEEN else path.parents[3]
    write_file(path, json.dumps({**looked, "outcome": asdict(outcome)}).encode(), root)


def load(path: Path, chain: Chain) -> Outcome | None:
    """Load a stored outcome; return None if there is none, or if something that decided it has changed."""
    try:
        entry: dict[str, Any] = json.loads(read_file(path, MOST_BYTES))
        if entry["rules"] != _hash_static_inputs(chain) or entry["digest"] != _hash_states(entry["read"]):
            return None
        if entry["digest_of_made"] != _hash_states(entry["made"]):
            return None
        if any(variable_now(name) != value for name, value in entry["variables"].items()):
            return None
        outcome = read_outcome(entry["outcome"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, StoreError):
        # Missing, or not a file of ours: the manifests decide.
        return None
    # The files are those of the local mirror; what is published has to be examined, and bytes if all are hashed.
    is_enough = chain.job.remote is None and not chain.job.operations.store.is_full
    return outcome if is_enough or not outcome.has_passed or chain.examine("report")["report"].is_complete else None


def _hash_static_inputs(chain: Chain) -> str:
    """Hash everything that decides a model besides its files."""
    job = chain.job
    given = {
        # The files are named in full, and those of a copied output root are not those of the original.
        "home": str(job.paths.home),
        # Which files are read is known by their names only after a checkpoint is parsed, so the names decide too.
        "job": repr((job.source, job.data_source, job.warm_start, job.formats, job.imported, job.candidate)),
    }
    return _hash_json({**given, "stages": {name: chain.static_inputs(name) for name in chain.up_to()}})


def _files_read(job: Job) -> Iterator[str]:
    """Yield the files from outside, and what decides which files these are."""
    look = InputFiles(job)
    try:
        files = [*look.given.values(), *look.candidate.values()]
    except PipelineError:  # the stage that reads them has reported this
        files = []
    if job.imported is not None:
        files.append(Path(job.imported.path))
    if job.data is not None:  # perhaps a folder, which gets a new folder
        files.append(job.data)
    for file in files:
        # The time stamp of a folder changes with the names in it.
        yield from (str(file), str(file.parent), str(file.parent / _POINTER))


def _look_at_made(chain: Chain) -> tuple[list[str], str, bool]:
    """Return the files of all artifacts, the hash of their states, and whether they are as they were finished.

    They are if they have the sizes and time stamps of their manifests, as where an artifact is examined.
    """
    made, finished, is_whole = list[str](), dict[Path, tuple[int, int]](), True
    for stage in chain.up_to():
        link = chain.job.paths.artifact(stage)
        try:
            entries = Manifest.read(link).files
        except PipelineError:  # the model failed before this stage
            entries, is_whole = {}, False
        made += [str(link), str(link / MANIFEST_FILE), *(str(link / name) for name in entries)]
        finished |= {link / name: (entry.size_bytes, entry.mtime_ns) for name, entry in entries.items()}
    digest = _hash_states(made)
    return made, digest, is_whole and all(_size_and_time(path) == entry for path, entry in finished.items())


def _size_and_time(file: Path) -> tuple[int, int] | None:
    with suppress(OSError):
        state = os.lstat(file)
        return state.st_size, state.st_mtime_ns
    return None


def _hash_states(files: Iterable[str]) -> str:
    """Hash the states of files and folders: sizes, time stamps and inodes, and the targets of links."""
    return _hash_json([[file, *_file_state(file)] for file in files])


def _hash_json(value: Any) -> str:
    """Hash plain values; much faster than `hash_values`, which writes what is to stay the same for ever."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _file_state(file: str) -> Sequence[int | str]:
    try:
        link = [os.readlink(file)] if os.path.islink(file) else []
        state = os.stat(file)
    except OSError:
        return []
    return [*link, state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]


def _wait_for_next_tick(files: Iterable[str]) -> None:
    """Wait until a further write to any of the files would have another time stamp."""
    newest = 0
    for file in files:
        with suppress(OSError):
            newest = max(newest, os.stat(file).st_ctime_ns)
    left = newest + _TICK_NS - time.time_ns()
    if left > 0:
        time.sleep(min(left, _TICK_NS) / 1e9)  # a clock of another machine may be ahead
