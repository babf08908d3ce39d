"""Says what is at a place where no checkpoint is, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from shlex import quote

from pipeline.errors import CheckpointError
from pipeline.store.file_names import SAVED_MODEL_FILES

from .file_kinds import broken_file, foreign_kind, is_pointer, pointer_error

_PART = re.compile(r"(?P<prefix>.*)\.(?P<kind>index|meta|data-\d{5}-of-\d{5})$")
_MOST_NAMES, _MOST_FILES = 6, 1000
_MODELS = (".keras", ".h5", ".hdf5", ".pb", ".pbtxt", ".pt", ".pth", ".bin", ".safetensors", ".pkl", ".npz", ".json")
_OTHERS = (".tflite", ".onnx", ".zip", ".tar", ".gz", ".tgz", ".ckpt")


def require_no_pointer(files: Iterable[Path]) -> None:
    """Checks that no file is a pointer of Git LFS.

    Raises:
        CheckpointError: one is.
    """
    for path in files:
        if is_pointer(path):
            raise pointer_error(path)


def nothing_in_folder(folder: Path, stated: str | None) -> CheckpointError:
    """Returns the error for a folder without a complete checkpoint.

    Args:
        stated: the path that the file `checkpoint` names; None without one.
    """
    names = sorted(path.name for path in folder.iterdir())[:_MOST_FILES]
    files = [folder / name for name in names if (folder / name).is_file()]
    pointers = [path for path in files if is_pointer(path)]
    parts = _parts_in(folder, names)
    if parts or pointers:
        return pointer_error(pointers[0]) if pointers else incomplete(folder, *_fullest(parts))
    what = "no checkpoint in this folder"
    if "variables" in names or "keras_metadata.pb" in names or "fingerprint.pb" in names:
        return CheckpointError(
            "this SavedModel's saved_model.pb is missing",
            where=folder,
            got=_listed(names),
            next_step=f"Copy saved_model.pb, which holds the graph, into {folder}",
        )
    below = sorted({path.parent.name for name in SAVED_MODEL_FILES for path in folder.glob(f"*/{name}")})
    below += sorted({path.parent.name for path in folder.glob("*/*.index")} - set(below))
    if below:
        step = f"Give one of the folders in it: {', '.join(str(folder / name) for name in below[:_MOST_NAMES])}"
        return CheckpointError(what, where=folder, next_step=step)
    if stated is not None:
        return _stated_elsewhere(folder, stated)
    models = [path for path in files if path.suffix in (*_MODELS, *_OTHERS)]
    for path in models:
        if (kind := foreign_kind(path)) is not None and kind[0] != "a JSON text":
            return CheckpointError(f"{what}, but {kind[0]}", where=folder, got=path.name, next_step=kind[1])
    if models:
        return CheckpointError(what, where=folder, got=_listed(names), next_step=f"Give the model's file: {models[0]}")
    return CheckpointError(
        what,
        where=folder,
        got=_listed(names) or "an empty folder",
        wanted="NAME.index and NAME.data-…, or saved_model.pb",
        next_step=f"Find it: find {quote(str(folder.absolute().parent))} -name '*.index' -o -name 'saved_model.pb*'",
    )


def nothing_at(prefix: str, place: Path | str, complete: Sequence[str]) -> CheckpointError:
    """Returns the error for a prefix without an index.

    Args:
        place: what was given.
        complete: the prefixes of the complete checkpoints beside it.
    """
    folder = Path(f"{prefix}.index").parent
    name = Path(f"{prefix}.index").name.removesuffix(".index")
    names = sorted(path.name for path in folder.iterdir())[:_MOST_FILES] if folder.is_dir() else []
    kinds = _parts_in(folder, names).get(name, [])
    if kinds:
        pointers = [folder / f"{name}.{kind}" for kind in kinds if is_pointer(folder / f"{name}.{kind}")]
        return pointer_error(pointers[0]) if pointers else incomplete(folder, name, kinds, complete)
    if Path(place).exists() and not Path(place).is_dir() and not Path(place).is_file():
        step = "Write its content to files, and give those: a checkpoint is read in more than one place"
        return CheckpointError("a pipe, a device or a socket in place of a checkpoint", where=place, next_step=step)
    if folder.is_dir():
        known = [Path(f"{path}.index").with_suffix("") for path in complete]
        return CheckpointError("no such checkpoint", where=place, next_step=_near(name, folder, known))
    there = next((parent for parent in folder.parents if parent.is_dir()), Path("/"))
    missing = folder.relative_to(there).parts[0] if folder.is_relative_to(there) else str(folder)
    step = _near(missing, there, [])
    return CheckpointError("no such checkpoint, and no such folder", where=place, next_step=step)


def _near(name: str, folder: Path, known: Sequence[Path]) -> str:
    """Returns what can be given instead, of what is in a folder."""
    from difflib import get_close_matches  # only for error messages

    places = {path.name: str(path) for path in (*known, *_given_as_one(folder))}
    close = get_close_matches(name, places, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(places[one] for one in close)}?"
    if places:
        return f"in {folder} are {_listed(sorted(places))}"
    names = sorted(path.name for path in folder.iterdir())
    return f"no checkpoint is in {folder}, only {_listed(names)}" if names else f"the folder {folder} is empty"


def incomplete(folder: Path, name: str, kinds: Sequence[str], complete: Sequence[str] = ()) -> CheckpointError:
    """Returns the error for a checkpoint of which only some files are there.

    Args:
        kinds: the endings of the files that are there.
        complete: the prefixes of the complete checkpoints beside it.
    """
    shards = [kind for kind in kinds if kind.startswith("data-")]
    missing = [f"{name}.index"] * ("index" not in kinds) + [f"{name}.data-…"] * (not shards)
    if not missing:
        return _unusable(folder, name, shards)
    if list(kinds) == ["meta"]:
        what, where = "only the graph of a checkpoint, without its weights", f"{name}.meta"
    elif "index" in kinds:
        what, where = "the data of the checkpoint are missing, which are its weights", f"{name}.data-00000-of-00001"
    else:
        what, where = "the index of the checkpoint is missing, without which its data cannot be read", f"{name}.index"
    copy = f"Copy {' and '.join(missing)} into {folder}, from where the checkpoint was saved"
    other = f"; or give the one that is whole: {complete[-1]}" if complete else ""
    got = ", ".join(f"{name}.{kind}" for kind in kinds)
    return CheckpointError(what, where=folder / where, got=got, next_step=f"{copy}{other}")


def _unusable(folder: Path, name: str, shards: Sequence[str]) -> CheckpointError:
    """Returns the error for a checkpoint with an index and data that is none all the same."""
    count = max(int(shard[-5:]) for shard in shards)
    wanted = [f"{name}.data-{number:05}-of-{count:05}" for number in range(count)]
    lacking = [file for file in wanted if not (folder / file).is_file()]
    if lacking:
        return CheckpointError(
            "a shard of the checkpoint is missing",
            where=folder / lacking[0],
            got=f"{count - len(lacking)} of {count}",
            next_step=f"Copy {', '.join(lacking[:_MOST_NAMES])} beside the others",
        )
    paths = [folder / f"{name}.index", *(folder / file for file in wanted)]
    empty = [path for path in paths if not path.stat().st_size]
    return broken_file((empty or paths)[0], "the checkpoint cannot be read")


def _stated_elsewhere(folder: Path, stated: str) -> CheckpointError:
    place = folder / stated  # an absolute one replaces it
    is_there = Path(f"{place}.index").is_file() or place.is_file()
    return CheckpointError(
        "no checkpoint in this folder, only the file `checkpoint`, which names one",
        where=folder,
        got=stated,
        next_step=f"Give that one: {place}"
        if is_there
        else f"That one is not there either: copy {place.name}.index, .data-… and .meta into {folder}",
    )


def _parts_in(folder: Path, names: Iterable[str]) -> dict[str, list[str]]:
    """Returns the endings of the files of checkpoints that a folder holds, by the checkpoints' names."""
    parts: dict[str, list[str]] = {}
    for name in names:
        if (found := _PART.match(name)) and (folder / name).is_file():
            parts.setdefault(found["prefix"], []).append(found["kind"])
    return parts


def _fullest(parts: dict[str, list[str]]) -> tuple[str, list[str]]:
    return max(parts.items(), key=lambda item: (len({kind[:4] for kind in item[1]}), item[0]))


def _given_as_one(folder: Path) -> list[Path]:
    """Returns what can be given beside checkpoints: SavedModels, and files of models."""
    if not folder.is_dir():
        return []
    near = sorted(folder.iterdir())[:_MOST_FILES]
    saved_models = [path for path in near if any((path / name).is_file() for name in SAVED_MODEL_FILES)]
    folders = [path for path in near if path.is_dir() and path not in saved_models and not path.name.startswith(".")]
    return [*saved_models, *folders, *(path for path in near if path.suffix in (".keras", ".h5", ".pb", ".pbtxt"))]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more
