"""Artifacts: finished folders that know what they hold and what decided it.

    <output-root>/<name>/<stage>          a symbolic link to the last finished version
    <output-root>/<name>/.versions/…      the versions that the links name
    <output-root>/<name>/.work/<stage>    where a stage is at work
    <output-root>/<name>/.locks/<stage>   held by the process at work (flock: the kernel frees it)

A stage is made in its work folder, flushed to disk, given its manifest, moved among the versions, and
published by replacing the link, which is one step on POSIX file systems. A kill at any instant
leaves the previous version or none. What a kill leaves behind is swept at the next start, unless
its lock is held.
"""

from __future__ import annotations

import fcntl
import logging
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

from pipeline.errors import DamagedArtifact, StoreError
from pipeline.hashing import hash_file

from .files import MANIFEST_FILE
from .manifest import FileEntry, Manifest, differences, fingerprint

logger = logging.getLogger("pipeline")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# Names of devices on Windows, whatever follows a dot; and a final dot, which it drops: output may go to its shares.
_OF_WINDOWS = re.compile(r"(CON|PRN|AUX|NUL|COM[0-9]|LPT[0-9])(\..*)?|.*\.", re.IGNORECASE)


@dataclass(frozen=True)
class ArtifactPaths:
    """Every path of one named model under an output root.

    Raises:
        StoreError: the name is not a plain folder name.
    """

    root: Path
    name: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise StoreError(
                "not a name for a folder",
                got=repr(self.name),
                wanted="up to 100 letters, digits, dots, dashes, underscores",
            )
        if _OF_WINDOWS.fullmatch(self.name):
            raise StoreError(
                "not a name for a folder on Windows", got=repr(self.name), next_step="Choose another --name"
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
    """How an artifact stands against what is wanted now."""

    COMPLETE = "complete"
    MISSING = "missing"
    STALE = "stale"
    WAITING = "waiting"  # as wanted, as long as what it reads stays as it is; but that has to be made again
    DAMAGED = "damaged"


@dataclass(frozen=True)
class State:
    """The condition of an artifact, and the reasons as sentences."""

    status: ArtifactStatus
    reasons: tuple[str, ...] = ()
    manifest: Manifest | None = None

    @property
    def is_complete(self) -> bool:
        return self.status is ArtifactStatus.COMPLETE


def examine(folder: Path, stage: str, ingredients: Mapping[str, Any], ignored: Collection[str] = ()) -> State:
    """Says whether the artifact in `folder` is what these ingredients would give.

    Args:
        ignored: kinds of ingredients that do not count.

    A file whose size and time stamp are as they were finished is taken as untouched; any other
    is hashed. `verify` hashes them all.
    """
    version = folder.resolve()
    state = _examine(folder, stage, ingredients, ignored)
    # If another run published meanwhile, two versions were looked at as if they were one.
    return state if folder.resolve() == version else examine(folder, stage, ingredients, ignored)


def _examine(folder: Path, stage: str, ingredients: Mapping[str, Any], ignored: Collection[str]) -> State:
    if not (folder / MANIFEST_FILE).exists():
        return State(ArtifactStatus.MISSING, (f"{folder} does not exist",))
    try:
        manifest = Manifest.read(folder)
        missing = _check_files(folder, manifest.files, manifest, trust_mtime=True)
    except DamagedArtifact as exc:
        return State(ArtifactStatus.DAMAGED, (str(exc),))
    reasons = tuple(differences(_without(manifest.ingredients, ignored), _without(ingredients, ignored)))
    if manifest.stage != stage:
        reasons = (f"{folder} holds the stage {manifest.stage}, not {stage}", *reasons)
    if missing or reasons:
        return State(ArtifactStatus.STALE, (*missing, *reasons), manifest)
    return State(ArtifactStatus.COMPLETE, (), manifest)


def _without(ingredients: Mapping[str, Any], ignored: Collection[str]) -> dict[str, Any]:
    return {kind: value for kind, value in ingredients.items() if kind not in ignored}


def verify(folder: Path, *patterns: str) -> Manifest:
    """Hashes the files of an artifact and compares them with its manifest.

    Args:
        patterns: which files, as `Manifest.digests` takes them; all if none is given.

    Raises:
        StoreError: `folder` is no artifact.
        DamagedArtifact: a file is missing, is not of its size, or its bytes changed; or the manifest did.
    """
    manifest = Manifest.read(folder)
    missing = _check_files(folder, manifest.digests(*(patterns or ("*",))), manifest, trust_mtime=False)
    if missing:
        raise DamagedArtifact(missing[0], next_step=f"Delete {folder} and run again")
    return manifest


def _check_files(folder: Path, names: Iterable[str], manifest: Manifest, trust_mtime: bool) -> list[str]:
    """Sentences on files that are missing or not of their size; damage of bytes is raised."""
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
            raise DamagedArtifact(
                "its bytes are not those that were finished",
                where=path,
                got=f"sha256 {actual[:12]}…",
                wanted=f"{entry.sha256[:12]}…",
                next_step=f"Find out why; then delete {folder} and run again",
            )
    return sentences


def build(
    paths: ArtifactPaths,
    stage: str,
    want: Callable[[], Mapping[str, Any]],
    make: Callable[[Path], Mapping[str, Any]],
    resumable: Collection[str] = (),
) -> State:
    """Makes an artifact, unless it is there already, and publishes it in one step.

    Args:
        want: gives the ingredients as they are now; asked again after the work, so that an input
            that changed meanwhile is noticed.
        make: fills the work folder that it is given; returns notes for the manifest.
        resumable: the stages that can go on with what a killed run with the same ingredients left.

    Returns:
        The state of the finished artifact; its manifest is the old one if nothing had to be done.

    Raises:
        DamagedArtifact: the artifact that stands there is damaged; nothing is overwritten.
        StoreError: the output root cannot be written, or an input changed while it was read.
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
) -> State:
    ingredients = want()
    state = examine(paths.artifact(stage), stage, ingredients)
    if state.is_complete:
        return state
    if state.status is ArtifactStatus.DAMAGED:
        raise DamagedArtifact(state.reasons[0])
    _refuse_foreign(paths, stage)
    work = _work_folder(paths, stage, ingredients, is_resumable)
    started = time.monotonic()
    try:
        notes = make(work)
    except BaseException:
        if not is_resumable:
            shutil.rmtree(work, ignore_errors=True)
        raise
    changed = list(differences(ingredients, want()))
    if changed:
        shutil.rmtree(work)
        raise StoreError("an input changed while it was used", where=stage, got=changed[0], next_step="Run it again")
    notes = {**notes, "seconds": round(time.monotonic() - started, 3)}
    return State(ArtifactStatus.COMPLETE, (), _publish(paths, stage, work, ingredients, notes))


def _work_folder(paths: ArtifactPaths, stage: str, ingredients: Mapping[str, Any], is_resumable: bool) -> Path:
    """A work folder named by the fingerprint: only the same work is ever resumed."""
    folder = paths.work(stage) / fingerprint(stage, ingredients)[:16]
    if paths.work(stage).exists():
        for other in paths.work(stage).iterdir():
            if not (is_resumable and other == folder):
                _remove_leftover(other)  # the link of a killed publication lies here too
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _publish(
    paths: ArtifactPaths, stage: str, work: Path, ingredients: Mapping[str, Any], notes: Mapping[str, Any]
) -> Manifest:
    files = {}
    (work / MANIFEST_FILE).unlink(missing_ok=True)  # of a publication that was killed
    for path in sorted(p for p in work.rglob("*") if p.is_file()):
        _flush(path)
        stat = path.stat()
        files[path.relative_to(work).as_posix()] = FileEntry(stat.st_size, hash_file(path), stat.st_mtime_ns)
    manifest = Manifest(stage, ingredients, files, notes)
    (work / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
    _flush(work / MANIFEST_FILE)
    _link(paths, stage, work, manifest)
    return manifest


def install(paths: ArtifactPaths, stage: str, fill: Callable[[Path], Manifest | None]) -> None:
    """Publishes a finished artifact that comes from elsewhere, in the place of what stands there.

    Args:
        fill: fills the work folder that it is given, its manifest included, and returns that; or None where there is
            nothing to publish any more.

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
    """Moves a finished work folder among the versions, and the link to it."""
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
    fresh.replace(link)  # the one step: before it the previous version stands here, after it this one
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
    """Removes what killed runs left behind, except where somebody is at work.

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
    logger.info("removing %s, which a killed run left behind", path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def hold(lock: Path, wait: bool = True) -> Iterator[bool]:
    """Holds a lock file, which the kernel frees however this process ends.

    Yields:
        Whether the lock is held: always, unless `wait` is False and somebody else holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                yield False
                return
            logger.info("another run is at work on %s: waiting for it", lock.name)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield True


@contextmanager
def _os_errors(where: Path) -> Iterator[None]:
    """Errors of the operating system leave as one of ours."""
    try:
        yield
    except OSError as exc:
        raise StoreError(
            "the output cannot be written",
            where=exc.filename or where,
            got=exc.strerror or exc,
            next_step="Free space, correct the permissions, or choose another --output-root",
        ) from exc
