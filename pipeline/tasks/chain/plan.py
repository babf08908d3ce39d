"""Decide which stages of a job have to run, and run them.

The fingerprint of a stage covers the digests of the files that it reads. So a stage that ran again and wrote the same
bytes does not make the stages after it run.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError, SettingError, StoreError, logger, nearest
from pipeline.hashing import extra_versions, hash_code, hash_values, library_versions, runtime_versions
from pipeline.inputs import split_list
from pipeline.store import artifact as store
from pipeline.store.artifact import ArtifactState, ArtifactStatus
from pipeline.store.manifest import ACCEPTED, Manifest
from pipeline.training.models.source import PROJECT
from pipeline.workers.progress import listen, tell

from .input_files import InputFiles
from .job import Job
from .model_reads import JOURNAL, ModelReads, watch_for
from .stages import PACKAGE, RESUMABLE, Notes, Stage, Work, stages_of

if TYPE_CHECKING:
    from pipeline.store.remote import Listing
    from pipeline.workers.reads import Reads, Watch

REPORT = "report"  # the last stage of every chain


class Chain:
    """The plan of one job: its stages, what decides each of them, and which of them have to run.

    What depends on the job alone is computed once. What lies on disk is read again by every `examine` and `build`,
    because it changes while a run lasts.

    Args:
        listener: called now and then while a stage is built, with its name, a line, and the share of it that is done.
    """

    def __init__(self, job: Job, listener: Callable[[str, str, float], None] | None = None) -> None:
        self.job, self.listener = job, listener
        self._constant_inputs: dict[str, dict[str, Any]] = {}
        self._forced: dict[str, str] = {}

    def force(self, text: str, last: str) -> str:
        """Make stages again although they are complete, each once: what is replaced is the artifact of this moment.

        Args:
            text: comma-separated names of stages up to `last`; or what this returned, in whichever process, so that
                all processes of a run replace the same artifact.

        Returns:
            Each name with what identifies its artifact: `frozen@1a2b3c4d5e6f`.

        Raises:
            SettingError: there is no such stage up to `last`.
        """
        entries = [entry.partition("@") for entry in split_list(text)]
        names = [name for name, is_pinned, _ in entries if not is_pinned]
        for name in names:
            if name not in self.up_to(last):
                next_step = nearest(name, self.up_to(last))
                raise SettingError("no such stage here", where="--force-stage", got=name, next_step=next_step)
        states = self.examine(last) if names else {}
        found = {name: _identify(states[name].manifest) if name in names else known for name, _, known in entries}
        self._forced |= found
        return ",".join(f"{name}@{known}" for name, known in found.items())

    def _is_forced(self, name: str, manifest: Manifest | None) -> bool:
        return name in self._forced and self._forced[name] == _identify(manifest)

    @cached_property
    def stages(self) -> dict[str, Stage]:
        """The stages by name, in the order of the chain."""
        return stages_of(self.job)

    def before(self, last: str) -> tuple[str, ...]:
        """Return the stages that one depends on, in the order of the chain."""
        needed = {last}
        for name in reversed(self.stages):
            if name in needed:
                needed |= set(self.stages[name].reads)
        return tuple(name for name in self.stages if name in needed and name != last)

    def up_to(self, last: str = "report") -> tuple[str, ...]:
        """Return a stage and all that it depends on, in the order of the chain."""
        return (*self.before(last), last)

    def loads_up_to(self, last: str) -> list[str]:
        """Return the modules that take long to import and that a run up to a stage needs in its own process."""
        return [module for name in self.up_to(last) for module in self.stages[name].loads]

    def fingerprint_inputs(
        self,
        name: str,
        manifests: Mapping[str, Manifest],
        files: InputFiles | None = None,
        recorded: Manifest | None = None,
    ) -> dict[str, Any]:
        """Return everything that decides a stage, by kind.

        Args:
            manifests: those of the stages before it, by stage, as far as they exist.
            files: the current look at the files from outside; a new one if not given.
            recorded: the manifest of the stage itself, if what it says was read is looked at again.
        """
        stage = self.stages[name]
        inputs = self.static_inputs(name)
        inputs["upstream"] = {
            f"{upstream}/{path}": digest
            for upstream, patterns in stage.reads.items()
            if upstream in manifests
            for path, digest in manifests[upstream].digests(*patterns).items()
        }
        if stage.uses_data or stage.uses_candidate:
            inputs["files"] = (files or InputFiles(self.job)).digests_of(stage)
        if name == REPORT and (accepted := _accepted(manifests)):
            inputs[ACCEPTED] = accepted
        if self.model_reads is not None:
            if recorded is not None:
                inputs |= self.model_reads.now(recorded.fingerprint_inputs)
            if "graph" in manifests and name != REPORT:
                inputs |= self.model_reads.of_graph(manifests["graph"].notes)
        return inputs

    @cached_property
    def model_reads(self) -> ModelReads | None:
        """What the model's code reads besides; None for a chain without a model's code."""
        return None if self.job.source is None else ModelReads(self.job.source)

    def static_inputs(self, name: str) -> dict[str, Any]:
        """Return what decides a stage besides the files that it reads, by kind: settings, code, versions."""
        stage = self.stages[name]
        if name not in self._constant_inputs:
            self._constant_inputs[name] = {
                "settings": self._settings_of(stage),
                "code": _hash_package_code(stage.code),
                "versions": {**library_versions(), **extra_versions(stage.extras), **self._runtimes_of(stage)},
                **({"name": self.job.paths.name} if stage.is_named else {}),
            }
        inputs = dict(self._constant_inputs[name])
        if stage.uses_model:  # hashed each time: somebody may edit it while a run lasts
            model = self.job.model
            inputs["model"] = {"class": model.class_name, **hash_code(model.file, model.roots)}
        return inputs

    def _runtimes_of(self, stage: Stage) -> dict[str, str]:
        return runtime_versions(self.job.settings.validation.other_runtimes) if "validation" in stage.sections else {}

    def _settings_of(self, stage: Stage) -> dict[str, Any]:
        """Return the settings and parameters that decide a stage, by section."""
        job = self.job
        settings: dict[str, Any] = {section: asdict(getattr(job.settings, section)) for section in stage.sections}
        if stage.reads_formats:
            settings["formats"] = ", ".join(job.formats)
        if stage.uses_candidate and job.candidate is not None:
            settings["candidate"] = _select(job.candidate, ("format", "names", "signature", "allow_ops"))
        if stage.uses_data and job.data is not None and (given := job.data_options.given()):
            settings["data"] = given
        if stage.uses_data and job.warm_start is not None:
            settings["warm_start_map"] = dict(job.warm_start.keys)
        if stage.uses_data and job.imported is not None:
            settings["adopted"] = _select(job.imported, ("inputs", "outputs", "pins", "signature", "allow_ops"))
            # Artifacts that were made before these stay complete.
            more = _select(job.imported, ("averages", "inference", "tags"))
            settings["adopted"] |= {name: value for name, value in more.items() if value}
        return settings

    def examine(self, last: str) -> dict[str, ArtifactState]:
        """Return the state of a stage and of all that it depends on, in the order of the chain.

        A stage after one that has to run is never complete here: whether it runs is known once the new bytes are.

        Raises:
            SettingError: the folder holds another model, see `Job.refuse_other_model` and `Job.refuse_trained`.
        """
        return self._examine(self.up_to(last), InputFiles(self.job))

    def _examine(self, names: Iterable[str], files: InputFiles) -> dict[str, ArtifactState]:
        states: dict[str, ArtifactState] = {}
        listing = None if self.job.remote is None else self.job.remote.look()
        for name in names:
            wanted = self.fingerprint_inputs(name, _manifests(states), files, self._recorded(name, listing))
            waits_for = [upstream for upstream in self.stages[name].reads if not states[upstream].is_complete]
            ignored = ("upstream",) if waits_for else ()
            state = store.examine(self.job.paths.artifact(name), name, wanted, ignored, self._is_full)
            if listing is not None:
                state = listing.reconcile(self.job.paths, name, wanted, ignored, state)
            if self.stages[name].uses_model:
                self.job.refuse_other_model(state.manifest)
            elif name == "checkpoint":
                self.job.refuse_trained(state.manifest)
            if state.is_complete and self._is_forced(name, state.manifest):
                state = replace(state, status=ArtifactStatus.STALE, reasons=(f"--force-stage {name}",))
            if waits_for and state.is_complete:
                reason = f"if {' or '.join(waits_for)} gives other bytes"
                state = replace(state, status=ArtifactStatus.WAITING, reasons=(reason,))
            states[name] = replace(state, reasons=tuple(map(files.name_path, state.reasons)))
        return states

    @property
    def _is_full(self) -> bool:
        """True if all bytes of finished artifacts are hashed."""
        return self.job.operations.store.is_full

    def require_complete(self) -> None:
        """Check that everything is complete, after it was made.

        Raises:
            StoreError: an input was changed meanwhile.
        """
        for name, state in self.examine("report").items():
            if not state.is_complete:
                got = next(iter(state.reasons), None)
                raise StoreError("an input changed while it was used", where=name, got=got, next_step="Run it again")

    def _recorded(self, name: str, listing: Listing | None = None) -> Manifest | None:
        """Return the manifest of a finished stage that runs the model's code, the published one if there is one."""
        if not self.stages[name].uses_model:
            return None
        with suppress(PipelineError):  # whoever examines the artifact reports this
            if listing is not None and (published := listing.manifest(name)) is not None:
                return published
            return Manifest.read(self.job.paths.artifact(name))
        return None

    def recorded_reads(self) -> tuple[list[str], list[str]]:
        """Return the paths and the names of environment variables that the model's code has read besides."""
        paths, variables = list[str](), set[str]()
        for name in self.up_to():
            recorded = self._recorded(name)
            if self.model_reads is not None and recorded is not None:
                paths += self.model_reads.paths(recorded.fingerprint_inputs)
                variables |= set(self.model_reads.now(recorded.fingerprint_inputs).get("model_variables", ()))
        return paths, sorted(variables)

    def build(self, name: str) -> ArtifactState:
        """Make a stage, unless it is complete; the stages that it reads must be.

        Raises:
            PipelineError: the worker of the stage refuses; see also `store.build`.
        """
        stage, before = self.stages[name], self.before(name)
        files, found = InputFiles(self.job), dict[str, Any]()
        reads: list[Reads] = []

        def want() -> dict[str, Any]:
            nonlocal files
            earlier, files = files, InputFiles(self.job)
            states = self._examine(before, files) if before else {}
            for upstream in stage.reads:
                if not states[upstream].is_complete:
                    got = next(iter(states[upstream].reasons), "it was changed meanwhile")
                    what = f"{name} needs {upstream}, which is not complete"
                    raise StoreError(what, got=got, next_step="Run the chain again")
            inputs = self.fingerprint_inputs(name, _manifests(states), files, None if reads else self._recorded(name))
            for each in reads:
                files.require_unchanged(earlier, each)
            return {**inputs, **found}

        def make(folder: Path) -> Notes:
            from .data_check import checked_data  # not needed where everything is complete

            _require_package_unchanged(stage.code)
            for upstream, patterns in stage.reads.items():
                store.verify(self.job.folder(upstream), *patterns)
            recorded = _describe_run(self.job, files.of(stage))
            work = Work(self.job, folder, before, self._watch(stage, folder, files))
            listener = None if self.listener is None else partial(self.listener, name)
            is_before_data = stage.uses_model and not stage.reads and not stage.uses_data
            checked = checked_data(self.job) if is_before_data else nullcontext()
            with listen(listener), _without_lone_journal(folder), checked:
                tell("begins", 0)
                notes = stage.make(work)
            (folder / JOURNAL).unlink(missing_ok=True)
            reads.extend(work.reads)
            if self.model_reads is not None and stage.uses_model:
                [all_reads] = reads
                newly, more = self.model_reads.describe(all_reads, *self._known(stage, files))
                found.update(newly)
                recorded |= more
                _report_unwatched(name, all_reads)
            return {**notes, **recorded}

        is_unwanted = partial(self._is_forced, name)
        state = store.build(self.job.paths, name, want, make, RESUMABLE, is_unwanted, self._is_full)
        if self.job.remote is not None:
            self.job.remote.push(self.job.paths, name, is_unwanted)
        return state

    def _watch(self, stage: Stage, folder: Path, files: InputFiles) -> Watch | None:
        """Say what to record of a stage's reads; remove what an interrupted run left if what it read has changed."""
        if not stage.reads_outside:
            return None
        if self.model_reads is None or not stage.uses_model:
            return watch_for(None, self.job.paths, None)
        journal = folder / JOURNAL if stage.is_resumable else None
        changed = journal and self.model_reads.changed_since(journal, *self._known(stage, files))
        if changed:
            logger.info("starting again, because %s was changed since the interrupted run has read it", changed)
            for left in folder.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        return watch_for(self.job.source, self.job.paths, journal)

    def _known(self, stage: Stage, files: InputFiles) -> tuple[set[str], set[str]]:
        """Return what decides a stage anyway: the paths of files, and the model's files by name."""
        paths = {os.path.abspath(path) for path in files.of(stage).values()}
        model = self.job.model
        return paths | set(map(os.path.realpath, paths)), set(hash_code(model.file, model.roots))


