"""Artifacts on object storage, such as `s3://bucket/path`: made in a local mirror, then uploaded.

    <url>/<name>/<stage>/<file>           the files of the last finished version
    <url>/<name>/<stage>/manifest.json    written last: with a valid manifest, the artifact is complete

Object storage has no atomic move. So the old manifest is deleted first, then the files are written, then the new
manifest: an interrupted upload leaves no manifest, and the next run uploads again. Artifacts that another host has
published are downloaded and compared with their manifest. If two hosts make the same artifact, the first one wins.

Any file system of fsspec works; it finds its endpoint and credentials as usual (AWS_ENDPOINT_URL, …).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.errors import DamagedArtifact, PipelineError, SettingError, StoreError, logger

from . import artifact
from .artifact import ArtifactPaths, ArtifactState, ArtifactStatus
from .file_names import MANIFEST_FILE
from .folder import Folder, NotRegular, read_file
from .manifest import MOST_BYTES, FileEntry, Manifest, differences

_EXTRAS = {"s3": "freeze-pipeline[s3]", "s3a": "freeze-pipeline[s3]"}
_CHUNK = 2**22
_TOKENS_FOLDER = ".remote"


def mirror_of(url: str, folder: str = "") -> Path:
    """Return the local folder for the artifacts of a URL: those made here, and those downloaded from it.

    Args:
        folder: the setting `[storage] mirror`; empty for the cache of the user.
    """
    root = Path(folder) if folder else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "freeze-pipeline"
    readable = re.sub(r"[^A-Za-z0-9]+", "-", url)[:60].strip("-")
    return root.expanduser().absolute() / f"{readable}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class RemoteStore:
    """The artifacts of one named model under a URL.

    Args:
        root: the URL, without a final slash.
    """

    root: str
    name: str

    @classmethod
    def at(cls, url: str, name: str) -> RemoteStore:
        """Check that a URL can be opened here. Raises: as `file_system`."""
        file_system(url)
        return cls(url.rstrip("/"), name)

    def url(self, stage: str) -> str:
        """Return the URL of a stage's artifact."""
        return f"{self.root}/{self.name}/{stage}"

    def below(self, folder: str) -> RemoteStore:
        """Return the artifacts in a folder of the model, such as those of a night."""
        return RemoteStore(f"{self.root}/{self.name}", folder)

    def look(self) -> Listing:
        """List the objects that exist now.

        Raises:
            StoreError: the storage does not answer or refuses access, or the bucket does not exist.
        """
        url = f"{self.root}/{self.name}"
        with storage_errors(url):
            system, target = file_system(url)
            found = system.find(target, detail=True)
        _refuse_links(url, target, found)
        start = f"{target}/"
        objects = {path.removeprefix(start): info for path, info in found.items() if path.startswith(start)}
        stamps = {  # texts that change when an object is written again
            path: f"{info.get('ETag') or info.get('etag') or ''} {info.get('LastModified') or info.get('mtime') or ''}"
            for path, info in objects.items()
        }
        return Listing(self, {path: (int(info["size"]), stamps[path]) for path, info in objects.items()})

    def push(
        self,
        paths: ArtifactPaths,
        stage: str,
        is_unwanted: Callable[[Manifest | None], bool] = lambda manifest: False,
    ) -> None:
        """Upload a finished artifact of the mirror, unless a complete one with the same inputs is published.

        Args:
            is_unwanted: whether the published artifact with this manifest is replaced although it is complete.

        Raises:
            DamagedArtifact: the published artifact is damaged; nothing is overwritten.
            StoreError: the storage does not answer or refuses access, or the bucket does not exist.
        """
        folder, listing = paths.finished(stage), self.look()
        manifest, published = Manifest.read(folder), listing.manifest(stage)
        if (
            published is not None
            and published.fingerprint == manifest.fingerprint
            and not listing.problems(stage, published)
            and not is_unwanted(published)
        ):
            listing.check(paths, stage, published, trusts_unknown=False)  # else nobody says why it is not complete
            return
        url = self.url(stage)
        logger.info("uploading %s: %d files", url, len(manifest.files))
        with storage_errors(url), Folder.open(folder) as held:
            system, target = file_system(url)
            if published is not None:
                system.rm_file(f"{target}/{MANIFEST_FILE}")
            for path in listing.paths(stage) - {*manifest.files, MANIFEST_FILE}:
                system.rm_file(f"{target}/{path}")
            for path in manifest.files:
                held.state(path)  # a link may lead to what nobody wanted to publish
                _upload(held, path, url)
            write_object(f"{url}/{MANIFEST_FILE}", manifest.to_json().encode())
        listing = self.look()
        if problems := listing.problems(stage, manifest):
            raise StoreError(problems[0], next_step="Another process may write to it; run again")
        listing.note(paths, stage)

    def replace_manifest(self, stage: str, before: Manifest, after: Manifest) -> None:
        """Replace the manifest of a published artifact; its files stay.

        Raises:
            StoreError: its manifest is no longer the one before, or the storage does not answer.
        """
        url = self.url(stage)
        if self.look().manifest(stage) != before:
            raise StoreError("it was published again meanwhile", where=url, next_step="Look again")
        write_object(f"{url}/{MANIFEST_FILE}", after.to_json().encode())

    def verify(self, stage: str) -> Manifest:
        """Download the files of an artifact without keeping them, and compare them with its manifest.

        Raises:
            StoreError: there is no artifact, or the storage does not answer.
            DamagedArtifact: a file or the manifest was changed after it was finished.
        """
        listing = self.look()
        manifest = listing.manifest(stage)
        if manifest is None:
            raise StoreError("not an artifact", where=self.url(stage), got=f"no {MANIFEST_FILE}")
        if problems := listing.problems(stage, manifest):
            raise DamagedArtifact(problems[0], next_step=f"Delete {self.url(stage)} and run again")
        for path, entry in manifest.files.items():
            _compare(f"{self.url(stage)}/{path}", hash_object(f"{self.url(stage)}/{path}"), entry)
        return manifest


