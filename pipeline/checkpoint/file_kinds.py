"""Identifies files found in place of a checkpoint's file, and says what to do with each."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from shlex import quote

from pipeline.errors import CheckpointError
from pipeline.inputs import open_file
from pipeline.store.file_names import SAVED_MODEL_FILES

LFS = b"version https://git-lfs"
ONNX = "an ONNX model"
_LFS_KIND = "a Git LFS pointer"
_POINTER_BYTES = 1024  # at most: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
_MOST_NAMES = 10_000  # of an archive's members that are looked at

_FETCH = "Fetch the files themselves: cd {folder} && git lfs pull"
_ERROR_PAGE = "Download the file again and look at the answer: this is likely a server's error message"
_EXPORT = "Give it to the chain, which has Keras export it: luigi --module pipeline WriteReport --checkpoint {path}"
_UNTAR = "Unpack it, and give what is in it: mkdir {stem} && tar -xf {path} -C {stem}"
_OTHER_LIBRARY = (
    "It holds no TensorFlow graph: assign its arrays to the same model in Keras, save that with "
    "model.save('model.keras'), and give that file to the chain (--checkpoint model.keras)"
)
_NO_GRAPH = (
    "It holds arrays and no graph: assign them to the model's variables, save that as a checkpoint (Saver) or with "
    "model.save('model.keras'), and give what was saved"
)
_CONVERTED = (
    "Give the checkpoint that it was made from (--checkpoint), and compare this file with it (--candidate {path})"
)
_GIVE = "Give the checkpoint itself: NAME.index and NAME.data-…, a SavedModel's folder, or a .pb"
_WHOLE = "What wrote or copied it did not finish. Write or copy {name} again"

# Where the mark stands, the mark, what such a file is, and what to do about it. Text is compared in lower case.
_KINDS: list[tuple[int, bytes, str, str]] = [
    (0, LFS, _LFS_KIND, _FETCH),
    (0, b"<!doctype html", "an HTML page", "Download the file itself, not the page about it"),
    (0, b"<html", "an HTML page", "Download the file itself, not the page about it"),
    (0, b"<?xml", "an XML document", _ERROR_PAGE),
    (
        0,
        b"model_checkpoint_path:",
        "a `checkpoint` state file",
        "Give its folder: {folder}",
    ),
    (30, b"metadata.json", "a Keras model's file", _EXPORT),  # the first in the archive
    (0, b"\x1f\x8b", "a gzip archive", _UNTAR),
    (0, b"bzh", "a bzip2 archive", _UNTAR),
    (0, b"\xfd7zxz\0", "an xz archive", _UNTAR),
    (257, b"ustar", "a tar archive", _UNTAR),
    (0, b"\x89hdf\r\n\x1a\n", "an HDF5 file", _EXPORT),
    (0, b"\x93numpy", "a NumPy file", _NO_GRAPH),
    (0, b"\x80\x02\x8a\nl\xfc\x9cf\xf9 j\xa8p\x19.", "a PyTorch file", _OTHER_LIBRARY),
    *((0, bytes([0x80, protocol]), "a Python pickle", _OTHER_LIBRARY) for protocol in range(2, 6)),
    (0, b"(dp0\n", "a Python pickle", _OTHER_LIBRARY),
    (8, b'{"', "a safetensors file", _OTHER_LIBRARY),
    (4, b"tfl3", "a TensorFlow Lite model", _CONVERTED),
    (0, b"\0" * 512, "a file of zeros", _WHOLE),
]
# What lies in a ZIP archive: the end of a member's name, what the archive is, what to do about it.
_ARCHIVES: list[tuple[str, str, str]] = [
    ("metadata.json", "a Keras model's file", _EXPORT),
    ("data.pkl", "a PyTorch file", _OTHER_LIBRARY),
    (".npy", "a NumPy file", _NO_GRAPH),
]


def foreign_kind(path: Path) -> tuple[str, str] | None:
    """Returns the kind of a file, by its first bytes, and the next step; None if it is unknown."""
    try:
        with open_file(path) as file:
            head = file.read(512)
    except OSError:
        return None
    kind, next_step = _kind_of(path, head) or ("", "")
    stem = path.with_name(path.name.removesuffix("".join(path.suffixes[-2:])) or "unpacked")
    shown = {"path": path, "folder": path.parent, "name": path.name, "stem": f"{stem}-unpacked"}
    shown = {key: quote(str(value)) for key, value in shown.items()}
    return (kind, next_step.format(**shown)) if kind else None


def _kind_of(path: Path, head: bytes) -> tuple[str, str] | None:
    if not head:
        return "an empty file", _WHOLE
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_archive(path)
    lower = head.lower()
    if lower.lstrip().startswith(b'{"') or lower.lstrip().startswith(b"{\n"):
        return _kind_of_json(path)
    for offset, mark, kind, next_step in _KINDS:
        if lower.startswith(mark, offset):
            return kind, next_step
    if path.suffix == ".onnx" and head[0] == 8:  # the first field of a ModelProto, its version
        return ONNX, _CONVERTED
    if b"brain.event:" in lower[:64]:
        return "TensorBoard's events", _GIVE
    if path.suffix not in (".pbtxt", ".meta") and _is_text(head):
        return f"a text that begins with {head[:16].decode('utf-8', 'replace')!r}", _GIVE
    return None


def _is_text(head: bytes) -> bool:
    return all(byte >= 0x20 or byte in b"\t\n\r" for byte in head) and head.decode("utf-8", "ignore") != ""


def _kind_of_archive(path: Path) -> tuple[str, str]:
    """Returns what a ZIP archive is, by the names in it."""
    import zipfile  # only for error messages

    unpack = f"python -m zipfile -e {quote(str(path))} {quote(str(path))}-unpacked"
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()[:_MOST_NAMES]
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError):
        return "a ZIP archive", f"It is cut off or damaged, and cannot be unpacked. {_WHOLE}"
    for ending, kind, next_step in _ARCHIVES:
        if any(PurePosixPath(name).name == ending or (ending[0] == "." and name.endswith(ending)) for name in names):
            return kind, next_step
    inner = [str(PurePosixPath(name).parent) for name in names if PurePosixPath(name).name in SAVED_MODEL_FILES]
    inner += [name.removesuffix(".index") for name in names if name.endswith(".index")]
    place = f"{path}-unpacked/{inner[0]}".removesuffix("/.") if inner else f"the model in {path}-unpacked"
    return "a ZIP archive", f"Unpack it ({unpack}) and give {place}"


def _kind_of_json(path: Path) -> tuple[str, str]:
    with open_file(path) as file:
        text = file.read(1 << 16)
    if b"modelTopology" in text or b"weightsManifest" in text:
        return "a TensorFlow.js model", "Give the SavedModel or the Keras file that it was converted from"
    if b'"class_name"' in text and b'"config"' in text:
        build = "load it with keras.models.model_from_json in a file of your own, and give both: --model FILE.py:CLASS"
        return (
            "the architecture of a Keras model, without weights",
            f"{build[0].upper()}{build[1:]} --checkpoint WEIGHTS",
        )
    return "a JSON text", _ERROR_PAGE


def is_pointer(path: Path) -> bool:
    """Returns True if a file is a pointer of Git LFS, in place of the file itself."""
    try:
        if path.stat().st_size > _POINTER_BYTES:
            return False
        with open_file(path) as file:
            return file.read(len(LFS)) == LFS
    except OSError:
        return False


def pointer_error(path: Path) -> CheckpointError:
    """Returns the error for a pointer of Git LFS."""
    return CheckpointError(
        f"{_LFS_KIND} in place of a checkpoint's file",
        where=path,
        next_step=_FETCH.format(folder=quote(str(path.parent))),
    )


def broken_file(path: Path, what: str, *, got: object = None, wanted: object = None) -> CheckpointError:
    """Returns the error for a malformed file; if the file is of another kind, it names the kind."""
    kind = foreign_kind(path)
    if kind is not None:
        return CheckpointError(f"{kind[0]} in place of a checkpoint's file", where=path, next_step=kind[1])
    size = path.stat().st_size if path.is_file() else 0
    return CheckpointError(
        what,
        where=path,
        got=got,
        wanted=wanted,
        next_step=f"Compare its {size:,} bytes with those of the original: sha256sum {quote(str(path))}. "
        "Where they differ, copy it again; where not, it was saved like this: take another checkpoint",
    )


def unreadable_file(path: Path, error: OSError) -> CheckpointError:
    """Returns the error for a file that is missing or cannot be read."""
    if isinstance(error, FileNotFoundError):
        return CheckpointError(
            "a file of the checkpoint is missing", where=path, next_step=f"Copy {path.name} beside the others"
        )
    return CheckpointError("the file cannot be read", where=path, got=error.strerror)
