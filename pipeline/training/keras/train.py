"""Trains a Keras model by `fit`, saves as it goes, resumes after a kill, and records what the result should answer.

    checkpoints/       model.ckpt-STEP.*: weights, the optimizer's variables and the states of random draws, by name
    deploy/last/       the weights after the last step, with goldens.npz
    deploy/best/       the same of the step with the lowest validation loss
    validation.npz, history.csv, tensorboard/       as of every training

`fit` gets the rows in our order, which depends on the seed and the step alone, in one epoch of all steps that are left.
Keras keeps the states of its random draws in variables; with them in the checkpoints, deterministic kernels and a fixed
number of threads, a training that was killed and resumed ends with the weights, bit for bit, of one that was not.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np
import tensorflow as tf

from pipeline.data.readers import Examples
from pipeline.errors import ModelError, SettingError
from pipeline.inputs import WarmStart, is_keras_file
from pipeline.settings import GraphSettings, SplitSettings, TrainingSettings
from pipeline.signature import Array
from pipeline.store.files import ARCHITECTURE_FILE, CHECKPOINT_PREFIX, DEPLOY_FOLDER, GOLDENS_FILE, HISTORY_FILE

from ..examples import divide, read_examples, row_order, save_validation
from ..models import KerasModel
from ..models.source import ModelSource, load_model
from ..progress import Progress, Reporter, require_finite, write_history
from ..saver import Checkpoints
from ..warm_start import warm_values
from .adapter import NamedModel, settle_arithmetic
from .graphs import architecture_of, build_model
from .saved_model import record_goldens
from .weights import named_state, named_weights, take_weights_of_file

v1 = tf.compat.v1
logger = logging.getLogger("pipeline")

_EVALUATION_ROWS = 256


def train_model(
    source: ModelSource,
    data: Path | None,
    graph: Path,
    warm_start: WarmStart | None,
    graph_settings: GraphSettings,
    split_settings: SplitSettings,
    settings: TrainingSettings,
    folder: Path,
) -> dict[str, Any]:
    """Trains a model; one that is not compiled is only initialized.

    Args:
        data: the data file; every model needs one, for there is nothing to validate without rows.
        graph: the artifact that tells what the model is.
        folder: where the artifact is made; what a killed training left there is gone on with.

    Returns:
        Notes for the manifest: seeds, numbers of rows, steps, what was warm-started.

    Raises:
        DataError, ModelError: see the data file's reader and the model.
        CheckpointError: the warm start fits no variable, or one of another shape.
    """
    settle_arithmetic(settings.threads)
    contract = cast(KerasModel, load_model(source))
    named = build_model(contract, graph_settings)
    if architecture_of(named.model) != (graph / ARCHITECTURE_FILE).read_text(encoding="utf-8"):
        raise ModelError("build does not give the same model twice", where=source.class_name, wanted=graph)
    is_trained = named.model.compiled
    examples, validation = divide(read_examples(contract, source, data), data, split_settings, is_trained)
    save_validation(validation, folder)
    notes: dict[str, Any] = {"split_seed": split_settings.seed, "validation_rows": len(validation)}
    if warm_start is not None:
        notes |= {"warm_start": _start_warm(named.model, warm_start)}
    work = Training(named, validation, settings, folder)
    if is_trained:
        return {**notes, "training_rows": len(examples), **work.run(examples, split_settings.seed)}
    for which in ("last", "best"):
        work.deploy(which, step=0)
    write_history(folder / HISTORY_FILE, [])
    return {**notes, "steps": 0, "best_step": 0}


def _start_warm(model: keras.Model, warm_start: WarmStart) -> Mapping[str, list[str]]:
    """Gives a model its first weights: all those of a file of Keras's, or by name those that a checkpoint has."""
    if not model.compiled:
        raise ModelError("a model that is not compiled is not trained, so it cannot be warm-started", where=model.name)
    variables = named_weights(model)
    if is_keras_file(warm_start.prefix):
        if warm_start.keys:
            raise SettingError(
                "a file of Keras's gives a model all its weights, by its layers",
                where="--warm-start-map",
                got=", ".join(warm_start.keys),
                next_step="Leave it out, or load such weights in build",
            )
        take_weights_of_file(model, warm_start.prefix)
        return {"taken": sorted(variables), "initialized": []}
    values, told = warm_values(warm_start, variables)
    for name, value in values.items():
        variables[name].assign(value)
    return told


