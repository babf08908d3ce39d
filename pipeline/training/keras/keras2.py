"""Reads model files of Keras 2 with `tf_keras`, which is Keras 2 for the TensorFlow of today.

Keras 3 reads some of them. A layer whose options it no longer has it refuses (`LSTM` with `time_major`), or loads with
the defaults of today. `tf_keras` resolves whatever a file names, and in HDF5 files runs Lambda layers too. So a file is
read only if all that it names is known to compute alone.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import h5py

from pipeline.errors import CheckpointError
from pipeline.safety.keras_files import require_known_objects
from pipeline.signature import Signature, TensorSpec

from .adapter import NamedModel
from .code import Code

INSTALL = "Run pip install 'freeze-pipeline[keras2]', and then this again"
_CODE = {"Lambda", "DenseFeatures", "Layer", "Wrapper", "AbstractRNNCell"}  # they run or read what a file says
_INNER = {"Model", "Functional", "Sequential", "Policy", "TFOpLambda", "SlicingOpLambda", "CuDNNLSTM", "CuDNNGRU"}
_INNER |= {
    "BatchNormalizationV1",
    "BatchNormalizationV2",
    "TensorShape",
    "__tuple__",
    "__ellipsis__",
    "__bytes__",
    "function",
}
_MODULES = ("layers", "initializers", "regularizers", "constraints", "optimizers", "losses", "metrics")


def version_of_file(path: Path) -> str:
    """Returns the version of Keras that wrote a model file; empty if the file does not say."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                found = json.loads(archive.read("metadata.json")).get("keras_version", "")
        else:
            with h5py.File(path, "r") as file:
                found = file.attrs.get("keras_version", "")
    except (OSError, KeyError, ValueError, AttributeError, zipfile.BadZipFile):
        return ""
    text = found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)
    return text if re.fullmatch(r"[\w.+-]{1,40}", text) else ""


def is_keras2(path: Path) -> bool:
    """Returns True for a file that Keras 2, or one before it, wrote."""
    return version_of_file(path).startswith(("0.", "1.", "2."))


def is_installed() -> bool:
    """Returns True if `tf_keras` can be imported."""
    try:
        return bool(version("tf_keras"))
    except PackageNotFoundError:
        return False


def load_model(path: Path, code: Code) -> Any:
    """Loads a model file of Keras 2 without its compile settings.

    Args:
        code: what the user has given and allowed beside what is Keras's own.

    Raises:
        UnsafeModel: it names a function, a class or an op of TensorFlow that may do more than compute.
        CheckpointError: it names a class that is not Keras's own.
    """
    import tf_keras

    public = {name for module in _MODULES for name in dir(getattr(tf_keras, module))}
    own = code.classes
    code.share_names()
    require_known_objects(path, (public | _INNER) - _CODE, own, code.allowed, code.file)
    model = tf_keras.models.load_model(
        str(path), custom_objects=own, compile=False, safe_mode=not code.allows("Lambda")
    )
    if not isinstance(model, tf_keras.Model):
        raise CheckpointError("the file holds no model", where=path, got=type(model).__name__, wanted="a keras.Model")
    return model


class NamedKeras2Model(NamedModel):
    """A model of Keras 2 with inputs and outputs by its own names."""

    @classmethod
    def from_own_names(cls, model: Any) -> NamedKeras2Model:
        """Wraps a model, with the names of its input and output layers, or the keys of its dicts.

        Raises:
            CheckpointError: it does not define them, or two are called the same.
        """
        sides = []
        for structure, names in ((model.input, model.input_names), (model.output, model.output_names)):
            named = structure if isinstance(structure, dict) else dict(zip(names, _flat(structure), strict=True))
            if len(named) != len(_flat(structure)):
                raise CheckpointError("two inputs or outputs of the model have the same name", got=", ".join(names))
            sides.append([TensorSpec(name, one.dtype.name, tuple(one.shape)) for name, one in named.items()])
        return cls(model, Signature(tuple(sides[0]), tuple(sides[1])))

    def pack(self, values: Any) -> Any:
        if isinstance(self.model.input, dict):
            return {name: values[name] for name in self.model.input}
        inputs = [values[name] for name in self._input_names]
        return inputs[0] if len(inputs) == 1 and not isinstance(self.model.input, list) else inputs

    def unpack(self, returned: Any) -> dict[str, Any]:
        if isinstance(returned, dict):
            return {name: returned[name] for name in self._output_names}
        return dict(zip(self._output_names, _flat(returned), strict=True))


def _flat(structure: Any) -> list[Any]:
    return list(_leaves(structure))


def _leaves(structure: Any) -> Iterator[Any]:
    if isinstance(structure, dict):
        for key in sorted(structure):
            yield from _leaves(structure[key])
    elif isinstance(structure, (list, tuple)):
        for one in structure:
            yield from _leaves(one)
    else:
        yield structure
