"""The formats `onnx`, `onnx_float16` and `onnx_int8`: one `model.onnx`, which many runtimes and accelerators read.

tf2onnx makes it, onnx's own checker checks it, and onnxruntime runs it, without TensorFlow. Its inputs and outputs have
the names of `signature.json`, where ONNX allows that, and a batch of any size where the signature leaves it open. With
float16 its kernels and tables take half their bytes, with int8 a quarter; they are computed with as float32.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import FreezeError, RunnerError
from pipeline.signature import Array, Batch, Signature, TensorSpec
from pipeline.store.files import FROZEN_FILE, ONNX_FILE, SIGNATURE_FILE

from .runner import checked_batch

logger = logging.getLogger("pipeline")

OPSET = 17
MAX_BYTES = 2**31 - 1
_FAULTS = (ValueError, TypeError, LookupError, AttributeError, AssertionError, RuntimeError)
_DTYPES = {"float": "float32", "double": "float64"}  # where onnxruntime's names are not TensorFlow's
_UNSUPPORTED = re.compile(r"Tensorflow op \[(.+): (\w+)\] is not supported")
_FAILED = re.compile(r"Failed to convert node '([^']+)'")


def make_onnx(frozen: Path, folder: Path) -> dict[str, Any]:
    """Writes `model.onnx` of a frozen graph, and beside it `signature.json`, whose tensors are those of the file.

    Args:
        frozen: an artifact in the format `frozen`.

    Returns:
        Notes for the manifest: the version of ONNX's operators, and how many weights are stored with less precision.

    Raises:
        FreezeError: tf2onnx cannot express the graph, or what it made is not valid or does not open.
    """
    return _make(frozen, folder, "")


def make_onnx_float16(frozen: Path, folder: Path) -> dict[str, Any]:
    """The same with its kernels and tables as float16; see `make_onnx`."""
    return _make(frozen, folder, "float16")


def make_onnx_int8(frozen: Path, folder: Path) -> dict[str, Any]:
    """The same with its kernels and tables as int8, a scale for each channel; see `make_onnx`."""
    return _make(frozen, folder, "int8")


def _make(frozen: Path, folder: Path, stored: str) -> dict[str, Any]:
    told = json.loads((frozen / SIGNATURE_FILE).read_text(encoding="utf-8"))
    signature = Signature.from_dict(told)
    named = _named(signature)
    model = _converted(frozen / FROZEN_FILE, signature, named)
    reduced = _reduced(model, stored) if stored else []
    (folder / ONNX_FILE).write_bytes(_checked(model))
    named.write(folder / SIGNATURE_FILE, **{key: told[key] for key in told if key not in named.to_dict()})
    try:
        open_runner(folder, named, 1)
    except RunnerError as exc:
        raise FreezeError("the ONNX file that was made of this does not open", got=exc) from exc
    return {"opset": OPSET, "reduced": len(reduced)}


def _named(signature: Signature) -> Signature:
    """The signature with the tensors that the file has: of its own names, but inputs and outputs share one space."""
    taken = {spec.name for spec in signature.inputs}
    outputs = []
    for spec in signature.outputs:
        tensor = spec.name
        while tensor in taken:
            tensor += "_output"
        taken.add(tensor)
        outputs.append(replace(spec, tensor=tensor))
    inputs = tuple(replace(spec, tensor=spec.name) for spec in signature.inputs)
    return replace(signature, inputs=inputs, outputs=tuple(outputs))


def _converted(path: Path, signature: Signature, named: Signature) -> Any:
    """The model as tf2onnx makes it.

    Args:
        named: the signature with the names that inputs and outputs are to have.
    """
    import tensorflow as tf
    from google.protobuf.message import Error

    complaints: list[str] = []
    nodes: dict[str, str] = {}
    try:
        graph_def = tf.compat.v1.GraphDef.FromString(path.read_bytes())
        _refuse_strings(graph_def, signature)
        with tf.Graph().as_default() as graph:
            tf.import_graph_def(graph_def, name="")
            # Each output gets a tensor of its own: ONNX cannot call one tensor by two names, nor an input an output.
            fetched = [tf.identity(graph.get_tensor_by_name(spec.tensor_name)).name for spec in signature.outputs]
            nodes = {operation.name: operation.type for operation in graph.get_operations()}
            graph_def = graph.as_graph_def()
        _call_without_state(graph_def)
        fed = [spec.tensor_name for spec in signature.inputs]
        names = [spec.tensor for spec in (*named.inputs, *named.outputs)]
        with _listening(complaints):
            import tf2onnx

            model, _ = tf2onnx.convert.from_graph_def(
                graph_def,
                name="model",
                input_names=fed,
                output_names=fetched,
                opset=OPSET,
                tensors_to_rename=dict(zip((*fed, *fetched), names, strict=True)),
            )
    except (*_FAULTS, Error, tf.errors.OpError) as exc:
        raise (_explained(complaints, nodes) if complaints else _refused(_first_line(exc))) from exc
    if complaints:
        raise _explained(complaints, nodes)
    return model


def _call_without_state(graph_def: Any) -> None:
    """Makes of calls that may have state ones that have none, as none has in a frozen graph: those can be inlined."""
    bodies = (function.node_def for function in graph_def.library.function)
    for node in (node for nodes in (graph_def.node, *bodies) for node in nodes):
        if node.op == "StatefulPartitionedCall":
            node.op = "PartitionedCall"


def _refused(got: object, where: str | None = None) -> FreezeError:
    return FreezeError(
        "no ONNX file can be made of this", where=where, got=got, next_step="Leave onnx out of --formats"
    )


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().split("\n", 1)[0][:300]


def _refuse_strings(graph_def: Any, signature: Signature) -> None:
    """Refuses a model of strings: ONNX's are text, and TensorFlow's are bytes, valid UTF-8 or not."""
    for spec in (*signature.inputs, *signature.outputs):
        if spec.dtype == "string":
            name = spec.tensor_name.partition(":")[0]
            readers = (node for node in graph_def.node if name in (entry.partition(":")[0] for entry in node.input))
            makers = (node for node in graph_def.node if node.name == name)
            node = next(readers if spec in signature.inputs else makers, None) or next(makers, None)
            where = f"node {node.name}" if node is not None else spec.name
            op = f", read by the op {node.op}" if node is not None and node.name != name else ""
            raise _refused(f"{spec.name} of strings{op}: those of ONNX hold text, and no other bytes", where)


@contextmanager
def _listening(complaints: list[str]) -> Iterator[None]:
    """Collects what tf2onnx logs as an error: it goes on after it, and what it gives then is no model."""

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            cause = record.exc_info[1] if record.exc_info else None
            # With the error that it met, its message has a function's address in it.
            text = record.getMessage().split(" (fct=")[0]
            complaints.append(text if cause is None else f"{text}: {type(cause).__name__}: {cause}")

    theirs, listener = logging.getLogger("tf2onnx"), Listener(logging.ERROR)
    before = theirs.propagate
    theirs.addHandler(listener)
    theirs.propagate = False
    try:
        yield
    finally:
        theirs.removeHandler(listener)
        theirs.propagate = before


def _explained(complaints: list[str], nodes: dict[str, str]) -> FreezeError:
    """The refusal of what tf2onnx complained of: the first node that it has no op for, or else what it says first."""
    places = {name: place for place, name in enumerate(nodes)}
    unsupported = [match.groups() for line in complaints for match in [_UNSUPPORTED.match(line)] if match]
    if unsupported:
        unsupported.sort(key=lambda pair: (places.get(pair[0], len(places)), pair))
        node, op = unsupported[0]
        others = [other for other in dict.fromkeys(other for _, other in unsupported) if other != op]
        besides = f"; nor for {', '.join(others)}" if others else ""
        return _refused(f"tf2onnx has no op for {op}{besides}", f"node {node}")
    first = next((line for line in complaints if _FAILED.match(line)), complaints[0])
    failed = _FAILED.match(first)
    node = None if failed is None else failed[1]
    where = f"node {node}, op {nodes[node]}" if node in nodes else node and f"node {node}"
    return _refused(first.strip().split("\n", 1)[0][:300], where)


def _reduced(model: Any, stored: str) -> list[str]:
    """The names of the weights that are now stored with less precision."""
    from .quantize import reduce_weights

    try:
        names = reduce_weights(model, stored)
    except ValueError as exc:
        raise _refused(exc) from exc
    if not names:
        logger.warning("onnx: there is no kernel or table to store as %s", stored)
    return names


def _checked(model: Any) -> bytes:
    """The bytes of a model that is valid by ONNX's own rules."""
    import onnx
    from google.protobuf.message import Error

    try:
        onnx.checker.check_model(model, full_check=True)
        content: bytes = model.SerializeToString(deterministic=True)
    except (*_FAULTS, Error, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as exc:
        raise _refused(_first_line(exc)) from exc
    if len(content) > MAX_BYTES:  # protobuf writes it without complaint
        raise _refused(f"{len(content)} bytes, and {MAX_BYTES} are the most that can be read again")
    return content


def open_runner(folder: Path, signature: Signature, threads: int) -> OnnxRunner:
    """Opens `model.onnx` in an artifact's folder.

    Raises:
        RunnerError: the file is missing or is no ONNX model that runs here, or is not the signature's.
    """
    path = folder / ONNX_FILE
    try:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, threads
        options.log_severity_level = 3  # errors
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except ImportError as exc:
        raise RunnerError(
            "what runs ONNX is not installed", got=exc, next_step="pip install 'freeze-pipeline[onnx]'"
        ) from exc
    except _runtime_errors() as exc:
        raise RunnerError("not an ONNX model that runs here", where=path, got=_first_line(exc)) from exc
    return OnnxRunner(session, signature)


def _runtime_errors() -> tuple[type[Exception], ...]:
    """Those of onnxruntime, which have nothing in common but `Exception`, and what Python's side of it raises."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    theirs = [value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (*theirs, OSError, *_FAULTS)


class OnnxRunner:
    """Feeds and fetches the tensors of a signature by name.

    Args:
        session: of onnxruntime.

    Raises:
        RunnerError: the model lacks a tensor of the signature, or has it with another dtype.
    """

    def __init__(self, session: Any, signature: Signature) -> None:
        self._session, self._signature, self._errors = session, signature, _runtime_errors()
        inputs, outputs = session.get_inputs(), session.get_outputs()
        self._inputs = {spec.name: _paired(spec, inputs) for spec in signature.inputs}
        self._outputs = {spec.name: _paired(spec, outputs) for spec in signature.outputs}

    def run(self, batch: Batch) -> dict[str, Array]:
        """Answers a batch; see `Runner.run`."""
        given = checked_batch(self._signature, batch)
        try:
            answers = self._session.run(
                [*self._outputs.values()], {tensor: given[name] for name, tensor in self._inputs.items()}
            )
        except self._errors as exc:
            raise RunnerError("onnxruntime could not run the batch", got=_first_line(exc)) from exc
        return {name: np.asarray(answer) for name, answer in zip(self._outputs, answers, strict=True)}


def _paired(spec: TensorSpec, tensors: list[Any]) -> str:
    """The tensor of a name of the signature.

    Raises:
        RunnerError: there is none, or it has another dtype.
    """
    dtypes = {tensor.name: re.sub(r"^tensor\((\w+)\)$", r"\1", tensor.type) for tensor in tensors}
    name = next((name for name in (spec.tensor_name, spec.name) if name in dtypes), None)
    if name is None:
        raise RunnerError("the model lacks a tensor of the signature", where=spec.name, got=", ".join(dtypes))
    dtype = _DTYPES.get(dtypes[name], dtypes[name])
    if dtype != spec.dtype:
        raise RunnerError("a tensor is not of the signature's dtype", where=spec.name, got=dtype, wanted=spec.dtype)
    if dtype == "string":
        raise RunnerError("ONNX's strings hold text, and TensorFlow's are bytes", where=spec.name)
    return name