@dataclass(frozen=True)
class Listing:
    """The objects of a model at one moment.

    Args:
        objects: by path below the model's URL: the size in bytes, and a token that changes when the object does.
    """

    remote: RemoteStore
    objects: Mapping[str, tuple[int, str]]

    def paths(self, stage: str) -> set[str]:
        """Return the paths of a stage's objects, below its URL."""
        return {path.removeprefix(f"{stage}/") for path in self.objects if path.startswith(f"{stage}/")}

    def manifest(self, stage: str) -> Manifest | None:
        """Return the manifest of an artifact; None if there is none.

        Raises:
            DamagedArtifact: the manifest was changed after it was written.
            StoreError: the storage does not answer.
        """
        entry = self.objects.get(f"{stage}/{MANIFEST_FILE}")
        return None if entry is None else _manifest_at(f"{self.remote.url(stage)}/{MANIFEST_FILE}", *entry)

    def problems(self, stage: str, manifest: Manifest) -> list[str]:
        """Return a sentence for each file that is missing or has another size."""
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

    def check(self, paths: ArtifactPaths, stage: str, manifest: Manifest, trusts_unknown: bool) -> None:
        """Compare an artifact with its manifest: sizes, and the bytes of objects that were written again.

        Args:
            trusts_unknown: whether to take objects as unchanged if this host neither has uploaded nor hashed any.

        Raises:
            DamagedArtifact: an object is missing or was changed.
        """
        if problems := self.problems(stage, manifest):
            raise DamagedArtifact(problems[0], next_step=f"Delete {self.remote.url(stage)} and run again")
        if not trusts_unknown or _read_tokens(paths, stage):
            self._check_changed_objects(paths, stage, manifest)

    def fetch(self, paths: ArtifactPaths, stage: str) -> Path:
        """Download an artifact into the mirror, unless it is there; return its folder.

        Raises:
            StoreError: there is no such artifact, or the storage does not answer.
            DamagedArtifact: it was changed after it was finished.
        """
        manifest = self.manifest(stage)
        if manifest is None:
            raise StoreError("not an artifact", where=self.remote.url(stage), got=f"no {MANIFEST_FILE}")
        inputs, folder = manifest.fingerprint_inputs, paths.artifact(stage)
        state = self.reconcile(paths, stage, inputs, (), artifact.examine(folder, stage, inputs))
        if not state.is_complete:
            raise DamagedArtifact(state.reasons[0])
        return folder

    def reconcile(
        self,
        paths: ArtifactPaths,
        stage: str,
        inputs: Mapping[str, Any],
        ignored: Collection[str],
        state: ArtifactState,
    ) -> ArtifactState:
        """Return the state of an artifact, which is complete only if it is published; download it if it is.

        Args:
            inputs, ignored: as for `store.examine`.
            state: the state in the mirror.

        Raises:
            StoreError: the storage does not answer.
        """
        url = self.remote.url(stage)
        try:
            manifest = self.manifest(stage)
            if manifest is None:
                return _mark_unpublished(state, (f"{url} does not exist",))
            wanted = {kind: value for kind, value in inputs.items() if kind not in ignored}
            then = {kind: value for kind, value in manifest.fingerprint_inputs.items() if kind not in ignored}
            if reasons := (*self.problems(stage, manifest), *differences(then, wanted)):
                return _mark_unpublished(state, reasons)
            if not state.is_complete or state.manifest != manifest:

                def examine() -> ArtifactState:
                    return artifact.examine(paths.artifact(stage), stage, inputs, ignored)

                self._pull(paths, stage, manifest, examine)
                return examine()
            self._check_changed_objects(paths, stage, manifest)
        except DamagedArtifact as exc:
            return ArtifactState(ArtifactStatus.DAMAGED, (str(exc),))
        return state

    def _pull(self, paths: ArtifactPaths, stage: str, manifest: Manifest, examine: Callable[[], ArtifactState]) -> None:
        url = self.remote.url(stage)
        logger.info("downloading %s: %d files", url, len(manifest.files))

        def fill(folder: Folder) -> Manifest | None:
            now = examine()
            if now.is_complete and now.manifest == manifest:
                return None  # another process has downloaded it
            for path, entry in sorted(manifest.files.items()):
                with folder.create_file(path) as file:
                    _compare(f"{url}/{path}", hash_object(f"{url}/{path}", file.write, entry.size_bytes), entry)
                    file.flush()
                    os.utime(file.fileno(), ns=(entry.mtime_ns, entry.mtime_ns))
            artifact.write_manifest(folder, manifest)
            return manifest

        try:
            artifact.install(paths, stage, fill)
        except (DamagedArtifact, StoreError) as exc:
            if self.remote.look().manifest(stage) != manifest:
                raise StoreError(
                    "it was published again while it was downloaded", where=url, next_step="Run it again"
                ) from exc
            raise
        self.note(paths, stage)

    def _check_changed_objects(self, paths: ArtifactPaths, stage: str, manifest: Manifest) -> None:
        """Hash the objects that were written after the mirror was last equal to them."""
        noted, now = _read_tokens(paths, stage), self._tokens(stage)
        changed = [path for path in manifest.files if noted.get(path) != now[path]]
        for path in changed:
            url = f"{self.remote.url(stage)}/{path}"
            _compare(url, hash_object(url), manifest.files[path])
        if changed:
            self.note(paths, stage)

    def note(self, paths: ArtifactPaths, stage: str) -> None:
        """Record that the artifact in the mirror is equal to these objects."""
        with artifact.open_home(paths) as home, home.inner(_TOKENS_FOLDER, create=True) as folder:
            folder.replace_file(f"{stage}.json", json.dumps(self._tokens(stage)).encode())

    def _tokens(self, stage: str) -> dict[str, str]:
        return {path: self.objects[f"{stage}/{path}"][1] for path in self.paths(stage)}


