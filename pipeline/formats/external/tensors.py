"""What a candidate takes and gives, by its own file: its inputs and outputs, and the names that each goes by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.checkpoint.savedmodel import read_signature
from pipeline.errors import CandidateError, CheckpointError, DataError, FreezeError, PipelineError, StageCrashed
from pipeline.freezing.describe import Describer, shape_of_info
from pipeline.graph.graph import Graph
from pipeline.graph.lazy import load_lazily
from pipeline.graph.nodes import PLACEHOLDERS, data_inputs, node_of, normalized
from pipeline.graph.ops import dtype_name, output_dtypes
from pipeline.graph.protos import NodeDef, TensorInfo
from pipeline.graph.validity import validate_graph
from pipeline.graph.variables import VARIABLE_OPS
from pipeline.inputs import Candidate
from pipeline.safety.candidates import (
    require_safe_graph,
    require_safe_onnx,
    require_safe_saved_model,
    require_safe_tflite,
)
from pipeline.signature import DTYPES, Shape
from pipeline.store.files import GRAPH_FILE
from pipeline.workers.child import Limits, run_in_subprocess

from .detect import recognize

_AGAIN = "Copy the candidate again, or make it again"
_SECONDS = 600  # that TensorFlow Lite may take to open a file


@dataclass(frozen=True)
class Port:
    """A tensor that a candidate takes or gives.

    Args:
        tensor: its name in the file.
        dtype: as signatures have it; empty where a signature cannot have it.
        name: what the file's own signature calls it; empty where it has none.
    """

    tensor: str
    dtype: str
    shape: Shape | None
    name: str = ""

    @property
    def own(self) -> str:
        """The name by which the format's runner asks for it."""
        return self.name or self.tensor

    def __str__(self) -> str:
        dims = "?" if self.shape is None else ", ".join("?" if size is None else str(size) for size in self.shape)
        tensor = f", tensor {self.tensor}" if self.tensor != self.own else ""
        return f"{self.own} {self.dtype} [{dims}]{tensor}"


@dataclass(frozen=True)
class Ports:
    """The inputs and outputs of a candidate.

    Args:
        inputs, outputs: as the file declares them; of a GraphDef, which declares none, its placeholders, and what
            nothing else in it takes.
        signature: the name of the signature that they are of, where the file has several.
        graph: of a GraphDef, its inner tensors.
        allowed: sentences on what was let through though it could do more than compute.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    signature: str | None = None
    graph: GraphTensors | None = None
    allowed: tuple[str, ...] = ()


class GraphTensors:
    """The tensors of a GraphDef."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._describer = Describer(graph, {})

    def find(self, name: str) -> Port | None:
        """The tensor of a name, with or without `:0`; None where there is none."""
        tensor = normalized(name)
        node, port = self.graph.nodes.get(node_of(tensor)), tensor.rpartition(":")[2]
        if node is None or not port.isdecimal() or int(port) >= len(self._dtypes(node)):
            return None
        try:
            spec = self._describer.spec(node.name, tensor)
        except FreezeError:
            return None
        return Port(tensor, spec.dtype, spec.shape)

    def _dtypes(self, node: NodeDef) -> Sequence[int]:
        return output_dtypes(node, self.graph.functions) or ()

    def placeholders(self) -> list[Port]:
        """What has to be fed."""
        names = [node.name for node in self.graph.node if node.op in PLACEHOLDERS]
        return [port for name in names if (port := self.find(name)) is not None]

    def ends(self) -> list[Port]:
        """What is computed from a placeholder and taken by no other node."""
        taken = {node_of(reference) for node in self.graph.node for reference in data_inputs(node)}
        ports = []
        for node in self.graph.node:
            if node.name in taken or node.op in PLACEHOLDERS or not self.needed([node.name], []):
                continue
            found = (self.find(f"{node.name}:{index}") for index in range(len(self._dtypes(node))))
            ports += [port for port in found if port is not None]
        return ports

    def needed(self, tensors: Iterable[str], fed: Iterable[str]) -> set[str]:
        """The placeholders without a default that tensors hang on.

        Args:
            fed: tensors that are fed; what is before them is not needed.
        """
        above = self.graph.ancestors(map(node_of, tensors), with_control=True, stop=set(map(node_of, fed)))
        return {name for name in above if self.graph.nodes[name].op in ("Placeholder", "PlaceholderV2")}

    def fillers(self) -> list[str]:
        """The nodes that fill tables."""
        fills = ("InitializeTable", "LookupTableImport")
        return [node.name for node in self.graph.node if node.op.startswith(fills)]


def read_ports(candidate: Candidate) -> Ports:
    """The inputs and outputs of a candidate.

    Raises:
        CandidateError: its file is damaged, holds variables without values, or has no such signature.
        UnsafeModel: it could do more than compute, or take more memory than there is.
    """
    path = recognize(candidate.place).path
    allowed = _let_through(candidate, path)
    readers: Mapping[str, Callable[[Path, str | None], Ports]] = {
        "frozen": lambda path, _: _of_graph(path),
        "mmap": lambda path, _: _of_graph(path / GRAPH_FILE),
        "savedmodel": _of_saved_model,
        "tflite": _of_tflite,
        "onnx": lambda path, _: read_onnx(path),
    }
    return replace(readers[candidate.kind](path, candidate.signature), allowed=tuple(allowed))