@contextmanager
def _without_lone_journal(folder: Path) -> Iterator[None]:
    """Remove the journal of what a model read if the work fails and leaves nothing else to go on with."""
    try:
        yield
    except Exception:
        if [path.name for path in folder.iterdir()] == [JOURNAL]:
            (folder / JOURNAL).unlink()
        raise


def _require_package_unchanged(modules: tuple[str, ...]) -> None:
    """Check that the pipeline's own code is what this process has hashed: the process of a stage is about to import it.

    Raises:
        StoreError: it was changed, such as by an upgrade.
    """
    if _hash_package_code.__wrapped__(modules) != _hash_package_code(modules):
        raise StoreError(
            "the pipeline's own code was changed while it ran", where=PACKAGE, next_step="Start the run again"
        )


def _report_unwatched(stage: str, reads: Reads) -> None:
    for sentence in reads.unwatched:
        logger.warning("%s: if this changes, it is not noticed: %s", stage, sentence)


@lru_cache(maxsize=64)
def _hash_package_code(modules: tuple[str, ...]) -> Mapping[str, str]:
    return hash_code([PACKAGE / module for module in modules], [PROJECT])


def _select(values: Any, names: Iterable[str]) -> dict[str, Any]:
    """Return some fields of a dataclass as plain values."""
    plain = asdict(values)
    return {name: plain[name] for name in names}


