"""`python -m pipeline verify FOLDER`: hashes an artifact again, and the inputs that its manifest records."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

from .. import store
from ..fingerprint import digest_file
from ..manifest import Manifest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("folder", type=Path, help="the artifact's folder, such as output/spam/frozen")


def run(given: argparse.Namespace) -> int:
    """Hashes everything again.

    Returns:
        0 if all bytes are those that were finished and the inputs are as they were; 1 if an input
        changed or is gone since.

    Raises:
        StoreError: the folder is no artifact.
        DamagedArtifact: a file or the manifest is not as it was finished.
    """
    folder: Path = given.folder
    manifest = store.verify(folder)
    print(f"{folder}: {len(manifest.files)} files, every byte as it was finished")
    changed = list(_changed_inputs(folder, manifest))
    for sentence in changed:
        print(sentence)
    return int(bool(changed))


def _changed_inputs(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Sentences on inputs that are not as they were when the artifact was made."""
    upstream: Mapping[str, str] = manifest.ingredients.get("upstream", {})
    for label, digest in upstream.items():
        yield from _compare(folder.absolute().parent / label, digest)
    for label, path in manifest.notes.get("inputs", {}).items():
        yield from _compare(Path(path), manifest.ingredients["files"][label])


def _compare(path: Path, digest: str | None) -> Iterator[str]:
    if not path.is_file():
        yield f"input {path} is gone"
    elif (actual := digest_file(path)) != digest:
        yield f"input {path} changed: sha256 was {str(digest)[:12]}…, is {actual[:12]}…"