def _let_through(candidate: Candidate, path: Path) -> list[str]:
    """What is let through of what the candidate could do, found before any runtime opens it."""
    try:
        match candidate.kind:
            case "savedmodel":
                return require_safe_saved_model(path, candidate.allow_ops)
            case "tflite":
                return require_safe_tflite(path, candidate.allow_ops)
            case "onnx":
                return require_safe_onnx(load_onnx(path), path, candidate.allow_ops)
        return require_safe_graph(path, candidate.allow_ops, is_mapped=candidate.kind == "mmap")
    except (DataError, CheckpointError, FreezeError) as exc:
        raise _broken(exc, path) from exc


def _of_graph(path: Path) -> Ports:
    try:
        graph = load_lazily(path).graph
        validate_graph(graph, path)
    except (DataError, CheckpointError) as exc:
        raise _broken(exc, path) from exc
    variables = [node.name for node in graph.node if node.op in VARIABLE_OPS]
    if variables:
        raise CandidateError(
            "the candidate is not frozen: it has variables, and a GraphDef holds no values of theirs",
            where=path,
            got=f"{len(variables)} variables, such as {variables[0]}",
            wanted="constants in their place",
            next_step="Give the .pb that is deployed",
        )
    tensors = GraphTensors(graph)
    return Ports(tuple(tensors.placeholders()), tuple(tensors.ends()), graph=tensors)


def _of_saved_model(folder: Path, signature: str | None) -> Ports:
    try:
        key, inputs, outputs = read_signature(folder, signature)
    except (CheckpointError, FreezeError) as exc:
        raise _broken(exc, folder) from exc
    return Ports(_of_infos(inputs), _of_infos(outputs), signature=key)


def _of_infos(infos: Mapping[str, TensorInfo]) -> tuple[Port, ...]:
    return tuple(
        Port(info.name, _known(dtype_name(info.dtype)), shape_of_info(info), name) for name, info in infos.items()
    )


def _known(dtype: str) -> str:
    return dtype if dtype in DTYPES else ""


def _broken(cause: PipelineError, place: Path) -> CandidateError:
    """The error of a reader that takes the file for a checkpoint's."""
    is_of_signature = isinstance(cause, FreezeError)
    next_step = "Say which of them with --candidate-signature" if is_of_signature else _AGAIN
    return CandidateError(
        cause.what, where=cause.where or place, got=cause.got, wanted=cause.wanted, next_step=next_step
    )


def _of_tflite(path: Path, signature: str | None) -> Ports:
    try:
        ports: Ports = run_in_subprocess(
            "pipeline.formats.external.tensors:read_tflite",
            *(path.absolute(), signature),
            limits=Limits(seconds=_SECONDS),
            is_confined=True,
        )
    except StageCrashed as exc:  # the interpreter trusts the offsets in the file
        raise CandidateError(
            "the candidate is damaged: TensorFlow Lite ends at opening it", where=path, got=exc.got, next_step=_AGAIN
        ) from exc
    return ports


def read_tflite(path: Path, signature: str | None) -> Ports:
    """The inputs and outputs of a TFLite file.

    Args:
        signature: by default `serving_default`, or the only one, or else the first subgraph's own tensors.

    Raises:
        CandidateError: the interpreter cannot open it, or it has no such signature.
    """
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(str(path))
    except (ValueError, RuntimeError) as exc:
        got = str(exc).strip().split("\n", 1)[0][:300]
        raise CandidateError(
            "TensorFlow Lite cannot open the candidate", where=path, got=got, next_step=_AGAIN
        ) from exc
    known = interpreter.get_signature_list()
    key = signature or ("serving_default" if "serving_default" in known else next(iter(known), None))
    if key is not None and (key not in known or (signature is None and len(known) > 1 and key != "serving_default")):
        raise CandidateError(
            "it is not clear which signature of the candidate is meant" if signature is None else "no such signature",
            where=path,
            got=signature or ", ".join(known),
            wanted=f"one of {', '.join(known)}" if known else "no signature, for the file has none",
            next_step="Say which of them with --candidate-signature",
        )
    if key is None:
        sides = (interpreter.get_input_details(), interpreter.get_output_details())
        inputs, outputs = (tuple(_of_details(details) for details in side) for side in sides)
        return Ports(inputs, outputs)
    runner = interpreter.get_signature_runner(key)
    named = (runner.get_input_details(), runner.get_output_details())
    inputs, outputs = (tuple(_of_details(details, name) for name, details in side.items()) for side in named)
    return Ports(inputs, outputs, signature=key)


def _of_details(details: Mapping[str, Any], name: str = "") -> Port:
    import numpy as np

    declared = details["shape_signature"] if len(details["shape_signature"]) else details["shape"]
    shape = tuple(int(size) if size >= 0 else None for size in declared)
    kind = np.dtype(details["dtype"])
    return Port(details["name"], "string" if kind.kind in "OSU" else _known(kind.name), shape, name)


def read_onnx(path: Path) -> Ports:
    """The inputs and outputs of an ONNX model.

    Raises:
        CandidateError: it cannot be read.
    """
    graph = load_onnx(path).graph
    constants = {initializer.name for initializer in graph.initializer}
    inputs = tuple(_of_value(value) for value in graph.input if value.name not in constants)
    return Ports(inputs, tuple(_of_value(value) for value in graph.output))


def load_onnx(path: Path) -> Any:
    """An ONNX model without what stands in files beside it.

    Raises:
        CandidateError: it cannot be read.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load(str(path), load_external_data=False)
    except (OSError, DecodeError, ValueError) as exc:
        raise CandidateError("the ONNX model cannot be read", where=path, got=exc, next_step=_AGAIN) from exc


def _of_value(value: Any) -> Port:
    import onnx

    kind = value.type.tensor_type
    name = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
    dtype = {"float": "float32", "double": "float64"}.get(name, name)
    dims = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim)
    return Port(value.name, _known(dtype), dims if kind.HasField("shape") else None)
