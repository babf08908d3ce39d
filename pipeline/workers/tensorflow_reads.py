"""Report the files that TensorFlow and HDF5 open: compiled code, which Python's audit hooks do not see.

Their functions are wrapped where Python calls them: those of `tf.io.gfile`, and the ops that take a file's name. A name
that a graph computes is known only while it runs, so such an op is reported as unseen.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from glob import escape, glob, has_magic
from typing import Any

from .reads import note_asked, note_listed, note_made_folder, note_read, note_unseen, note_written, quietly

# The argument of each op that names files, and its place among the op's arguments.
_FILE_OPS = {
    "ReadFile": ("filename", 0),
    "InitializeTableFromTextFile": ("filename", 1),
    "InitializeTableFromTextFileV2": ("filename", 1),
    "TextLineDataset": ("filenames", 0),
    "TFRecordDataset": ("filenames", 0),
    "TFRecordDatasetV2": ("filenames", 0),
    "FixedLengthRecordDataset": ("filenames", 0),
    "FixedLengthRecordDatasetV2": ("filenames", 0),
    "CSVDataset": ("filenames", 0),
    "CSVDatasetV2": ("filenames", 0),
    "LMDBDataset": ("filenames", 0),
    "SqlDataset": ("data_source_name", 1),
    "MatchingFiles": ("pattern", 0),
    "MatchingFilesDataset": ("patterns", 0),
    "Restore": ("file_pattern", 0),
    "RestoreSlice": ("file_pattern", 0),
    "RestoreV2": ("prefix", 0),
}
_NAME_OPS = {"TensorDataset", "TensorSliceDataset"}  # may hold the names of files, for an op that another op calls
_PATTERN_OPS = {"MatchingFiles", "MatchingFilesDataset"}
_RESTORE_OPS = {"Restore", "RestoreSlice", "RestoreV2"}  # a Saver is fed its name when it runs
_UNSEEN_OPS = {
    *("ReaderRead", "ReaderReadV2", "ReaderReadUpTo", "ReaderReadUpToV2"),
    *("LoadDataset", "LoadDatasetV2", "SnapshotDatasetV2"),
}
_FILE_FUNCTIONS: dict[str, Callable[..., None]] = {
    "BufferedInputStream": lambda name, *_: _note(name),
    "FileExists": lambda name, *_: _note_question(name),
    "Stat": lambda name, *_: _note_question(name),
    "IsDirectory": lambda name, *_: note_asked(os.fsdecode(name)),
    "GetMatchingFiles": lambda pattern, *_: _note_pattern(pattern),
    "GetChildren": lambda folder, *_: note_listed(folder),
    "WritableFile": lambda name, *_: note_written(name),
    "CreateDir": lambda folder, *_: note_made_folder(folder),
    "RecursivelyCreateDir": lambda folder, *_: note_made_folder(folder),
    "CopyFile": lambda source, target, *_: _note_copy(source, target),
    "RenameFile": lambda _source, target, *_: note_written(target),
}


def wrap_tensorflow() -> None:
    """Wrap the functions of this process's TensorFlow and HDF5."""
    from tensorflow.python import pywrap_tfe
    from tensorflow.python.client import pywrap_tf_session
    from tensorflow.python.framework import op_def_library
    from tensorflow.python.lib.io import _pywrap_file_io
    from tensorflow.python.training import py_checkpoint_reader

    for name, note in _FILE_FUNCTIONS.items():
        _wrap(_pywrap_file_io, name, note)
    _wrap(pywrap_tfe, "TFE_Py_FastPathExecute", _note_eager_op)
    _wrap(op_def_library, "_apply_op_helper", _note_graph_op)
    _wrap(pywrap_tf_session, "TF_LoadLibrary", lambda name, *_: note_read(name))
    _wrap(py_checkpoint_reader, "CheckpointReader", _note_checkpoint)
    if "h5py" in sys.modules:
        from h5py import h5f

        _wrap(h5f, "open", lambda name, *_, **__: _note_hdf5(name))
        _wrap(h5f, "create", lambda name, *_, **__: note_written(name))


