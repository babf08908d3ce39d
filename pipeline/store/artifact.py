"""Artifacts: finished folders with a manifest of their files and of everything that decided them.

    <output-root>/<name>/<stage>          a symbolic link to the last finished version
    <output-root>/<name>/.versions/…      the versions that the links point to
    <output-root>/<name>/.work/<stage>    where a stage is being made
    <output-root>/<name>/.locks/<stage>   held by the process that makes it (flock: the kernel frees it)

A stage is made in its work folder, flushed to disk, given its manifest, moved to the versions, and published by
replacing the link, which is atomic on POSIX file systems. A process that is killed leaves the previous version or none.
The next start removes its leftovers, unless their lock is held.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from pipeline.errors import DamagedArtifact, StoreError, logger
from pipeline.hashing import hash_file

from .file_names import MANIFEST_FILE
from .manifest import FileEntry, Manifest, differences, fingerprint

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# Windows reserves the names of devices and drops a final dot; the output may be on one of its shares.
_WINDOWS_NAME = re.compile(r"(CON|PRN|AUX|NUL|COM[0-9]|LPT[0-9])(\..*)?|.*\.", re.IGNORECASE)


@dataclass(frozen=True)
class ArtifactPaths:
    """All paths of one named model under an output root.

    Raises:
        StoreError: the name cannot be a folder name.
    """

    root: Path
    name: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise StoreError(
                "not a valid folder name",
                got=repr(self.name),
                wanted="up to 100 letters, digits, dots, dashes, underscores",
            )
        if _WINDOWS_NAME.fullmatch(self.name):
            raise StoreError(
                "not a valid folder name on Windows", got=repr(self.name), next_step="Choose another --name"
            )

    @property
    def home(self) -> Path:
        return self.root / self.name

    @property
    def versions(self) -> Path:
        return self.home / ".versions"

    def artifact(self, stage: str) -> Path:
        return self.home / stage

    def work(self, stage: str) -> Path:
        return self.home / ".work" / stage

    def lock(self, stage: str) -> Path:
        return self.home / ".locks" / stage


class ArtifactStatus(Enum):
    """Result of comparing an artifact with what is wanted now."""

    COMPLETE = "complete"
    MISSING = "missing"
    STALE = "stale"
    WAITING = "waiting"  # complete if the stages that it reads give the same bytes again
    DAMAGED = "damaged"


@dataclass(frozen=True)
class ArtifactState:
    """The status of an artifact, the reasons as sentences, and its manifest."""

    status: ArtifactStatus
    reasons: tuple[str, ...] = ()
    manifest: Manifest | None = None

    @property
    def is_complete(self) -> bool:
        return self.status is ArtifactStatus.COMPLETE


def examine(folder: Path, stage: str, inputs: Mapping[str, Any], ignored: Collection[str] = ()) -> ArtifactState:
    """Compare the artifact in `folder` with the inputs that decide it now.

    Args:
        ignored: kinds of inputs that do not count.

    Files with the recorded size and time stamp are taken as unchanged; all others are hashed. `verify` hashes them all.
    """
    version = folder.resolve()
    state = _examine(folder, stage, inputs, ignored)
    # If another run has published meanwhile, the examination mixed two versions.
    return state if folder.resolve() == version else examine(folder, stage, inputs, ignored)


def _examine(folder: Path, stage: str, inputs: Mapping[str, Any], ignored: Collection[str]) -> ArtifactState:
    if not (folder / MANIFEST_FILE).exists():
        return ArtifactState(ArtifactStatus.MISSING, (f"{folder} does not exist",))
    try:
        manifest = Manifest.read(folder)
        missing = _check_files(folder, manifest.files, manifest, trust_mtime=True)
    except DamagedArtifact as exc:
        return ArtifactState(ArtifactStatus.DAMAGED, (str(exc),))
    reasons = tuple(differences(_without(manifest.fingerprint_inputs, ignored), _without(inputs, ignored)))
    if manifest.stage != stage:
        reasons = (f"{folder} holds the stage {manifest.stage}, not {stage}", *reasons)
    if missing or reasons:
        return ArtifactState(ArtifactStatus.STALE, (*missing, *reasons), manifest)
    return ArtifactState(ArtifactStatus.COMPLETE, (), manifest)


def _without(inputs: Mapping[str, Any], ignored: Collection[str]) -> dict[str, Any]:
    return {kind: value for kind, value in inputs.items() if kind not in ignored}


def verify(folder: Path, *patterns: str) -> Manifest:
    """Hash the files of an artifact and compare them with its manifest.

    Args:
        patterns: which files, as `Manifest.digests` takes them; all if none is given.

    Raises:
        StoreError: `folder` is not an artifact.
        DamagedArtifact: a file is missing or was changed; or the manifest was.
    """
    manifest = Manifest.read(folder)
    missing = _check_files(folder, manifest.digests(*(patterns or ("*",))), manifest, trust_mtime=False)
    if missing:
        raise DamagedArtifact(missing[0], next_step=f"Delete {folder} and run again")
    return manifest


def _check_files(folder: Path, names: Iterable[str], manifest: Manifest, trust_mtime: bool) -> list[str]:
    """Return a sentence for each file that is missing or has another size; raise an error if other bytes changed."""
    sentences = []
    for name in names:
        path, entry = folder / name, manifest.files[name]
        try:
            stat = path.stat()
        except OSError:
            sentences.append(f"{path} is missing")
            continue
        if stat.st_size != entry.size_bytes:
            sentences.append(f"{path} has {stat.st_size} bytes, was finished with {entry.size_bytes}")
        elif (not trust_mtime or stat.st_mtime_ns != entry.mtime_ns) and (actual := hash_file(path)) != entry.sha256:
            raise changed_bytes(path, actual, entry, folder)
    return sentences


def changed_bytes(place: object, digest: str, entry: FileEntry, home: object) -> DamagedArtifact:
    """Return the error for a file of an artifact with other bytes than those that were finished."""
    return DamagedArtifact(
        "its bytes were changed after it was finished",
        where=place,
        got=f"sha256 {digest[:12]}…",
        wanted=f"{entry.sha256[:12]}…",
        next_step=f"Find out why; then delete {home} and run again",
    )


def build(
    paths: ArtifactPaths,
    stage: str,
    want: Callable[[], Mapping[str, Any]],
    make: Callable[[Path], Mapping[str, Any]],
    resumable: Collection[str] = (),
) -> ArtifactState:
    """Make an artifact, unless it is complete, and publish it in one step.

    Args:
        want: returns the fingerprint inputs as they are now; called again after the work, to notice an input that has
            changed meanwhile.
        make: fills the work folder that it gets; returns notes for the manifest.
        resumable: the stages that can resume an interrupted run with the same inputs.

    Returns:
        The state of the finished artifact; its manifest is the old one if it was complete.

    Raises:
        DamagedArtifact: the existing artifact is damaged; nothing is overwritten.
        StoreError: the output root cannot be written, or an input changed during the work.
    """
    with _os_errors(paths.home):
        sweep(paths, spare=resumable)
        with hold(paths.lock(stage)):
            return _build_locked(paths, stage, want, make, stage in resumable)


def _build_locked(
    paths: ArtifactPaths,
    stage: str,
    want: Callable[[], Mapping[str, Any]],
    make: Callable[[Path], Mapping[str, Any]],
    is_resumable: bool,
) -> ArtifactState:
    inputs = want()
    state = examine(paths.artifact(stage), stage, inputs)
    if state.is_complete:
        return state
    if state.status is ArtifactStatus.DAMAGED:
        raise DamagedArtifact(state.reasons[0])
    _refuse_foreign(paths, stage)
    work = _work_folder(paths, stage, inputs, is_resumable)
    started = time.monotonic()
    try:
        notes = make(work)
    except BaseException:
        if not is_resumable:
            shutil.rmtree(work, ignore_errors=True)
        raise
    changed = list(differences(inputs, want()))
    if changed:
        shutil.rmtree(work)
        raise StoreError("an input changed while it was used", where=stage, got=changed[0], next_step="Run it again")
    notes = {**notes, "seconds": round(time.monotonic() - started, 3)}
    return ArtifactState(ArtifactStatus.COMPLETE, (), _publish(paths, stage, work, inputs, notes))


def _work_folder(paths: ArtifactPaths, stage: str, inputs: Mapping[str, Any], is_resumable: bool) -> Path:
    """Return a work folder named by the fingerprint, so that only the same work is ever resumed."""
    folder = paths.work(stage) / fingerprint(stage, inputs)[:16]
    if paths.work(stage).exists():
        for other in paths.work(stage).iterdir():
            if not (is_resumable and other == folder):
                _remove_leftover(other)  # also the link of an interrupted publication
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _publish(
    paths: ArtifactPaths, stage: str, work: Path, inputs: Mapping[str, Any], notes: Mapping[str, Any]
) -> Manifest:
    files = {}
    (work / MANIFEST_FILE).unlink(missing_ok=True)  # of an interrupted publication
    for path in sorted(p for p in work.rglob("*") if p.is_file()):
        _flush(path)
        stat = path.stat()
        files[path.relative_to(work).as_posix()] = FileEntry(stat.st_size, hash_file(path), stat.st_mtime_ns)
    manifest = Manifest(stage, inputs, files, notes)
    (work / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
    _flush(work / MANIFEST_FILE)
    _link(paths, stage, work, manifest)
    return manifest


def install(paths: ArtifactPaths, stage: str, fill: Callable[[Path], Manifest | None]) -> None:
    """Publish a finished artifact from elsewhere, instead of the existing one.

    Args:
        fill: fills the work folder that it gets and returns the manifest, which it has written too; or None if nothing
            is left to publish.

    Raises:
        StoreError: the output root cannot be written.
    """
    with _os_errors(paths.home), hold(paths.lock(stage)):
        _refuse_foreign(paths, stage)
        work = paths.work(stage) / "installed"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            manifest = fill(work)
            if manifest is not None:
                _link(paths, stage, work, manifest)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _link(paths: ArtifactPaths, stage: str, work: Path, manifest: Manifest) -> None:
    """Move a finished work folder to the versions, and point the link to it."""
    for folder in (*(p for p in work.rglob("*") if p.is_dir()), work):
        _flush(folder)
    paths.versions.mkdir(exist_ok=True)
    link = paths.artifact(stage)
    previous = _target(link)
    version = paths.versions / f"{stage}-{manifest.fingerprint[:12]}-{time.time_ns():x}"
    work.rename(version)
    _flush(paths.versions)
    fresh = paths.work(stage) / "link"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(os.path.relpath(version, paths.home))
    fresh.replace(link)  # the atomic step: the link points to the previous version before it, to this one after it
    _flush(paths.home)
    if previous is not None:
        shutil.rmtree(previous, ignore_errors=True)


def _target(link: Path) -> Path | None:
    return link.parent / os.readlink(link) if link.is_symlink() else None


def _refuse_foreign(paths: ArtifactPaths, stage: str) -> None:
    link = paths.artifact(stage)
    target = _target(link)
    if target.parent != paths.versions if target is not None else link.exists():
        raise StoreError(
            "a folder that the pipeline did not make is in the way",
            where=link,
            next_step="Move it away, or choose another --name or --output-root",
        )


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(paths: ArtifactPaths, spare: Collection[str] = ()) -> None:
    """Remove the leftovers of interrupted runs, except those of stages that are being made now.

    Args:
        spare: stages whose work folders stay, because a later run may resume them.
    """
    stages = {path.name for path in _children(paths.home / ".work")}
    stages |= {_stage_of(version) for version in _children(paths.versions)}
    for stage in sorted(stages):
        with hold(paths.lock(stage), wait=False) as is_held:
            if not is_held:
                continue
            for version in _children(paths.versions):
                if _stage_of(version) == stage and _target(paths.artifact(stage)) != version:
                    _remove_leftover(version)
            for work in _children(paths.work(stage)):
                if stage not in spare:
                    _remove_leftover(work)


def _stage_of(version: Path) -> str:
    return version.name.rsplit("-", 2)[0]


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _remove_leftover(path: Path) -> None:
    logger.info("removing %s, left by an interrupted run", path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def hold(lock: Path, wait: bool = True) -> Iterator[bool]:
    """Hold a lock file; the kernel frees it however this process ends.

    Yields:
        True if the lock is held; False if `wait` is False and another process holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                yield False
                return
            logger.info("another run is making %s: waiting for it", lock.name)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield True


@contextmanager
def _os_errors(where: Path) -> Iterator[None]:
    """Turn errors of the operating system into a StoreError."""
    try:
        yield
    except OSError as exc:
        raise StoreError(
            "the output cannot be written",
            where=exc.filename or where,
            got=exc.strerror or exc,
            next_step="Free space, correct the permissions, or choose another --output-root",
        ) from exc
