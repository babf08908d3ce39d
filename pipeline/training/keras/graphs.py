"""Builds a model from a class with a method `build`, compiles it, and checks its signature.

model.json        architecture and compile settings, as Keras serializes them
signature.json    the model's inputs and outputs
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, cast

import keras

from pipeline.errors import ModelError, SettingError, first_line
from pipeline.safety.own_classes import export_built_commands
from pipeline.settings import ExportSettings, GraphSettings
from pipeline.store.file_names import ARCHITECTURE_FILE, SIGNATURE_FILE

from ..models import KerasModel
from ..models.source import ModelSource, load_model
from .adapter import NamedModel, is_functional, own_tensors
from .weights import named_weights


def write_graph(
    source: ModelSource, settings: GraphSettings, export_settings: ExportSettings, folder: Path
) -> dict[str, Any]:
    """Builds a model and writes its architecture and signature.

    Args:
        export_settings: checked here, so that the later stage of the checkpoint cannot fail on it.

    Returns:
        Notes for the manifest: the seed, numbers of layers and parameters.

    Raises:
        ModelError: the model cannot be imported or built, has no weights, or breaks its signature.
        SettingError: a setting does not apply to Keras models.
    """
    require_all_variables(export_settings)
    named_model = build_model(cast(KerasModel, load_model(source, reads_rows=False)), settings)
    (folder / ARCHITECTURE_FILE).write_text(architecture_json(named_model.model), encoding="utf-8")
    named_model.signature.write(folder / SIGNATURE_FILE)
    model = named_model.model
    return {"seed": settings.seed, "layers": len(model.layers), "parameters": _count_parameters(model)}


def _count_parameters(model: keras.Model) -> int:
    return sum(variable.shape.num_elements() or 0 for variable in named_weights(model).values())


def require_all_variables(settings: ExportSettings) -> None:
    """Requires that all variables are exported under their own names.

    Raises:
        SettingError: the setting leaves out or renames variables.
    """
    if settings.variables.strip() != "all":
        raise SettingError(
            "a Keras model is exported whole, with the variables that its outputs need",
            where="[export] variables",
            got=settings.variables,
            wanted="all",
        )


def build_model(contract: KerasModel, settings: GraphSettings) -> NamedModel:
    """Builds a model; the same seed gives the same weights.

    Raises:
        ModelError: see `write_graph`.
        SettingError: a setting does not apply to Keras models.
    """
    if settings.moving_average:
        raise SettingError(
            "a Keras model keeps its moving averages in its optimizer",
            where="[graph] moving_average",
            got=settings.moving_average,
            wanted="0",
            next_step="Compile it with an optimizer that has use_ema=True",
        )
    where = type(contract).__name__
    keras.utils.set_random_seed(settings.seed)
    model = contract.build()
    if any(base.__module__.startswith("tf_keras.") for base in type(model).__mro__):
        raise ModelError(
            "the method build returns a Keras 2 model (tf_keras), which --model does not take",
            where=where,
            wanted="a Keras 3 model",
            next_step=export_built_commands(sys.modules[type(contract).__module__].__file__ or "", where),
        )
    if not isinstance(model, keras.Model):
        raise ModelError(
            "the method build returns no Keras model", where=where, got=type(model).__name__, wanted="a keras.Model"
        )
    named_model = NamedModel(model, contract.signature)
    _require_signature_names(named_model, where)
    _build_weights(named_model, where)
    if not named_weights(model):
        raise ModelError("the model has no weights", where=where, next_step="There is nothing to freeze")
    if not model.compiled and hasattr(contract, "loss"):
        model.compile(keras.optimizers.Adam(settings.learning_rate), contract.loss)
    if model.compiled:
        model.optimizer.build(model.trainable_variables)
    return named_model


def _require_signature_names(named_model: NamedModel, where: str) -> None:
    """Requires a functional model with several inputs (or outputs) to name them as the signature does."""
    if not is_functional(named_model.model):
        return
    for side, specs in (("in", named_model.signature.inputs), ("out", named_model.signature.outputs)):
        own, wanted = sorted(own_tensors(named_model.model, side)), sorted(spec.name for spec in specs)
        if len(own) != len(wanted) or (len(own) > 1 and own != wanted):
            raise ModelError(
                f"the {side}puts of the model are not those of its signature",
                where=where,
                got=", ".join(own),
                wanted=", ".join(wanted),
                next_step="Give the layers these names, or build the model with dicts that have these names as keys",
            )


def _build_weights(named_model: NamedModel, where: str) -> None:
    """Calls the model once on symbolic inputs: some layers create their weights at the first call."""
    inputs = {
        spec.name: keras.Input(batch_shape=spec.shape, dtype=spec.dtype, name=spec.name)
        for spec in named_model.signature.inputs
    }
    try:
        named_model(inputs)
    except (ValueError, TypeError, KeyError, RuntimeError, NotImplementedError) as exc:
        raise ModelError(
            "the model cannot be called on its signature's inputs",
            where=where,
            got=first_line(exc),
            wanted=", ".join(map(str, named_model.signature.inputs)),
        ) from exc


def architecture_json(model: keras.Model) -> str:
    """Serializes the model's architecture and compile settings as JSON.

    Raises:
        ModelError: a layer cannot be serialized.
    """
    try:
        architecture = json.loads(model.to_json())
    except (NotImplementedError, TypeError, ValueError) as exc:
        got, next_step = first_line(exc), "Give the layer a get_config"
        raise ModelError(
            "the model cannot be serialized as JSON", where=model.name, got=got, next_step=next_step
        ) from exc
    return json.dumps(architecture, indent=1, sort_keys=True) + "\n"
