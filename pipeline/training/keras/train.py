"""Trains a Keras model with `fit`, saves checkpoints, resumes after an interruption, and records goldens.

    checkpoints/       model.ckpt-STEP.*: weights, optimizer variables and random states, by name
    deploy/last/       the weights after the last step, with goldens.npz
    deploy/best/       the same for the step with the lowest validation loss
    validation.npz, history.csv, tensorboard/       see `training.train`

`fit` gets the rows in an order that depends only on the seed and the step, in one epoch of all remaining steps. Keras
keeps its random states in variables, which the checkpoints include. With deterministic kernels and a fixed number of
threads, an interrupted and resumed training ends with bit for bit the same weights as an uninterrupted one.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np
import tensorflow as tf
from tensorflow.compat import v1

from pipeline.checkpoint.objects import holds_objects
from pipeline.checkpoint.values import find_checkpoint
from pipeline.data.readers import Examples
from pipeline.errors import ModelError, SettingError, first_line, logger
from pipeline.inputs import DataSource, WarmStart, is_keras_file
from pipeline.settings import GraphSettings, SplitSettings, TrainingSettings
from pipeline.signature import Array
from pipeline.store.file_names import ARCHITECTURE_FILE, CHECKPOINT_PREFIX, DEPLOY_FOLDER, GOLDENS_FILE, HISTORY_FILE

from ..examples import read_examples, row_order, save_validation, split_examples
from ..models import KerasModel
from ..models.source import ModelSource, load_model
from ..progress import Progress, Reporter, require_finite, write_history
from ..saver import Checkpoints
from ..warm_start import read_warm_values
from .adapter import NamedModel, make_deterministic
from .graphs import architecture_json, build_model
from .saved_model import record_goldens
from .weights import load_weights, load_weights_file, named_weights, training_state, variables_beside

_EVALUATION_ROWS = 256


def train_model(
    source: ModelSource,
    data: DataSource | None,
    graph: Path,
    warm_start: WarmStart | None,
    graph_settings: GraphSettings,
    split_settings: SplitSettings,
    settings: TrainingSettings,
    folder: Path,
) -> dict[str, Any]:
    """Trains a model; a model that is not compiled is only initialized.

    Args, Returns, Raises: as `training.train.train`; `graph` has the architecture.
    """
    make_deterministic(settings.threads)
    contract = cast(KerasModel, load_model(source))
    named_model = build_model(contract, graph_settings)
    if architecture_json(named_model.model) != (graph / ARCHITECTURE_FILE).read_text(encoding="utf-8"):
        raise ModelError("build does not return the same model twice", where=source.class_name, wanted=graph)
    is_trained = named_model.model.compiled
    examples, validation = split_examples(read_examples(contract, source, data), data, split_settings, is_trained)
    save_validation(validation, folder)
    notes: dict[str, Any] = {"split_seed": split_settings.seed, "validation_rows": len(validation)}
    if warm_start is not None:
        notes |= {"warm_start": _start_warm(named_model.model, warm_start)}
    trainer = KerasTrainer(named_model, validation, settings, folder)
    if is_trained:
        return {**notes, "training_rows": len(examples), **trainer.run(examples, split_settings.seed)}
    for which in ("last", "best"):
        trainer.deploy(which, step=0)
    write_history(folder / HISTORY_FILE, [])
    return {**notes, "steps": 0, "best_step": 0}


def _start_warm(model: keras.Model, warm_start: WarmStart) -> Mapping[str, list[str]]:
    """Loads a model's initial weights: all weights of a Keras file, or by name the weights that a checkpoint has."""
    if not model.compiled:
        raise ModelError("a model that is not compiled is not trained, so it cannot be warm-started", where=model.name)
    variables = named_weights(model)
    if is_keras_file(warm_start.prefix):
        if warm_start.keys:
            raise SettingError(
                "a Keras file gives a model all its weights, layer by layer",
                where="--warm-start-map",
                got=", ".join(warm_start.keys),
                next_step="Leave it out, or load such weights in build",
            )
        load_weights_file(model, warm_start.prefix)
        beside = sorted(variables_beside(model))
        return {"taken": sorted(variables.keys() - beside), "initialized": beside}
    bundle = find_checkpoint(warm_start.prefix)
    if holds_objects(bundle) and not warm_start.keys:
        taken = load_weights(model, bundle).keys
        return {"taken": sorted(taken), "initialized": sorted(variables.keys() - taken.keys())}
    values, notes = read_warm_values(warm_start, variables)
    for name, value in values.items():
        variables[name].assign(value)
    return notes


