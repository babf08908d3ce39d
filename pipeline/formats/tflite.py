"""The formats `tflite`, `tflite_float16` and `tflite_int8`: one `model.tflite` for phones and other small devices.

TensorFlow's converter makes it with TFLite's own ops only, and ai-edge-litert runs it without TensorFlow. Its one
SignatureDef has the inputs and outputs of `signature.json` by name, with an open batch size if the signature has one.
With float16 the weights take half their bytes, and the computation stays in float32. With int8 the weights of 1,024
elements or more take a quarter (TensorFlow leaves smaller ones unchanged), and the activations that they are multiplied
with are rounded to int8 as well, row by row.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from pipeline.errors import FreezeError, RunnerError, first_line, logger
from pipeline.graph.nodes import node_of
from pipeline.signature import Array, Batch, Signature, TensorSpec, read_origin
from pipeline.store.file_names import FROZEN_FILE, SIGNATURE_FILE, TFLITE_FILE

from .integers import is_float, quantization_of
from .refusals import in_float32, not_converted, wide_dtype, without_bfloat16, without_op
from .runner import check_batch, find_tensor

SIGNATURE_KEY = "serving_default"
_ERRORS = (OSError, ValueError, RuntimeError, TypeError)
_MOST_OPS = 5
# The node of an unsupported op in the messages of TensorFlow's converter: loc(fused["Svd:", "decompose/Svd"])
_NODE = re.compile(r'\["(\w+):", "([^"@]+)[^"]*"\]')
_UNSUPPORTED = re.compile(_NODE.pattern + r".*op is neither a custom op nor a flex op")


def make_tflite(frozen: Path, folder: Path, stored: type[np.generic] | None = None) -> dict[str, Any]:
    """Converts a frozen graph to `model.tflite`, and copies its `signature.json`.

    Args:
        frozen: an artifact in the format `frozen`.
        stored: float16, or int8 for larger weights alone; None to store all weights as they are.

    Returns:
        Notes for the manifest: the number of quantized tensors.

    Raises:
        FreezeError: the converter cannot express the graph, or its result cannot be opened.
    """
    _refuse_bfloat16(Signature.read(frozen / SIGNATURE_FILE))
    with TemporaryDirectory(dir=folder, prefix=".savedmodel-") as scratch:
        content = _convert(frozen, _saved_model(frozen, Path(scratch)), stored)
    (folder / TFLITE_FILE).write_bytes(content)
    shutil.copyfile(frozen / SIGNATURE_FILE, folder / SIGNATURE_FILE)
    try:
        interpreter = _open(folder / TFLITE_FILE, 1)
        TfliteRunner(interpreter, Signature.read(folder / SIGNATURE_FILE))
    except RunnerError as exc:
        raise FreezeError("the TFLite file that was made of this does not open", got=exc) from exc
    quantized = sum(details["dtype"] is stored for details in interpreter.get_tensor_details()) if stored else 0
    if stored is not None and not quantized:
        logger.warning("no weight is large enough to be stored as %s: all stay as they are", stored.__name__)
    return {"reduced": quantized}


make_tflite_float16, make_tflite_int8 = (partial(make_tflite, stored=stored) for stored in (np.float16, np.int8))


def _saved_model(frozen: Path, scratch: Path) -> Path:
    """Makes the SavedModel that the converter reads, from a graph in float32 whose lists it can make."""
    from .half_precision import prepare_half  # these load TensorFlow; running does not need it
    from .savedmodel import make_saved_model
    from .tensor_lists import prepare_lists

    widened, prepared, converted = scratch / "widened", scratch / "prepared", scratch / "converted"
    for folder in (widened, prepared, converted):
        folder.mkdir()
    origin = widened if prepare_half(frozen, widened, "TFLite") else frozen
    make_saved_model(prepared if prepare_lists(origin, prepared) else origin, converted)
    return converted


def _convert(frozen: Path, saved_model: Path, stored: type[np.generic] | None) -> bytes:
    import tensorflow as tf
    from tensorflow.lite.python.convert_phase import ConverterError

    try:
        with silence_stderr():
            converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model), signature_keys=[SIGNATURE_KEY])
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]  # Flex ops do not run without TF
            if stored is not None:
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
            if stored is np.float16:
                converter.target_spec.supported_types = [tf.float16]
            return bytes(converter.convert())
    except (ConverterError, *_ERRORS, LookupError, AttributeError, AssertionError, tf.errors.OpError) as exc:
        where, got, step = _explain(str(exc), frozen)
        raise FreezeError("no TFLite file can be made of this", where=where, got=got, next_step=step) from exc


def _refuse_bfloat16(signature: Signature) -> None:
    for spec in (*signature.inputs, *signature.outputs):
        if spec.dtype == "bfloat16":
            step = without_bfloat16(spec.name, spec in signature.inputs)
            got = f"{spec.name} of bfloat16, of which TFLite takes and gives no arrays"
            raise FreezeError("no TFLite file can be made of this", where=spec.name, got=got, next_step=step)


def _explain(message: str, frozen: Path) -> tuple[str | None, str, str]:
    """Finds in a converter's message the first node that is not converted, what is wrong, and the next step."""
    unsupported = dict.fromkeys(_UNSUPPORTED.findall(message))
    if not unsupported:
        found = _NODE.search(message)
        return found and f"node {found[2]}, op {found[1]}", first_line(message), not_converted("TFLite's converter")
    from tensorflow.compat.v1 import GraphDef

    (op, node), *_ = unsupported
    others = [other for other in dict.fromkeys(other for other, _ in unsupported) if other != op]
    more = f" and {len(others) - _MOST_OPS} more" if len(others) > _MOST_OPS else ""
    besides = f"; and {', '.join(others[:_MOST_OPS])}{more}" if others else ""
    graph_def = GraphDef.FromString((frozen / FROZEN_FILE).read_bytes())
    if wide := wide_dtype(op, node, graph_def):
        return f"node {node}", f"TFLite's own ops do not compute {op} in {wide}{besides}", in_float32(wide)
    inputs = {node_of(spec.tensor_name) for spec in Signature.read(frozen / SIGNATURE_FILE).inputs}
    step = without_op(op, node, graph_def, inputs)
    return f"node {node}", f"TFLite's own ops do not compute {op} as it is here{besides}", step


