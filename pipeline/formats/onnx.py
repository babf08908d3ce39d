"""The formats `onnx`, `onnx_float16` and `onnx_int8`: one `model.onnx` for many runtimes and accelerators.

tf2onnx makes it, onnx checks it, and onnxruntime runs it without TensorFlow. Its inputs and outputs have the names of
`signature.json` if ONNX allows them, and an open batch size if the signature has one. Kernels and tables take half
their bytes with float16, a quarter with int8; the computation stays in float32.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import FreezeError, RunnerError, first_line, logger
from pipeline.graph.nodes import node_of
from pipeline.signature import Array, Batch, Signature, TensorSpec
from pipeline.store.file_names import FROZEN_FILE, ONNX_FILE, SIGNATURE_FILE

from .refusals import not_converted, without_bfloat16, without_bytes, without_op
from .runner import check_batch, find_tensor

OPSET = 17
MAX_BYTES = 2**31 - 1
_ERRORS = (ValueError, TypeError, LookupError, AttributeError, AssertionError, RuntimeError)
_DTYPES = {"float": "float32", "double": "float64"}  # where onnxruntime's names are not TensorFlow's
_UNSUPPORTED = re.compile(r"Tensorflow op \[(.+): (\w+)\] is not supported")
_ADDRESS = re.compile(r"<function (\w+) at 0x\w+>")
_FAILED = re.compile(r"Failed to convert node '([^']+)'")


def make_onnx(frozen: Path, folder: Path, stored: str = "") -> dict[str, Any]:
    """Converts a frozen graph to `model.onnx`, and writes `signature.json` with the tensor names of that file.

    Args:
        frozen: an artifact in the format `frozen`.
        stored: precision of kernels and tables: float16, or int8 with a scale per channel; empty to keep theirs.

    Returns:
        Notes for the manifest: the opset version, and the number of quantized weights.

    Raises:
        FreezeError: tf2onnx cannot convert the graph, or its result is invalid or cannot be opened.
    """
    content = json.loads((frozen / SIGNATURE_FILE).read_text(encoding="utf-8"))
    signature = Signature.from_dict(content)
    renamed = _onnx_signature(signature)
    model = _convert(frozen / FROZEN_FILE, signature, renamed)
    quantized = _quantize(model, stored) if stored else []
    (folder / ONNX_FILE).write_bytes(_check_and_serialize(model))
    others = {key: value for key, value in content.items() if key not in renamed.to_dict()}
    renamed.write(folder / SIGNATURE_FILE, **others)
    try:
        open_runner(folder, renamed, 1)
    except RunnerError as exc:
        raise FreezeError("the ONNX file that was made of this does not open", got=exc) from exc
    return {"opset": OPSET, "reduced": len(quantized)}


make_onnx_float16, make_onnx_int8 = (partial(make_onnx, stored=stored) for stored in ("float16", "int8"))


def _onnx_signature(signature: Signature) -> Signature:
    """Names the tensors after the signature's inputs and outputs; an output gets a suffix if an input has its name."""
    used = {spec.name for spec in signature.inputs}
    outputs = []
    for spec in signature.outputs:
        tensor = spec.name
        while tensor in used:
            tensor += "_output"
        used.add(tensor)
        outputs.append(replace(spec, tensor=tensor))
    inputs = tuple(replace(spec, tensor=spec.name) for spec in signature.inputs)
    return replace(signature, inputs=inputs, outputs=tuple(outputs))


def _convert(path: Path, signature: Signature, renamed: Signature) -> Any:
    """Converts a graph with tf2onnx; `renamed` has the tensor names for the ONNX model.

    Loops and branches are given to tf2onnx as one op each, and if it cannot convert them so, as TensorFlow 1 had them.
    """
    import tensorflow as tf
    from google.protobuf.message import Error

    from .control_flow import has_loop_in_loop, inline_calls, make_calls_stateless
    from .half_precision import BFLOAT16, computes_in, widen

    try:
        graph_def = tf.compat.v1.GraphDef.FromString(path.read_bytes())
        _refuse_dtypes(graph_def, signature)
        explain = partial(_conversion_error, graph_def, {node_of(spec.tensor_name) for spec in signature.inputs})
        if computes_in(graph_def, BFLOAT16):
            graph_def, signature = widen(graph_def, signature, BFLOAT16, "ONNX")
        has_functions = bool(graph_def.library.function)
        inlined = inline_calls(graph_def, signature) if has_functions else graph_def
        _refuse_lists_out_of_order(inlined)
        if not has_functions or has_loop_in_loop(inlined):  # of which tf2onnx makes loops that do not end
            return _convert_graph(make_calls_stateless(graph_def), signature, renamed, explain)
        try:
            model = _convert_graph(inlined, signature, renamed, explain)
            _check_and_serialize(model)
            return model
        except FreezeError as refusal:
            with suppress(FreezeError):
                return _convert_graph(make_calls_stateless(graph_def), signature, renamed, explain)
            raise refusal
    except (*_ERRORS, Error, tf.errors.OpError) as exc:
        raise _refusal(_first_line(exc)) from exc


