"""`python -m pipeline verify FOLDER`: hash an artifact again, and the inputs that its manifest records."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.errors import StoreError, printable
from pipeline.hashing import hash_file
from pipeline.store import artifact
from pipeline.store.manifest import Manifest
from pipeline.store.remote import RemoteStore, hash_object, is_url


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", help="the artifact's folder or URL, such as output/spam/frozen")


def run(given: argparse.Namespace) -> int:
    """Hash everything again.

    Returns:
        0 if the artifact and its inputs are unchanged; 1 if an input was changed or removed.

    Raises:
        StoreError: the folder is not an artifact.
        DamagedArtifact: a file or the manifest was changed after it was finished.
    """
    folder: str = given.folder
    manifest = _verify_url(folder) if is_url(folder) else artifact.verify(Path(folder))
    print(f"{folder}: {len(manifest.files)} files, every byte as it was finished")
    changed = list(_changed_inputs(folder, manifest))
    for sentence in changed:
        print(printable(sentence))
    return int(bool(changed))


def _verify_url(url: str) -> Manifest:
    home, _, stage = url.rstrip("/").rpartition("/")
    root, _, name = home.rpartition("/")
    return RemoteStore.at(root, name).verify(stage)


def _changed_inputs(folder: str, manifest: Manifest) -> Iterator[str]:
    """Yield a sentence for each input that was changed or removed after the artifact was made."""
    upstream: Mapping[str, str] = manifest.fingerprint_inputs.get("upstream", {})
    for label, digest in upstream.items():
        if is_url(folder):
            yield from _compare(f"{folder.rstrip('/').rpartition('/')[0]}/{label}", digest)
        else:
            yield from _compare(Path(folder).absolute().parent / label, digest)
    for label, path in manifest.notes.get("inputs", {}).items():
        yield from _compare(Path(path), manifest.fingerprint_inputs["files"][label])


def _compare(place: Path | str, digest: str | None) -> Iterator[str]:
    if isinstance(place, Path) and not place.is_file():
        yield f"input {place} is gone"
        return
    try:
        actual = hash_file(place) if isinstance(place, Path) else hash_object(place)
    except StoreError as exc:
        yield f"input {exc}"
        return
    if actual != digest:
        yield f"input {place} changed: sha256 was {str(digest)[:12]}…, is {actual[:12]}…"
