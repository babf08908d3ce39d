"""Evaluates a model during training: validation losses, and the weights and goldens to deploy."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf
from tensorflow.compat import v1

from pipeline.data.npz import add_kind, save_arrays
from pipeline.data.readers import Examples
from pipeline.formats.session import session_config
from pipeline.settings import TrainingSettings
from pipeline.signature import Array, Signature
from pipeline.store.files import CHECKPOINT_PREFIX, EVALUATION_GRAPH_FILE, GOLDENS_FILE, INFERENCE_GRAPH_FILE

from .graphs import LABELS, LOSS, names_in_collection

_EVALUATION_ROWS = 256


class Evaluator:
    """Runs the inference graph in its own session, to compute validation losses and goldens."""

    def __init__(self, graph: Path, signature: Signature, validation: Examples, settings: TrainingSettings) -> None:
        self._signature, self._validation, self._settings = signature, validation, settings
        evaluation = graph / EVALUATION_GRAPH_FILE
        self._graph = tf.Graph()
        with self._graph.as_default():
            v1.train.import_meta_graph(str(evaluation if evaluation.exists() else graph / INFERENCE_GRAPH_FILE))
            self._variables = {variable.op.name: variable for variable in v1.global_variables()}
            self._saver = v1.train.Saver(self._variables, save_relative_paths=True)
            self._initializer = v1.global_variables_initializer()
            fill_tables = v1.tables_initializer()
        self._session = v1.Session(graph=self._graph, config=session_config(settings.threads))
        self._session.run(fill_tables)

    @property
    def names(self) -> list[str]:
        """Names of the variables."""
        return list(self._variables)

    def initialize(self) -> None:
        """Sets the variables to their initial values."""
        self._session.run(self._initializer)

    def load(self, values: Mapping[str, Array]) -> None:
        """Sets variables to the given values, by name."""
        for name, value in values.items():
            self._variables[name].load(value, self._session)

    def loss(self) -> float:
        """Returns the mean loss over the validation rows, weighted by rows per batch."""
        labels = self._validation.labels
        assert labels is not None  # `train` refuses examples without labels
        [labels_name], [loss_name] = (names_in_collection(self._graph, key) for key in (LABELS, LOSS))
        total = 0.0
        for start in range(0, len(self._validation), _EVALUATION_ROWS):
            rows = slice(start, start + _EVALUATION_ROWS)
            feed = {f"{name}:0": values[rows] for name, values in self._validation.inputs.items()}
            loss = self._session.run(loss_name, {**feed, labels_name: labels[rows]})
            total += float(loss) * len(labels[rows])
        return total / len(self._validation)

    def save(self, folder: Path, step: int) -> None:
        """Writes the variables, and the model's outputs for the first validation rows (the goldens)."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._saver.set_last_checkpoints_with_time([])  # else the state file would list earlier folders
        with self._graph.as_default():
            self._saver.save(self._session, str(folder / CHECKPOINT_PREFIX), global_step=step, write_meta_graph=False)
        rows = {name: values[: self._settings.goldens] for name, values in self._validation.inputs.items()}
        outputs = {spec.name: spec.tensor_name for spec in self._signature.outputs}
        recorded = self._session.run(outputs, {f"{name}:0": values for name, values in rows.items()})
        save_arrays(folder / GOLDENS_FILE, {**add_kind("input", rows), **add_kind("output", recorded)})
