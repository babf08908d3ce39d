"""Artifacts on object storage, such as `s3://bucket/path`: made in a local mirror, then published.

    <url>/<name>/<stage>/<file>           the files of the last finished version
    <url>/<name>/<stage>/manifest.json    written last: the artifact is complete where it is there and fits

Nothing can be moved or replaced there in one step. So the old manifest goes first, then come the files, and the new
manifest last: what a kill leaves behind has none, and the next run publishes it again. What another host has published
is downloaded, and its bytes are compared with its manifest. Of two hosts that make the same artifact the first wins.

Any file system of fsspec will do; it takes endpoint and credentials where it always does (AWS_ENDPOINT_URL, …).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.errors import DamagedArtifact, PipelineError, SettingError, StoreError
from pipeline.hashing import hash_file

from . import artifact
from .artifact import ArtifactPaths, ArtifactStatus, State
from .files import MANIFEST_FILE
from .manifest import FileEntry, Manifest, differences

logger = logging.getLogger("pipeline")

_EXTRAS = {"s3": "freeze-pipeline[s3]", "s3a": "freeze-pipeline[s3]"}
_CHUNK = 2**22


def is_url(root: str) -> bool:
    """Whether an output root is a URL rather than a folder."""
    return "://" in root


def mirror_of(url: str, folder: str = "") -> Path:
    """The folder in which the artifacts of a URL are made, and where those of other hosts are downloaded to.

    Args:
        folder: the setting `[storage] mirror`; empty for the user's cache.
    """
    place = Path(folder) if folder else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "freeze-pipeline"
    told = re.sub(r"[^A-Za-z0-9]+", "-", url)[:60].strip("-")
    return place.expanduser().absolute() / f"{told}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class RemoteStore:
    """The artifacts of one named model under a URL.

    Args:
        root: the URL, without a slash at its end.
    """

    root: str
    name: str

    @classmethod
    def at(cls, url: str, name: str) -> RemoteStore:
        """Those of a URL that can be opened here.

        Raises:
            SettingError: its protocol is unknown, or what it needs is not installed.
        """
        file_system(url)
        return cls(url.rstrip("/"), name)

    def url(self, stage: str) -> str:
        """The URL of a stage's artifact."""
        return f"{self.root}/{self.name}/{stage}"

    def look(self) -> Listing:
        """What is there now.

        Raises:
            StoreError: the storage does not answer, refuses, or has no such bucket.
        """
        url = f"{self.root}/{self.name}"
        with foreign_errors(url):
            system, place = file_system(url)
            found = system.find(place, detail=True)
        start = f"{place}/"
        objects = {path.removeprefix(start): info for path, info in found.items() if path.startswith(start)}
        return Listing(self, {path: (int(info["size"]), _token(info)) for path, info in objects.items()})

    def push(self, paths: ArtifactPaths, stage: str) -> None:
        """Uploads a finished artifact of the mirror, unless a complete one of the same ingredients is there.

        Raises:
            DamagedArtifact: the manifest that is there is damaged; nothing is overwritten.
            StoreError: the storage does not answer, refuses, or has no such bucket.
        """
        folder, there = paths.artifact(stage).resolve(), self.look()
        manifest, told = Manifest.read(folder), there.manifest(stage)
        if told is not None and told.fingerprint == manifest.fingerprint and not there.problems(stage, told):
            return
        url = self.url(stage)
        logger.info("uploading %s: %d files", url, len(manifest.files))
        with foreign_errors(url):
            system, place = file_system(url)
            if told is not None:
                system.rm_file(f"{place}/{MANIFEST_FILE}")
            for path in manifest.files:
                if url.startswith("file:"):
                    Path(place, path).parent.mkdir(parents=True, exist_ok=True)
                system.put_file(str(folder / path), f"{place}/{path}")
            for path in there.paths(stage) - {*manifest.files, MANIFEST_FILE}:
                system.rm_file(f"{place}/{path}")
            system.pipe_file(f"{place}/{MANIFEST_FILE}", manifest.to_json().encode())
        there = self.look()
        if problems := there.problems(stage, manifest):
            raise StoreError(problems[0], next_step="Somebody else may write to it; run again")
        there.note(paths, stage)

    def verify(self, stage: str) -> Manifest:
        """Downloads the files of an artifact, keeps none, and compares them with its manifest.

        Raises:
            StoreError: there is no artifact, or the storage does not answer.
            DamagedArtifact: a file or the manifest is not as it was finished.
        """
        there = self.look()
        manifest = there.manifest(stage)
        if manifest is None:
            raise StoreError("not an artifact", where=self.url(stage), got=f"no {MANIFEST_FILE}")
        if problems := there.problems(stage, manifest):
            raise DamagedArtifact(problems[0], next_step=f"Delete {self.url(stage)} and run again")
        for path, entry in manifest.files.items():
            _compare(f"{self.url(stage)}/{path}", hash_object(f"{self.url(stage)}/{path}"), entry)
        return manifest


