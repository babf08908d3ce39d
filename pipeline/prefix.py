"""Finds checkpoints on disk by what people give for them: a prefix, one of its files, or a folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from .errors import CheckpointError, nearest

_SHARD = re.compile(r"(?P<prefix>.+)\.data-(?P<number>\d{5})-of-(?P<count>\d{5})$")
_GIT_LFS = b"version https://git-lfs"


def find_prefix(place: Path) -> Path:
    """The prefix that a prefix, one of its files, or a folder stands for.

    In a folder the `checkpoint` file decides, also when it holds the absolute path of another
    place; without one, the newest complete prefix.

    Raises:
        CheckpointError: there is no complete checkpoint.
    """
    if place.is_dir():
        state = _named_by_state_file(place)
        complete = list(complete_prefixes(place))
        if state in complete:
            return state
        if complete:
            return complete[-1]
        raise CheckpointError("no checkpoint in this folder", where=place, wanted="files NAME.index and NAME.data-…")
    name = re.sub(r"\.(index|meta|data-\d{5}-of-\d{5})$", "", place.name)
    prefix = place.with_name(name)
    if _is_old_format(prefix):
        return prefix
    if not Path(f"{prefix}.index").is_file():
        near = [p.name.removesuffix(".index") for p in place.parent.glob("*.index")] if place.parent.is_dir() else []
        raise CheckpointError("no such checkpoint", where=f"{prefix}.index", next_step=nearest(name, near))
    return prefix


def _is_old_format(prefix: Path) -> bool:
    """Whether the V1 format's single file is there, and no newer one of that name."""
    return prefix.is_file() and not Path(f"{prefix}.index").is_file()


def _named_by_state_file(folder: Path) -> Path | None:
    try:
        text = (folder / "checkpoint").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    found = re.search(r'^model_checkpoint_path:\s*"(.*)"', text, re.MULTILINE)
    return folder / Path(found[1]).name if found else None


def complete_prefixes(folder: Path) -> Iterator[Path]:
    """The checkpoints of a folder that have their index and all their shards, oldest first."""
    prefixes = [Path(str(path).removesuffix(".index")) for path in folder.glob("*.index")]
    for prefix in sorted(prefixes, key=lambda p: (Path(f"{p}.index").stat().st_mtime_ns, step_of(p))):
        try:
            require_files(prefix)
        except CheckpointError:
            continue
        yield prefix


def step_of(prefix: Path) -> int:
    """The step at the end of a checkpoint's name, -1 if there is none."""
    found = re.search(r"-(\d+)$", prefix.name)
    return int(found[1]) if found else -1


def files_of(prefix: Path) -> list[Path]:
    """The index and the data files of a checkpoint that are there; in the V1 format one file is all."""
    if _is_old_format(prefix):
        return [prefix]
    return [Path(found[0]) for found in _shards(prefix)] + [p for p in [Path(f"{prefix}.index")] if p.exists()]


def _shards(prefix: Path) -> list[re.Match[str]]:
    found = (_SHARD.match(str(path)) for path in sorted(prefix.parent.glob("*.data-*")))
    return [shard for shard in found if shard is not None and shard["prefix"] == str(prefix)]


def require_files(prefix: Path) -> None:
    """Makes sure that a checkpoint's data files are all there.

    Raises:
        CheckpointError: a shard is missing, or a file is a pointer in place of the file.
    """
    shards = _shards(prefix)
    wanted = max((int(found["count"]) for found in shards), default=1)
    present = {int(found["number"]) for found in shards if int(found["count"]) == wanted}
    missing = [number for number in range(wanted) if number not in present]
    if missing and not _is_old_format(prefix):
        raise CheckpointError(
            "a shard of the checkpoint is missing",
            where=f"{prefix}.data-{missing[0]:05}-of-{wanted:05}",
            got=f"{len(present)} shard{'s' * (len(present) != 1)}",
            wanted=wanted,
            next_step="Copy the whole checkpoint",
        )
    for path in files_of(prefix):
        with path.open("rb") as file:
            if file.read(len(_GIT_LFS)) == _GIT_LFS:
                raise CheckpointError(
                    "a Git LFS pointer in place of the file",
                    where=path,
                    next_step="Fetch the file itself with `git lfs pull`",
                )
