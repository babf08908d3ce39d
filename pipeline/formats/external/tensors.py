"""Reads the inputs and outputs of a candidate from its file, with all their names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.checkpoint.file_kinds import foreign_kind
from pipeline.checkpoint.savedmodel import read_signature
from pipeline.errors import (
    CandidateError,
    CheckpointError,
    DataError,
    FreezeError,
    PipelineError,
    StageCrashed,
    first_line,
)
from pipeline.freezing.describe import Describer
from pipeline.graph.graph import Graph
from pipeline.graph.lazy import load_lazily
from pipeline.graph.nodes import PLACEHOLDERS, data_inputs, dims_of, node_of, normalize_tensor
from pipeline.graph.ops import dtype_name, output_dtypes
from pipeline.graph.protos import NodeDef, TensorInfo
from pipeline.graph.validity import validate_graph
from pipeline.graph.variables import VARIABLE_OPS, is_restored
from pipeline.inputs import Candidate, read_file
from pipeline.safety import require_safe
from pipeline.safety.models import require_safe_graph, require_safe_saved_model
from pipeline.safety.onnx import find_dangers as find_onnx_dangers
from pipeline.safety.tflite import find_dangers as find_tflite_dangers
from pipeline.settings import AUTO_SHARE
from pipeline.signature import DTYPES, Shape
from pipeline.store.file_names import GRAPH_FILE
from pipeline.workers.child import Limits, run_in_subprocess

from .detect import detect_format

# For TensorFlow Lite to open a file.
_LIMITS = Limits(seconds=600, memory_share=AUTO_SHARE)


@dataclass(frozen=True)
class CandidateTensor:
    """An input or output of a candidate.

    Args:
        graph_name: name of the tensor in the file.
        dtype: a dtype of signatures; empty for any other dtype.
        signature_name: name in the file's own signature; empty if it has none.
        quantized: how its integers stand for real numbers, as text; empty if they stand for themselves.
    """

    graph_name: str
    dtype: str
    shape: Shape | None
    signature_name: str = ""
    quantized: str = ""

    @property
    def name(self) -> str:
        """The name that the format's runner uses for it."""
        return self.signature_name or self.graph_name

    def __str__(self) -> str:
        dims = "..." if self.shape is None else ", ".join("?" if size is None else str(size) for size in self.shape)
        tensor = f", tensor {self.graph_name}" if self.graph_name != self.name else ""
        return f"{self.name} {self.dtype} [{dims}]{tensor}"


@dataclass(frozen=True)
class CandidateTensors:
    """The inputs and outputs of a candidate.

    Args:
        inputs, outputs: as the file declares them; for a GraphDef, which declares none, its placeholders, and the
            computed tensors that no other node uses.
        signature: name of their signature in the file; None if the file has no signatures.
        graph: all tensors of a GraphDef; None for other formats.
        allowed: a sentence for each allowed op that could do more than compute.
        integers: number of computed tensors that hold real numbers as small integers, by a scale and a zero point.
    """

    inputs: tuple[CandidateTensor, ...]
    outputs: tuple[CandidateTensor, ...]
    signature: str | None = None
    graph: GraphTensors | None = None
    allowed: tuple[str, ...] = ()
    integers: int = 0