def open_runner(folder: Path, signature: Signature, threads: int) -> TfliteRunner:
    """Opens `model.tflite` in an artifact's folder.

    Raises:
        RunnerError: the file is missing, is no TFLite model that runs here, or does not match the signature.
    """
    candidate = read_origin(folder / SIGNATURE_FILE).get("candidate", {})
    return TfliteRunner(_open(folder / TFLITE_FILE, threads), signature, candidate.get("signature"))


def _open(path: Path, threads: int) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter

        with silence_stderr():
            interpreter = Interpreter(model_path=str(path), num_threads=threads or None)
            interpreter.allocate_tensors()
    except ImportError as exc:
        raise RunnerError(
            "what runs TFLite is not installed",
            got=exc,
            next_step="install it with pip install 'freeze-pipeline[tflite]'",
        ) from exc
    except _ERRORS as exc:
        raise RunnerError("not a TFLite model that runs here", where=path, got=first_line(exc)) from exc
    return interpreter


@dataclass(frozen=True)
class _Tensor:
    """A tensor of a model, and for one that holds real numbers as integers its scale and zero point."""

    index: int
    dtype: str
    quantization: tuple[float, int] | None = None

    def to_stored(self, values: Array, is_real: bool) -> Array:
        """Rounds real numbers to integers, and the numbers beyond their range to its ends; NaN to the zero point.

        Real is scale * (integer - zero point): https://ai.google.dev/edge/litert/models/quantization_spec
        """
        if self.quantization is None or not is_real:
            return values
        scale, zero = self.quantization
        limits = np.iinfo(self.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            rounded = np.rint(values.astype(np.float64) / scale) + zero
        stored: Array = np.clip(np.nan_to_num(rounded, nan=zero), limits.min, limits.max).astype(self.dtype)
        return stored

    def to_real(self, values: Array, dtype: str) -> Array:
        """Converts integers to the real numbers that they stand for."""
        if self.quantization is None or not is_float(dtype):
            return values
        scale, zero = self.quantization
        return np.asarray((values.astype(np.float64) - zero) * scale).astype(dtype)


class TfliteRunner:
    """Feeds and fetches tensors by their names in a TFLite model's SignatureDef, or without one by their own names.

    Args:
        interpreter: an interpreter of ai-edge-litert.
        key: name of the SignatureDef; None for `serving_default`, or else the first.

    Raises:
        RunnerError: the model lacks a tensor of the signature, or has it with another dtype.
    """

    def __init__(self, interpreter: Any, signature: Signature, key: str | None = None) -> None:
        self._interpreter, self._signature = interpreter, signature
        inputs, outputs = _tensors_by_name(interpreter, key)
        self._inputs = {spec.name: _match_tensor(spec, inputs) for spec in signature.inputs}
        self._outputs = {spec.name: _match_tensor(spec, outputs) for spec in signature.outputs}
        self._dtypes = {spec.name: spec.dtype for spec in signature.inputs}
        self._shapes: dict[str, tuple[int, ...]] = {}

    def run(self, batch: Batch) -> dict[str, Array]:
        check_batch(self._signature, batch)
        try:
            self._resize({spec.name: batch[spec.name].shape for spec in self._signature.inputs})
            for name, tensor in self._inputs.items():
                self._interpreter.set_tensor(tensor.index, tensor.to_stored(batch[name], is_float(self._dtypes[name])))
            self._interpreter.invoke()
            outputs = {name: self._interpreter.get_tensor(tensor.index) for name, tensor in self._outputs.items()}
        except _ERRORS as exc:
            raise RunnerError("TFLite could not run the batch", got=first_line(exc)) from exc
        return {
            spec.name: self._outputs[spec.name].to_real(np.asarray(outputs[spec.name]), spec.dtype)
            for spec in self._signature.outputs
        }

    def _resize(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Allocates tensors for a batch, if its shapes differ from those of the batch before."""
        if shapes == self._shapes:
            return
        self._shapes = {}  # unknown, until all are resized
        for spec in self._signature.inputs:
            index, shape = self._inputs[spec.name].index, shapes[spec.name]
            try:
                # If the rank is unknown, no dimension of the model is marked as open, and a strict resize would fail.
                self._interpreter.resize_tensor_input(index, shape, strict=spec.shape is not None)
            except _ERRORS as exc:
                raise RunnerError(
                    "an input is not of the model's shape", where=spec.name, got=list(shape), wanted=spec
                ) from exc
        self._interpreter.allocate_tensors()
        self._shapes = dict(shapes)


def _tensors_by_name(interpreter: Any, key: str | None) -> tuple[dict[str, _Tensor], dict[str, _Tensor]]:
    """Returns a model's inputs and outputs by their names in its SignatureDef, or without one by their own names."""
    signatures = interpreter.get_signature_list()
    if signatures:
        key = key or (SIGNATURE_KEY if SIGNATURE_KEY in signatures else next(iter(signatures)))
        # A local: the interpreter refuses to allocate as long as another object refers to its tensors.
        runner = interpreter.get_signature_runner(key)
        inputs, outputs = runner.get_input_details(), runner.get_output_details()
    else:
        inputs, outputs = (
            {details["name"]: details for details in found}
            for found in (interpreter.get_input_details(), interpreter.get_output_details())
        )
    return (
        {
            name: _Tensor(details["index"], _dtype(details), quantization_of(details))
            for name, details in inputs.items()
        },
        {
            name: _Tensor(details["index"], _dtype(details), quantization_of(details))
            for name, details in outputs.items()
        },
    )


def _dtype(details: Mapping[str, Any]) -> str:
    kind = np.dtype(details["dtype"])
    return "string" if kind.kind in "OSU" else kind.name


def _match_tensor(spec: TensorSpec, tensors: Mapping[str, _Tensor]) -> _Tensor:
    def dtype(tensor: _Tensor) -> str:
        return spec.dtype if tensor.quantization is not None and is_float(spec.dtype) else tensor.dtype

    return tensors[find_tensor(spec, {name: dtype(tensor) for name, tensor in tensors.items()})]


@contextmanager
def silence_stderr() -> Iterator[None]:
    """Discards standard error, also of C++ code; only for a process that does nothing else meanwhile."""
    sys.stderr.flush()
    original, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(original, 2)
        os.close(original)
        os.close(null)
