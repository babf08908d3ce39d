"""Detects the format of a file or folder by its content, regardless of its suffix.

frozen      a GraphDef: tensorflow/core/framework/graph.proto
savedmodel  a folder with saved_model.pb or saved_model.pbtxt
mmap        a folder with graph.pb and the files of weights that it names
tflite      a flatbuffer with the identifier TFL3: tensorflow/lite/schema/schema.fbs
onnx        a ModelProto: onnx/onnx.proto
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipeline.checkpoint.bundle.file_kinds import foreign_kind
from pipeline.checkpoint.files import find_prefix
from pipeline.errors import CandidateError, CheckpointError
from pipeline.graph.varint import read_varint
from pipeline.store.file_names import FROZEN_FILE, GRAPH_FILE, ONNX_FILE, SAVED_MODEL_FILES, TFLITE_FILE

WANTED = "a frozen .pb, a SavedModel's folder, a folder of the format mmap, a .tflite or an .onnx"

_MODELS = (FROZEN_FILE, TFLITE_FILE, ONNX_FILE)  # what artifacts hold
_TFLITE, _TABLE_END = b"TFL3", bytes.fromhex("57fb808b247547db")  # the latter ends a checkpoint's index
_TEXT = re.compile(rb"\s*(node|library|versions|meta_info_def|graph_def|saved_model_schema_version)\s*[:{]")
_OP = re.compile(r"[A-Za-z_][\w>]*")

# Wire types of protobuf, and the fields of messages by number and wire type.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GRAPH = {(1, _BYTES), (2, _BYTES), (3, _VARINT), (4, _BYTES), (5, _BYTES)}
_META_GRAPH = {(number, _BYTES) for number in range(1, 8)}
_SAVED_MODEL = {(1, _VARINT), (2, _BYTES)}
_ONNX = {
    *((number, _VARINT) for number in (1, 5)),
    *((number, _BYTES) for number in (2, 3, 4, 6, 7, 8, 14, 20, 25, 26)),
}


@dataclass(frozen=True)
class DetectedFormat:
    """The format and the location of a candidate.

    Args:
        format: name of a format.
        path: the model's file or folder.
    """

    format: str
    path: Path


def detect_format(path: Path) -> DetectedFormat:
    """Detects the format of a file or folder.

    Raises:
        CandidateError: it does not exist, or is no model of a known format; the error says what it seems to be.
    """
    if path.is_dir():
        return _detect_in_folder(path)
    if not path.exists():
        checkpoint = _find_checkpoint(path)
        raise _not_a_model(path, "not a model" if checkpoint else "there is no such candidate", checkpoint)
    if path.name in SAVED_MODEL_FILES:
        return DetectedFormat("savedmodel", path.parent)
    return DetectedFormat(_format_of_file(path), path)


def _detect_in_folder(folder: Path) -> DetectedFormat:
    if any((folder / name).is_file() for name in SAVED_MODEL_FILES):
        return DetectedFormat("savedmodel", folder)
    if (folder / GRAPH_FILE).is_file():
        return DetectedFormat("mmap", folder)
    models = [folder / name for name in _MODELS if (folder / name).is_file()]
    if len(models) == 1:
        return detect_format(models[0])
    names = sorted(path.name for path in folder.iterdir())
    content = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    found = _find_checkpoint(folder) or content or "an empty folder"
    raise _not_a_model(folder, "no model is in this folder", found)


def _find_checkpoint(path: Path) -> str | None:
    """Returns `a checkpoint` if there is one at this path."""
    try:
        find_prefix(path)
    except (CheckpointError, OSError):
        return None
    return "a checkpoint"


def _not_a_model(path: Path, what: str, got: str | None = None, next_step: str | None = None) -> CandidateError:
    if got == "a checkpoint":
        next_step = "A checkpoint is what a candidate is compared with: give it with --checkpoint"
    return CandidateError(what, where=path, got=got, wanted=WANTED, next_step=next_step)


def _format_of_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(512)
            file.seek(max(0, path.stat().st_size - len(_TABLE_END)))
            tail = file.read()
    except OSError as exc:
        raise CandidateError("the candidate cannot be read", where=path, got=exc.strerror) from exc
    if head[4:8] == _TFLITE:
        return "tflite"
    if tail == _TABLE_END or re.search(r"\.data-\d{5}-of-\d{5}$|\.index$", path.name):
        raise _not_a_model(path, "not a model", "a checkpoint")
    if (kind := foreign_kind(path)) is not None:
        is_for_any_file = "checkpoint" not in kind[1]
        raise _not_a_model(path, "not a model", kind[0], kind[1] if is_for_any_file else "Give the model's own file")
    if _TEXT.match(head):
        raise _not_a_model(path, "not a model", "a graph written as text", "Write it as a binary .pb, or freeze it")
    return _format_of_message(path, head)


def _format_of_message(path: Path, head: bytes) -> str:
    found: set[tuple[int, int]] = set()
    first = b""
    try:
        for number, wire, content in _fields(path):
            if not found and content is not None:
                first = content
            found.add((number, wire))
            if not any(found <= known for known in (_GRAPH, _META_GRAPH, _SAVED_MODEL, _ONNX)):
                break
    except EOFError as exc:
        kind = _message_kind(found, first)
        if kind is None:
            raise _unknown(path, head) from exc
        raise CandidateError(
            "the candidate is cut off", where=path, got=f"{kind}, {exc}", next_step="Copy the whole file"
        ) from exc
    except ValueError as exc:
        raise _unknown(path, head) from exc
    kind = _message_kind(found, first)
    if kind == _KINDS["frozen"]:
        return "frozen"
    if kind == _KINDS["onnx"]:
        return "onnx"
    if kind is not None:
        raise _not_a_model(path, "not a model that can be run", kind, _HINTS[kind])
    raise _unknown(path, head)


_KINDS = {
    "frozen": "a GraphDef",
    "onnx": "an ONNX model",
    "meta": "the graph of a checkpoint (.meta), without its weights",
    "savedmodel": "the saved_model.pb of a SavedModel under another name",
}
_HINTS = {
    _KINDS["meta"]: "A checkpoint is what a candidate is compared with: give it with --checkpoint",
    _KINDS["savedmodel"]: "Give its folder, in which the file is called saved_model.pb",
}


def _message_kind(found: set[tuple[int, int]], first: bytes) -> str | None:
    """Classifies a protobuf message by number and wire type of its fields; None if it is unknown."""
    if found <= _ONNX and (7, _BYTES) in found:
        return _KINDS["onnx"]
    if found <= _SAVED_MODEL and (2, _BYTES) in found:
        return _KINDS["savedmodel"]
    if found <= _GRAPH and (1, _BYTES) in found and _is_node(first):
        return _KINDS["frozen"]
    if found <= _META_GRAPH and {(1, _BYTES), (2, _BYTES)} <= found:
        return _KINDS["meta"]
    return None


def _is_node(content: bytes) -> bool:
    """Returns True if a graph's first field is a node: a name, then an op. A MetaGraphDef begins with other texts."""
    texts, at = [], 0
    try:
        for tag in (b"\n", b"\x12"):
            if content[at : at + 1] != tag:
                return False
            length, at = read_varint(content, at + 1)
            texts.append(content[at : at + length].decode("utf-8"))
            at += length
    except ValueError:
        return False
    return bool(texts[0]) and _OP.fullmatch(texts[1]) is not None


_READ = 4096


def _fields(path: Path) -> Iterator[tuple[int, int, bytes | None]]:
    """Reads number, wire type and beginning of each field (https://protobuf.dev/programming-guides/encoding/)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        is_first = True
        while (start := file.tell()) < size:
            tag = _varint(file)
            number, wire, content = tag >> 3, tag & 7, None
            if wire == _VARINT:
                _varint(file)
            elif wire in (_FIXED64, _BYTES, _FIXED32):
                length = {_FIXED64: 8, _FIXED32: 4}.get(wire) or _varint(file)
                end = file.tell() + length
                if wire == _BYTES and is_first:
                    content = file.read(min(length, _READ))
                if end > size:
                    yield number, wire, content
                    raise EOFError(f"a field that begins at byte {start} needs {end} bytes, the file has {size}")
                file.seek(end)
            else:
                raise ValueError(f"wire type {wire}")
            is_first = False
            yield number, wire, content


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise EOFError("the file ends within a number")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("no number")


def _unknown(path: Path, head: bytes) -> CandidateError:
    shown = repr(head[:16].decode("ascii", "backslashreplace"))
    return _not_a_model(path, "not a model of a format that is known", f"a file that begins with {shown}")
