"""Artifacts: finished folders with a manifest of their files and of everything that decided them.

    <output-root>/<name>/<stage>          a symbolic link to the last finished version
    <output-root>/<name>/.versions/…      the versions that the links point to
    <output-root>/<name>/.work/<stage>    where a stage is being made
    <output-root>/<name>/.locks/<stage>   held by the process that makes it (flock: the kernel frees it)

A stage is made in its work folder, flushed to disk, given its manifest, moved to the versions, and published by
replacing the link, which is atomic on POSIX file systems. A process that is killed leaves the previous version or none.
The next start removes its leftovers, unless their lock is held.

The output root may be a link. Below it no other link is followed than that of a stage to one of its own versions:
whoever can write there could lead the pipeline to delete or to overwrite what is elsewhere.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from pipeline.errors import DamagedArtifact, PipelineError, StoreError, logger

from .file_names import MANIFEST_FILE
from .folder import Folder, NotRegular, is_same
from .lock import Lock, hold_lock
from .lock import hold as hold
from .manifest import RECORDED, FileEntry, Manifest, differences, fingerprint

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
FOLDER_NAMES = "up to 100 letters from a to z, digits, dots, dashes, underscores"
# Windows reserves the names of devices and drops a final dot; the output may be on one of its shares.
_VERSION = re.compile(r"\.versions/(?P<version>(?P<stage>[A-Za-z0-9._-]+)-[0-9a-f]{12}-[0-9a-f]{1,16})")
_WINDOWS_DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{port}{number}" for port in ("COM", "LPT") for number in range(10))}


def is_url(root: str) -> bool:
    """Return True if an output root is a URL, which `remote` is for; False if it is a folder."""
    return "://" in root


def is_folder_name(name: str) -> bool:
    """Return True if a model's folder may have this name: one that is safe in paths, URLs and commands."""
    return _NAME.fullmatch(name) is not None


@dataclass(frozen=True)
class ArtifactPaths:
    """All paths of one named model under an output root.

    Raises:
        StoreError: the name cannot be a folder name.
    """

    root: Path
    name: str

    def __post_init__(self) -> None:
        if not is_folder_name(self.name):
            raise StoreError("not a valid folder name", got=repr(self.name), wanted=FOLDER_NAMES)
        if self.name.partition(".")[0].upper() in _WINDOWS_DEVICES or self.name.endswith("."):
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

    def finished(self, stage: str) -> Path:
        """Return the folder of the last finished version of a stage, which stays valid when the link moves on.

        Raises:
            NotRegular: a link that leads elsewhere is in its place.
        """
        return finished(self.artifact(stage))


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


def finished(artifact: Path) -> Path:
    """Return the folder that an artifact's path leads to: one of its versions, or itself if it was copied.

    Raises:
        NotRegular: the path is another link than to a version of this stage, or `.versions` is a link.
    """
    home, version = artifact.parent.resolve(), _linked(artifact)
    return home / artifact.name if version is None else home / ".versions" / version


def _linked(artifact: Path) -> str | None:
    """Return the name of the version that an artifact's path leads to; None if it is no link. Raises: as `finished`."""
    try:
        target = os.readlink(artifact)
    except OSError:
        return None
    version, versions = _version_in(target, artifact.name), f"{artifact.parent}/.versions"
    if version is None or os.path.islink(versions) or os.path.islink(f"{versions}/{version}"):
        raise _foreign(artifact)
    return version


def _version_in(target: str, stage: str) -> str | None:
    """Return the name of the version that a stage's link leads to; None if the pipeline made no such link."""
    found = _VERSION.fullmatch(target)
    return found["version"] if found and found["stage"] == stage else None


def _foreign(artifact: Path) -> NotRegular:
    return NotRegular(
        "a folder that the pipeline did not make is in the way",
        where=artifact,
        got=f"a link to {os.readlink(artifact)}" if artifact.is_symlink() else None,
        next_step="Move it away, or choose another --name or --output-root",
    )


def examine(
    folder: Path, stage: str, inputs: Mapping[str, Any], ignored: Collection[str] = (), is_full: bool = False
) -> ArtifactState:
    """Compare the artifact in `folder` with the inputs that decide it now.

    Args:
        ignored: kinds of inputs that do not count.
        is_full: hash all files, each once in the life of this process. Otherwise files with the recorded size and time
            stamp are taken as unchanged, and all others are hashed. `verify` hashes them all, every time.
    """
    try:
        version = _linked(folder)
        state = _examine(folder, stage, inputs, ignored, is_full)
        # If another run has published meanwhile, the version that was examined may be gone.
        return state if _linked(folder) == version else examine(folder, stage, inputs, ignored, is_full)
    except NotRegular as exc:
        return ArtifactState(ArtifactStatus.MISSING, (str(exc),))