def _refuse_links(url: str, target: str, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse what only the folder of a `file://` URL can hold: links, FIFOs, devices.

    Args:
        found: what is in the target, by path; no link was followed to find it.

    Raises:
        NotRegular: something is no regular file.
    """
    others = [path for path, info in found.items() if info.get("type", "file") != "file"]
    if _is_folder_url(url) and os.path.islink(target):
        others.append(target)
    if others:
        raise NotRegular(
            "a link, or what is no regular file, is among the artifacts",
            where=others[0],
            next_step="Find out who put it there; then remove it and run again",
        )


def _upload(held: Folder, path: str, url: str) -> None:
    """Write a file of an artifact below its URL.

    In the folder of a `file://` URL it is a new file: what is in its place may have another name elsewhere (a hard
    link), and a link may be in the place of a folder since it was looked at.
    """
    system, target = file_system(url)
    if not _is_folder_url(url):
        system.put_file(str(held.path / path), f"{target}/{path}")
        return
    stage = Path(target)
    with (
        Folder.open(stage.parents[1], create=True) as root,
        root.inner(stage.parent.name, create=True) as home,
        home.inner(stage.name, create=True) as folder,
        held.open_file(path) as source,
        folder.create_file(path, is_instead=True) as copy,
    ):
        shutil.copyfileobj(source, copy)


def _is_folder_url(url: str) -> bool:
    return url.startswith(("file:", "local:"))


def _read_tokens(paths: ArtifactPaths, stage: str) -> dict[str, str]:
    """Return the tokens of the objects that the mirror was last equal to; none if they cannot be read."""
    try:
        noted = json.loads(read_file(paths.home / _TOKENS_FOLDER / f"{stage}.json", MOST_BYTES))
    except (OSError, ValueError, RecursionError, StoreError):
        return {}
    return noted if isinstance(noted, dict) else {}


def _mark_unpublished(state: ArtifactState, reasons: tuple[str, ...]) -> ArtifactState:
    """Change the state of the mirror, because the published artifact is not as wanted."""
    if state.status is ArtifactStatus.MISSING:
        return replace(state, reasons=reasons)
    # Correct files in the mirror need not be made again, but they have to be uploaded.
    return replace(state, status=ArtifactStatus.STALE, reasons=reasons) if state.is_complete else state


def _compare(url: str, digest: str, entry: FileEntry) -> None:
    if digest != entry.sha256:
        raise artifact.changed_bytes(url, digest, entry, url.rpartition("/")[0])


def hash_object(url: str, write: Callable[[bytes], object] = len, most_bytes: float = math.inf) -> str:
    """Hash the bytes of an object; return the sha256 as 64 hex digits.

    Args:
        write: gets the bytes, one chunk after the other.
        most_bytes: the hash is that of the first bytes if there are more.

    Raises:
        StoreError: the object cannot be read.
    """
    digest, left = hashlib.sha256(), most_bytes
    with _open_object(url) as file:
        while left > 0:
            with storage_errors(url):
                chunk = file.read(int(min(_CHUNK, left)))
            if not chunk:
                break
            digest.update(chunk)
            write(chunk)
            left -= len(chunk)
    return digest.hexdigest()


@contextmanager
def _open_object(url: str) -> Iterator[Any]:
    with storage_errors(url):
        system, target = file_system(url)
        file = system.open(target, "rb", block_size=_CHUNK)
    try:
        yield file
    finally:
        file.close()


def read_object(url: str, most_bytes: int = 2**26) -> bytes:
    """Return the bytes of a small object.

    Raises:
        StoreError: it cannot be read, or is larger than `most_bytes`.
    """
    with _open_object(url) as file, storage_errors(url):
        content: bytes = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise StoreError("it is too large", where=url, wanted=f"at most {most_bytes} bytes")
    return content


def write_object(url: str, content: bytes) -> None:
    """Write a small object in one step: readers get the old bytes or the new ones.

    Raises:
        StoreError: the storage does not answer or refuses access.
    """
    with storage_errors(url):
        system, target = file_system(url)
        if not _is_folder_url(url):
            system.pipe_file(target, content)
            return
        with Folder.open(Path(target).parent, create=True) as folder:
            folder.replace_file(Path(target).name, content)


@lru_cache(maxsize=256)
def _manifest_at(url: str, size: int, token: str) -> Manifest:
    """Read a manifest; read it again only after it was written again."""
    if size > MOST_BYTES:
        raise DamagedArtifact("the manifest cannot be read", where=url, got=f"{size} bytes", wanted=f"{MOST_BYTES}")
    with _open_object(url) as file, storage_errors(url):
        content = file.read(MOST_BYTES)  # it may have grown
    try:
        return Manifest.parse(content.decode(), url)
    except UnicodeDecodeError as exc:
        raise DamagedArtifact("the manifest cannot be read", where=url, got=exc) from exc


def file_system(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it.

    Raises:
        SettingError: its protocol is unknown, or a library that it needs is not installed.
    """
    protocol = url.partition("://")[0]
    try:
        from fsspec.core import url_to_fs

        # No cache of listings: other processes and hosts write too.
        system, target = url_to_fs(url, use_listings_cache=False)
    except ImportError as exc:
        extra = _EXTRAS.get(protocol)
        raise SettingError(
            "a library for this storage is not installed",
            where="--output-root",
            got=url,
            wanted=exc,
            next_step=f"install it with pip install '{extra}'" if extra else "install the library that fsspec needs",
        ) from exc
    except ValueError as exc:
        raise SettingError(
            "not a URL of a known storage",
            where="--output-root",
            got=url,
            wanted="a folder, or a URL such as s3://bucket/path",
        ) from exc
    return system, str(target)


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Turn errors of a storage into a StoreError; each kind of storage has its own."""
    try:
        yield
    except PipelineError:
        raise
    except FileNotFoundError as exc:
        raise StoreError(
            "the bucket or object does not exist", where=url, got=exc, next_step="Create it, or correct the URL"
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