@dataclass(frozen=True)
class Listing:
    """What was there when it was looked at.

    Args:
        objects: by path below the model's URL the size in bytes, and what changes when the object does.
    """

    remote: RemoteStore
    objects: Mapping[str, tuple[int, str]]

    def paths(self, stage: str) -> set[str]:
        """The paths of a stage's objects, below its URL."""
        return {path.removeprefix(f"{stage}/") for path in self.objects if path.startswith(f"{stage}/")}

    def manifest(self, stage: str) -> Manifest | None:
        """The manifest of an artifact; None where there is none.

        Raises:
            DamagedArtifact: a byte of it is not as it was written.
            StoreError: the storage does not answer.
        """
        entry = self.objects.get(f"{stage}/{MANIFEST_FILE}")
        return None if entry is None else _manifest_at(f"{self.remote.url(stage)}/{MANIFEST_FILE}", *entry)

    def problems(self, stage: str, manifest: Manifest) -> list[str]:
        """Sentences on files that are missing or not of their size."""
        sentences = []
        for path, entry in manifest.files.items():
            size, _ = self.objects.get(f"{stage}/{path}", (None, ""))
            if size is None:
                sentences.append(f"{self.remote.url(stage)}/{path} is missing")
            elif size != entry.size_bytes:
                sentences.append(
                    f"{self.remote.url(stage)}/{path} has {size} bytes, was finished with {entry.size_bytes}"
                )
        return sentences

    def reconciled(
        self, paths: ArtifactPaths, stage: str, ingredients: Mapping[str, Any], ignored: Collection[str], state: State
    ) -> State:
        """The state of an artifact that is complete where it is complete there; what is there is downloaded.

        Args:
            ingredients, ignored: as `store.examine` takes them.
            state: that of the mirror.

        Raises:
            StoreError: the storage does not answer.
        """
        url = self.remote.url(stage)
        try:
            manifest = self.manifest(stage)
            if manifest is None:
                return _not_there(state, (f"{url} does not exist",))
            wanted = {kind: value for kind, value in ingredients.items() if kind not in ignored}
            then = {kind: value for kind, value in manifest.ingredients.items() if kind not in ignored}
            if reasons := (*self.problems(stage, manifest), *differences(then, wanted)):
                return _not_there(state, reasons)
            if not state.is_complete or state.manifest != manifest:

                def examine() -> State:
                    return artifact.examine(paths.artifact(stage), stage, ingredients, ignored)

                self._pull(paths, stage, manifest, examine)
                return examine()
            self._look_closer(paths, stage, manifest)
        except DamagedArtifact as exc:
            return State(ArtifactStatus.DAMAGED, (str(exc),))
        return state

    def _pull(self, paths: ArtifactPaths, stage: str, manifest: Manifest, examine: Callable[[], State]) -> None:
        url = self.remote.url(stage)
        logger.info("downloading %s: %d files", url, len(manifest.files))

        def fill(folder: Path) -> Manifest | None:
            now = examine()
            if now.is_complete and now.manifest == manifest:
                return None  # another process has downloaded it meanwhile
            for path, entry in manifest.files.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                with foreign_errors(f"{url}/{path}"):
                    system, place = file_system(f"{url}/{path}")
                    system.get_file(place, str(folder / path))
                _compare(f"{url}/{path}", hash_file(folder / path), entry)
                os.utime(folder / path, ns=(entry.mtime_ns, entry.mtime_ns))
            (folder / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
            return manifest

        try:
            artifact.install(paths, stage, fill)
        except (DamagedArtifact, StoreError) as exc:
            if self.remote.look().manifest(stage) != manifest:
                raise StoreError(
                    "it was published anew while it was downloaded", where=url, next_step="Run it again"
                ) from exc
            raise
        self.note(paths, stage)

    def _look_closer(self, paths: ArtifactPaths, stage: str, manifest: Manifest) -> None:
        """Hashes the objects that were written since the mirror was the same as they."""
        note = _note_of(paths, stage)
        noted = json.loads(note.read_text(encoding="utf-8")) if note.exists() else {}
        now = self._tokens(stage)
        changed = [path for path in manifest.files if noted.get(path) != now[path]]
        for path in changed:
            url = f"{self.remote.url(stage)}/{path}"
            _compare(url, hash_object(url), manifest.files[path])
        if changed:
            self.note(paths, stage)

    def note(self, paths: ArtifactPaths, stage: str) -> None:
        """Notes that the mirror's artifact is the same as these objects."""
        path = _note_of(paths, stage)
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(self._tokens(stage)), encoding="utf-8")
        fresh.replace(path)

    def _tokens(self, stage: str) -> dict[str, str]:
        return {path: self.objects[f"{stage}/{path}"][1] for path in self.paths(stage)}