def _examine(
    folder: Path, stage: str, inputs: Mapping[str, Any], ignored: Collection[str], is_full: bool
) -> ArtifactState:
    if not os.path.exists(f"{folder}/{MANIFEST_FILE}"):
        return ArtifactState(ArtifactStatus.MISSING, (f"{folder} does not exist",))
    try:
        manifest = Manifest.read(folder)
        missing = _check_files(folder, manifest.files, manifest, _was_hashed if is_full else _has_time_stamp)
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
    missing = _check_files(folder, manifest.digests(*(patterns or ("*",))), manifest, _trust_none)
    if missing:
        raise DamagedArtifact(missing[0], next_step=f"Delete {folder} and run again")
    return manifest


def _trust_none(state: os.stat_result, entry: FileEntry) -> bool:
    return False


def _has_time_stamp(state: os.stat_result, entry: FileEntry) -> bool:
    return state.st_mtime_ns == entry.mtime_ns


_hashed: dict[tuple[int, ...], str] = {}  # the sha256 of files that this process has hashed, by their state


def _was_hashed(state: os.stat_result, entry: FileEntry) -> bool:
    return _hashed.get(_identify(state)) == entry.sha256


def _identify(state: os.stat_result) -> tuple[int, ...]:
    return (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


def _check_files(
    folder: Path, names: Iterable[str], manifest: Manifest, is_trusted: Callable[[os.stat_result, FileEntry], bool]
) -> list[str]:
    """Return a sentence for each file that is missing or has another size; raise an error if other bytes changed.

    Args:
        is_trusted: whether a file in this state need not be hashed.
    """
    sentences = []
    try:
        held = Folder.open(folder)
    except OSError:
        return [f"{folder / name} is missing" for name in names]
    with held:
        for name in names:
            path, entry = folder / name, manifest.files[name]
            try:
                state = held.state(name)
                if state.st_size != entry.size_bytes:
                    sentences.append(f"{path} has {state.st_size} bytes, was finished with {entry.size_bytes}")
                elif not is_trusted(state, entry):
                    if (actual := held.hash(name)) != entry.sha256:
                        raise changed_bytes(path, actual, entry, folder)
                    _hashed[_identify(state)] = actual
            except FileNotFoundError:
                sentences.append(f"{path} is missing")
            except NotRegular as exc:
                raise DamagedArtifact(exc.what, where=exc.where, got=exc.got, next_step=exc.next_step) from exc
            except OSError as exc:
                raise DamagedArtifact("it cannot be read", where=path, got=exc.strerror) from exc
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
    is_unwanted: Callable[[Manifest | None], bool] = lambda manifest: False,
    is_full: bool = False,
) -> ArtifactState:
    """Make an artifact, unless it is complete, and publish it in one step.

    Args:
        want: returns the fingerprint inputs as they are now; called again after the work, to notice an input that has
            changed meanwhile. Then it also returns what the work has read (`RECORDED`).
        make: fills the work folder that it gets; returns notes for the manifest.
        resumable: the stages that can resume an interrupted run with the same inputs.
        is_unwanted: whether the artifact with this manifest is made again although it is complete.
        is_full: hash all files of the existing artifact, as `examine` does, and make it again if it is damaged.

    Returns:
        The state of the finished artifact; its manifest is the old one if it was complete.

    Raises:
        DamagedArtifact: the existing artifact is damaged; nothing is overwritten, unless `is_full`.
        StoreError: the output root cannot be written, or an input changed during the work.
    """
    with _os_errors(paths.home):
        sweep(paths, spare=resumable)
        with hold_lock(paths.lock(stage)) as lock, _Home.open(paths) as home:
            try:
                return _build_locked(home, lock, stage, want, make, stage in resumable, is_unwanted, is_full)
            except (OSError, PipelineError):
                lock.require()  # else this was the cause: another run has removed what this one was working on
                raise


@contextmanager
def open_home(paths: ArtifactPaths) -> Iterator[Folder]:
    """Open the folder of a named model, and make it if it is not there.

    Raises:
        NotRegular: a link is in its place.
        OSError: it cannot be opened, or made.
    """
    with Folder.open(paths.root, create=True) as root, root.inner(paths.name, create=True) as folder:
        yield folder