class KerasTrainer:
    """Trains with `fit`, from the first or the last saved step to the end."""

    def __init__(self, named_model: NamedModel, validation: Examples, settings: TrainingSettings, folder: Path) -> None:
        self._named_model, self._validation, self._settings, self._folder = named_model, validation, settings, folder
        self._model = named_model.model
        self._weights_saver = v1.train.Saver(named_weights(named_model.model), save_relative_paths=True)

    def run(self, examples: Examples, seed: int) -> dict[str, Any]:
        """Trains to the last step.

        Returns:
            Notes for the manifest.
        """
        settings, model = self._settings, self._model
        (self._folder / "checkpoints").mkdir(exist_ok=True)
        checkpoints = Checkpoints(self._folder / "checkpoints", settings, training_state(model))
        step = checkpoints.restore(None)
        progress = Progress.read(self._folder).up_to(step)
        if step:
            logger.info("resuming after step %d of %d", step, settings.steps)
        if step < settings.steps:
            with tf.Graph().as_default():  # the summary writer needs a graph
                reporter = Reporter(self._folder / "tensorboard", step, settings.steps)
            model.steps_per_execution = 1  # else Keras reports only the last of several steps
            rows = self._dataset(examples, lambda: row_order(len(examples), settings.batch_size, seed, step))
            with reporter:
                callback = _StepCallback(self, checkpoints, progress, reporter)
                with _fit_errors(model.name):
                    model.fit(
                        rows, steps_per_epoch=settings.steps - step, verbose=0, shuffle=False, callbacks=[callback]
                    )
        require_finite(progress.history[-1][2], "validation loss", progress.step)
        model.optimizer.finalize_variable_values(model.trainable_variables)  # averages, if the optimizer keeps them
        self.deploy("last", settings.steps)
        return {"steps": settings.steps, "best_step": progress.best_step}

    def finish_step(self, progress: Progress, checkpoints: Checkpoints, reporter: Reporter, loss: float) -> None:
        """Records the loss of a step; evaluates, saves and reports if that is due."""
        settings, step = self._settings, progress.step + 1
        require_finite(loss, "loss", step)
        progress.losses.append(loss)
        if step % settings.evaluate_every_steps == 0 or step == settings.steps:
            self._evaluate(progress)
            reporter.report_evaluation(*progress.history[-1])
        if checkpoints.is_due(step):
            progress.write(self._folder)
            checkpoints.save(None, step)
        reporter.advance()

    def _evaluate(self, progress: Progress) -> None:
        """Computes the validation loss, and saves the weights if it is the lowest so far."""
        starts = range(0, len(self._validation), _EVALUATION_ROWS)
        numbers = np.arange(len(self._validation))
        rows = self._dataset(self._validation, lambda: (numbers[start : start + _EVALUATION_ROWS] for start in starts))
        loss = float(self._model.evaluate(rows, steps=len(starts), verbose=0, return_dict=True)["loss"])
        if progress.add_evaluation(loss):
            self.deploy("best", progress.step)

    def _dataset(self, examples: Examples, order: Callable[[], Iterator[Array]]) -> tf.data.Dataset:
        """Builds a dataset of inputs and labels as the model takes them, one batch per array of row numbers."""
        signature = self._named_model.signature
        inputs = {spec.name: tf.constant(examples.inputs[spec.name], spec.dtype) for spec in signature.inputs}
        labels = tf.constant(examples.labels)
        # With several outputs, the labels belong to the one that decides.
        labelled = signature.decision.output if len(signature.outputs) > 1 and signature.decision else None

        def take(rows: tf.Tensor) -> tuple[Any, Any]:
            target = tf.gather(labels, rows)
            batch = self._named_model.pack({name: tf.gather(values, rows) for name, values in inputs.items()})
            return keras.tree.lists_to_tuples(batch), target if labelled is None else {labelled: target}

        return tf.data.Dataset.from_generator(order, output_signature=tf.TensorSpec([None], tf.int64)).map(take)

    def deploy(self, which: str, step: int) -> None:
        """Writes the weights, and Keras's outputs with them for the first validation rows (the goldens)."""
        folder = self._folder / DEPLOY_FOLDER / which
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._weights_saver.set_last_checkpoints_with_time([])  # else the state file would list earlier folders
        self._weights_saver.save(None, str(folder / CHECKPOINT_PREFIX), global_step=step, write_meta_graph=False)
        rows = {name: values[: self._settings.goldens] for name, values in self._validation.inputs.items()}
        record_goldens(self._named_model, rows, folder / GOLDENS_FILE)


@contextmanager
def _fit_errors(where: str) -> Iterator[None]:
    """Converts errors that Keras and TensorFlow raise in a training step to ModelError."""
    try:
        yield
    except (tf.errors.OpError, ValueError, TypeError) as exc:
        raise ModelError(
            "Keras cannot train the model on these rows and labels",
            where=where,
            got=first_line(exc),
        ) from exc


class _StepCallback(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is untyped
    """Passes the loss of each step of `fit` to the trainer."""

    def __init__(self, trainer: KerasTrainer, checkpoints: Checkpoints, progress: Progress, reporter: Reporter) -> None:
        super().__init__()
        self._trainer, self._checkpoints, self._progress, self._reporter = trainer, checkpoints, progress, reporter

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self.model.reset_metrics()  # else Keras reports the mean loss since the first step

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._trainer.finish_step(self._progress, self._checkpoints, self._reporter, float((logs or {})["loss"]))
