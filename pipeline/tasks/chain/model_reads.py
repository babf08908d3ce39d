"""What a model's code reads besides the files that are named on the command line: it decides the stage that runs it.

It is known only after the stage was made, and stands in the manifest under these kinds:

    model_files      the sha256 of each file that was opened; null for one that was looked for and missing, "folder" for
                     a folder whose existence was asked for
    model_links      the target of each link that was looked up
    model_folders    the sha256 of the names in each folder that was listed
    model_variables  the sha256 of each environment variable that was read; null for one that was not set

A file is named relative to the folder of the model's code, if it is in there; beginning with `./`, if the code gave it
relative to the working folder; else in full.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import StoreError
from pipeline.hashing import hash_file, hash_values
from pipeline.inputs import state_of
from pipeline.store.artifact import ArtifactPaths
from pipeline.store.manifest import RECORDED
from pipeline.training.models.source import ModelSource
from pipeline.workers.worker import WORKER_ENVIRONMENT

if TYPE_CHECKING:  # it is loaded where it is needed: most runs find all complete, and nothing else recorded
    from pipeline.workers.reads import Reads, Watch

JOURNAL = ".reads"  # in the folder of a stage that is being made
GRAPH_READS = "graph_reads"  # the note of those files that a graph reads again whenever it runs


def watch_for(source: ModelSource | None, paths: ArtifactPaths, journal: Path | None) -> Watch:
    """Say what to record while a stage is made.

    Args:
        source: the model's code, if the stage runs it.
        paths: the artifacts of the job, which count by themselves.
        journal: a file for the reads of a stage that may be interrupted.
    """
    from pipeline.workers.reads import Watch

    ignored = tuple(f"{path}/" for path in {os.path.abspath(paths.home), os.path.realpath(paths.home)})
    if source is None:
        return Watch(ignored=ignored)
    environment = {**WORKER_ENVIRONMENT, **os.environ}
    return Watch(source.own_code, ignored, environment, journal)


class ModelReads:
    """Translates between the reads of one model's code and the manifests of its stages."""

    def __init__(self, source: ModelSource) -> None:
        self._folder = os.path.abspath(source.file.parent)
        self._roots = [os.path.realpath(root) for root in source.roots]

    def now(self, recorded: Mapping[str, Any]) -> dict[str, dict[str, str | None]]:
        """Look again at what a manifest says was read; an empty dict if that is nothing.

        Args:
            recorded: the fingerprint inputs of the manifest.
        """
        ask: dict[str, Callable[[str], str | None]] = {
            "model_files": lambda label: _hash_file(self._path(label)),
            "model_links": lambda label: _target_of(self._path(label)),
            "model_folders": lambda label: _hash_names(self._path(label)),
            "model_variables": variable_now,
        }
        return {kind: {name: ask[kind](name) for name in recorded[kind]} for kind in _kinds_in(recorded)}

    def of_graph(self, notes: Mapping[str, Any]) -> dict[str, dict[str, str | None]]:
        """Return the files that the graph reads whenever it runs, as fingerprint inputs of the stages that run it.

        Args:
            notes: those of the stage that has built the graph.
        """
        labels = notes.get(GRAPH_READS)
        if not isinstance(labels, list):
            return {}
        return {"graph_files": {label: _hash_file(self._path(label)) for label in labels if isinstance(label, str)}}

    def paths(self, recorded: Mapping[str, Any]) -> list[str]:
        """Return the paths of the files and folders that a manifest says were read."""
        kinds = [kind for kind in _kinds_in(recorded) if kind != "model_variables"]
        return [self._path(label) for kind in kinds for label in recorded[kind]]

    def describe(
        self, reads: Reads, declared: Collection[str], code: Collection[str]
    ) -> tuple[dict[str, dict[str, str | None]], dict[str, Any]]:
        """Return what was read as fingerprint inputs, and notes for the manifest.

        Args:
            declared: the paths of files that decide the stage already.
            code: the model's files that decide the stage already, by their names relative to its roots.

        Raises:
            StoreError: something was changed since it was read.
        """
        files = {label: state for label, state in reads.files.items() if os.path.abspath(label) not in declared}
        # A template in a package is code already; of a Python file that is read as text, comments count too.
        files = {
            label: state for label, state in files.items() if label.endswith(".py") or not self._is_in(code, label)
        }
        files |= {path: state for path, state in reads.modules.items() if not self._is_in(code, path)}
        labels = {label: self._label(label) for label in files}
        found: dict[str, dict[str, str | None]] = {
            "model_files": {labels[label]: _hash_file(label) for label in files},
            "model_links": {self._label(each): target for each, target in reads.links.items()},
            "model_folders": {self._label(each): hash_values("names", names) for each, names in reads.folders.items()},
            "model_variables": dict(reads.variables),
        }
        require_unchanged(reads)
        for label, names in reads.folders.items():
            if _hash_names(label) != hash_values("names", names):
                raise changed_meanwhile(label)
        notes: dict[str, Any] = {"unwatched": reads.unwatched} if reads.unwatched else {}
        if for_graph := sorted(labels[label] for label in reads.for_graph if label in labels):
            notes[GRAPH_READS] = for_graph
        return {kind: values for kind, values in found.items() if values}, notes

    def changed_since(self, journal: Path, declared: Collection[str], code: Collection[str]) -> str | None:
        """Return something that was changed since an interrupted run has read it; None if nothing was."""
        from pipeline.workers.reads import quietly, read_journal

        for kind, name, value in read_journal(journal):
            if kind == "variable":
                is_same = variable_now(name) == value
            elif kind == "link":
                is_same = _target_of(name) == value
            elif os.path.abspath(name) in declared or (kind == "module" and self._is_in(code, name)):
                continue  # decides the stage anyway
            else:
                is_same = quietly(state_of, name) == value
            if not is_same:
                return name
        return None

    def _label(self, path: str) -> str:
        return path.removeprefix(f"{self._folder}/")

    def _path(self, label: str) -> str:
        return label if label.startswith("./") else os.path.join(self._folder, label)

    def _is_in(self, code: Collection[str], path: str) -> bool:
        """Return True if a file is among those of the model's code, by their names relative to its roots."""
        real = os.path.realpath(path)
        return any(real[len(root) + 1 :] in code for root in self._roots if real.startswith(f"{root}/"))