class _Home:
    """The folder of a named model, held open, and the folders of the pipeline in it."""

    def __init__(self, paths: ArtifactPaths, folder: Folder) -> None:
        self.paths, self.folder = paths, folder

    @classmethod
    @contextmanager
    def open(cls, paths: ArtifactPaths) -> Iterator[_Home]:
        with open_home(paths) as folder:
            yield cls(paths, folder)

    @contextmanager
    def works(self, stage: str) -> Iterator[Folder]:
        """Open the folder in which a stage has its work folders."""
        with self.folder.inner(".work", create=True) as works, works.inner(stage, create=True) as folder:
            yield folder

    def versions(self) -> Folder:
        return self.folder.inner(".versions", create=True)

    def published(self, stage: str) -> str | None:
        """Return the name of the version that a stage's link leads to; None if there is no such link."""
        return _version_in(self.folder.link_target(stage) or "", stage)

    def refuse_foreign(self, stage: str) -> None:
        """Refuse to publish in the place of what the pipeline did not make."""
        if self.published(stage) is None and os.path.lexists(self.paths.artifact(stage)):
            raise _foreign(self.paths.artifact(stage))


def _build_locked(
    home: _Home,
    lock: Lock,
    stage: str,
    want: Callable[[], Mapping[str, Any]],
    make: Callable[[Path], Mapping[str, Any]],
    is_resumable: bool,
    is_unwanted: Callable[[Manifest | None], bool],
    is_full: bool,
) -> ArtifactState:
    inputs = want()
    state = examine(home.paths.artifact(stage), stage, inputs, is_full=is_full)
    if state.is_complete and not is_unwanted(state.manifest):
        return state
    if state.status is ArtifactStatus.DAMAGED:
        if not is_full:
            raise DamagedArtifact(state.reasons[0])
        logger.warning("%s is damaged and made again: %s", home.paths.artifact(stage), state.reasons[0])
    home.refuse_foreign(stage)
    name = fingerprint(stage, inputs)[:16]  # so that only the same work is ever resumed
    with home.works(stage) as works:
        _clear(works, name if is_resumable else None)
        with works.inner(name, create=True) as work:
            started = time.monotonic()
            try:
                notes = make(home.paths.work(stage) / name)
            except BaseException:
                if not is_resumable:
                    works.remove(name)
                raise
            used = want()
            changed = list(differences(_without(inputs, RECORDED), _without(used, RECORDED)))
            if changed:
                works.remove(name)
                next_step = "Run it again"
                raise StoreError("an input changed while it was used", where=stage, got=changed[0], next_step=next_step)
            notes = {**notes, "seconds": round(time.monotonic() - started, 3)}
            manifest = _finish(work, stage, used, notes)
            lock.require()
            _link(home, stage, works, name, work, manifest)
    return ArtifactState(ArtifactStatus.COMPLETE, (), manifest)


def _clear(works: Folder, resumed: str | None) -> None:
    """Remove what interrupted runs left, except the work to resume, if it holds nothing but files of its own."""
    for name in works.names():
        if name != resumed or not _is_own(works, name):
            _remove_leftover(works, name)  # also the link of an interrupted publication


def _is_own(works: Folder, name: str) -> bool:
    """Return False if writing to a work folder again could write elsewhere: through a link, or to a shared file."""
    try:
        with works.inner(name) as work:
            return all(work.state(path).st_nlink == 1 for path in work.files())
    except (NotRegular, RecursionError):
        return False


def _finish(work: Folder, stage: str, inputs: Mapping[str, Any], notes: Mapping[str, Any]) -> Manifest:
    """Write the manifest of a work folder, and flush all that is in it."""
    work.remove(MANIFEST_FILE)  # of an interrupted publication
    entries = {}
    for path in sorted(work.files()):
        with work.open_file(path) as file:
            os.fsync(file.fileno())
            state = os.fstat(file.fileno())
        entries[path] = FileEntry(state.st_size, work.hash(path), state.st_mtime_ns)
    manifest = Manifest(stage, inputs, entries, notes)
    write_manifest(work, manifest)
    return manifest


def write_manifest(work: Folder, manifest: Manifest) -> None:
    """Write the manifest to a folder that has none, and flush it."""
    with work.create_file(MANIFEST_FILE) as file:
        file.write(manifest.to_json().encode())
        file.flush()
        os.fsync(file.fileno())


def install(paths: ArtifactPaths, stage: str, fill: Callable[[Folder], Manifest | None]) -> None:
    """Publish a finished artifact from elsewhere, instead of the existing one.

    Args:
        fill: fills the work folder that it gets and returns the manifest, which it has written too; or None if nothing
            is left to publish.

    Raises:
        StoreError: the output root cannot be written.
    """
    name = "installed"
    with _os_errors(paths.home), hold_lock(paths.lock(stage)) as lock, _Home.open(paths) as home:
        home.refuse_foreign(stage)
        with home.works(stage) as works:
            works.remove(name)
            os.mkdir(name, dir_fd=works.descriptor)
            try:
                with works.inner(name) as work:
                    manifest = fill(work)
                    if manifest is not None:
                        lock.require()
                        _link(home, stage, works, name, work, manifest)
            finally:
                works.remove(name)