def _convert_graph(
    graph_def: Any,
    signature: Signature,
    renamed: Signature,
    explain: Callable[[list[str], dict[str, str]], FreezeError],
) -> Any:
    import tensorflow as tf
    from google.protobuf.message import Error

    errors: list[str] = []
    nodes: dict[str, str] = {}
    try:
        with tf.Graph().as_default() as graph:
            tf.import_graph_def(graph_def, name="")
            # Each output gets its own tensor: in ONNX a tensor has only one name, and an input cannot be an output.
            output_names = [tf.identity(graph.get_tensor_by_name(spec.tensor_name)).name for spec in signature.outputs]
            nodes = {operation.name: operation.type for operation in graph.get_operations()}
            graph_def = graph.as_graph_def()
        input_names = [spec.tensor_name for spec in signature.inputs]
        names = [spec.tensor for spec in (*renamed.inputs, *renamed.outputs)]
        with _collect_errors(errors):
            import tf2onnx

            model, _ = tf2onnx.convert.from_graph_def(
                graph_def,
                name="model",
                input_names=input_names,
                output_names=output_names,
                opset=OPSET,
                tensors_to_rename=dict(zip((*input_names, *output_names), names, strict=True)),
            )
    except (*_ERRORS, Error, tf.errors.OpError) as exc:
        raise (explain(errors, nodes) if errors else _refusal(_first_line(exc))) from exc
    if errors:
        raise explain(errors, nodes)
    return model


def _refusal(got: object, where: str | None = None, next_step: str | None = None) -> FreezeError:
    step = next_step or not_converted("tf2onnx")
    return FreezeError("no ONNX file can be made of this", where=where, got=got, next_step=step)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


def _refuse_dtypes(graph_def: Any, signature: Signature) -> None:
    """Refuses inputs or outputs of strings, which are text in ONNX and any bytes in TensorFlow, and of bfloat16."""
    for spec in (*signature.inputs, *signature.outputs):
        if spec.dtype == "bfloat16":
            step = without_bfloat16(spec.name, spec in signature.inputs)
            raise _refusal(f"{spec.name} of bfloat16, of which onnxruntime takes and gives no arrays", spec.name, step)
        if spec.dtype == "string":
            name = spec.tensor_name.partition(":")[0]
            readers = (node for node in graph_def.node if name in (entry.partition(":")[0] for entry in node.input))
            makers = (node for node in graph_def.node if node.name == name)
            node = next(readers if spec in signature.inputs else makers, None) or next(makers, None)
            where = f"node {node.name}" if node is not None else spec.name
            op = f", read by the op {node.op}" if node is not None and node.name != name else ""
            step = without_bytes(spec.tensor_name, spec in signature.inputs, graph_def)
            raise _refusal(f"{spec.name} of strings{op}: those of ONNX hold text, and no other bytes", where, step)


def _refuse_lists_out_of_order(graph_def: Any) -> None:
    from .tensor_lists import list_out_of_order

    if any(node.op in ("TensorArrayV3", "TensorListReserve") for node in graph_def.node):
        node = list_out_of_order(graph_def)
        if node is not None:
            raise _refusal("a loop that fills its list in another order than that of its turns", f"node {node}")


@contextmanager
def _collect_errors(errors: list[str]) -> Iterator[None]:
    """Collects the errors that tf2onnx logs: it continues after an error, but its result is no valid model."""

    class ErrorHandler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            cause = record.exc_info[1] if record.exc_info else None
            # These messages contain a function's address.
            text = _ADDRESS.sub(r"\1", record.getMessage().split(" (fct=")[0])
            errors.append(text if cause is None else f"{text}: {type(cause).__name__}: {cause}")

    converter, handler = logging.getLogger("tf2onnx"), ErrorHandler(logging.ERROR)
    before = converter.propagate
    converter.addHandler(handler)
    converter.propagate = False
    try:
        yield
    finally:
        converter.removeHandler(handler)
        converter.propagate = before


