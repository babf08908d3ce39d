"""Finds checkpoints on disk from a prefix, one of its files, a series, or a folder.

A prefix is text and no Path: it may end in a slash, where the files are called `.index`, `.data-…` and `.meta`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import CheckpointError
from pipeline.inputs import read_file

Place = Path | str

_STATE_FILE = "checkpoint"
_V1_SHARD = re.compile(r"-(\?{5}|\d{5})-of-\d{5}$")
_SHARD = re.compile(r"(?P<prefix>.*)\.data-(?P<number>\d{5})-of-(?P<count>\d{5})$")


def find_prefix(place: Place) -> str:
    """Returns the prefix for a prefix, one of its files, a series or a folder.

    In a folder the `checkpoint` file decides, also when it holds the absolute path of another
    place; without one, the newest complete prefix. The series `model.ckpt` is `model.ckpt-1000` and its like: where
    there is no `model.ckpt` itself, its newest complete prefix.

    Raises:
        CheckpointError: there is no complete checkpoint.
    """
    path = Path(place)
    if path.name == _STATE_FILE and _stated_in(path.parent) is not None:
        path = path.parent
    if path.is_dir():
        stated = _stated_in(path)
        state = None if stated is None else _in_folder(path, stated.rpartition("/")[2])
        complete = list(complete_prefixes(path))
        if state in complete:
            return state
        if state is not None and (old := _old_format(state)) is not None:
            return old
        if complete:
            return complete[-1]
        from .missing import nothing_in_folder

        raise nothing_in_folder(path, stated)
    prefix = str(path.parent / "x")[:-1] + re.sub(r"\.(index|meta|data-\d{5}-of-\d{5})$", "", path.name)
    if (old := _old_format(prefix)) is not None:
        return old
    if Path(f"{prefix}.index").is_file():
        return prefix
    folder, name = folder_of(prefix), name_of(prefix)
    complete = list(complete_prefixes(folder)) if folder.is_dir() else []
    series = [other for other in complete if stem_of(other) == name]
    if series:
        return series[-1]
    from .missing import nothing_at

    raise nothing_at(prefix, place, complete)


def folder_of(prefix: Place) -> Path:
    """Returns the folder of a checkpoint's files."""
    return Path(f"{prefix}.index").parent


def name_of(prefix: Place) -> str:
    """Returns the common beginning of a checkpoint's file names; it may be empty."""
    return Path(f"{prefix}.index").name.removesuffix(".index")


def step_of(prefix: Place) -> int:
    """Returns the step at the end of a checkpoint's name, -1 if there is none."""
    found = re.search(r"-(\d+)$", name_of(prefix))
    return int(found[1]) if found else -1


def stem_of(prefix: Place) -> str:
    """Returns the name of a checkpoint's series: its name without the step at the end."""
    return re.sub(r"-\d+$", "", name_of(prefix))


def _old_format(place: str) -> str | None:
    """Returns the prefix of a checkpoint in the V1 format at a place; None if there is none.

    A Saver that writes shards calls them `NAME-00000-of-00002`, and all of them `NAME-?????-of-00002`.
    """
    whole = _in_folder(folder_of(place), _V1_SHARD.sub("", name_of(place)) or name_of(place))
    return next((prefix for prefix in (whole, place) if _old_files(prefix)), None)


def _old_files(prefix: Place) -> list[Path]:
    """Returns the files of a checkpoint in the V1 format, unless a newer one has its name."""
    folder, name = folder_of(prefix), name_of(prefix)
    if not name or Path(f"{prefix}.index").is_file():
        return []
    if Path(prefix).is_file():
        return [Path(prefix)]
    near = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in near if _V1_SHARD.search(path.name) and _V1_SHARD.sub("", path.name) == name]


def _stated_in(folder: Path) -> str | None:
    """Returns the path that a folder's file `checkpoint` names."""
    try:
        text = read_file(folder / _STATE_FILE).decode()
    except (OSError, UnicodeDecodeError):
        return None
    found = re.search(r'^model_checkpoint_path:\s*"(.*)"', text, re.MULTILINE)
    return found[1] if found else None


def _in_folder(folder: Path, name: str) -> str:
    return str(folder / f"{name}.index").removesuffix(".index")


def complete_prefixes(folder: Path) -> Iterator[str]:
    """Yields the complete checkpoints of a folder (index and all shards), oldest first.

    What a broken save left is passed over: data without an index, an empty index, a shard too few. One of the V1 format
    is known by the graph beside it.
    """
    places = {str(path).removesuffix(".index"): path for path in folder.glob("*.index")}
    singles = [str(path).removesuffix(".meta") for path in folder.glob("*.meta")]
    places |= {prefix: files[0] for prefix in singles if (files := _old_files(prefix))}
    ages = {prefix: stat.st_mtime_ns for prefix, path in places.items() if (stat := path.stat()).st_size}
    for prefix in sorted(ages, key=lambda prefix: (ages[prefix], step_of(prefix))):
        try:
            require_files(prefix)
        except CheckpointError:
            continue
        yield prefix


def files_of(prefix: Place) -> list[Path]:
    """Returns the existing index and data files of a checkpoint; a V1 file holds everything."""
    if old := _old_files(prefix):
        return old
    return [Path(found[0]) for found in _shards(prefix)] + [p for p in [Path(f"{prefix}.index")] if p.exists()]


def has_files(prefix: Place) -> bool:
    """Returns True if a checkpoint has a file with values, whole or not."""
    return bool(files_of(prefix))


def _shards(prefix: Place) -> list[re.Match[str]]:
    start = _in_folder(folder_of(prefix), name_of(prefix))
    found = (_SHARD.match(str(path)) for path in sorted(folder_of(prefix).glob("*.data-*")))
    return [shard for shard in found if shard is not None and shard["prefix"] == start]


def require_files(prefix: Place) -> None:
    """Checks that all data files of a checkpoint exist.

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
            next_step=f"Copy {name_of(prefix)}.data-{missing[0]:05}-of-{wanted:05} beside the others",
        )
    from .missing import require_no_pointer

    require_no_pointer(files_of(prefix))
