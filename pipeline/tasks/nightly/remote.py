"""The nights of a model under a URL, such as `s3://bucket/path`.

<url>/<name>/<date>/<stage>/…     a night: the artifacts of its chain, and `night`, its result
<url>/<name>/current              a small object: the date of the newest night that passed
<url>/<name>/history.csv          a line for each night, including removed ones
<url>/<name>/nights.html          the same as a page

A night is uploaded under its own date. `current` is written last, when the night has passed and everything of it is
there: whoever reads it, and then that date, never gets half a night or one that failed. What is under the URL counts,
so that any host can go on with the nights; the local mirror only saves downloads.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import logger
from pipeline.store.artifact import ArtifactPaths
from pipeline.store.file_names import MANIFEST_FILE
from pipeline.store.manifest import Manifest
from pipeline.store.remote import Listing, RemoteStore, read_object, write_object

from ..remote_targets import ObjectStorage
from .paths import CURRENT, Nights, is_date

_STAGE = re.compile(r"[A-Za-z0-9]\w*", re.ASCII)


def nights_of(paths: ArtifactPaths, remote: RemoteStore | None) -> Nights:
    """Return the nights of a model.

    Args:
        paths, remote: those of the model, without a date.
    """
    return Nights(paths) if remote is None else RemoteNights(paths, remote)


@dataclass(frozen=True)
class RemoteNights(Nights):
    """The nights of one model under a URL; `paths` are those of the mirror.

    What exists is listed once, and again after `refresh` and after everything that writes.
    """

    remote: RemoteStore
    _looks: list[Listing] = field(default_factory=list, compare=False, repr=False)

    @property
    def listing(self) -> Listing:
        """The objects of all nights. Raises: as `RemoteStore.look`."""
        if not self._looks:
            self._looks.append(self.remote.look())
        return self._looks[0]

    def refresh(self) -> None:
        """Look again at what exists now."""
        self._looks.clear()

    def place(self, *parts: str) -> str:
        """Return the URL of the nights, or of a file of them."""
        return "/".join([self.remote.root, self.name, *parts])

    def kept(self) -> list[str]:
        """Return the nights that have objects, the oldest first."""
        folders = {folder for folder, slash, _ in (path.partition("/") for path in self.listing.objects) if slash}
        return sorted(filter(is_date, folders))

    def has(self, night: str, file: str) -> bool:
        """Return True if a night has a file."""
        return f"{night}/{file}" in self.listing.objects

    def fetch(self, night: str, stage: str) -> Path:
        """Return the local folder of a night's artifact, downloaded if need be. Raises: as `Listing.fetch`."""
        return self._of(night).fetch(self.of(night), stage)

    def manifest(self, night: str, stage: str) -> Manifest | None:
        """Return the manifest of a night's artifact; None if there is none. Raises: as `Listing.manifest`."""
        return self._of(night).manifest(stage)

    def _of(self, night: str) -> Listing:
        """Return the objects of one night."""
        start = f"{night}/"
        below = {
            path.removeprefix(start): entry for path, entry in self.listing.objects.items() if path.startswith(start)
        }
        return Listing(self.remote.below(night), below)

    def _read_file(self, *parts: str) -> bytes | None:
        return read_object(self.place(*parts)) if "/".join(parts) in self.listing.objects else None

    def write(self, file: str, content: bytes) -> None:
        """Write an object beside the nights in one step. Raises: as `write_object`."""
        write_object(self.place(file), content)
        self.refresh()

    def _manifests(self, night: str) -> dict[str, Manifest]:
        below = self._of(night)
        found = {stage: below.manifest(stage) for stage in _stages(below)}
        return {stage: manifest for stage, manifest in found.items() if manifest is not None}

    def _check(self, night: str, stage: str, manifest: Manifest, is_full: bool, is_current: bool) -> None:
        if is_full:
            self._of(night).remote.verify(stage)
        else:
            self._of(night).check(self.of(night), stage, manifest, trusts_unknown=not is_current)

    @property
    def current(self) -> str | None:
        """The night that the object `current` names; None if there is none."""
        text = (self._read_file(CURRENT) or b"").decode(errors="replace").strip()
        return text if is_date(text) else None

    def set_current(self, night: str | None) -> None:
        """Make `current` name a night, in one step; remove it for None.

        Raises:
            StoreError: the storage does not answer or refuses access.
        """
        if night == self.current:
            return
        if night is None:
            ObjectStorage().remove(self.place(CURRENT), recursive=False)
            self.refresh()
        else:
            self.write(CURRENT, f"{night}\n".encode())

    def remove(self, night: str) -> None:
        """Remove the objects of a night, unless some are not the pipeline's; and its folder in the mirror."""
        below = self._of(night)
        stages = _stages(below)
        if any(path.partition("/")[0] not in stages for path in below.objects):
            logger.warning("%s is not removed: it holds files that the pipeline did not make", self.place(night))
            return
        ObjectStorage().remove(self.place(night))
        self.refresh()
        logger.info("removed the night %s", self.place(night))
        self.sweep([night])

    def sweep(self, removed: Collection[str]) -> None:
        """Remove nights from the mirror that are no longer under the URL."""
        for night in removed:
            if night not in self.kept() and self.of(night).versions.is_dir():
                super().remove(night)


def _stages(night: Listing) -> set[str]:
    """Return the stages of a night that have a manifest; an object may have any key, such as `../manifest.json`."""
    paths = (path.split("/") for path in night.objects)
    return {parts[0] for parts in paths if len(parts) == 2 and parts[1] == MANIFEST_FILE and _STAGE.fullmatch(parts[0])}