def _conversion_error(frozen: Any, inputs: Collection[str], errors: list[str], nodes: dict[str, str]) -> FreezeError:
    """Builds an error from tf2onnx's messages: the first node with an unsupported op, or else the first message.

    Args:
        frozen: the graph as it was before its functions were inlined.
        inputs: names of the nodes that are fed.
        nodes: the ops of the converted graph, by node.
    """
    positions = {name: position for position, name in enumerate(nodes)}
    unsupported = [match.groups() for line in errors for match in [_UNSUPPORTED.match(line)] if match]
    if unsupported:
        unsupported.sort(key=lambda pair: (positions.get(pair[0], len(positions)), pair))
        node, op = unsupported[0]
        others = [other for other in dict.fromkeys(other for _, other in unsupported) if other != op]
        besides = f"; nor {', '.join(others)}" if others else ""
        return _refusal(f"tf2onnx does not convert {op}{besides}", f"node {node}", without_op(op, node, frozen, inputs))
    first = next((line for line in errors if _FAILED.match(line)), errors[0])
    failed = _FAILED.match(first)
    node = None if failed is None else failed[1]
    where = f"node {node}, op {nodes[node]}" if node in nodes else node and f"node {node}"
    return _refusal(first_line(first), where)


def _quantize(model: Any, stored: str) -> list[str]:
    """Quantizes a model's weights in place; returns their names."""
    from .quantize import quantize_weights

    try:
        names = quantize_weights(model, stored)
    except ValueError as exc:
        raise _refusal(exc) from exc
    if not names:
        logger.warning("onnx: there is no kernel or table to store as %s", stored)
    return names


def _check_and_serialize(model: Any) -> bytes:
    import onnx
    from google.protobuf.message import Error

    try:
        onnx.checker.check_model(model, full_check=True)
        content: bytes = model.SerializeToString(deterministic=True)
    except (*_ERRORS, Error, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as exc:
        raise _refusal(_first_line(exc)) from exc
    if len(content) > MAX_BYTES:  # protobuf writes more without an error
        raise _refusal(f"{len(content)} bytes, and {MAX_BYTES} are the most that can be read again")
    return content


def open_runner(folder: Path, signature: Signature, threads: int) -> OnnxRunner:
    """Opens `model.onnx` in an artifact's folder.

    Raises:
        RunnerError: the file is missing, is no ONNX model that runs here, or does not match the signature.
    """
    path = folder / ONNX_FILE
    try:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, threads
        options.log_severity_level = 4  # errors are raised, and become findings; it would print them in red besides
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except ImportError as exc:
        raise RunnerError(
            "what runs ONNX is not installed", got=exc, next_step="install it with pip install 'freeze-pipeline[onnx]'"
        ) from exc
    except _runtime_errors() as exc:
        raise RunnerError("not an ONNX model that runs here", where=path, got=_first_line(exc)) from exc
    return OnnxRunner(session, signature)


def _runtime_errors() -> tuple[type[Exception], ...]:
    """Lists onnxruntime's errors, whose only common base is `Exception`, and the errors of its Python code."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    native = [value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (*native, OSError, *_ERRORS)


class OnnxRunner:
    """Feeds and fetches the tensors of a signature by name.

    Args:
        session: a session of onnxruntime.

    Raises:
        RunnerError: the model lacks a tensor of the signature, or has it with another dtype.
    """

    def __init__(self, session: Any, signature: Signature) -> None:
        self._session, self._signature, self._errors = session, signature, _runtime_errors()
        inputs, outputs = session.get_inputs(), session.get_outputs()
        self._inputs = {spec.name: _match_tensor(spec, inputs) for spec in signature.inputs}
        self._outputs = {spec.name: _match_tensor(spec, outputs) for spec in signature.outputs}

    def run(self, batch: Batch) -> dict[str, Array]:
        check_batch(self._signature, batch)
        try:
            outputs = self._session.run(
                [*self._outputs.values()], {tensor: batch[name] for name, tensor in self._inputs.items()}
            )
        except self._errors as exc:
            raise RunnerError("onnxruntime could not run the batch", got=_first_line(exc)) from exc
        return {name: np.asarray(value) for name, value in zip(self._outputs, outputs, strict=True)}


def _match_tensor(spec: TensorSpec, tensors: list[Any]) -> str:
    kinds = {tensor.name: re.sub(r"^tensor\((\w+)\)$", r"\1", tensor.type) for tensor in tensors}
    name = find_tensor(spec, {name: _DTYPES.get(kind, kind) for name, kind in kinds.items()})
    if spec.dtype == "string":
        raise RunnerError("ONNX's strings hold text, and TensorFlow's are bytes", where=spec.name)
    return name
