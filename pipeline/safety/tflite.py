"""Finds dangers in a .tflite: custom ops, shapes, and what constants ask for. It is read without the runtime.

The layout is that of tensorflow/lite/schema/schema.fbs.
"""

from __future__ import annotations

import math
from pathlib import Path

from pipeline.errors import CandidateError, UnsafeModel
from pipeline.inputs import read_file

from . import UNKNOWN, Danger, harm_of, printable
from .flatbuffer import Table, read
from .growth.others import Endless
from .growth.tflite_graphs import code_of, find_excess
from .sizes import MOST_TENSOR

_CUSTOM = 32  # BuiltinOperator.CUSTOM
# Custom ops that the runtime itself brings along: they compute, and touch nothing else.
_OWN = frozenset({"TFLite_Detection_PostProcess", "AudioSpectrogram", "Mfcc", "NumericVerify"})
_FLEX = "Flex"  # before the name of an op of TensorFlow
# Fields by their numbers in the schema.
_MODEL_EXTERNAL, _GROUP_NAME = 8, 0
_MODEL_OPS, _MODEL_SUBGRAPHS, _OP_CUSTOM = 1, 2, 1
_SUBGRAPH_TENSORS, _TENSOR_SHAPE, _TENSOR_NAME = 0, 0, 3
_CONVERT = "Convert it again; if the original is whole (sha256sum), copy that"


def find_dangers(path: Path) -> list[Danger]:
    """Finds the custom ops of a .tflite that the runtime lacks.

    Raises:
        CandidateError: it is damaged.
        UnsafeModel: its weights lie in another file, or a tensor in it takes more memory than there is.
    """
    try:
        data = read_file(path)
        model = Table(data, read(data, "<I", 0))
        found = [danger for op in model.tables(_MODEL_OPS) if (danger := _danger(op)) is not None]
        for group in model.tables(_MODEL_EXTERNAL):
            raise UnsafeModel(
                "this model could read files: its weights lie in another file",
                where=path,
                got=repr(printable(group.text(_GROUP_NAME))),
                wanted="weights in the model itself",
            )
        for subgraph in model.tables(_MODEL_SUBGRAPHS):
            for tensor in subgraph.tables(_SUBGRAPH_TENSORS):
                _require_bounded(path, tensor)
        _require_no_growth(path, model)
    except OSError as exc:
        raise CandidateError("the candidate cannot be read", where=path, got=exc.strerror) from exc
    except ValueError as exc:
        raise CandidateError("the candidate is damaged", where=path, got=exc, next_step=_CONVERT) from exc
    return found


def _danger(op: Table) -> Danger | None:
    code = code_of(op)
    name = op.text(_OP_CUSTOM)
    if code != _CUSTOM or name in _OWN:
        return None
    harm = harm_of(name.removeprefix(_FLEX)) if name.startswith(_FLEX) else UNKNOWN
    return None if harm is None else Danger(name, "", harm, kind="custom op")


def _require_no_growth(path: Path, model: Table) -> None:
    """Checks what the operators make of constants: a runtime computes the shapes again, whatever the file says."""
    try:
        found = find_excess(model, MOST_TENSOR)
    except Endless as exc:
        raise UnsafeModel(
            "the model's subgraphs call each other without an end in sight", where=path, got=str(exc)
        ) from exc
    if found is not None:
        step, size = found
        raise UnsafeModel(
            f"this model could take more memory than there is: operator {step} of tensor {step.outputs[0]}",
            where=path,
            got=f"{size / 1e9:.3g} GB" if size < 10**300 else "an astronomical number of bytes",
            wanted=f"at most {MOST_TENSOR / 1e9:.3g} GB",
        )


def _require_bounded(path: Path, tensor: Table) -> None:
    size = math.prod(max(1, length) for length in tensor.numbers(_TENSOR_SHAPE))
    if size > MOST_TENSOR:
        raise UnsafeModel(
            f"this model could take more memory than there is: tensor {printable(tensor.text(_TENSOR_NAME))}",
            where=path,
            got=f"{size:.3g} elements" if size < 10**300 else "an astronomical number of elements",
            wanted=f"at most {MOST_TENSOR:,}",
        )