class Training:
    """One training, from its first or its last saved step to its end."""

    def __init__(self, named: NamedModel, validation: Examples, settings: TrainingSettings, folder: Path) -> None:
        self._named, self._validation, self._settings, self._folder = named, validation, settings, folder
        self._model = named.model
        self._weights_saver = v1.train.Saver(named_weights(named.model), save_relative_paths=True)

    def run(self, examples: Examples, seed: int) -> dict[str, Any]:
        """Trains to the last step.

        Returns:
            Notes for the manifest.
        """
        settings, model = self._settings, self._model
        (self._folder / "checkpoints").mkdir(exist_ok=True)
        checkpoints = Checkpoints(self._folder / "checkpoints", settings, named_state(model))
        step = checkpoints.restore(None)
        progress = Progress.read(self._folder).up_to(step)
        if step:
            logger.info("going on from step %d of %d", step, settings.steps)
        if step < settings.steps:
            with tf.Graph().as_default():  # the writer of summaries asks for one
                reporter = Reporter(self._folder / "tensorboard", step, settings.steps)
            model.steps_per_execution = 1  # each step is looked at; of several in one, Keras tells the last alone
            rows = self._dataset(examples, lambda: row_order(len(examples), settings.batch_size, seed, step))
            with reporter:
                following = _Following(self, checkpoints, progress, reporter)
                with _fit_errors(model.name):
                    model.fit(
                        rows, steps_per_epoch=settings.steps - step, verbose=0, shuffle=False, callbacks=[following]
                    )
        require_finite(progress.history[-1][2], "validation loss", progress.step)
        model.optimizer.finalize_variable_values(model.trainable_variables)  # averages, if the optimizer keeps them
        self.deploy("last", settings.steps)
        return {"steps": settings.steps, "best_step": progress.best_step}

    def follow(self, progress: Progress, checkpoints: Checkpoints, reporter: Reporter, loss: float) -> None:
        """One step is done."""
        settings, step = self._settings, progress.step + 1
        require_finite(loss, "loss", step)
        progress.losses.append(loss)
        if step % settings.evaluate_every_steps == 0 or step == settings.steps:
            self._evaluate(progress)
            reporter.tell(*progress.history[-1])
        if checkpoints.is_due(step):
            progress.write(self._folder)
            checkpoints.save(None, step)
        reporter.advance()

    def _evaluate(self, progress: Progress) -> None:
        """Looks at the validation rows, and keeps the weights if they are the best so far."""
        starts = range(0, len(self._validation), _EVALUATION_ROWS)
        numbers = np.arange(len(self._validation))
        rows = self._dataset(self._validation, lambda: (numbers[start : start + _EVALUATION_ROWS] for start in starts))
        loss = float(self._model.evaluate(rows, steps=len(starts), verbose=0, return_dict=True)["loss"])
        since = progress.history[-1][0] if progress.history else 0
        progress.history.append((progress.step, float(np.mean(progress.losses[since:])), loss))
        if progress.best_step == progress.step:
            self.deploy("best", progress.step)

    def _dataset(self, examples: Examples, order: Callable[[], Iterator[Array]]) -> tf.data.Dataset:
        """Inputs and labels as the model takes them, a batch for each array of row numbers."""
        signature = self._named.signature
        inputs = {spec.name: tf.constant(examples.inputs[spec.name], spec.dtype) for spec in signature.inputs}
        labels = tf.constant(examples.labels)
        # Of several outputs, the labels belong to the one that decides.
        named = signature.decision.output if len(signature.outputs) > 1 and signature.decision else None

        def take(rows: tf.Tensor) -> tuple[Any, Any]:
            taken = tf.gather(labels, rows)
            batch = self._named.pack({name: tf.gather(values, rows) for name, values in inputs.items()})
            return keras.tree.lists_to_tuples(batch), taken if named is None else {named: taken}

        return tf.data.Dataset.from_generator(order, output_signature=tf.TensorSpec([None], tf.int64)).map(take)

    def deploy(self, which: str, step: int) -> None:
        """Writes the weights, and what Keras answers with them to the first validation rows (the goldens)."""
        folder = self._folder / DEPLOY_FOLDER / which
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._weights_saver.set_last_checkpoints_with_time([])  # else the state file would tell of earlier folders
        self._weights_saver.save(None, str(folder / CHECKPOINT_PREFIX), global_step=step, write_meta_graph=False)
        rows = {name: values[: self._settings.goldens] for name, values in self._validation.inputs.items()}
        record_goldens(self._named, rows, folder / GOLDENS_FILE)


@contextmanager
def _fit_errors(where: str) -> Iterator[None]:
    """What Keras and TensorFlow raise at a step leaves as ModelError."""
    try:
        yield
    except (tf.errors.OpError, ValueError, TypeError) as exc:
        # TensorFlow tells first where a node was made, and what is wrong with it at the end.
        told = [line.strip() for line in str(exc).splitlines() if line.strip() and "[[{{" not in line]
        raise ModelError(
            "Keras cannot train the model on these rows and labels",
            where=where,
            got=(told[-1] if isinstance(exc, tf.errors.OpError) else told[0])[:300],
        ) from exc


class _Following(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is untyped
    """Hands each step of `fit` to the training."""

    def __init__(self, training: Training, checkpoints: Checkpoints, progress: Progress, reporter: Reporter) -> None:
        super().__init__()
        self._training, self._checkpoints, self._progress, self._reporter = training, checkpoints, progress, reporter

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self.model.reset_metrics()  # else the loss that is told next is the mean since the first step

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._training.follow(self._progress, self._checkpoints, self._reporter, float((logs or {})["loss"]))
