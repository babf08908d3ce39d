"""The formats `tflite`, `tflite_float16` and `tflite_int8`: one `model.tflite` for phones and other small machines.

TensorFlow's converter makes it, of TFLite's own ops alone, and ai-edge-litert runs it without TensorFlow. Its one
SignatureDef has the inputs and outputs of `signature.json` by their names, and a batch of any size where the signature
leaves it open. With float16 the weights take half their bytes and are computed with as float32; with int8, a quarter,
where a weight has 1,024 elements or more (TensorFlow leaves smaller ones as they are), and what they are multiplied
with is rounded to int8 as well, row by row.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from pipeline.errors import FreezeError, RunnerError
from pipeline.signature import Array, Batch, Signature, TensorSpec
from pipeline.store.files import SIGNATURE_FILE, TFLITE_FILE

from .runner import checked_batch

logger = logging.getLogger("pipeline")

SIGNATURE_KEY = "serving_default"
_BROKEN = (OSError, ValueError, RuntimeError, TypeError)
_MOST_OPS = 5
# As TensorFlow's converter names the node of an op that it has no equivalent for: loc(fused["Svd:", "decompose/Svd"])
_NODE = re.compile(r'\["(\w+):", "([^"@]+)[^"]*"\]')
_UNSUPPORTED = re.compile(_NODE.pattern + r".*op is neither a custom op nor a flex op")


def make_tflite(frozen: Path, folder: Path) -> dict[str, Any]:
    """Writes `model.tflite` of a frozen graph, and `signature.json` beside it.

    Args:
        frozen: an artifact in the format `frozen`.

    Returns:
        Notes for the manifest: how many of its tensors are stored in less than their own precision.

    Raises:
        FreezeError: the converter cannot express the graph, or what it made does not open.
    """
    return _make(frozen, folder, None)


def make_tflite_float16(frozen: Path, folder: Path) -> dict[str, Any]:
    """The same with its weights as float16; see `make_tflite`."""
    return _make(frozen, folder, np.float16)


def make_tflite_int8(frozen: Path, folder: Path) -> dict[str, Any]:
    """The same with its larger weights as int8; see `make_tflite`."""
    return _make(frozen, folder, np.int8)


def _make(frozen: Path, folder: Path, stored: type[np.generic] | None) -> dict[str, Any]:
    from .savedmodel import make_saved_model  # which loads TensorFlow, that running does without

    with TemporaryDirectory(dir=folder, prefix=".savedmodel-") as served:
        make_saved_model(frozen, Path(served))
        content = _converted(Path(served), stored)
    (folder / TFLITE_FILE).write_bytes(content)
    shutil.copyfile(frozen / SIGNATURE_FILE, folder / SIGNATURE_FILE)
    try:
        interpreter = _open(folder / TFLITE_FILE, 1)
        TfliteRunner(interpreter, Signature.read(folder / SIGNATURE_FILE))
    except RunnerError as exc:
        raise FreezeError("the TFLite file that was made of this does not open", got=exc) from exc
    reduced = sum(details["dtype"] is stored for details in interpreter.get_tensor_details()) if stored else 0
    if stored is not None and not reduced:
        logger.warning("no weight is large enough to be stored as %s: all stay as they are", stored.__name__)
    return {"reduced": reduced}


def _converted(saved_model: Path, stored: type[np.generic] | None) -> bytes:
    import tensorflow as tf
    from tensorflow.lite.python.convert_phase import ConverterError

    try:
        with silenced():
            converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model), signature_keys=[SIGNATURE_KEY])
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]  # Flex ops do not run without TF
            if stored is not None:
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
            if stored is np.float16:
                converter.target_spec.supported_types = [tf.float16]
            return bytes(converter.convert())
    except (ConverterError, *_BROKEN, LookupError, AttributeError, AssertionError, tf.errors.OpError) as exc:
        where, got = _explained(str(exc))
        raise FreezeError(
            "no TFLite file can be made of this", where=where, got=got, next_step="Leave tflite out of --formats"
        ) from exc


def _explained(message: str) -> tuple[str | None, str]:
    """The first node that could not be converted, and what is wrong with it; as much as the converter says of it."""
    unsupported = dict.fromkeys(_UNSUPPORTED.findall(message))
    if not unsupported:
        named = _NODE.search(message)
        return named and f"node {named[2]}, op {named[1]}", message.strip().split("\n", 1)[0][:300]
    (op, node), *_ = unsupported
    others = [other for other in dict.fromkeys(other for other, _ in unsupported) if other != op]
    more = f" and {len(others) - _MOST_OPS} more" if len(others) > _MOST_OPS else ""
    besides = f"; nor for {', '.join(others[:_MOST_OPS])}{more}" if others else ""
    return f"node {node}", f"TFLite has no op for {op}{besides}"


def open_runner(folder: Path, signature: Signature, threads: int) -> TfliteRunner:
    """Opens `model.tflite` in an artifact's folder.

    Raises:
        RunnerError: the file is missing or is no TFLite model that runs here, or is not the signature's.
    """
    return TfliteRunner(_open(folder / TFLITE_FILE, threads), signature, _key_of(folder))


def _key_of(folder: Path) -> str | None:
    """The signature that a candidate of somebody else's is opened by."""
    told = json.loads((folder / SIGNATURE_FILE).read_text(encoding="utf-8"))
    key: str | None = told.get("origin", {}).get("candidate", {}).get("signature")
    return key


