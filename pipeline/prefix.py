"""Finds checkpoints on disk by what people give for them: a prefix, one of its files, or a folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from .errors import CheckpointError, nearest

_V1_SHARD = re.compile(r"-(\?{5}|\d{5})-of-\d{5}$")
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
        if state is not None and (old := _old_format(state)) is not None:
            return old
        if complete:
            return complete[-1]
        raise CheckpointError("no checkpoint in this folder", where=place, wanted="files NAME.index and NAME.data-…")
    name = re.sub(r"\.(index|meta|data-\d{5}-of-\d{5})$", "", place.name)
    prefix = place.with_name(name)
    if (old := _old_format(prefix)) is not None:
        return old
    if not Path(f"{prefix}.index").is_file():
        near = [p.name.removesuffix(".index") for p in place.parent.glob("*.index")] if place.parent.is_dir() else []
        raise CheckpointError("no such checkpoint", where=f"{prefix}.index", next_step=nearest(name, near))
    return prefix


def _old_format(place: Path) -> Path | None:
    """The prefix in the V1 format that a place stands for; None where there is none.

    A Saver that writes shards calls them `NAME-00000-of-00002`, and all of them `NAME-?????-of-00002`.
    """
    whole = place.with_name(_V1_SHARD.sub("", place.name) or place.name)
    return next((prefix for prefix in (whole, place) if _old_files(prefix)), None)


def _old_files(prefix: Path) -> list[Path]:
    """The files of a checkpoint in the V1 format, where no newer one has its name."""
    if Path(f"{prefix}.index").is_file():
        return []
    if prefix.is_file():
        return [prefix]
    near = sorted(prefix.parent.iterdir()) if prefix.parent.is_dir() else []
    return [path for path in near if _V1_SHARD.search(path.name) and _V1_SHARD.sub("", path.name) == prefix.name]


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
    """The index and the data files of a checkpoint that are there; those of the V1 format hold all."""
    if old := _old_files(prefix):
        return old
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
    if missing and not _old_files(prefix):
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
