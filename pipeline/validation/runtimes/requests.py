"""What another interpreter is told of an artifact: its kind, files and tensors, and the ops that its graph needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.checkpoint.savedmodel import read_meta_graphs
from pipeline.formats.registry import FORMATS
from pipeline.graph.graph import Graph
from pipeline.graph.lazy import load_lazily
from pipeline.signature import Signature, read_origin
from pipeline.store import file_names

# The libraries that open a kind of file, the first that is there.
_TENSORFLOW = ("tensorflow", "tensorflow-cpu", "tensorflow-intel")
LIBRARIES = {
    "graph": _TENSORFLOW,
    "savedmodel": _TENSORFLOW,
    "tflite": ("ai-edge-litert", "tflite-runtime", *_TENSORFLOW),
    "onnx": ("onnxruntime",),
}
_OWN_SIGNATURE = "serving_default"  # of the SavedModels that the pipeline makes
_NOT_SENT = (file_names.MANIFEST_FILE, file_names.SIGNATURE_FILE)


@dataclass(frozen=True)
class OpenRequest:
    """How another interpreter opens an artifact; see `server.OPENERS`.

    Args:
        files: what it is sent, below `folder`.
        kind: a key of `server.OPENERS`.
        file: the file to open; empty for the whole folder.
        inputs, outputs: the graph's tensor by the signature's name.
        fed: the text to feed with every batch, by placeholder.
        fillers: names of the ops that fill tables.
        key: a SavedModel's or a TFLite file's signature; None to use the names of tensors.
        names: that signature's names of inputs and outputs, where they differ.
        tags: those of the SavedModel's graph.
        ops: the attributes of each op of a graph; a SavedModel's loader drops those that have their default value, so
            there they are left out.
        consumer: the lowest version of TensorFlow's graphs that can read the graph.
    """

    folder: Path
    files: Sequence[Path]
    kind: str
    file: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    threads: int
    is_mapped: bool = False
    fed: Mapping[str, str] = field(default_factory=dict)
    fillers: Sequence[str] = ()
    key: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    tags: Sequence[str] = ()
    ops: Mapping[str, Sequence[str]] = field(default_factory=dict)
    consumer: int = 0

    @classmethod
    def of_artifact(cls, format: str, folder: Path, threads: int) -> OpenRequest:
        """Reads from an artifact all that a server is sent.

        Args:
            format: a key of `FORMATS`.

        Raises:
            PipelineError: a file is missing or damaged.
        """
        signature = Signature.read(folder / file_names.SIGNATURE_FILE)
        candidate = read_origin(folder / file_names.SIGNATURE_FILE).get("candidate", {})
        inputs, outputs = (
            {spec.name: spec.tensor_name for spec in side} for side in (signature.inputs, signature.outputs)
        )
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in _NOT_SENT]
        common: dict[str, Any] = {"inputs": inputs, "outputs": outputs, "threads": threads, "files": files}
        kind = kind_of(format)
        if kind == "graph":
            file = file_names.GRAPH_FILE if format == "mmap" else file_names.FROZEN_FILE
            graph = load_lazily(folder / file).graph
            common |= {"fed": candidate.get("fed", {}), "fillers": candidate.get("fillers", []), "kind": kind}
            consumer = int(graph.versions.min_consumer)
            return cls(folder, file=file, is_mapped=format == "mmap", ops=_ops(graph), consumer=consumer, **common)
        if kind == "savedmodel":
            chosen = read_meta_graphs(folder)[1][0]
            key = candidate["signature"] if candidate else _OWN_SIGNATURE
            names = {**inputs, **outputs} if candidate else {}
            tags, ops = list(chosen.rest.meta_info_def.tags), dict.fromkeys(_ops(chosen.graph), ())
            return cls(folder, kind=kind, file="", key=key, names=names, tags=tags, ops=ops, **common)
        return cls(folder, kind=kind, file=FORMATS[format].model_file, key=candidate.get("signature"), **common)

    def to_message(self) -> dict[str, Any]:
        """Returns what the server's openers take."""
        left_out = ("folder", "files", "ops", "consumer")
        return {name: value for name, value in asdict(self).items() if name not in left_out}


def kind_of(format: str) -> str:
    """Returns the kind of file that a format is to another interpreter: a key of `LIBRARIES`."""
    return "graph" if format in ("frozen", "mmap") else FORMATS[format].family


def _ops(graph: Graph) -> dict[str, list[str]]:
    """Returns the names of the attributes of each op in a graph and its functions; a call's op is its function."""
    found: dict[str, set[str]] = {}
    for node in graph.all_nodes():
        if node.op not in graph.functions:
            found.setdefault(node.op, set()).update(name for name in node.attr if not name.startswith("_"))
    return {op: sorted(names) for op, names in found.items()}
