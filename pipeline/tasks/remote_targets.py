"""Luigi's target for artifacts under a URL, and its interface to that storage."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from luigi.target import FileSystem, FileSystemTarget

from pipeline.errors import DamagedArtifact, StoreError, nearest
from pipeline.store.file_names import MANIFEST_FILE
from pipeline.store.manifest import Manifest
from pipeline.store.remote import RemoteStore, file_system, storage_errors


class ObjectStorage(FileSystem):
    """Luigi's interface to the storage of a URL; paths are URLs."""

    def exists(self, path: str) -> bool:
        """Return True if there is an object, or one below it."""
        with storage_errors(path):
            system, target = file_system(path)
            return bool(system.exists(target))

    def isdir(self, path: str) -> bool:
        """Return True if there are objects below a URL."""
        with storage_errors(path):
            system, target = file_system(path)
            return bool(system.isdir(target))

    def listdir(self, path: str) -> Iterator[str]:
        """Yield the URLs of all objects below a URL."""
        with storage_errors(path):
            system, target = file_system(path)
            found = system.find(target)
        for name in found:
            yield path.rstrip("/") + name.removeprefix(target.rstrip("/"))

    def remove(self, path: str, recursive: bool = True, skip_trash: bool = True) -> None:
        """Remove an object; and all below it if `recursive`: the manifest first, so that no half counts as finished."""
        del skip_trash  # object storage has none
        with storage_errors(path):
            system, target = file_system(path)
            found = system.find(target) if recursive else [target]
            for name in sorted(found, key=lambda name: not name.endswith(f"/{MANIFEST_FILE}")):
                system.rm_file(name)


class ArtifactTarget(FileSystemTarget):
    """A finished artifact under a URL.

    Args:
        remote: the artifacts of its model.
        stage: the name of the artifact.
    """

    fs = ObjectStorage()

    def __init__(self, remote: RemoteStore, stage: str) -> None:
        super().__init__(remote.url(stage))  # type: ignore[no-untyped-call]
        self._remote, self._stage = remote, stage

    def exists(self) -> bool:
        """Return True if the artifact is finished: its manifest is there and intact, and all files have their sizes.

        Raises:
            StoreError: the storage does not answer or refuses access, or the bucket does not exist.
        """
        try:
            return self._find() is not None
        except DamagedArtifact:
            return False

    def open(self, mode: str = "r", file: str = MANIFEST_FILE) -> Any:
        """Open a file of the artifact for reading.

        Args:
            mode: `r` for text, `rb` for bytes.
            file: its path in the artifact, such as `model.pb`.

        Raises:
            StoreError: the artifact is not finished or has no such file, or another mode is given: artifacts are
                written by their own tasks alone.
        """
        if mode not in ("r", "rb"):
            raise StoreError("an artifact is only read", where=self.path, got=f"mode {mode!r}", wanted="'r' or 'rb'")
        manifest = self._find()
        if manifest is None:
            raise StoreError("the artifact is not finished", where=self.path, next_step="Run the task that makes it")
        names = (MANIFEST_FILE, *manifest.files)
        if file not in names:
            raise StoreError("the artifact has no such file", where=self.path, got=file, next_step=nearest(file, names))
        url = f"{self.path}/{file}"
        with storage_errors(url):
            system, target = file_system(url)
            opened = system.open(target, "rb")
        return io.TextIOWrapper(opened, encoding="utf-8") if mode == "r" else opened

    def _find(self) -> Manifest | None:
        """Return the manifest of the finished artifact; None if it is not finished. Raises: as `Listing.manifest`."""
        listing = self._remote.look()
        manifest = listing.manifest(self._stage)
        return None if manifest is None or listing.problems(self._stage, manifest) else manifest