def replace_manifest(paths: ArtifactPaths, stage: str, before: Manifest, after: Manifest) -> None:
    """Replace the manifest of a finished artifact in one step; its files stay. The caller holds the lock of the stage.

    Raises:
        StoreError: its manifest is no longer the one before, or cannot be written.
    """
    with _os_errors(paths.home), _Home.open(paths) as home, home.works(stage) as works:
        works.remove(MANIFEST_FILE)  # of an interrupted replacement
        write_manifest(works, after)
        version = home.published(stage)
        with ExitStack() as held:
            above = home.folder if version is None else held.enter_context(home.versions())
            folder = held.enter_context(above.inner(stage if version is None else version))
            if Manifest.read(paths.finished(stage)) != before:
                works.remove(MANIFEST_FILE)
                raise StoreError("it was made again meanwhile", where=paths.artifact(stage), next_step="Look again")
            os.replace(MANIFEST_FILE, MANIFEST_FILE, src_dir_fd=works.descriptor, dst_dir_fd=folder.descriptor)
            folder.flush()


def _link(home: _Home, stage: str, works: Folder, name: str, work: Folder, manifest: Manifest) -> None:
    """Move a finished work folder to the versions, and point the link to it."""
    work.flush_all()
    previous = home.published(stage)
    version = f"{stage}-{manifest.fingerprint[:12]}-{time.time_ns():x}"
    with home.versions() as versions:
        works.move(name, versions, version)
        if not is_same(version, work.descriptor, versions):
            raise StoreError("the work folder was replaced during the work", where=works.path / name)
        versions.flush()
        works.remove("link")
        os.symlink(f".versions/{version}", "link", dir_fd=works.descriptor)
        # The atomic step: the link leads to the previous version before it, to this one after it.
        os.replace("link", stage, src_dir_fd=works.descriptor, dst_dir_fd=home.folder.descriptor)
        home.folder.flush()
        if previous is not None:
            versions.remove(previous)


def sweep(paths: ArtifactPaths, spare: Collection[str] = ()) -> None:
    """Remove the leftovers of interrupted runs, except those of stages that are being made now.

    Args:
        spare: stages whose work folders stay, because a later run may resume them.

    Raises:
        NotRegular: a link is in the place of a folder of the pipeline.
        StoreError: the output root cannot be read or written.
    """
    with _os_errors(paths.home):
        if not paths.home.is_dir():  # nothing was made there
            return
        _sweep(paths, spare)


def _sweep(paths: ArtifactPaths, spare: Collection[str]) -> None:
    with _Home.open(paths) as home, home.versions() as versions, home.folder.inner(".work", create=True) as works:
        stages = {*works.names(), *map(_stage_of, versions.names())}
        for stage in sorted(stages):
            with hold_lock(paths.lock(stage), wait=False) as lock:
                if lock.is_held:
                    _sweep_stage(home, stage, versions, stage not in spare)


def _sweep_stage(home: _Home, stage: str, versions: Folder, with_work: bool) -> None:
    for version in versions.names():
        if _stage_of(version) == stage and home.published(stage) != version:
            _remove_leftover(versions, version)
    if with_work:
        with home.works(stage) as works:
            for name in works.names():
                _remove_leftover(works, name)


def _stage_of(version: str) -> str:
    return version.rsplit("-", 2)[0]


def _remove_leftover(folder: Folder, name: str) -> None:
    logger.info("removing %s, left by an interrupted run", folder.path / name)
    folder.remove(name)


_NEXT_STEPS = {
    errno.ENOSPC: "Free space, or choose another --output-root",
    errno.EDQUOT: "Free space, or choose another --output-root",
    errno.ENOENT: "Somebody removed it during the work: leave the output root alone while a run lasts, and run again",
    errno.EROFS: "Choose another --output-root",
    errno.EACCES: "Correct the permissions, or choose another --output-root",
    errno.EPERM: "Correct the permissions, or choose another --output-root",
    errno.ENOTDIR: "Move what is in the way, or choose another --output-root",
    errno.EEXIST: "Move what is in the way, or choose another --output-root",
    errno.EISDIR: "Move what is in the way, or choose another --output-root",
}


@contextmanager
def _os_errors(where: Path) -> Iterator[None]:
    """Turn errors of the operating system into a StoreError."""
    try:
        yield
    except OSError as exc:
        raise StoreError(
            "the output cannot be written",
            where=exc.filename if "/" in str(exc.filename) else where,  # else a name in a held folder
            got=exc.strerror or exc,
            next_step=_NEXT_STEPS.get(exc.errno or 0, "Choose another --output-root"),
        ) from exc