def require_unchanged(reads: Reads) -> None:
    """Check that each file is still what was opened, so that its hash now is that of the bytes that were read.

    Raises:
        StoreError: one is not.
    """
    from pipeline.workers.reads import quietly

    for label, state in {**reads.files, **reads.modules}.items():
        if label in reads.changed or quietly(state_of, label) != state:
            raise changed_meanwhile(label)
    for label, target in reads.links.items():
        if label in reads.changed or _target_of(label) != target:
            raise changed_meanwhile(label)


def changed_meanwhile(path: str) -> StoreError:
    """Return the error for an input that is no longer what was read."""
    return StoreError(
        "an input changed while it was used",
        where=path,
        got="another file, or another time of change, than when it was opened",
        next_step="Run it again",
    )


def _kinds_in(recorded: Mapping[str, Any]) -> list[str]:
    return [kind for kind in RECORDED if isinstance(recorded.get(kind), Mapping)]  # somebody else may have written it


def variable_now(name: str) -> str | None:
    """Return the hash of an environment variable as a stage would see it."""
    from pipeline.workers.reads import hash_variable

    return hash_variable(os.environ.get(name, WORKER_ENVIRONMENT.get(name)))


def _hash_file(path: str) -> str | None:
    return hash_file(Path(path)) if os.path.isfile(path) else "folder" if os.path.isdir(path) else None


def _target_of(path: str) -> str | None:
    from pipeline.workers.reads import quietly

    return quietly(os.readlink, path) if os.path.islink(path) else None


def _hash_names(path: str) -> str | None:
    from pipeline.workers.reads import names_in

    return hash_values("names", names_in(path)) if os.path.isdir(path) else None
