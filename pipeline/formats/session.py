"""Runner with a TensorFlow session, shared by the formats that TensorFlow runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.compat import v1

from pipeline.errors import RunnerError, first_line
from pipeline.signature import Array, Batch, Signature

from .runner import NOT_RESTORED, check_batch
from .waiting import require_no_wait


class SessionRunner:
    """Feeds and fetches the tensors of a signature by name.

    Args:
        constants: values to feed with every batch, by tensor.

    Raises:
        RunnerError: the graph lacks a tensor of the signature, or has it with another dtype; or an output would wait
            for the rows of a queue.
    """

    def __init__(self, session: v1.Session, signature: Signature, constants: Mapping[str, Any] | None = None) -> None:
        self._session, self._signature, self._constants = session, signature, dict(constants or {})
        for spec in (*signature.inputs, *signature.outputs):
            try:
                tensor = session.graph.get_tensor_by_name(spec.tensor_name)
            except KeyError as exc:
                raise RunnerError("the graph lacks a tensor of the signature", where=spec.name) from exc
            if tensor.dtype.base_dtype != tf.as_dtype(spec.dtype):
                got = tensor.dtype.name
                raise RunnerError(
                    "a tensor is not of the signature's dtype", where=spec.name, got=got, wanted=spec.dtype
                )
        self._inputs = {spec.name: spec.tensor_name for spec in signature.inputs}
        self._outputs = {spec.name: spec.tensor_name for spec in signature.outputs}
        require_no_wait(session.graph, [*self._outputs.values()], [*self._inputs.values(), *self._constants])

    def inner_row_bytes(self) -> int:
        """Returns the bytes of one row in the largest node, its inputs and outputs together; see `inner_row_bytes`."""
        return inner_row_bytes(self._session.graph, list(self._outputs.values()))

    def run(self, batch: Batch) -> dict[str, Array]:
        check_batch(self._signature, batch)
        feed = {tensor: batch[name] for name, tensor in self._inputs.items()}
        try:
            outputs = self._session.run(self._outputs, {**self._constants, **feed})
        except (tf.errors.OpError, ValueError, TypeError) as exc:
            is_empty = isinstance(exc, tf.errors.FailedPreconditionError) and "initialized" in str(exc)
            what = NOT_RESTORED if is_empty else "TensorFlow could not run the batch"
            raise RunnerError(what, got=first_line(exc)) from exc
        # A scalar string comes as bytes, which NumPy would convert to a fixed-width array without trailing zero bytes.
        kinds = {name: object if isinstance(value, bytes) else None for name, value in outputs.items()}
        return {name: np.asarray(value, kinds[name]) for name, value in outputs.items()}


def inner_row_bytes(graph: tf.Graph, outputs: Sequence[str]) -> int:
    """Returns the bytes that one row takes in the largest node on the way to the outputs: its inputs and its outputs.

    TensorFlow frees a tensor after its last use, so about this much is held at a time. Only tensors count whose first
    dimension alone is open: the others' sizes are unknown until the graph runs.
    """
    waiting, seen, largest = [graph.get_tensor_by_name(name).op for name in outputs], set[str](), 0
    while waiting:
        operation = waiting.pop()
        if operation.name not in seen:
            seen.add(operation.name)
            waiting += [tensor.op for tensor in operation.inputs]
            tensors = {tensor.name: tensor for tensor in (*operation.inputs, *operation.outputs)}
            largest = max(largest, sum(map(_row_bytes, tensors.values())))
    return largest


def _row_bytes(tensor: tf.Tensor) -> int:
    dims = tensor.shape.as_list() if tensor.shape.rank else [0]
    is_by_row = dims[0] is None and None not in dims[1:]
    return math.prod(dims[1:]) * int(tensor.dtype.base_dtype.size or 0) if is_by_row else 0


def session_config(threads: int, is_unoptimized: bool = False) -> v1.ConfigProto:
    """Configures a session with a fixed number of threads, for the same bits in every run.

    Args:
        is_unoptimized: switches TensorFlow's optimizer off, so that every node runs unchanged.
    """
    config = v1.ConfigProto(
        intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads, allow_soft_placement=True
    )
    if is_unoptimized:
        config.graph_options.optimizer_options.opt_level = v1.OptimizerOptions.L0
        config.graph_options.rewrite_options.disable_meta_optimizer = True
    return config
