"""Builds a Keras model of one's own, compiled and held to its signature.

model.json        the architecture and how it is compiled, as Keras tells them
signature.json    what the model promises
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import keras

from pipeline.errors import ModelError, SettingError
from pipeline.settings import ExportSettings, GraphSettings
from pipeline.store.files import ARCHITECTURE_FILE, SIGNATURE_FILE

from ..models import KerasModel
from ..models.source import ModelSource, load_model
from .adapter import NamedModel, is_functional, own_tensors


def write_graph(
    source: ModelSource, settings: GraphSettings, export_settings: ExportSettings, folder: Path
) -> dict[str, Any]:
    """Builds a model and writes what it is.

    Args:
        export_settings: refused here already where a later stage would.

    Returns:
        Notes for the manifest: the seed, numbers of layers and parameters.

    Raises:
        ModelError: the model does not import, does not build, has no weights, or does not keep its signature.
        SettingError: a setting is for other models.
    """
    require_all_variables(export_settings)
    named = build_model(cast(KerasModel, load_model(source)), settings)
    (folder / ARCHITECTURE_FILE).write_text(architecture_of(named.model), encoding="utf-8")
    named.signature.write(folder / SIGNATURE_FILE)
    model = named.model
    return {"seed": settings.seed, "layers": len(model.layers), "parameters": model.count_params()}


def require_all_variables(settings: ExportSettings) -> None:
    """Refuses to leave out or rename variables.

    Raises:
        SettingError: that is asked for.
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
        SettingError: a setting is for other models.
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
    if not isinstance(model, keras.Model):
        raise ModelError(
            "the method build gives no Keras model", where=where, got=type(model).__name__, wanted="a keras.Model"
        )
    named = NamedModel(model, contract.signature)
    _require_names(named, where)
    _build_weights(named, where)
    if not model.weights:
        raise ModelError("the model has no weights", where=where, next_step="There is nothing to freeze")
    if not model.compiled and hasattr(contract, "loss"):
        model.compile(keras.optimizers.Adam(settings.learning_rate), contract.loss)
    if model.compiled:
        model.optimizer.build(model.trainable_variables)
    return named


def _require_names(named: NamedModel, where: str) -> None:
    """A functional model has names of its own; where there are several on a side, they are the signature's."""
    if not is_functional(named.model):
        return
    for side, specs in (("in", named.signature.inputs), ("out", named.signature.outputs)):
        own, promised = sorted(own_tensors(named.model, side)), sorted(spec.name for spec in specs)
        if len(own) != len(promised) or (len(own) > 1 and own != promised):
            raise ModelError(
                f"the {side}puts of the model are not those of its signature",
                where=where,
                got=", ".join(own),
                wanted=", ".join(promised),
                next_step="Give the layers these names, or make the model of dicts by these names",
            )


def _build_weights(named: NamedModel, where: str) -> None:
    """Calls the model once on nothing, for some layers have no weights before."""
    inputs = {
        spec.name: keras.Input(batch_shape=spec.shape, dtype=spec.dtype, name=spec.name)
        for spec in named.signature.inputs
    }
    try:
        named(inputs)
    except (ValueError, TypeError, KeyError, RuntimeError, NotImplementedError) as exc:
        raise ModelError(
            "the model cannot be called on its signature's inputs",
            where=where,
            got=str(exc).strip().split("\n", 1)[0][:300],
            wanted=", ".join(map(str, named.signature.inputs)),
        ) from exc


def architecture_of(model: keras.Model) -> str:
    """The model as Keras tells it, as JSON.

    Raises:
        ModelError: a layer cannot be told.
    """
    try:
        told = json.loads(model.to_json())
    except (NotImplementedError, TypeError, ValueError) as exc:
        got = str(exc).strip().split("\n", 1)[0][:300]
        raise ModelError(
            "the model cannot be told as JSON", where=model.name, got=got, next_step="Give the layer a get_config"
        ) from exc
    return json.dumps(told, indent=1, sort_keys=True) + "\n"
