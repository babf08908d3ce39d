"""Keep finished artifacts under changed code or library versions, because their owner says so.

An accepted artifact has the fingerprint that a run would give now, so it is complete. Its manifest notes what it was
really made with, and who accepted that. Whatever decides an artifact besides code and versions cannot be accepted:
then its bytes would not be those that a run gives.
"""

from __future__ import annotations

import getpass
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pipeline.errors import PipelineError, SettingError, StoreError, nearest
from pipeline.settings import Settings
from pipeline.store import artifact
from pipeline.store.acceptance import Acceptance
from pipeline.store.changes import Change, changes
from pipeline.store.lock import hold
from pipeline.store.manifest import ACCEPTED, Manifest

from .input_files import InputFiles
from .plan import REPORT, Chain


@dataclass(frozen=True)
class Found:
    """A finished stage, and what has changed since it was made.

    Args:
        wanted: the fingerprint inputs that a run would give now.
    """

    stage: str
    manifest: Manifest
    wanted: Mapping[str, Any]
    changes: tuple[Change, ...]

    @property
    def refused(self) -> tuple[Change, ...]:
        """The changes that cannot be accepted."""
        return tuple(change for change in self.changes if not _is_acceptable(change))

    @property
    def is_on_offer(self) -> bool:
        """Whether accepting it would keep it."""
        return bool(self.changes) and not self.refused


def accept(chain: Chain, stages: Sequence[str] = ()) -> dict[str, tuple[Change, ...]]:
    """Keep finished stages although the code or the libraries that made them have changed.

    The report is written again if everything before it is complete then, because it shows what was accepted.

    Args:
        stages: which ones; every finished stage before the report if none is given.

    Returns:
        What was accepted, by stage; nothing for a stage that was complete.

    Raises:
        SettingError: there is no such stage.
        StoreError: a stage is not finished, is being made now, or something else has changed; nothing is accepted then.
        DamagedArtifact: a stage is not as it was finished; nothing is accepted then.
    """
    _require_stages(chain, stages)
    chosen = [name for name in look(chain) if name in stages or not stages]
    missing = [name for name in stages if name not in chosen]
    if not chosen or missing:
        absent = chain.job.display_path([*missing, *chain.before(REPORT)][0])
        raise StoreError("there is nothing to keep", where=absent, got="no artifact")
    with ExitStack() as held:
        for name in chosen:
            if not held.enter_context(hold(chain.job.paths.lock(name), wait=False)):
                place = chain.job.paths.artifact(name)
                raise StoreError("another run is making it now", where=place, next_step="Accept it after that run")
        found = [each for each in look(chain).values() if each.stage in chosen]  # again, now that nobody changes them
        for each in found:
            _require_acceptable(chain, each)
        for each in found:
            _verify(chain, each)
        for each in found:
            _write(chain, each)
    _rewrite_report(chain)
    return {each.stage: each.changes for each in found}


def look(chain: Chain) -> dict[str, Found]:
    """Return the finished stages before the report, in the order of the chain.

    Raises:
        DamagedArtifact: a manifest was changed after it was written.
    """
    found: dict[str, Found] = {}
    manifests: dict[str, Manifest] = {}
    files = InputFiles(chain.job)
    listing = None if chain.job.remote is None else chain.job.remote.look()
    for name in chain.before(REPORT):
        manifest = listing.manifest(name) if listing is not None else _read(chain, name)
        if manifest is None:
            continue
        wanted = chain.fingerprint_inputs(name, manifests, files, manifest)
        found[name] = Found(name, manifest, wanted, tuple(changes(manifest.fingerprint_inputs, wanted)))
        manifests[name] = manifest
    return found


def on_offer(chain: Chain, last: str = REPORT) -> list[str]:
    """Return the stages up to one that are stale and could be accepted."""
    try:
        return [name for name, each in look(chain).items() if each.is_on_offer and name in chain.up_to(last)]
    except PipelineError:  # whoever examines the chain reports this
        return []


def _require_stages(chain: Chain, stages: Sequence[str]) -> None:
    known = chain.before(REPORT)
    for name in stages:
        if name == REPORT:
            what = "a report cannot be accepted: it is written again, and shows what was accepted"
            raise SettingError(what, next_step=f"Name one of {', '.join(known)}, or no stage for all of them")
        if name not in known:
            raise SettingError("this chain has no such stage", got=name, next_step=nearest(name, known))


def _is_acceptable(change: Change) -> bool:
    match change.kind:
        case "code" | "versions":
            return True
        case "model" | "model_files":  # its class, and other files that it has or reads, are no code
            return change.key.endswith(".py")
        case "settings":  # the code before had no such setting, and this is what it did
            section, _, key = change.key.partition(".")
            default = getattr(getattr(Settings(), section, None), key, None)
            return change.before is None and default is not None and change.after == default
    return False


def _require_acceptable(chain: Chain, found: Found) -> None:
    if found.manifest.stage != found.stage:
        raise StoreError("it is the artifact of another stage", where=found.stage, got=found.manifest.stage)
    if found.refused:
        files = InputFiles(chain.job)
        files.of(chain.stages[found.stage])
        first, *others = map(files.name_path, map(str, found.refused))
        raise StoreError(
            "only changed code and library versions can be accepted",
            where=found.stage,
            got=f"{first}, and {len(others)} more" if others else first,
            next_step="Run the chain, which makes this stage again",
        )


def _read(chain: Chain, stage: str) -> Manifest | None:
    paths = chain.job.paths
    return Manifest.read(paths.artifact(stage)) if os.path.lexists(paths.artifact(stage)) else None


def _verify(chain: Chain, found: Found) -> None:
    """Hash its files: what is accepted must be what was finished."""
    if not found.changes:
        return
    if chain.job.remote is not None:
        chain.job.remote.verify(found.stage)
    else:
        artifact.verify(chain.job.paths.artifact(found.stage))


def _write(chain: Chain, found: Found) -> None:
    if not found.changes:
        return
    job, before = chain.job, found.manifest
    when = datetime.now(UTC).isoformat(timespec="seconds")
    entry = Acceptance(when, _user(), platform.node(), shlex.join(sys.argv), found.changes).to_note()
    notes = {**before.notes, ACCEPTED: [*before.notes.get(ACCEPTED, ()), entry]}
    after = replace(before, fingerprint_inputs=found.wanted, notes=notes)
    if job.remote is None:
        artifact.replace_manifest(job.paths, found.stage, before, after)
        return
    job.remote.replace_manifest(found.stage, before, after)
    try:
        is_mirrored = _read(chain, found.stage) == before
    except PipelineError:  # the next run downloads it again
        is_mirrored = False
    if is_mirrored:
        artifact.replace_manifest(job.paths, found.stage, before, after)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number without a name
        return str(os.getuid())


def _rewrite_report(chain: Chain) -> None:
    states = chain.examine(REPORT)
    report = states.pop(REPORT)
    if report.manifest is not None and all(state.is_complete for state in states.values()):
        chain.build(REPORT)
