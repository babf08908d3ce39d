"""Trains a model, saves as it goes, resumes after a kill, and records what the result should answer.

    checkpoints/       the Saver's own: model.ckpt-STEP.*, one model.ckpt.meta, the state file
    deploy/last/       the inference graph's variables after the last step, with goldens.npz
    deploy/best/       the same of the step with the lowest validation loss
    validation.npz     the validation rows
    history.csv        step, loss, validation_loss
    tensorboard/       the same as TensorBoard summaries, with the graph

All that a step does depends on the seed and the step alone: the order of the rows, the random draws
(see randomness) and, with a fixed number of threads, the arithmetic. So a training that was killed and
resumed ends with the weights, bit for bit, of one that was not.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from ..arrays import prefixed, save_arrays
from ..building import AVERAGES, LABELS, LOSS, TRAIN_OP, noted
from ..checkpoint import find_checkpoint, read_values
from ..data import Examples, split
from ..errors import CheckpointError, DataError, ModelError, nearest
from ..formats.session import session_config
from ..models.source import ModelSource, load_model
from ..randomness import STEP
from ..settings import SplitSettings, TrainingSettings, WarmStart
from ..signature import Signature
from .evaluator import Evaluator
from .progress import Progress, Reporter, write_history
from .saver import Checkpoints

v1 = tf.compat.v1
logger = logging.getLogger("pipeline")
Array = np.ndarray[Any, Any]


def train(
    source: ModelSource,
    data: Path | None,
    graph: Path,
    warm_start: WarmStart | None,
    split_settings: SplitSettings,
    settings: TrainingSettings,
    folder: Path,
) -> dict[str, Any]:
    """Trains a model; a model without a loss is only initialized.

    Args:
        data: the data file; every model needs one, for there is nothing to validate without rows.
        graph: the artifact of the graphs.
        folder: where the artifact is made; what a killed training left there is gone on with.

    Returns:
        Notes for the manifest: seeds, numbers of rows, steps, what was warm-started.

    Raises:
        DataError, ModelError: see the data file's reader and the model.
        CheckpointError: the warm start fits no variable, or one of another shape.
    """
    model = load_model(source)
    if data is None:
        raise DataError(
            "the model names no data file of its own", where=source.class_name, next_step="Give one with --data"
        )
    examples = model.examples(data)
    _require_inputs(examples, model.signature, data)
    is_trained = hasattr(model, "loss")
    if is_trained and examples.labels is None:
        raise DataError("no labels to train on", where=data, next_step="Let the model's `examples` return them")
    training, validation = (
        split(examples, split_settings.seed, split_settings.validation_share) if is_trained else (examples, examples)
    )
    labels = {} if validation.labels is None else {"labels": validation.labels}
    save_arrays(folder / "validation.npz", {**prefixed("input", validation.inputs), **labels})
    evaluator = Evaluator(graph, model.signature, validation, settings)
    notes: dict[str, Any] = {"split_seed": split_settings.seed, "validation_rows": len(validation)}
    if is_trained:
        with tf.Graph().as_default():
            work = Training(graph, evaluator, settings, split_settings.seed, folder)
            return {**notes, "training_rows": len(training), **work.run(training, warm_start)}
    if warm_start is not None:
        raise ModelError("a model without a loss is not trained, so it cannot be warm-started", where=source.class_name)
    evaluator.initialize()
    for which in ("last", "best"):
        evaluator.save(folder / "deploy" / which, step=0)
    write_history(folder / "history.csv", [])
    return {**notes, "steps": 0, "best_step": 0}


def _require_inputs(examples: Examples, signature: Signature, data: Path) -> None:
    wanted = {spec.name for spec in signature.inputs}
    if set(examples.inputs) != wanted:
        raise DataError(
            "the examples are not the model's inputs", where=data, got=sorted(examples.inputs), wanted=sorted(wanted)
        )


class Training:
    """One training in the current graph, from its first or its last saved step to its end."""

    def __init__(self, graph: Path, evaluator: Evaluator, settings: TrainingSettings, seed: int, folder: Path) -> None:
        self._settings, self._seed, self._folder, self._evaluator = settings, seed, folder, evaluator
        (folder / "checkpoints").mkdir(exist_ok=True)
        v1.train.import_meta_graph(str(graph / "training.meta"))
        self._variables = {variable.op.name: variable for variable in v1.global_variables()}
        self._averages = dict(entry.split("=") for entry in noted(v1.get_default_graph(), AVERAGES))
        self._checkpoints = Checkpoints(folder / "checkpoints", settings)
        initializers = [v1.global_variables_initializer(), v1.tables_initializer()]
        self._session = v1.Session(config=session_config(settings.threads))
        self._session.run(initializers)

    def run(self, examples: Examples, warm_start: WarmStart | None) -> dict[str, Any]:
        """Trains to the last step.

        Returns:
            Notes for the manifest.
        """
        started_from = {} if warm_start is None else {"warm_start": self._start_warm(warm_start)}
        step = self._checkpoints.restore(self._session)
        self._checkpoints.write_graph()
        progress = Progress.read(self._folder).up_to(step)
        if step:
            logger.info("going on from step %d of %d", step, self._settings.steps)
        progress = self._loop(examples, progress)
        if not math.isfinite(progress.history[-1][2]):
            raise _diverged(progress.step, f"validation loss {progress.history[-1][2]}")
        self._evaluator.load(self._deployable())
        self._evaluator.save(self._folder / "deploy" / "last", self._settings.steps)
        return {**started_from, "steps": self._settings.steps, "best_step": progress.best_step}

    def _loop(self, examples: Examples, progress: Progress) -> Progress:
        settings = self._settings
        labels = examples.labels
        assert labels is not None  # `train` refuses examples without labels
        [labels_name], [loss_name], [train_op] = (noted(self._session.graph, key) for key in (LABELS, LOSS, TRAIN_OP))
        order = row_order(len(examples), settings.batch_size, self._seed, progress.step)
        with Reporter(self._folder / "tensorboard", progress.step, settings.steps) as reporter:
            for step in range(progress.step + 1, settings.steps + 1):
                rows = next(order)
                feed: dict[str, Any] = {f"{name}:0": values[rows] for name, values in examples.inputs.items()}
                feed |= {labels_name: labels[rows], f"{STEP}:0": step}
                _, loss = self._session.run([train_op, loss_name], feed)
                if not math.isfinite(loss):
                    raise _diverged(step, f"loss {loss}")
                progress.losses.append(float(loss))
                if step % settings.evaluate_every_steps == 0 or step == settings.steps:
                    self._evaluate(progress)
                    reporter.tell(*progress.history[-1])
                if self._checkpoints.is_due(step):
                    progress.write(self._folder)
                    self._checkpoints.save(self._session, step)
                reporter.advance()
        return progress

    def _evaluate(self, progress: Progress) -> None:
        """Looks at the validation rows, and keeps the weights if they are the best so far."""
        self._evaluator.load(self._deployable())
        since = progress.history[-1][0] if progress.history else 0
        progress.history.append((progress.step, float(np.mean(progress.losses[since:])), self._evaluator.loss()))
        if progress.best_step == progress.step:
            self._evaluator.save(self._folder / "deploy" / "best", progress.step)

    def _deployable(self) -> dict[str, Array]:
        """The values of the inference graph's variables now: their averages, where there are any."""
        names = {name: self._variables[self._averages.get(name, name)] for name in self._evaluator.names}
        values: dict[str, Array] = self._session.run({name: v.value() for name, v in names.items()})
        return values

    def _start_warm(self, warm_start: WarmStart) -> dict[str, list[str]]:
        """Takes over the values of all variables that the checkpoint has."""
        files = find_checkpoint(warm_start.prefix)
        unknown = sorted(set(warm_start.keys) - set(self._evaluator.names))
        if unknown:
            raise CheckpointError(
                "the warm start's mapping names a variable that the model lacks",
                got=unknown[0],
                next_step=nearest(unknown[0], self._evaluator.names),
            )
        keys = {name: warm_start.keys.get(name, name) for name in self._evaluator.names}
        missing = [name for name in warm_start.keys if keys[name] not in files.tensors]
        taken = {name: key for name, key in keys.items() if key in files.tensors}
        if not taken or missing:
            name = missing[0] if missing else next(iter(keys), "")
            raise CheckpointError(
                f"the warm start lacks {keys[name]}" if missing else "the warm start fits no variable of the model",
                where=files.prefix,
                got=", ".join(sorted(files.tensors)[:8]),
                wanted=", ".join(sorted(keys.values())[:8]),
                next_step="Map the names with --warm-start-map name=key,…",
            )
        values = read_values(files, {key: self._variables[name] for name, key in taken.items()})
        for name, key in taken.items():
            for target in {name, self._averages.get(name, name)}:
                self._variables[target].load(values[key], self._session)
        left = sorted(set(keys) - set(taken))
        logger.info(
            "warm start from %s: taken %s; not there, so initialized: %s", files.prefix, sorted(taken), left or "none"
        )
        return {"taken": sorted(taken), "initialized": left}


def _diverged(step: int, got: str) -> ModelError:
    return ModelError("the training diverged", where=f"step {step}", got=got, next_step="Lower the learning rate")


def row_order(rows: int, batch_size: int, seed: int, done: int) -> Iterator[Array]:
    """The rows of each step, after the steps already done: shuffled anew for every pass over the data.

    Yields:
        Indices int64 `[batch]`; the last batch of a pass is shorter where the rows do not divide.
    """
    per_pass = math.ceil(rows / batch_size)
    for step in itertools.count(done):
        number, position = divmod(step, per_pass)
        if position == 0 or step == done:
            shuffled = np.random.default_rng((seed, number)).permutation(rows)
        yield shuffled[position * batch_size : (position + 1) * batch_size]
