"""The format `mmap`: a small graph, and its weights in files beside it that a process maps into its memory.

    graph.pb                          a GraphDef; each large variable is an ImmutableConst that names a file
    weights/00000-dense_kernel.bin    its elements, row-major and little-endian, and nothing else

An ImmutableConst (tensorflow/core/kernels/immutable_constant_op.cc) maps its file for reading: nothing is parsed or
copied, and processes on one machine share the memory. What cannot be mapped stays inside of the graph as a Const:
small variables, for which a file each would cost more than it gives, and strings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.checkpoint.bundle import Bundle
from pipeline.errors import FreezeError
from pipeline.graph.nodes import node_of
from pipeline.graph.protos import NodeDef
from pipeline.store.files import GRAPH_FILE, WEIGHTS_FOLDER

from .constants import Constant, FrozenGraph, content, names_of, unused_name
from .pb import MAX_PB_BYTES, Progress, format_bytes, ignore_progress, lay_out, shape_proto
from .readers import Readers

# Every file takes a mapping of whole pages at every run, and about 10 microseconds for it.
SMALLEST_MAPPED_BYTES = 64 * 1024

_LONGEST_STEM = 100  # characters of a file's name, of which file systems allow 255 bytes
# What DeepCopy has a kernel for (tensorflow/core/kernels/inplace_ops.cc: TF_CALL_ALL_TYPES).
_COPIED = frozenset({1, 2, 3, 4, 5, 6, 8, 9, 10, 14, 17, 18, 19, 22, 23})


@dataclass(frozen=True)
class _Weights:
    """The graph as it is written, and the files of weights by their names."""

    graph: FrozenGraph
    files: dict[str, Constant]


def write_mmap(
    graph: FrozenGraph,
    bundle: Bundle,
    folder: Path,
    progress: Progress | None = None,
    outputs: Sequence[str] = (),
    smallest_bytes: int = SMALLEST_MAPPED_BYTES,
) -> None:
    """Writes `graph.pb` and `weights/`; each tensor's checksum is compared on the way.

    `graph.pb` is written last. After an error the folder holds some files of weights, maybe a broken last one, and
    no whole `graph.pb`: it is worth nothing, and to be removed.

    Args:
        folder: exists, and is empty.
        progress: called with the bytes written so far and those of all files, first with none written.
        outputs: names of tensors that will be fetched, as far as other nodes use them too. One that is a mapped
            variable itself is copied, for whoever fetched it may write it.
        smallest_bytes: smaller variables stay inside of `graph.pb`; at least 1.

    Raises:
        FreezeError: what stays inside of `graph.pb` is more than protobuf can read, and nothing is written; or a
            value is beyond float16's range.
        CheckpointError: a tensor is damaged.
    """
    weights = _map_constants(graph, outputs, smallest_bytes)
    layout = lay_out(weights.graph, bundle)
    if layout.size_bytes > MAX_PB_BYTES:
        raise FreezeError(
            "what cannot be mapped is too large for a graph",
            where=folder / GRAPH_FILE,
            got=format_bytes(layout.size_bytes),
            wanted=f"at most {format_bytes(MAX_PB_BYTES)}, what protobuf can read",
            next_step=f"Join variables below {smallest_bytes} bytes to larger ones, or deploy the checkpoint",
        )
    tell = progress or ignore_progress
    total = layout.size_bytes + sum(constant.size_bytes for constant in weights.files.values())
    tell(0, total)
    (folder / WEIGHTS_FOLDER).mkdir()
    done = 0
    for name, constant in weights.files.items():
        with (folder / name).open("wb") as file:
            for chunk in content(constant, bundle):
                file.write(chunk)
                done += len(chunk)
                tell(done, total)
    layout.write(bundle, folder / GRAPH_FILE, lambda inside, _: tell(done + inside, total))


def _map_constants(graph: FrozenGraph, outputs: Sequence[str], smallest_bytes: int) -> _Weights:
    """The graph with its large constants mapped."""
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
    return _Weights(FrozenGraph(nodes, graph.library, graph.versions), dict(files.values()))


# By what makes contents the same (a key, a part, whether halved): a file's name, and a constant that it holds.
_Files = dict[tuple[object, ...], tuple[str, Constant]]


def _map_constant(constant: Constant, name: str, files: _Files) -> NodeDef:
    """The node of a mapped constant; two variables of the same content share a file."""
    same = constant.tensor.key, constant.box, constant.is_halved
    path, _ = files.setdefault(same, (f"{WEIGHTS_FOLDER}/{len(files):05d}-{_stem(constant.name)}.bin", constant))
    node = NodeDef(name=name, op="ImmutableConst")
    node.attr["dtype"].type = constant.dtype
    node.attr["shape"].shape.MergeFrom(shape_proto(constant.shape))
    node.attr["memory_region_name"].s = path.encode()
    return node


def _map_copy(constant: Constant, mapped: str, files: _Files) -> Iterator[NodeDef]:
    """A mapped constant and, under the variable's name, a copy at each run for ops that may write it."""
    yield _map_constant(constant, mapped, files)
    copy = NodeDef(name=constant.name, op="DeepCopy", input=[mapped])
    copy.attr["T"].type = constant.dtype
    yield copy


def _stem(name: str) -> str:
    """A variable's name as it may stand in the name of a file anywhere. The number before it makes it the only one."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[-_LONGEST_STEM:]
