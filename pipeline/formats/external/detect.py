"""Detects the format of a file or folder by its content, regardless of its suffix.

frozen      a GraphDef: tensorflow/core/framework/graph.proto
savedmodel  a folder with saved_model.pb or saved_model.pbtxt
mmap        a folder with graph.pb and the files of weights that it names
tflite      a flatbuffer with the identifier TFL3: tensorflow/lite/schema/schema.fbs
onnx        a ModelProto: onnx/onnx.proto
"""

from __future__ import annotations

import mmap
import re
from dataclasses import dataclass
from pathlib import Path

from pipeline.checkpoint.file_kinds import ONNX, foreign_kind
from pipeline.checkpoint.files import find_prefix
from pipeline.checkpoint.source import versions_in
from pipeline.errors import CandidateError, CheckpointError
from pipeline.graph.varint import CutOffError, read_varint
from pipeline.graph.wire import LENGTH_DELIMITED, VARINT, fields
from pipeline.inputs import open_file
from pipeline.safety.named_files import require_own_file
from pipeline.store.file_names import FROZEN_FILE, GRAPH_FILE, ONNX_FILE, SAVED_MODEL_FILES, TFLITE_FILE

WANTED = "a frozen .pb, a SavedModel's folder, a folder of the format mmap, a .tflite or an .onnx"

_MODELS = (FROZEN_FILE, TFLITE_FILE, ONNX_FILE)  # what artifacts hold
_TFLITE, _TABLE_END = b"TFL3", bytes.fromhex("57fb808b247547db")  # the latter ends a checkpoint's index
_TEXT = re.compile(rb"\s*(node|library|versions|meta_info_def|graph_def|saved_model_schema_version)\s*[:{]")
_OP = re.compile(r"[A-Za-z_][\w>]*")

_READ = 4096  # bytes of the first field
# Fields of messages by number and wire type.
_GRAPH = {(1, LENGTH_DELIMITED), (2, LENGTH_DELIMITED), (3, VARINT), (4, LENGTH_DELIMITED), (5, LENGTH_DELIMITED)}
_META_GRAPH = {(number, LENGTH_DELIMITED) for number in range(1, 8)}
_SAVED_MODEL = {(1, VARINT), (2, LENGTH_DELIMITED)}
_ONNX = {
    *((number, VARINT) for number in (1, 5)),
    *((number, LENGTH_DELIMITED) for number in (2, 3, 4, 6, 7, 8, 14, 20, 25, 26)),
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
        UnsafeModel: the model in a folder is a link that leads out of it.
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
    if versions := versions_in(folder):  # as TensorFlow Serving reads it: the newest
        return DetectedFormat("savedmodel", require_own_file(versions[-1], folder))
    if (folder / GRAPH_FILE).is_file():
        return DetectedFormat("mmap", folder)
    models = [folder / name for name in _MODELS if (folder / name).is_file()]
    if len(models) == 1:
        return detect_format(require_own_file(models[0], folder))
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
        with open_file(path) as file:
            head = file.read(512)
            file.seek(max(0, path.stat().st_size - len(_TABLE_END)))
            tail = file.read()
    except OSError as exc:
        raise CandidateError("the candidate cannot be read", where=path, got=exc.strerror) from exc
    if head[4:8] == _TFLITE:
        return "tflite"
    if tail == _TABLE_END or re.search(r"\.data-\d{5}-of-\d{5}$|\.index$", path.name):
        raise _not_a_model(path, "not a model", "a checkpoint")
    if _TEXT.match(head):
        raise _not_a_model(path, "not a model", "a graph written as text", "Write it as a binary .pb, or freeze it")
    if (kind := foreign_kind(path)) is not None and kind[0] != ONNX:
        is_for_any_file = "checkpoint" not in kind[1]
        raise _not_a_model(path, "not a model", kind[0], kind[1] if is_for_any_file else "Give the model's own file")
    return _format_of_message(path, head)


def _format_of_message(path: Path, head: bytes) -> str:
    found: set[tuple[int, int]] = set()
    first = b""
    try:
        with (
            open_file(path) as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as content,
        ):
            for field in fields(content):
                if not found and field.kind == LENGTH_DELIMITED:
                    first = bytes(content[field.content : min(field.end, field.content + _READ)])
                found.add((field.number, field.kind))
                if not any(found <= known for known in (_GRAPH, _META_GRAPH, _SAVED_MODEL, _ONNX)):
                    break
    except CutOffError as exc:
        kind = _message_kind(found, first)
        if kind is None:
            raise _unknown(path, head) from exc
        raise CandidateError(
            "the candidate is cut off", where=path, got=f"{kind}, {exc}", next_step="Copy the whole file"
        ) from exc
    except (OSError, ValueError) as exc:
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
    if found <= _ONNX and (7, LENGTH_DELIMITED) in found:
        return _KINDS["onnx"]
    if found <= _SAVED_MODEL and (2, LENGTH_DELIMITED) in found:
        return _KINDS["savedmodel"]
    if found <= _GRAPH and (1, LENGTH_DELIMITED) in found and _is_node(first):
        return _KINDS["frozen"]
    if found <= _META_GRAPH and {(1, LENGTH_DELIMITED), (2, LENGTH_DELIMITED)} <= found:
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


def _unknown(path: Path, head: bytes) -> CandidateError:
    shown = repr(head[:16].decode("ascii", "backslashreplace"))
    return _not_a_model(path, "not a model of a format that is known", f"a file that begins with {shown}")
