"""Paths of the nights of a model.

<output-root>/<name>/<date>/        a night: the artifacts of its chain, and `night`, its result
<output-root>/<name>/current        a symbolic link to the newest night that passed
<output-root>/<name>/history.csv    a line for each night, including removed ones
<output-root>/<name>/nights.html    the same as a page
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PipelineError, StoreError, logger
from pipeline.store import artifact
from pipeline.store.artifact import ArtifactPaths, hold
from pipeline.store.file_names import HISTORY_FILE, NIGHTS_PAGE_FILE
from pipeline.store.manifest import Manifest

NIGHT = "night"  # the artifact with the result of a night
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_HIDDEN = frozenset([".versions", ".work", ".locks"])


@dataclass(frozen=True)
class Nights:
    """All paths of the nights of one model; a night is named by its date, such as `2026-11-25`.

    Args:
        paths: the paths of the model, without a date.
    """

    paths: ArtifactPaths

    @property
    def name(self) -> str:
        return self.paths.name

    @property
    def home(self) -> Path:
        return self.paths.home

    @property
    def history(self) -> Path:
        return self.home / HISTORY_FILE

    @property
    def page(self) -> Path:
        return self.home / NIGHTS_PAGE_FILE

    @property
    def link(self) -> Path:
        return self.home / "current"

    @property
    def lock(self) -> Path:
        """The lock of the process that makes a night, so that two nights never overlap."""
        return self.paths.lock(NIGHT)

    def of(self, night: str) -> ArtifactPaths:
        """Return the paths of one night's artifacts."""
        return ArtifactPaths(self.home, night)

    def kept(self) -> list[str]:
        """Return the nights whose folders exist, the oldest first."""
        if not self.home.is_dir():
            return []
        return sorted(
            path.name
            for path in self.home.iterdir()
            if _DATE.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
        )

    def is_intact(self, night: str) -> bool:
        """Return True if every artifact of a night is the one that `night` records, and unchanged.

        Sizes and time stamps are compared first. A night is not intact after an interrupted run that made it again.
        """
        links = [path for path in self.of(night).home.iterdir() if path.is_symlink()]
        try:
            manifests = {link.name: Manifest.read(link.resolve()) for link in links}
            recorded = manifests[NIGHT].fingerprint_inputs.get("upstream", {})
            stages = dict.fromkeys(path.partition("/")[0] for path in recorded)
            return recorded == digests_of({stage: manifests[stage] for stage in stages}) and all(
                artifact.examine(self.of(night).artifact(stage), stage, manifest.fingerprint_inputs).is_complete
                for stage, manifest in manifests.items()
            )
        except (PipelineError, KeyError):  # the run that makes it again reports this
            return False

    @property
    def current(self) -> str | None:
        """The night that `current` points to; None if there is none."""
        return os.readlink(self.link) if self.link.is_symlink() else None

    def set_current(self, night: str | None) -> None:
        """Point `current` to a night, in one step; remove it for None.

        Raises:
            StoreError: `current` is not a link.
        """
        if self.link.exists() and not self.link.is_symlink():
            raise StoreError("it is in the way of the link to the newest night", where=self.link, next_step="Move it")
        if night == self.current:
            return
        if night is None:
            self.link.unlink(missing_ok=True)
            return
        fresh = self.home / ".current"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(night)
        fresh.replace(self.link)

    def outdated(self, keep: int) -> list[str]:
        """Return the nights to remove: all except the newest, and the one that `current` points to.

        Args:
            keep: the number of nights to keep; 0 for all.
        """
        return [night for night in self.kept()[: -keep or None] if night != self.current] if keep else []

    def remove(self, night: str) -> None:
        """Remove the folder of a night, unless a process works in it or it holds other files than the pipeline's."""
        folder = self.of(night).home
        foreign = [path for path in folder.iterdir() if path.name not in _HIDDEN and not path.is_symlink()]
        if foreign or not (folder / ".versions").is_dir():
            logger.warning("%s is not removed: it holds files that the pipeline did not make", folder)
            return
        with ExitStack() as held:
            locks = sorted((folder / ".locks").iterdir()) if (folder / ".locks").is_dir() else []
            if not all(held.enter_context(hold(lock, wait=False)) for lock in locks):
                logger.warning("%s is not removed: a process works in it", folder)
                return
            trash = self.home / ".work" / "removed"
            shutil.rmtree(trash, ignore_errors=True)  # of an interrupted removal
            trash.parent.mkdir(exist_ok=True)
            folder.rename(trash)
        shutil.rmtree(trash)
        logger.info("removed the night %s", folder)


def digests_of(manifests: Mapping[str, Manifest]) -> dict[str, str]:
    """Return the sha256 of each file of some artifacts, by `stage/path`: the form of fingerprint inputs."""
    return {
        f"{stage}/{path}": digest
        for stage, manifest in manifests.items()
        for path, digest in manifest.digests("*").items()
    }