def _open(path: Path, threads: int) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter

        with silenced():
            interpreter = Interpreter(model_path=str(path), num_threads=threads or None)
            interpreter.allocate_tensors()
    except ImportError as exc:
        raise RunnerError(
            "what runs TFLite is not installed", got=exc, next_step="pip install 'freeze-pipeline[tflite]'"
        ) from exc
    except _BROKEN as exc:
        raise RunnerError("not a TFLite model that runs here", where=path, got=_first_line(exc)) from exc
    return interpreter


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:300]


@dataclass(frozen=True)
class _Tensor:
    """A tensor of a TFLite model, by its place there."""

    index: int
    dtype: str


class TfliteRunner:
    """Feeds and fetches the tensors that a TFLite model's SignatureDef names; of one without, those of these names.

    Args:
        interpreter: of ai-edge-litert.
        key: the signature's name in the file, where it is not the usual one.

    Raises:
        RunnerError: the model lacks a tensor of the signature, or has it with another dtype.
    """

    def __init__(self, interpreter: Any, signature: Signature, key: str | None = None) -> None:
        self._interpreter, self._signature = interpreter, signature
        inputs, outputs = _named_tensors(interpreter, key)
        self._inputs = {spec.name: _paired(spec, inputs) for spec in signature.inputs}
        self._outputs = {spec.name: _paired(spec, outputs) for spec in signature.outputs}
        self._shapes: dict[str, tuple[int, ...]] = {}

    def run(self, batch: Batch) -> dict[str, Array]:
        """Answers a batch; see `Runner.run`."""
        given = checked_batch(self._signature, batch)
        try:
            self._resize({spec.name: given[spec.name].shape for spec in self._signature.inputs})
            for name, tensor in self._inputs.items():
                self._interpreter.set_tensor(tensor.index, given[name])
            self._interpreter.invoke()
            answers = {name: self._interpreter.get_tensor(tensor.index) for name, tensor in self._outputs.items()}
        except _BROKEN as exc:
            raise RunnerError("TFLite could not run the batch", got=_first_line(exc)) from exc
        return {name: np.asarray(answer) for name, answer in answers.items()}

    def _resize(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Makes room for a batch, where it is of another shape than the one before."""
        if shapes == self._shapes:
            return
        self._shapes = {}  # unknown, until all are resized
        for spec in self._signature.inputs:
            index, shape = self._inputs[spec.name].index, shapes[spec.name]
            try:
                # A model whose signature leaves the rank open has no dimension that could be told to be open.
                self._interpreter.resize_tensor_input(index, shape, strict=spec.shape is not None)
            except _BROKEN as exc:
                raise RunnerError(
                    "an input is not of the model's shape", where=spec.name, got=list(shape), wanted=spec
                ) from exc
        self._interpreter.allocate_tensors()
        self._shapes = dict(shapes)


def _named_tensors(interpreter: Any, key: str | None) -> tuple[dict[str, _Tensor], dict[str, _Tensor]]:
    """A model's inputs and outputs by their names in its SignatureDef, or, without one, by their own."""
    signatures = interpreter.get_signature_list()
    if signatures:
        key = key or (SIGNATURE_KEY if SIGNATURE_KEY in signatures else next(iter(signatures)))
        # It must not outlive this: the interpreter refuses to allocate as long as anything else refers to its tensors.
        named = interpreter.get_signature_runner(key)
        inputs, outputs = named.get_input_details(), named.get_output_details()
    else:
        inputs, outputs = (
            {details["name"]: details for details in found}
            for found in (interpreter.get_input_details(), interpreter.get_output_details())
        )
    return (
        {name: _Tensor(details["index"], _dtype(details)) for name, details in inputs.items()},
        {name: _Tensor(details["index"], _dtype(details)) for name, details in outputs.items()},
    )


def _dtype(details: Mapping[str, Any]) -> str:
    kind = np.dtype(details["dtype"])
    return "string" if kind.kind in "OSU" else kind.name


def _paired(spec: TensorSpec, tensors: Mapping[str, _Tensor]) -> _Tensor:
    """The tensor of a name of the signature.

    Raises:
        RunnerError: there is none, or it has another dtype.
    """
    name = next((name for name in (spec.tensor_name, spec.name) if name in tensors), None)
    if name is None:
        raise RunnerError("the model lacks a tensor of the signature", where=spec.name, got=", ".join(tensors))
    if tensors[name].dtype != spec.dtype:
        raise RunnerError(
            "a tensor is not of the signature's dtype", where=spec.name, got=tensors[name].dtype, wanted=spec.dtype
        )
    return tensors[name]


@contextmanager
def silenced() -> Iterator[None]:
    """Standard error goes nowhere meanwhile; for a process that does nothing else."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
