"""Files from outside that a job reads: its data, its checkpoints, its candidate."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.checkpoint.files import files_of, find_prefix, name_of
from pipeline.errors import CandidateError, CheckpointError, FreezeError, UnsafeModel
from pipeline.hashing import hash_file
from pipeline.inputs import ImportedCheckpoint, State, files_below, is_keras_file, state_of
from pipeline.training.models.source import ModelSource

from .job import Job
from .model_reads import changed_meanwhile
from .stages import Stage

if TYPE_CHECKING:
    from pipeline.workers.reads import Reads


class InputFiles:
    """The files from outside that a job reads, by label, as they are when they are first asked for.

    Which files these are may be written in other files, such as the graph of a checkpoint, and all of them may change
    between two looks. So make a new object for each look: within one, no file is parsed or hashed twice.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._digests: dict[Path, str | None] = {}
        self._states: dict[Path, State | None] = {}
        self._read: dict[str, Path] = {}

    @cached_property
    def given(self) -> dict[str, Path]:
        """The files of the data, the warm start and the checkpoint.

        Raises:
            CheckpointError: the checkpoint of the warm start is missing.
        """
        job = self._job
        files = {} if job.data is None else _files_of_data(job.data)
        if job.warm_start is not None:
            files |= {f"warm start{name}": path for name, path in _files_of_weights(job.warm_start.prefix).items()}
        if job.imported is not None:
            try:
                imported = _imported_files(job.imported, job.source)
                files |= {f"checkpoint {name}": path for name, path in imported.items()}
            except (CheckpointError, FreezeError):  # the stage that reads it reports this
                files["checkpoint"] = Path(job.imported.path)
        return files

    @cached_property
    def candidate(self) -> dict[str, Path]:
        """The files of the candidate."""
        if self._job.candidate is None:
            return {}
        from pipeline.formats import external

        try:
            files = external.candidate_files(self._job.candidate)
        except (CandidateError, UnsafeModel):  # the stage that reads it reports this
            return {"candidate": self._job.candidate.path}
        return {f"candidate {name}": path for name, path in files.items()}

    def of(self, stage: Stage) -> dict[str, Path]:
        """Return the files that a stage reads. Raises: as `given`."""
        files = dict(self.given) if stage.uses_data else {}
        if stage.uses_candidate:
            files |= self.candidate
        self._read |= files
        return files

    def digests_of(self, stage: Stage) -> dict[str, str | None]:
        """Return the sha256 of each file that a stage reads; None for a missing file. Raises: as `given`."""
        return {label: self._digest(path) for label, path in self.of(stage).items()}

    def _digest(self, path: Path) -> str | None:
        if path not in self._digests:
            self._states[path] = state_of(str(path))
            self._digests[path] = hash_file(path) if path.is_file() else None
        return self._digests[path]

    def require_unchanged(self, earlier: InputFiles, reads: Reads) -> None:
        """Check that each file was the same all the time, so that its hash is that of the bytes that were read.

        Args:
            earlier: the look before they were read.
            reads: what was opened since.

        Raises:
            StoreError: a file is not what was opened, or was changed between the looks although nobody was seen to
                open it.
        """
        opened = {os.path.abspath(label): state for label, state in reads.files.items()}
        changed = {os.path.abspath(label) for label in reads.changed}
        for path, state in self._states.items():
            place = os.path.abspath(path)
            if place in changed or state != opened.get(place, earlier._states.get(path)):
                raise changed_meanwhile(str(path))

    def name_path(self, reason: str) -> str:
        """Replace the label of a file at the start of a sentence by its path, which is what people know it by."""
        for label, path in self._read.items():
            if reason.startswith((f"{label} changed", f"{label} is ")):
                return reason.replace(label, str(path), 1)
        return reason


def _files_of_data(place: Path) -> dict[str, Path]:
    """Return the data file; or the visible files of a folder of data, by their path in it."""
    if not place.is_dir():
        return {"data": place}
    return {f"data {path.relative_to(place).as_posix()}": path for path in files_below(place)} or {"data": place}


def _imported_files(imported: ImportedCheckpoint, source: ModelSource | None) -> dict[str, Path]:
    if source is not None:  # its code gives the graph, so weights alone are enough
        return _files_of_weights(Path(imported.path))
    from pipeline.training.import_checkpoint import imported_files  # loads protobuf, which other chains do not need

    return imported_files(imported)


def _files_of_weights(path: Path) -> dict[str, Path]:
    """Return the files of a checkpoint, or the one Keras file, by the part of the name that differs."""
    if is_keras_file(path):
        return {path.suffix: path}
    prefix = find_prefix(path)
    return {file.name.removeprefix(name_of(prefix)): file for file in files_of(prefix)}
