"""Existing files that a chain starts from: a checkpoint, a warm start, a candidate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class WarmStart:
    """Where a training takes its first weights from.

    Args:
        prefix: a checkpoint, as `prefix.find_prefix` takes it; for a Keras model, a file of Keras's too.
        keys: the checkpoint's key by the variable's name, where the two differ.
    """

    prefix: Path
    keys: Mapping[str, str]


@dataclass(frozen=True)
class ImportedCheckpoint:
    """An existing checkpoint that a chain starts at, in the place of a training of its own.

    Args:
        place: a Saver's checkpoint, a SavedModel or a GraphDef, as `freezing.freeze` takes it; or a Keras model's file.
        inputs, outputs: names of tensors; empty where they are to be found.
        pins: placeholders that become constants.
        graph: the graph's file, where it does not stand beside the checkpoint.
        signature: of a SavedModel with several, which one.
        allow_ops: ops that may stand in its graph though they could do more than compute.
    """

    place: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    pins: Mapping[str, str] = field(default_factory=dict)
    graph: Path | None = None
    signature: str | None = None
    allow_ops: tuple[str, ...] = ()

    @property
    def is_keras(self) -> bool:
        """Whether it is a file that Keras wrote, by its name."""
        return is_keras_file(self.place)


def is_keras_file(place: Path | str) -> bool:
    """Whether a file is one that Keras writes, by its name: a model, or weights alone."""
    return str(place).lower().endswith((".keras", ".h5", ".hdf5"))


@dataclass(frozen=True)
class Candidate:
    """An existing file or folder that is compared with the checkpoint, in the place of formats that are made of it.

    Args:
        place: the file, or the folder of a SavedModel or of the format mmap.
        format: the format that it is in.
        names: the candidate's tensor by the signature's name, where the two are not to be found by themselves.
        signature: of a SavedModel or a TFLite file with several, which one.
        allow_ops: ops that may stand in it though they could do more than compute.
    """

    place: Path
    format: str
    names: Mapping[str, str] = field(default_factory=dict)
    signature: str | None = None
    allow_ops: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """What the file is: of its format, whatever the precision of its weights."""
        return self.format.partition("_")[0]
