"""Trains a model with a graph and a session, saves checkpoints, resumes after an interruption, and records goldens.

    checkpoints/       of a Saver: model.ckpt-STEP.*, one model.ckpt.meta, the state file
    deploy/last/       the inference graph's variables after the last step, with goldens.npz
    deploy/best/       the same for the step with the lowest validation loss
    validation.npz     the validation rows
    history.csv        step, loss, validation_loss
    tensorboard/       the same as TensorBoard summaries, with the graph

A step depends only on the seed and its number: the order of the rows, the random draws (see randomness) and,
with a fixed number of threads, the arithmetic. So an interrupted and resumed training ends with bit for bit
the same weights as an uninterrupted one.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.compat import v1

from pipeline.data.npz import add_kind, save_arrays
from pipeline.data.readers import Examples
from pipeline.errors import DataError, ModelError, logger
from pipeline.formats.row_bytes import rows_together
from pipeline.formats.session import SessionRunner, session_config
from pipeline.formats.whole_inputs import run_by_rows
from pipeline.inputs import DataSource, WarmStart
from pipeline.settings import SplitSettings, TrainingSettings
from pipeline.signature import Array, Signature, as_fed, whole_inputs
from pipeline.store import file_names

from .examples import read_examples, row_order, save_validation, split_examples
from .graphs import AVERAGES, LABELS, LOSS, TRAIN_OP, names_in_collection
from .models.source import ModelSource, load_model
from .progress import Progress, Reporter, require_finite, write_history
from .randomness import STEP
from .saver import Checkpoints
from .warm_start import read_warm_values


def train(
    source: ModelSource,
    data: DataSource | None,
    graph: Path,
    warm_start: WarmStart | None,
    split_settings: SplitSettings,
    settings: TrainingSettings,
    folder: Path,
) -> dict[str, Any]:
    """Trains a model; a model without a loss is only initialized.

    Args:
        data: the data file; required, because validation needs rows.
        graph: artifact of the stage graph.
        folder: receives the artifact; an interrupted training found there is resumed.

    Returns:
        Notes for the manifest: seeds, numbers of rows, steps, warm-started variables.

    Raises:
        DataError, ModelError: see `read_examples` and `load_model`.
        CheckpointError: the warm start matches no variable, or one of another shape.
    """
    model = load_model(source)
    is_trained = hasattr(model, "loss")
    training, validation = split_examples(read_examples(model, source, data), data, split_settings, is_trained)
    save_validation(validation, folder)
    evaluator = Evaluator(graph, model.signature, validation, settings)
    notes: dict[str, Any] = {"split_seed": split_settings.seed, "validation_rows": len(validation)}
    if is_trained:
        _require_one_value(training, model.signature)
        with tf.Graph().as_default():
            trainer = GraphTrainer(graph, evaluator, settings, split_settings.seed, folder)
            return {**notes, "training_rows": len(training), **trainer.run(training, warm_start)}
    if warm_start is not None:
        raise ModelError("a model without a loss is not trained, so it cannot be warm-started", where=source.class_name)
    evaluator.initialize()
    for which in ("last", "best"):
        evaluator.save(folder / file_names.DEPLOY_FOLDER / which, step=0)
    write_history(folder / file_names.HISTORY_FILE, [])
    return {**notes, "steps": 0, "best_step": 0}


_EVALUATION_ROWS = 256


class Evaluator:
    """Runs the inference graph in its own session, to compute validation losses and goldens."""

    def __init__(self, graph: Path, signature: Signature, validation: Examples, settings: TrainingSettings) -> None:
        self._signature, self._validation, self._settings = signature, validation, settings
        evaluation = graph / file_names.EVALUATION_GRAPH_FILE
        self._graph = tf.Graph()
        with self._graph.as_default():
            v1.train.import_meta_graph(
                str(evaluation if evaluation.exists() else graph / file_names.INFERENCE_GRAPH_FILE)
            )
            self._variables = {variable.op.name: variable for variable in v1.global_variables()}
            self._saver = v1.train.Saver(self._variables, save_relative_paths=True)
            self._initializer = v1.global_variables_initializer()
            fill_tables = v1.tables_initializer()
        self._session = v1.Session(graph=self._graph, config=session_config(settings.threads))
        self._session.run(fill_tables)

    @property
    def signature(self) -> Signature:
        """The model's inputs and outputs."""
        return self._signature

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
            batch = {name: values[rows] for name, values in self._validation.inputs.items()}
            feed = {f"{name}:0": values for name, values in as_fed(batch, self._signature).items()}
            loss = self._session.run(loss_name, {**feed, labels_name: labels[rows]})
            total += float(loss) * len(labels[rows])
        return total / len(self._validation)

    def save(self, folder: Path, step: int) -> None:
        """Writes the variables, and the model's outputs for the first validation rows (the goldens)."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._saver.set_last_checkpoints_with_time([])  # else the state file would list earlier folders
        with self._graph.as_default():
            prefix = str(folder / file_names.CHECKPOINT_PREFIX)
            self._saver.save(self._session, prefix, global_step=step, write_meta_graph=False)
        rows = {name: values[: self._settings.goldens] for name, values in self._validation.inputs.items()}
        outputs = {spec.name: spec.tensor_name for spec in self._signature.outputs}
        if whole_inputs(self._signature):
            recorded = run_by_rows(SessionRunner(self._session, self._signature), self._signature).run(rows)
        else:
            size = rows_together(rows, self._signature)
            starts = range(0, len(next(iter(rows.values()))), size)
            feeds = [{f"{name}:0": values[start : start + size] for name, values in rows.items()} for start in starts]
            answers = [self._session.run(outputs, feed) for feed in feeds]
            recorded = (
                {name: np.concatenate([one[name] for one in answers]) for name in outputs} if feeds[1:] else answers[0]
            )
        save_arrays(folder / file_names.GOLDENS_FILE, {**add_kind("input", rows), **add_kind("output", recorded)})


def _require_one_value(examples: Examples, signature: Signature) -> None:
    """Checks that rows of an input with one value for a whole batch have one value; raises a DataError if not."""
    for name in sorted(whole_inputs(signature)):
        values = examples.inputs[name]
        if not bool((values == values[:1]).all()):
            raise DataError(
                "an input has one value for all rows of a batch, and the rows to train on have several",
                where=name,
                next_step="Give it one value in `examples`, or one for each row in the signature: [None]",
            )


class GraphTrainer:
    """Trains in the current graph, from the first or the last saved step to the end."""

    def __init__(self, graph: Path, evaluator: Evaluator, settings: TrainingSettings, seed: int, folder: Path) -> None:
        self._settings, self._seed, self._folder, self._evaluator = settings, seed, folder, evaluator
        (folder / "checkpoints").mkdir(exist_ok=True)
        v1.train.import_meta_graph(str(graph / file_names.TRAINING_GRAPH_FILE))
        self._variables = {variable.op.name: variable for variable in v1.global_variables()}
        self._averages = dict(entry.split("=") for entry in names_in_collection(v1.get_default_graph(), AVERAGES))
        self._checkpoints = Checkpoints(folder / "checkpoints", settings)
        initializers = [v1.global_variables_initializer(), v1.tables_initializer()]
        self._session = v1.Session(config=session_config(settings.threads))
        self._session.run(initializers)

    def run(self, examples: Examples, warm_start: WarmStart | None) -> dict[str, Any]:
        """Trains to the last step.

        Returns:
            Notes for the manifest.
        """
        started_from = {}
        if warm_start is not None:
            values, started_from["warm_start"] = read_warm_values(
                warm_start, {name: self._variables[name] for name in self._evaluator.names}
            )
            for name, value in values.items():
                for target in {name, self._averages.get(name, name)}:
                    self._variables[target].load(value, self._session)
        step = self._checkpoints.restore(self._session)
        self._checkpoints.write_graph()
        progress = Progress.read(self._folder).up_to(step)
        if step:
            logger.info("resuming after step %d of %d", step, self._settings.steps)
        progress = self._loop(examples, progress)
        require_finite(progress.history[-1][2], "validation loss", progress.step)
        self._evaluator.load(self._deployed_values())
        self._evaluator.save(self._folder / file_names.DEPLOY_FOLDER / "last", self._settings.steps)
        return {**started_from, "steps": self._settings.steps, "best_step": progress.best_step}

    def _loop(self, examples: Examples, progress: Progress) -> Progress:
        settings = self._settings
        labels = examples.labels
        assert labels is not None  # `train` refuses examples without labels
        [labels_name], [loss_name], [train_op] = (
            names_in_collection(self._session.graph, key) for key in (LABELS, LOSS, TRAIN_OP)
        )
        order = row_order(len(examples), settings.batch_size, self._seed, progress.step)
        with Reporter(self._folder / "tensorboard", progress.step, settings.steps) as reporter:
            for step in range(progress.step + 1, settings.steps + 1):
                rows = next(order)
                batch = {name: values[rows] for name, values in examples.inputs.items()}
                feed: dict[str, Any] = {
                    f"{name}:0": values for name, values in as_fed(batch, self._evaluator.signature).items()
                }
                feed |= {labels_name: labels[rows], f"{STEP}:0": step}
                _, loss = self._session.run([train_op, loss_name], feed)
                require_finite(loss, "loss", step)
                progress.losses.append(float(loss))
                if step % settings.evaluate_every_steps == 0 or step == settings.steps:
                    self._evaluate(progress)
                    reporter.report_evaluation(*progress.history[-1])
                if self._checkpoints.is_due(step):
                    progress.write(self._folder)
                    self._checkpoints.save(self._session, step)
                reporter.advance()
        return progress

    def _evaluate(self, progress: Progress) -> None:
        """Computes the validation loss, and saves the weights if it is the lowest so far."""
        self._evaluator.load(self._deployed_values())
        if progress.add_evaluation(self._evaluator.loss()):
            self._evaluator.save(self._folder / file_names.DEPLOY_FOLDER / "best", progress.step)

    def _deployed_values(self) -> dict[str, Array]:
        """Returns the current values of the inference graph's variables: their moving averages if there are any."""
        names = {name: self._variables[self._averages.get(name, name)] for name in self._evaluator.names}
        values: dict[str, Array] = self._session.run({name: v.value() for name, v in names.items()})
        return values
