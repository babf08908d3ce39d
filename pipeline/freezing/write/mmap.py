"""Writes the format `mmap`: a small graph, and files of weights that a process maps into its memory.

    graph.pb                          a GraphDef; each large variable is an ImmutableConst that names a file
    weights/00000-dense_kernel.bin    its elements, row-major and little-endian, and nothing else

An ImmutableConst (tensorflow/core/kernels/immutable_constant_op.cc) maps its file for reading: nothing is parsed or
copied, and processes on one machine share the memory. The rest stays in the graph as Const: small variables, which are
not worth a file each, and strings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.checkpoint.bundle import Bundle
from pipeline.errors import FreezeError
from pipeline.graph.nodes import node_of
from pipeline.graph.protos import NodeDef
from pipeline.store.file_names import GRAPH_FILE, WEIGHTS_FOLDER

from .constants import Constant, FrozenGraph, content, names_of, unused_name
from .pb import MAX_PB_BYTES, Progress, format_bytes, ignore_progress, lay_out, shape_proto
from .readers import Readers

# Every file takes a mapping of whole pages at every run, and about 10 microseconds for it.
SMALLEST_MAPPED_BYTES = 64 * 1024

_LONGEST_STEM = 100  # characters of a file's name, of which file systems allow 255 bytes
# What DeepCopy has a kernel for (tensorflow/core/kernels/inplace_ops.cc: TF_CALL_ALL_TYPES).
_COPIED = frozenset({1, 2, 3, 4, 5, 6, 8, 9, 10, 14, 17, 18, 19, 22, 23})


def write_mmap(
    graph: FrozenGraph,
    bundle: Bundle,
    folder: Path,
    progress: Progress | None = None,
    outputs: Sequence[str] = (),
    smallest_bytes: int = SMALLEST_MAPPED_BYTES,
) -> None:
    """Writes `graph.pb` and `weights/`, and verifies each tensor's checksum.

    `graph.pb` is written last. After an error the folder holds some files of weights, the last one maybe broken, and
    no complete `graph.pb`: remove it.

    Args:
        folder: exists, and is empty.
        progress: called with the bytes written so far and the total, first with 0.
        outputs: names of tensors that will be fetched even if other nodes use them. A mapped variable among them is
            copied, because the caller may write to the array.
        smallest_bytes: smaller variables stay in `graph.pb`; at least 1.

    Raises:
        FreezeError: what stays inside of `graph.pb` is more than protobuf can read, and nothing is written; or a
            value is beyond float16's range.
        CheckpointError: a tensor is damaged.
    """
    mapped, files = _map_constants(graph, outputs, smallest_bytes)
    layout = lay_out(mapped, bundle)
    if layout.size_bytes > MAX_PB_BYTES:
        raise FreezeError(
            "what cannot be mapped is too large for a graph",
            where=folder / GRAPH_FILE,
            got=format_bytes(layout.size_bytes),
            wanted=f"at most {format_bytes(MAX_PB_BYTES)}, what protobuf can read",
            next_step=f"Join variables below {smallest_bytes} bytes to larger ones, or deploy the checkpoint",
        )
    tell = progress or ignore_progress
    total = layout.size_bytes + sum(constant.size_bytes for constant in files.values())
    tell(0, total)
    (folder / WEIGHTS_FOLDER).mkdir()
    done = 0
    for name, constant in files.items():
        with (folder / name).open("wb") as file:
            for chunk in content(constant, bundle):
                file.write(chunk)
                done += len(chunk)
                tell(done, total)
    layout.write(bundle, folder / GRAPH_FILE, lambda inside, _: tell(done + inside, total))


def _map_constants(
    graph: FrozenGraph, outputs: Sequence[str], smallest_bytes: int
) -> tuple[FrozenGraph, dict[str, Constant]]:
    """Returns the graph with its large constants mapped, and the files of weights by name."""
    taken, readers = names_of(graph), Readers(graph, map(node_of, outputs))
    files: _Files = {}
    nodes: list[NodeDef | Constant] = []
    for node in graph.nodes:
        if not isinstance(node, Constant) or node.size_bytes < smallest_bytes:  # strings are of 0
            nodes.append(node)
        elif readers.only_read(node.name):
            nodes.append(_map_constant(node, node.name, files))
        elif node.dtype in _COPIED:
            nodes += _map_copy(node, unused_name(f"{node.name}/mapped", taken), files)
        else:
            nodes.append(node)
    return FrozenGraph(nodes, graph.library, graph.versions), dict(files.values())


# By identity of the content (key, part, halved or not): the file's name, and a constant in it.
_Files = dict[tuple[object, ...], tuple[str, Constant]]


def _map_constant(constant: Constant, name: str, files: _Files) -> NodeDef:
    """Returns the node of a mapped constant; variables of the same content share a file."""
    same = constant.tensor.key, constant.box, constant.is_halved
    # The name in a form valid for file names everywhere; the number before it makes it unique.
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "_", constant.name)[-_LONGEST_STEM:]
    path, _ = files.setdefault(same, (f"{WEIGHTS_FOLDER}/{len(files):05d}-{stem}.bin", constant))
    node = NodeDef(name=name, op="ImmutableConst")
    node.attr["dtype"].type = constant.dtype
    node.attr["shape"].shape.MergeFrom(shape_proto(constant.shape))
    node.attr["memory_region_name"].s = path.encode()
    return node


def _map_copy(constant: Constant, mapped: str, files: _Files) -> Iterator[NodeDef]:
    """Yields a mapped constant and, under the variable's name, a copy per run for ops that may write to it."""
    yield _map_constant(constant, mapped, files)
    copy = NodeDef(name=constant.name, op="DeepCopy", input=[mapped])
    copy.attr["T"].type = constant.dtype
    yield copy
