"""Where the nights of a model are.

<output-root>/<name>/<date>/        a night: the artifacts of its chain, and `night`, what became of it
<output-root>/<name>/current        a symbolic link to the newest night that passed
<output-root>/<name>/history.csv    a line for each night, those that were removed included
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
from pipeline.store.files import HISTORY_FILE, NIGHTS_PAGE_FILE
from pipeline.store.manifest import Manifest

NIGHT = "night"  # the artifact that tells what became of a night
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_HIDDEN = frozenset([".versions", ".work", ".locks"])


@dataclass(frozen=True)
class Nights:
    """Every path of the nights of one model; a night is known by its date, such as `2026-11-25`.

    Args:
        places: those of the model, without a date.
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
        """Held by the process that makes a night, so that two never overlap."""
        return self.paths.lock(NIGHT)

    def of(self, night: str) -> ArtifactPaths:
        """The places of one night's artifacts."""
        return ArtifactPaths(self.home, night)

    def kept(self) -> list[str]:
        """The nights whose folders are there, the oldest first."""
        if not self.home.is_dir():
            return []
        return sorted(
            path.name
            for path in self.home.iterdir()
            if _DATE.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
        )

    def is_intact(self, night: str) -> bool:
        """Whether every artifact of a night is the one that `night` tells of, and as it was finished.

        By sizes and time stamps, as far as they tell. It is not where a run that made the night again was killed.
        """
        links = [path for path in self.of(night).home.iterdir() if path.is_symlink()]
        try:
            manifests = {link.name: Manifest.read(link.resolve()) for link in links}
            told = manifests[NIGHT].fingerprint_inputs.get("upstream", {})
            stages = dict.fromkeys(path.partition("/")[0] for path in told)
            return told == digests_of({stage: manifests[stage] for stage in stages}) and all(
                artifact.examine(self.of(night).artifact(stage), stage, manifest.fingerprint_inputs).is_complete
                for stage, manifest in manifests.items()
            )
        except (PipelineError, KeyError):  # what makes it again will say it
            return False

    @property
    def current(self) -> str | None:
        """The night that `current` names; None where there is none."""
        return os.readlink(self.link) if self.link.is_symlink() else None

    def name_current(self, night: str | None) -> None:
        """Lets `current` name a night, in one step; None for no night.

        Raises:
            StoreError: what stands there is no link of ours.
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
        """The nights that are to go: all but the newest, and the one that `current` names.

        Args:
            keep: how many stay; 0 for all.
        """
        return [night for night in self.kept()[: -keep or None] if night != self.current] if keep else []

    def remove(self, night: str) -> None:
        """Removes a night's folder, unless somebody is at work in it or it holds what the pipeline did not make."""
        folder = self.of(night).home
        foreign = [path for path in folder.iterdir() if path.name not in _HIDDEN and not path.is_symlink()]
        if foreign or not (folder / ".versions").is_dir():
            logger.warning("%s is not removed: it holds what the pipeline did not make", folder)
            return
        with ExitStack() as held:
            locks = sorted((folder / ".locks").iterdir()) if (folder / ".locks").is_dir() else []
            if not all(held.enter_context(hold(lock, wait=False)) for lock in locks):
                logger.warning("%s is not removed: somebody is at work in it", folder)
                return
            doomed = self.home / ".work" / "removed"
            shutil.rmtree(doomed, ignore_errors=True)  # of a removal that was killed
            doomed.parent.mkdir(exist_ok=True)
            folder.rename(doomed)
        shutil.rmtree(doomed)
        logger.info("removed the night %s", folder)


def digests_of(manifests: Mapping[str, Manifest]) -> dict[str, str]:
    """The sha256 of each file of some artifacts, by `stage/path`: as the ingredients of what hangs on them."""
    return {
        f"{stage}/{path}": digest
        for stage, manifest in manifests.items()
        for path, digest in manifest.digests("*").items()
    }
