"""Opens checkpoints: dtype, shape and position of every tensor, and its content, streamed and verified.

bundle = open_checkpoint(Path("model.ckpt-1000"))
for key, tensor in bundle.tensors.items():
    print(key, tensor.dtype_name, tensor.shape, tensor.size_bytes)
for chunk in bundle.stream("dense/kernel"):
    file.write(chunk)
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pipeline.errors import CheckpointError, nearest

from ..file_kinds import unreadable_file
from . import v2
from .tensor import StoredTensor

if TYPE_CHECKING:
    import numpy as np

_CHUNK_BYTES = 1 << 18  # fits a core's cache; Linux writes pieces of 1 MiB at a third of the speed
_V1_SHARD = re.compile(r"-(\d{5})-of-(\d{5})$")


def open_checkpoint(prefix: Path | str) -> Bundle:
    """Opens the checkpoint of a prefix: `PREFIX.index` with its data files, or the V1 format's `PREFIX` itself.

    Args:
        prefix: the common beginning of the files' names. As a str it may end in a slash, unlike a Path: the files
            are then named `.index` and `.data-…`.

    Raises:
        CheckpointError: there is none; it is truncated, damaged, or of another kind.
    """
    if os.path.exists(f"{prefix}.index"):
        return Bundle.open(prefix)
    single = Path(prefix)
    paths = [single] if os.path.isfile(single) else _v1_shards(single)
    if not paths:
        raise CheckpointError(
            "no such checkpoint",
            where=prefix,
            wanted=f"{single.name}.index and {single.name}.data-…, or the V1 format's {single.name}",
        )
    from . import v1  # which almost no checkpoint needs

    return Bundle(prefix, v1.read_tensors(paths))


def _v1_shards(prefix: Path) -> list[Path]:
    """Returns all shards of a V1 checkpoint, named as by Saver(sharded=True)."""
    start = prefix.name
    try:
        near = sorted(prefix.parent.iterdir()) if os.path.isdir(prefix.parent) else []
    except OSError as exc:
        raise unreadable_file(prefix.parent, exc) from exc
    found = {path: shard for path in near if path.name[:-15] == start and (shard := _V1_SHARD.search(path.name))}
    counts = {int(shard[2]) for shard in found.values()}
    missing = max(counts, default=0) - len(found)
    if missing or len(counts) > 1:
        raise CheckpointError(
            "a shard of the checkpoint is missing", where=prefix, got=[path.name for path in found], wanted=max(counts)
        )
    return list(found)


class Bundle:
    """An opened checkpoint of either format.

    Attributes:
        prefix: the common beginning of its files' names.
        tensors: by key, in the order of the keys.
    """

    def __init__(self, prefix: Path | str, tensors: Mapping[str, StoredTensor]) -> None:
        self.prefix = prefix
        self.tensors: Mapping[str, StoredTensor] = MappingProxyType(dict(tensors))

    @classmethod
    def open(cls, prefix: Path | str) -> Bundle:
        """Opens a checkpoint of the V2 format.

        Raises:
            CheckpointError: a file is missing, of another kind, truncated or damaged.
        """
        return cls(prefix, v2.read_tensors(prefix))

    def tensor(self, key: str) -> StoredTensor:
        """Returns the tensor that is stored under a key.

        Raises:
            CheckpointError: there is no such tensor.
        """
        if key not in self.tensors:
            raise CheckpointError(
                "no such tensor in the checkpoint",
                where=self.prefix,
                got=repr(key),
                next_step=nearest(key, self.tensors) if len(self.tensors) < 5000 else None,
            )
        return self.tensors[key]

    def stream(self, key: str, chunk_bytes: int = _CHUNK_BYTES) -> Iterator[bytes]:
        """Yields the content of a tensor, row-major and little-endian, in chunks of at most `chunk_bytes`.

        Only one chunk is in memory, except for tensors that are partitioned along another axis than the first, and for
        the V1 format. Do not use chunks that came before an error.

        Raises:
            CheckpointError: no such tensor, or one of strings or variants; while it is read: the file ends too
                early; after its last piece: the CRC-32C is wrong.
        """
        tensor = self.tensor(key)
        if not tensor.kind.size_bytes:
            raise CheckpointError(
                "this tensor's elements have no fixed size",
                where=f"{self.prefix}: {key!r}",
                got=tensor.dtype_name,
                next_step="Read it with strings()" if tensor.is_string else None,
            )
        if tensor.is_in_rows:
            return (chunk for piece in tensor.pieces for chunk in piece.content(tensor, chunk_bytes))
        content = _assemble(tensor).tobytes()
        return (content[at : at + chunk_bytes] for at in range(0, len(content), chunk_bytes))

    def strings(self, key: str) -> list[bytes]:
        """Returns the elements of a string tensor, in row-major order.

        Raises:
            CheckpointError: no such tensor, not one of strings, cut off, or a CRC-32C is wrong.
        """
        tensor = self.tensor(key)
        if not tensor.is_string:
            raise CheckpointError(
                "not a tensor of strings", where=f"{self.prefix}: {key!r}", got=tensor.dtype_name, wanted="string"
            )
        if tensor.is_in_rows:
            return [string for piece in tensor.pieces for string in piece.strings(tensor)]
        strings: list[bytes] = _assemble(tensor).ravel().tolist()
        return strings

    def read(self, key: str) -> np.ndarray[Any, Any]:
        """Returns a tensor as an array of its shape: strings as objects (bytes), quantized integers as plain ones.

        bfloat16, the 8-bit floats and the integers below 8 bits have ml_dtypes' types, or integers of the same bits if
        that is not installed.

        Raises:
            CheckpointError: as `stream`; or numpy cannot hold the shape.
        """
        import numpy as np

        tensor = self.tensor(key)
        try:
            if tensor.is_string:
                array = np.empty(tensor.elements, dtype=object)
                array[:] = self.strings(key)
            else:
                content = bytearray()
                for chunk in self.stream(key):
                    content += chunk
                array = np.frombuffer(content, tensor.kind.numpy())
            return array.reshape(tensor.shape)
        except ValueError as exc:  # an empty tensor whose other lengths are huge, or more axes than numpy's 64
            raise CheckpointError("numpy cannot hold this shape", where=f"{self.prefix}: {key!r}", got=exc) from exc

    def verify(self) -> None:
        """Reads everything and checks every CRC-32C.

        Raises:
            CheckpointError: the first error.
        """
        for tensor in self.tensors.values():
            for piece in tensor.pieces:
                piece.verify(tensor)


def _assemble(tensor: StoredTensor) -> np.ndarray[Any, Any]:
    """Assembles a tensor partitioned along other axes than the first, as an array of objects or raw elements."""
    import numpy as np

    size_bytes = tensor.kind.size_bytes
    # Moving elements does not need their dtype, and numpy has no bfloat16.
    try:
        whole = np.empty(tensor.shape, dtype=object if tensor.is_string else f"V{size_bytes}")
    except ValueError as exc:  # more axes than numpy's 64
        raise CheckpointError("numpy cannot hold this shape", where=repr(tensor.key), got=exc) from exc
    for piece in tensor.pieces:
        if tensor.is_string:
            part = np.empty(len(strings := piece.strings(tensor)), dtype=object)
            part[:] = strings
        else:
            part = np.frombuffer(b"".join(piece.content(tensor, _CHUNK_BYTES)), dtype=whole.dtype)
        box = tuple(slice(start, start + size) for start, size in zip(piece.start, piece.shape, strict=True))
        whole[box] = part.reshape(piece.shape)
    return whole