def _wrap(module: Any, name: str, note: Callable[..., None]) -> None:
    call = getattr(module, name)

    @wraps(call)
    def noted(*args: Any, **keywords: Any) -> Any:
        note(*args, **keywords)
        return call(*args, **keywords)

    setattr(module, name, noted)


def _note_eager_op(_context: Any, op: str, _name: Any, *args: Any, **_: Any) -> None:
    if op in _FILE_OPS:
        _note_op(op, args[_FILE_OPS[op][1]], is_graph=False)
    elif op in _NAME_OPS:
        _note_names(args[0])
    elif op in _UNSEEN_OPS:
        note_unseen(f"the files of the op {op}")


def _note_graph_op(op: str, name: str | None = None, **keywords: Any) -> None:
    if op in _FILE_OPS:
        _note_op(op, keywords.get(_FILE_OPS[op][0]), is_graph=True)
    elif op in _NAME_OPS:
        _note_names(keywords.get("components"))
    elif op in _UNSEEN_OPS:
        note_unseen(f"the files of the op {op}")


def _note_op(op: str, names: Any, is_graph: bool) -> None:
    known = list(_values(names))
    if not known and op not in _RESTORE_OPS and not _has_known_names:
        note_unseen(f"files whose names a graph computes (op {op})")
    for name in known:
        if op in _RESTORE_OPS:
            _note_checkpoint(name)
        elif op in _PATTERN_OPS:
            _note_pattern(name)
        else:
            _note(name, is_graph)


def _note_names(components: Any) -> None:
    """Note the files that a dataset names, if it names files: another op, called for each element, reads them."""
    for component in components or ():
        if getattr(component, "dtype", None) == "string":
            names = list(_values(component))
            if names and quietly(os.path.isfile, names[0]):
                _has_known_names.append(True)
                for name in names:
                    _note(name)


_has_known_names: list[bool] = []


def _values(names: Any) -> Iterator[Any]:
    """Yield the strings of a tensor, as far as they are known before it is run."""
    if isinstance(names, str | bytes | os.PathLike):
        yield names
    elif isinstance(names, list | tuple):
        for name in names:
            yield from _values(name)
    elif names is not None:
        import numpy as np
        from tensorflow.python.framework import tensor_util

        if getattr(getattr(names, "op", None), "type", "") == "PlaceholderWithDefault":
            names = names.op.inputs[0]
        value = names.numpy() if hasattr(names, "numpy") else tensor_util.constant_value(names)
        if value is not None:
            yield from np.asarray(value, object).ravel().tolist()


def _note(name: Any, is_for_graph: bool = False) -> None:
    text = os.fsdecode(name)
    if "://" in text:
        note_unseen(f"{text}, which is no local file")
    else:
        note_read(text, is_for_graph)


def _note_copy(source: Any, target: Any) -> None:
    _note(source)
    note_written(target)


def _note_hdf5(name: Any) -> None:
    if quietly(os.path.exists, name):  # else it is the name of a file in memory
        note_read(name)


def _note_question(name: Any) -> None:
    text = os.fsdecode(name)
    if "://" not in text and quietly(os.path.exists, text):
        note_asked(text)
    else:
        _note(name)


def _note_pattern(patterns: Any) -> None:
    _has_known_names.append(True)
    for pattern in _values(patterns):
        text = os.fsdecode(pattern)
        if "://" in text:
            note_unseen(f"{text}, which are no local files")
            continue
        if not has_magic(text):
            note_read(text)
            continue
        note_listed(os.path.dirname(text) or ".")
        for name in sorted(quietly(glob, text)):
            note_read(name)


def _note_checkpoint(prefix: Any) -> None:
    text = os.fsdecode(prefix)
    for pattern in (escape(text), f"{escape(text)}.index", f"{escape(text)}.data-*-of-*"):
        for name in sorted(quietly(glob, pattern)):
            note_read(name)