def _note_of(paths: ArtifactPaths, stage: str) -> Path:
    return paths.home / ".remote" / f"{stage}.json"


def _not_there(state: State, reasons: tuple[str, ...]) -> State:
    """A state of the mirror, where what is published is not as it should be."""
    if state.status is ArtifactStatus.MISSING:
        return replace(state, reasons=reasons)
    # The mirror's files, if they are right, need not be made again, but they have to be published.
    return replace(state, status=ArtifactStatus.STALE, reasons=reasons) if state.is_complete else state


def _compare(url: str, digest: str, entry: FileEntry) -> None:
    if digest != entry.sha256:
        raise DamagedArtifact(
            "its bytes are not those that were finished",
            where=url,
            got=f"sha256 {digest[:12]}…",
            wanted=f"{entry.sha256[:12]}…",
            next_step=f"Find out why; then delete {url.rpartition('/')[0]} and run again",
        )


def hash_object(url: str) -> str:
    """The sha256 of an object's bytes, as 64 hex digits.

    Raises:
        StoreError: it cannot be read.
    """
    digest = hashlib.sha256()
    with foreign_errors(url):
        system, place = file_system(url)
        with system.open(place, "rb", block_size=_CHUNK) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


@lru_cache(maxsize=256)
def _manifest_at(url: str, size: int, token: str) -> Manifest:
    """A manifest, read once for each time that it was written."""
    with foreign_errors(url):
        system, place = file_system(url)
        content = system.cat_file(place)
    try:
        return Manifest.parse(content.decode(), url)
    except UnicodeDecodeError as exc:
        raise DamagedArtifact("the manifest cannot be read", where=url, got=exc) from exc


def _token(info: Mapping[str, Any]) -> str:
    """What of an object changes when it is written anew."""
    return f"{info.get('ETag') or info.get('etag') or ''} {info.get('LastModified') or info.get('mtime') or ''}"


def file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it.

    Raises:
        SettingError: its protocol is unknown, or what it needs is not installed.
    """
    protocol = url.partition("://")[0]
    try:
        from fsspec.core import url_to_fs

        # Each process has one of its own; and what others write has to be seen.
        system, place = url_to_fs(url, use_listings_cache=False)
    except ImportError as exc:
        extra = _EXTRAS.get(protocol)
        raise SettingError(
            "what this storage needs is not installed",
            where="--output-root",
            got=url,
            wanted=exc,
            next_step=f"install it with pip install '{extra}'" if extra else "install what fsspec needs for it",
        ) from exc
    except ValueError as exc:
        raise SettingError(
            "not a URL of a storage that is known",
            where="--output-root",
            got=url,
            wanted="a folder, or a URL such as s3://bucket/path",
        ) from exc
    return system, str(place)


@contextmanager
def foreign_errors(url: str) -> Iterator[None]:
    """Errors of a storage leave as one of ours; each kind of storage has others."""
    try:
        yield
    except PipelineError:
        raise
    except FileNotFoundError as exc:
        raise StoreError(
            "there is no such bucket or object", where=url, got=exc, next_step="Make it, or correct the URL"
        ) from exc
    except PermissionError as exc:
        raise StoreError("the storage refuses access", where=url, got=exc, next_step="Check the credentials") from exc
    except Exception as exc:
        raise StoreError(
            "the storage cannot be used",
            where=url,
            got=f"{type(exc).__name__}: {exc}",
            next_step="Check its endpoint (AWS_ENDPOINT_URL) and the credentials, then run again",
        ) from exc
