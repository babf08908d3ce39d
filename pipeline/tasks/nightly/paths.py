"""The nights of a model in a folder; `remote` has those under a URL.

<output-root>/<name>/<date>/        a night: the artifacts of its chain, and `night`, its result
<output-root>/<name>/current        a symbolic link to the newest night that passed
<output-root>/<name>/history.csv    a line for each night, including removed ones
<output-root>/<name>/nights.html    the same as a page
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pipeline.errors import DamagedArtifact, StoreError, logger
from pipeline.store import artifact
from pipeline.store.artifact import ArtifactPaths, hold
from pipeline.store.file_names import HISTORY_FILE, NIGHTS_PAGE_FILE, RECORD_FILE
from pipeline.store.folder import NotRegular, read_file
from pipeline.store.manifest import MOST_BYTES, Manifest

NIGHT = "night"  # the artifact with the result of a night
CURRENT = "current"
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_HIDDEN = frozenset([".versions", ".work", ".locks", ".remote"])


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
        return self.home / CURRENT

    @property
    def lock(self) -> Path:
        """The lock of the process that makes a night, so that two nights never overlap."""
        return self.paths.lock(NIGHT)

    def of(self, night: str) -> ArtifactPaths:
        """Return the paths of one night's artifacts."""
        return ArtifactPaths(self.home, night)

    def place(self, *parts: str) -> str:
        """Return where people find the nights, or a file of them."""
        return str(self.home.joinpath(*parts))

    def refresh(self) -> None:
        """Look again at what exists now, if a look is remembered."""

    def kept(self) -> list[str]:
        """Return the nights whose folders exist, the oldest first."""
        if not self.home.is_dir():
            return []
        return sorted(
            path.name for path in self.home.iterdir() if is_date(path.name) and path.is_dir() and not path.is_symlink()
        )

    def has(self, night: str, file: str) -> bool:
        """Return True if a night has a file."""
        return (self.of(night).home / file).is_file()

    def fetch(self, night: str, stage: str) -> Path:
        """Return the local folder of a night's artifact."""
        return self.of(night).artifact(stage)

    def manifest(self, night: str, stage: str) -> Manifest | None:
        """Return the manifest of a night's artifact; None if there is none.

        Raises:
            DamagedArtifact: the manifest was changed after it was written.
        """
        try:
            return Manifest.read(self.of(night).finished(stage))
        except DamagedArtifact:
            raise
        except NotRegular as exc:
            raise DamagedArtifact(exc.what, where=exc.where, got=exc.got, next_step=exc.next_step) from exc
        except StoreError:
            return None

    def read_record(self, night: str) -> tuple[Manifest, bytes] | None:
        """Return the manifest of a night's result, and its record; None if the night has no result.

        Raises:
            DamagedArtifact: the result was changed after it was finished.
        """
        manifest = self.manifest(night, NIGHT)
        if manifest is None:
            return None
        try:
            content = self._read_file(night, NIGHT, RECORD_FILE)
        except (OSError, NotRegular) as exc:
            raise damaged_record(self, night, exc) from exc
        entry = manifest.files.get(RECORD_FILE)
        if content is None or entry is None or hashlib.sha256(content).hexdigest() != entry.sha256:
            raise damaged_record(self, night, "other bytes than those that were finished")
        return manifest, content

    def read(self, file: str) -> bytes | None:
        """Return the content of a file beside the nights, such as history.csv; None if there is none.

        Raises:
            OSError, StoreError: it cannot be read, or is no regular file.
        """
        return self._read_file(file)

    def _read_file(self, *parts: str) -> bytes | None:
        try:
            return read_file(self.home.joinpath(*parts), MOST_BYTES)
        except FileNotFoundError:
            return None

    def write(self, file: str, content: bytes) -> None:
        """Write a file beside the nights in one step.

        Raises:
            StoreError: it cannot be written.
        """
        try:
            with artifact.open_home(self.paths) as home:
                home.replace_file(file, content)
        except OSError as exc:
            raise StoreError("it cannot be written", where=self.place(file), got=exc.strerror) from exc

    def find_problem(self, night: str, is_full: bool = False) -> str | None:
        """Return what was changed in a night after it was finished, as a sentence; None if nothing was.

        Every artifact has to be the one that `night` records. Sizes and time stamps are compared first; but of the
        current night, which people deploy, and if `is_full`, all bytes. A night is not intact either after an
        interrupted run that made it again.

        Raises:
            StoreError: a storage does not answer.
        """
        try:
            manifests = self._manifests(night)
            recorded = manifests[NIGHT].fingerprint_inputs.get("upstream", {})
            stages = dict.fromkeys(path.partition("/")[0] for path in recorded)
            if recorded != digests_of({stage: manifests[stage] for stage in stages}):
                return f"{self.place(night)}: its artifacts are not those of its record"
            is_current = night == self.current
            for stage, manifest in manifests.items():
                self._check(night, stage, manifest, is_full, is_current)
        except KeyError as exc:
            return f"{self.place(night, *exc.args)} is missing"
        except DamagedArtifact as exc:
            return str(exc)
        return None

    def _manifests(self, night: str) -> dict[str, Manifest]:
        """Return the manifests of a night's artifacts, by stage. Raises: DamagedArtifact."""
        links = [path for path in self.of(night).home.iterdir() if path.is_symlink()]
        found = {link.name: self.manifest(night, link.name) for link in links}
        return {stage: manifest for stage, manifest in found.items() if manifest is not None}

    def _check(self, night: str, stage: str, manifest: Manifest, is_full: bool, is_current: bool) -> None:
        """Compare the files of an artifact with its manifest. Raises: DamagedArtifact."""
        folder = self.of(night).artifact(stage)
        if is_full or is_current:
            _verify(folder)
            return
        state = artifact.examine(folder, stage, manifest.fingerprint_inputs)
        if not state.is_complete:
            raise DamagedArtifact(state.reasons[0])

    @property
    def current(self) -> str | None:
        """The night that `current` points to; None if there is none."""
        named = os.readlink(self.link) if self.link.is_symlink() else ""
        return named if is_date(named) else None

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
        current = self.current
        return [night for night in self.kept()[: -keep or None] if night != current] if keep else []

    def remove(self, night: str) -> None:
        """Remove the folder of a night, unless a process works in it or it holds other files than the pipeline's."""
        folder = self.of(night).home
        foreign = [path for path in folder.iterdir() if path.name not in _HIDDEN and not path.is_symlink()]
        if foreign or not (folder / ".versions").is_dir():
            logger.warning("%s is not removed: it holds files that the pipeline did not make", folder)
            return
        with ExitStack() as held, artifact.open_home(self.paths) as home, home.inner(".work", create=True) as works:
            locks = sorted((folder / ".locks").iterdir()) if (folder / ".locks").is_dir() else []
            if not all(held.enter_context(hold(lock, wait=False)) for lock in locks):
                logger.warning("%s is not removed: a process works in it", folder)
                return
            works.remove("removed")  # of an interrupted removal
            os.rename(night, "removed", src_dir_fd=home.descriptor, dst_dir_fd=works.descriptor)
            works.remove("removed")
        logger.info("removed the night %s", folder)

    def sweep(self, removed: Collection[str]) -> None:
        """Remove local copies of nights that were removed elsewhere."""


def _verify(folder: Path) -> None:
    try:
        artifact.verify(folder)
    except DamagedArtifact:
        raise
    except StoreError as exc:
        raise DamagedArtifact(exc.what, where=exc.where, got=exc.got, next_step=exc.next_step) from exc


def is_date(name: str) -> bool:
    """Return True if this can be the name of a night."""
    try:
        return _DATE.fullmatch(name) is not None and bool(date.fromisoformat(name))
    except ValueError:  # such as 2026-99-99
        return False


def damaged_record(nights: Nights, night: str, got: object) -> DamagedArtifact:
    """Return the error for a night whose record is not what was finished."""
    return DamagedArtifact(
        "a night's record cannot be read",
        where=nights.place(night, NIGHT, RECORD_FILE),
        got=got,
        next_step=f"Delete {nights.place(night)}, and the night is made again",
    )


def digests_of(manifests: Mapping[str, Manifest]) -> dict[str, str]:
    """Return the sha256 of each file of some artifacts, by `stage/path`: the form of fingerprint inputs."""
    return {
        f"{stage}/{path}": digest
        for stage, manifest in manifests.items()
        for path, digest in manifest.digests("*").items()
    }
