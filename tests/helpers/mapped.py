"""Graphs for the tests of writing: a model's checkpoint frozen, and graphs of constants without a model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.checkpoint.bundle import Bundle
from pipeline.formats.mmap import read_graph
from pipeline.freezing.run_passes import freeze_checkpoint_files
from pipeline.freezing.write.constants import Constant, FrozenGraph
from pipeline.freezing.write.mmap import write_mmap
from pipeline.freezing.write.pb import write_pb
from pipeline.graph.protos import FunctionDefLibrary, NodeDef, VersionDef

v1 = tf.compat.v1
Array = np.ndarray[Any, Any]


def frozen(artifact: Path, outputs: Sequence[str], inputs: Sequence[str]) -> tuple[FrozenGraph, Bundle]:
    """The graph of a checkpoint's artifact."""
    return freeze_checkpoint_files(artifact / "model.ckpt", outputs, inputs)


def graph_of(constants: Sequence[Constant]) -> FrozenGraph:
    """Constants, and for each a node that reads it: its shape."""
    nodes: list[NodeDef | Constant] = [*constants]
    for number, constant in enumerate(constants):
        node = NodeDef(name=f"shape{number}", op="Shape", input=[constant.name])
        node.attr["T"].type = constant.dtype
        nodes.append(node)
    return FrozenGraph(nodes, FunctionDefLibrary(), VersionDef(producer=2000))


def mapped(
    graph: FrozenGraph, bundle: Bundle, folder: Path, smallest_bytes: int = 1, outputs: Sequence[str] = ()
) -> Path:
    """A folder in the format `mmap`, in which all is mapped that can be."""
    folder.mkdir(parents=True)
    write_mmap(graph, bundle, folder, smallest_bytes=smallest_bytes, outputs=outputs)
    return folder


def pb_of(graph: FrozenGraph, bundle: Bundle, path: Path) -> Any:
    """The GraphDef of a .pb."""
    write_pb(graph, bundle, path)
    return v1.GraphDef.FromString(path.read_bytes())


def as_it_stands() -> Any:
    """A session's options under which a graph is run as it stands."""
    config = v1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    config.graph_options.optimizer_options.opt_level = v1.OptimizerOptions.L0
    return config


def answers(graph_def: Any, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
    """What a GraphDef gives, run as it stands."""
    with tf.Graph().as_default(), v1.Session(config=as_it_stands()) as session:
        tf.import_graph_def(graph_def, name="")
        given = {f"{name}:0": array for name, array in feeds.items()}
        return [np.asarray(answer) for answer in session.run([f"{name}:0" for name in outputs], given)]


def mapped_answers(folder: Path, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
    """What a folder in the format `mmap` gives, run as it stands."""
    return answers(read_graph(folder), outputs, feeds)


def ops_of(folder: Path) -> Counter[str]:
    """How many nodes of each op a folder's graph has."""
    return Counter(node.op for node in read_graph(folder).node)


def files_of(folder: Path) -> dict[str, bytes]:
    """The content of all files, by their paths in the folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def snippet(page: Path, language: str) -> str:
    """The first example of a language on a page."""
    found = re.search(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)
    assert found is not None
    return found[1]