class GraphTensors:
    """The tensors of a GraphDef."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._describer = Describer(graph, {})

    def find(self, name: str) -> CandidateTensor | None:
        """Finds a tensor by its name, with or without `:0`; None if there is none."""
        tensor = normalize_tensor(name)
        node, index = self.graph.nodes.get(node_of(tensor)), tensor.rpartition(":")[2]
        if node is None or not index.isdecimal() or int(index) >= len(self._dtypes(node)):
            return None
        try:
            spec = self._describer.spec(node.name, tensor)
        except FreezeError:
            return None
        return CandidateTensor(tensor, spec.dtype, spec.shape)

    def _dtypes(self, node: NodeDef) -> Sequence[int]:
        return output_dtypes(node, self.graph.functions) or ()

    def placeholders(self) -> list[CandidateTensor]:
        """Lists the placeholders."""
        names = [node.name for node in self.graph.node if node.op in PLACEHOLDERS]
        return [tensor for name in names if (tensor := self.find(name)) is not None]

    def ends(self) -> list[CandidateTensor]:
        """Lists the tensors that are computed from a placeholder and that no other node uses."""
        used = {node_of(reference) for node in self.graph.node for reference in data_inputs(node)}
        tensors = []
        for node in self.graph.node:
            if node.name in used or node.op in PLACEHOLDERS or not self.needed([node.name], []):
                continue
            found = (self.find(f"{node.name}:{index}") for index in range(len(self._dtypes(node))))
            tensors += [tensor for tensor in found if tensor is not None]
        return tensors

    def needed(self, tensors: Iterable[str], fed: Iterable[str]) -> set[str]:
        """Finds the placeholders without a default that tensors depend on.

        Args:
            fed: tensors that are fed; their own inputs are not needed.
        """
        above = self.graph.ancestors(map(node_of, tensors), with_control=True, stop=set(map(node_of, fed)))
        return {name for name in above if self.graph.nodes[name].op in ("Placeholder", "PlaceholderV2")}

    def fillers(self) -> list[str]:
        """Lists the nodes that fill lookup tables without a checkpoint."""
        fills = ("InitializeTable", "LookupTableImport")
        filling = [node for node in self.graph.node if node.op.startswith(fills)]
        return [node.name for node in filling if not is_restored(node, self.graph.nodes)]


def read_tensors(candidate: Candidate) -> CandidateTensors:
    """Reads the inputs and outputs of a candidate.

    Raises:
        CandidateError: its file is damaged, has variables without values, or lacks the signature.
        UnsafeModel: it could do more than compute, or needs more memory than there is.
    """
    path = detect_format(candidate.path).path
    allowed = _require_safe(candidate, path)
    readers: Mapping[str, Callable[[Path, str | None], CandidateTensors]] = {
        "frozen": lambda path, _: _read_graph(path),
        "mmap": lambda path, _: _read_graph(path / GRAPH_FILE),
        "savedmodel": _read_saved_model,
        "tflite": _read_tflite_confined,
        "onnx": lambda path, _: read_onnx(path),
    }
    return replace(readers[candidate.kind](path, candidate.signature), allowed=tuple(allowed))


def _require_safe(candidate: Candidate, path: Path) -> list[str]:
    """Checks a candidate before any runtime opens it; returns a sentence for each allowed op that is unsafe."""
    try:
        match candidate.kind:
            case "savedmodel":
                return require_safe_saved_model(path, candidate.allow_ops)
            case "tflite":
                return require_safe(path, find_tflite_dangers(path), candidate.allow_ops)
            case "onnx":
                return require_safe(path, find_onnx_dangers(load_onnx(path), path), candidate.allow_ops)
        return require_safe_graph(path, candidate.allow_ops, is_mapped=candidate.kind == "mmap")
    except (DataError, CheckpointError, FreezeError) as exc:
        raise _read_error(exc, path) from exc


def _read_graph(path: Path) -> CandidateTensors:
    try:
        graph = load_lazily(path).graph
        validate_graph(graph, path)
    except (DataError, CheckpointError) as exc:
        raise _read_error(exc, path) from exc
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
    return CandidateTensors(tuple(tensors.placeholders()), tuple(tensors.ends()), graph=tensors)


def _read_saved_model(folder: Path, signature: str | None) -> CandidateTensors:
    try:
        key, inputs, outputs = read_signature(folder, signature)
    except (CheckpointError, FreezeError) as exc:
        raise _read_error(exc, folder) from exc
    return CandidateTensors(_from_infos(inputs), _from_infos(outputs), signature=key)


def _from_infos(infos: Mapping[str, TensorInfo]) -> tuple[CandidateTensor, ...]:
    return tuple(
        CandidateTensor(info.name, _signature_dtype(dtype_name(info.dtype)), dims_of(info.tensor_shape), name)
        for name, info in infos.items()
    )


def _signature_dtype(dtype: str) -> str:
    return dtype if dtype in DTYPES else ""


def _read_error(cause: PipelineError, path: Path) -> CandidateError:
    """Converts an error of a reader for checkpoints."""
    is_of_signature = isinstance(cause, FreezeError)
    # A CheckpointError's own next step is about the file that it names, which here is the candidate's.
    next_step = "Say which of them with --candidate-signature" if is_of_signature else cause.next_step
    return CandidateError(
        cause.what, where=cause.where or path, got=cause.got, wanted=cause.wanted, next_step=next_step
    )


def _read_tflite_confined(path: Path, signature: str | None) -> CandidateTensors:
    try:
        tensors: CandidateTensors = run_in_subprocess(
            "pipeline.formats.external.tensors:read_tflite",
            *(path.absolute(), signature),
            limits=_LIMITS,
            is_sandboxed=True,
        )
    except StageCrashed as exc:  # the interpreter does not check the offsets in the file
        raise CandidateError(
            "the candidate is damaged: TensorFlow Lite ends at opening it",
            where=path,
            got=exc.got,
            next_step="Convert it again: the offsets in it lead nowhere",
        ) from exc
    return tensors


def read_tflite(path: Path, signature: str | None) -> CandidateTensors:
    """Reads the inputs and outputs of a TFLite file.

    Args:
        signature: name of a signature; None for `serving_default`, the only one, or else the first subgraph's tensors.

    Raises:
        CandidateError: the interpreter cannot open the file, or it lacks the signature.
    """
    from ai_edge_litert.interpreter import Interpreter

    from ..integers import count_integers

    try:
        interpreter = Interpreter(str(path))
    except (ValueError, RuntimeError) as exc:
        got = first_line(exc)
        raise CandidateError(
            "TensorFlow Lite cannot open the candidate",
            where=path,
            got=got,
            next_step="Convert it again, with TensorFlow Lite's own ops alone: TFLITE_BUILTINS",
        ) from exc
    integers = count_integers(interpreter)
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
        inputs, outputs = (tuple(_from_details(details) for details in side) for side in sides)
        return CandidateTensors(inputs, outputs, integers=integers)
    runner = interpreter.get_signature_runner(key)
    sides = (runner.get_input_details(), runner.get_output_details())
    inputs, outputs = (tuple(_from_details(details, name) for name, details in side.items()) for side in sides)
    return CandidateTensors(inputs, outputs, signature=key, integers=integers)


def _from_details(details: Mapping[str, Any], name: str = "") -> CandidateTensor:
    import numpy as np

    from ..integers import quantization_of

    declared = details["shape_signature"] if len(details["shape_signature"]) else details["shape"]
    shape = tuple(int(size) if size >= 0 else None for size in declared)
    kind = np.dtype(details["dtype"])
    dtype, quantization = "string" if kind.kind in "OSU" else _signature_dtype(kind.name), quantization_of(details)
    quantized = f"scale {quantization[0]:g}, zero point {quantization[1]}" if quantization else ""
    return CandidateTensor(details["name"], dtype, shape, name, quantized)


def read_onnx(path: Path) -> CandidateTensors:
    """Reads the inputs and outputs of an ONNX model. Raises: as `load_onnx`."""
    graph = load_onnx(path).graph
    constants = {initializer.name for initializer in graph.initializer}
    inputs = tuple(_from_value(value) for value in graph.input if value.name not in constants)
    integers = sum(node.op_type == "QuantizeLinear" or node.op_type.startswith("QLinear") for node in graph.node)
    return CandidateTensors(inputs, tuple(_from_value(value) for value in graph.output), integers=integers)


def load_onnx(path: Path) -> Any:
    """Loads an ONNX model without its external data files.

    Raises:
        CandidateError: the file cannot be read.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load_model_from_string(read_file(path))
    except (OSError, DecodeError, ValueError) as exc:
        kind = foreign_kind(path)
        step = (
            kind[1]
            if kind is not None
            else f'Find out what is wrong: python -c "import onnx; onnx.load({str(path)!r})"'
        )
        raise CandidateError("the ONNX model cannot be read", where=path, got=exc, next_step=step) from exc


def _from_value(value: Any) -> CandidateTensor:
    import onnx

    kind = value.type.tensor_type
    name = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
    dtype = {"float": "float32", "double": "float64"}.get(name, name)
    dims = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim)
    return CandidateTensor(value.name, _signature_dtype(dtype), dims if kind.HasField("shape") else None)
