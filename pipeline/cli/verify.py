"""`python -m pipeline verify FOLDER`: hash an artifact again, and the inputs that its manifest records."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.errors import DamagedArtifact, StoreError, printable
from pipeline.store import artifact
from pipeline.store.artifact import finished, is_url
from pipeline.store.file_names import MANIFEST_FILE
from pipeline.store.folder import Folder
from pipeline.store.manifest import Manifest, require_inner_path
from pipeline.store.remote import RemoteStore, hash_object, read_object
from pipeline.tasks.chain.stages import STAGES

_CHUNK = 2**20
_OFFERED = ("frozen",)  # first, where a stage has to be chosen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", help="the artifact's folder or URL, such as output/spam/frozen")


def run(given: argparse.Namespace) -> int:
    """Hash everything again.

    Returns:
        0 if the artifact and its inputs are unchanged; 1 if an input was changed or removed.

    Raises:
        StoreError: the folder is not an artifact, but that of a model, say.
        DamagedArtifact: a file or the manifest was changed after it was finished.
    """
    folder = _follow_current(given.folder) if is_url(given.folder) else str(given.folder)
    manifest = _verify_url(folder) if is_url(folder) else _verify_folder(Path(folder))
    print(f"{folder}: {len(manifest.files)} files, every byte as it was finished")
    changed = list(_changed_inputs(folder, manifest))
    for sentence in changed:
        print(printable(sentence))
    return int(bool(changed))


def _follow_current(url: str) -> str:
    """Return the URL of the night that the object `current` names, for a URL with `current` in the place of its date.

    Raises:
        StoreError: it names no night, or the storage does not answer.
    """
    nights, *rest = url.rstrip("/").rsplit("/", 2)
    if rest[:1] != ["current"]:
        return url
    named = read_object(f"{nights}/current", 64).decode(errors="replace").strip()
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", named):
        raise StoreError("it names no night", where=f"{nights}/current", got=repr(named), wanted="a date")
    return f"{nights}/{named}/{rest[1]}"


def _verify_folder(folder: Path) -> Manifest:
    """Hash the files of an artifact; among the stages of a model, it has to be the stage of its name.

    Raises:
        NotRegular: among these stages, it is a link to something else than one of its versions.
        StoreError, DamagedArtifact: as `artifact.verify`; it is the artifact of another stage.
    """
    if (folder / ".versions").is_dir():
        stages = [name for name in (*_OFFERED, *STAGES) if (folder / name / MANIFEST_FILE).is_file()]
        raise StoreError(
            "this is the folder of a model, and its artifacts are in it",
            where=folder,
            got=", ".join(dict.fromkeys(stages)) or "no finished one",
            next_step=f"Name one: python -m pipeline verify {folder / stages[0]}" if stages else None,
        )
    is_stage = (folder.parent / ".versions").is_dir() and not folder.name.startswith(".")
    if is_stage:
        finished(folder)
    manifest = artifact.verify(folder)
    if is_stage and manifest.stage != folder.name:
        raise _other_stage(folder, manifest)
    return manifest


def _other_stage(where: object, manifest: Manifest) -> DamagedArtifact:
    what, next_step = "it is the artifact of another stage", "Find out who put it there; then delete it and run again"
    return DamagedArtifact(what, where=where, got=manifest.stage, next_step=next_step)


def _verify_url(url: str) -> Manifest:
    home, _, stage = url.rstrip("/").rpartition("/")
    root, _, name = home.rpartition("/")
    manifest = RemoteStore.at(root, name).verify(stage)
    if manifest.stage != stage and stage in STAGES:  # a copy elsewhere may have another name
        raise _other_stage(url, manifest)
    return manifest


def _changed_inputs(folder: str, manifest: Manifest) -> Iterator[str]:
    """Yield a sentence for each input that was changed or removed after the artifact was made.

    Files of other stages are looked up in the artifacts of these stages alone, without following links. Where the
    manifest comes from a bucket, no file of this machine is read because of it.
    """
    for label, digest in _entries(manifest.fingerprint_inputs, "upstream"):
        require_inner_path(label)
        if is_url(folder):
            url = f"{folder.rstrip('/').rpartition('/')[0]}/{label}"
            yield from _compare(url, digest, partial(hash_object, url))
        else:
            home = Path(folder).absolute().parent
            yield from _compare(home / label, digest, partial(_hash_upstream, home, label))
    recorded = dict(_entries(manifest.fingerprint_inputs, "files"))
    for label, path in _entries(manifest.notes, "inputs"):
        if label in recorded and not is_url(folder):
            yield from _compare(path, recorded[label], partial(_hash_input, path))


def _entries(values: Mapping[str, Any], key: str) -> Iterator[tuple[str, str]]:
    """Yield the texts by label that a manifest has under a key."""
    entries = values.get(key)
    if isinstance(entries, Mapping):
        yield from ((label, value) for label, value in entries.items() if isinstance(value, str))


def _hash_upstream(home: Path, label: str) -> str:
    stage, _, path = label.partition("/")
    with Folder.open(finished(home / stage)) as held:
        return held.hash(path)


def _hash_input(path: str) -> str:
    """Hash a regular file, as long as it was when it was opened: other files may wait, or never end."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode):
            raise FileNotFoundError(path)
        digest, left = hashlib.sha256(), state.st_size
        while chunk := file.read(min(left, _CHUNK)):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()


def _compare(place: object, digest: str, take_hash: Callable[[], str]) -> Iterator[str]:
    try:
        actual = take_hash()
    except (FileNotFoundError, NotADirectoryError):
        yield f"input {place} is gone"
    except StoreError as exc:
        yield f"input {exc}"
    except (OSError, ValueError) as exc:
        yield f"input {place} cannot be read: {exc}"
    else:
        if actual != digest:
            yield f"input {place} changed: sha256 was {digest[:12]}…, is {actual[:12]}…"