def _manifests(states: Mapping[str, ArtifactState]) -> dict[str, Manifest]:
    return {name: state.manifest for name, state in states.items() if state.manifest is not None}


def _identify(manifest: Manifest | None) -> str:
    """Return what tells an artifact from one made at another time, even with the same bytes, on all hosts."""
    return "none" if manifest is None else hash_values("made", manifest.to_json())[:12]


def _accepted(manifests: Mapping[str, Manifest]) -> dict[str, str]:
    """Return a hash of what was accepted of each stage, which the report shows."""
    notes = {name: manifest.notes.get(ACCEPTED) for name, manifest in manifests.items() if name != REPORT}
    return {name: hash_values(ACCEPTED, note) for name, note in notes.items() if note}


def _describe_run(job: Job, files: Mapping[str, Path]) -> dict[str, Any]:
    """Return the notes of a run for the manifest: command, time, machine, commit, and the files from outside."""
    from pipeline.workers.machine import describe_commit, describe_machine  # not needed where everything is complete

    described: dict[str, Any] = {
        "command": shlex.join(sys.argv),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": describe_machine(),
    }
    if commit := describe_commit(Path.cwd() if job.source is None else job.source.file.parent.absolute()):
        described["commit"] = commit
    if files:
        described["inputs"] = {label: str(path.resolve()) for label, path in files.items()}
    return described
