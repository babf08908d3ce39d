"""Luigi's shells around the stages: what each requires, where its output is, and one call to make it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import fields
from functools import cached_property
from typing import Any, ClassVar

import luigi
from luigi.cmdline_parser import CmdlineParser
from luigi.parameter import ParameterVisibility

from pipeline.errors import FreezeError, SettingError
from pipeline.formats.registry import CANDIDATES, read_refusal
from pipeline.store.artifact import sweep

from . import console
from .chain import plan
from .chain.facts import read_verdict
from .chain.job import CANDIDATE, Job, Parameters, job_of, known_format
from .chain.stages import RESUMABLE, stages_of
from .config import find_config, read_operations, read_settings
from .external import DataFile, ExistingCandidate, ExistingCheckpoint
from .summary import require_passed, summary_lines

logger = logging.getLogger("pipeline")

# Called with the task that a command line names, before anything is done for it.
ROOT_HOOKS: list[Callable[[Any], None]] = []


def run_root_hooks(task: luigi.Task) -> None:
    """Calls the hooks if this is the task that the command line names."""
    command = CmdlineParser.get_instance()
    if command is not None and command.known_args.root_task == task.task_family:
        for hook in ROOT_HOOKS:
            hook(task)


class ModelTask(luigi.Task):
    """The parameters of every task on one model."""

    model = luigi.OptionalParameter(
        default="",
        description="a bundled name (spam, multiply_add), package.module:Name, or path/to/file.py:Name; "
        "spam if no checkpoint is given",
    )
    checkpoint = luigi.OptionalParameter(
        default="",
        description="an existing checkpoint (prefix, file or folder), SavedModel or .keras file that the chain starts "
        "at; with --model the graph comes from the code and the weights from here",
    )
    inputs = luigi.OptionalParameter(
        default="", description="with --checkpoint: comma-separated tensors to feed; found if not given"
    )
    outputs = luigi.OptionalParameter(
        default="", description="with --checkpoint: comma-separated tensors to fetch; found if not given"
    )
    pin = luigi.OptionalParameter(
        default="", description="with --checkpoint: comma-separated name=value: placeholders to make constants"
    )
    signature = luigi.OptionalParameter(
        default="", description="with --checkpoint: of a SavedModel with several signatures, which one"
    )
    graph_file = luigi.OptionalParameter(
        default="", description="with --checkpoint: its graph (.meta, .pb, .pbtxt), where that does not stand beside it"
    )
    candidate = luigi.OptionalParameter(
        default="",
        description="with --checkpoint or --model: an existing .pb, SavedModel, mmap folder, .tflite or .onnx that is "
        "compared with the checkpoint; nothing is frozen then",
    )
    candidate_names = luigi.OptionalParameter(
        default="",
        description="with --candidate: comma-separated name=tensor: the candidate's tensor of an input or output, "
        "where it is not found by its name",
    )
    candidate_signature = luigi.OptionalParameter(
        default="", description="with --candidate: of a SavedModel or .tflite with several signatures, which one"
    )
    name = luigi.OptionalParameter(
        default="", description="folder under the output root; the model's or the checkpoint's name if not given"
    )
    data = luigi.OptionalParameter(
        default="", description="the data file; the model's own, or made-up rows, if not given"
    )
    output_root = luigi.Parameter(
        default="output", description="where artifacts go: a folder, or a URL such as s3://bucket/path"
    )
    formats = luigi.OptionalParameter(
        default="",
        description=f"comma-separated formats to make and to validate, of {', '.join(CANDIDATES)}; frozen if not "
        "given. With --candidate: the candidate's format, where its content leaves it open",
    )
    warm_start = luigi.OptionalParameter(default="", description="a checkpoint whose weights the training starts from")
    warm_start_map = luigi.OptionalParameter(
        default="", description="comma-separated name=key: the warm start's key of a variable, where it is not its name"
    )
    allow_ops = luigi.OptionalParameter(
        default="",
        description="with --checkpoint or --candidate: comma-separated ops that may stand in a graph that somebody "
        "else made, though they could do more than compute (WriteFile, PyFunc, …)",
    )
    makes: ClassVar[str]

    @property
    def stage(self) -> str:
        """The stage that it makes.

        Raises:
            SettingError: there is none of that name.
        """
        return self.makes

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        run_root_hooks(self)

    def start(self) -> None:
        """Prepares a run of which this is the root: what killed ones left is swept."""
        sweep(self.job.paths, spare=RESUMABLE)

    def summary_lines(self) -> list[str]:
        """What a person wants to know at the end of a run."""
        return summary_lines(self.job, self.stage)

    def exits_zero(self) -> bool:
        """Whether the run ends with 0, whatever Luigi says: that is for what several hosts share."""
        return False

    @cached_property
    def job(self) -> Job:
        """The parameters and settings, checked.

        Raises:
            PipelineError: one of them is not right.
        """
        request = Parameters(**{item.name: getattr(self, item.name) or "" for item in fields(Parameters)})
        job = job_of(request, read_settings(), read_operations())
        if self.stage not in stages_of(job):
            kind = "with a candidate" if job.candidate else "that starts at a checkpoint"
            raise SettingError(
                f"a chain {kind} has no {self.task_family}",
                where="--candidate" if job.candidate else "--checkpoint",
                got=self.candidate if job.candidate else self.checkpoint,
                wanted=f"one of {', '.join(dict.fromkeys(TASKS[stage].__name__ for stage in stages_of(job)))}",
            )
        return job

    def requires(self) -> Iterable[luigi.Task]:
        """The tasks of the stages that this one reads, and the data file."""
        stage = stages_of(self.job)[self.stage]
        for upstream in stage.reads:
            # These are parameters of MakeFormat alone.
            more = {"format": upstream, "may_refuse": True} if TASKS[upstream] is MakeFormat else {}
            yield self.clone(TASKS[upstream], **more)
        if stage.uses_data and self.job.data is not None:
            yield DataFile(path=str(self.job.data))
        if stage.uses_data and self.checkpoint:
            yield ExistingCheckpoint(path=self.checkpoint)
        if stage.uses_candidate:
            yield ExistingCandidate(path=self.candidate)

    def output(self) -> luigi.LocalTarget:
        """The artifact's folder."""
        return luigi.LocalTarget(str(self.job.paths.artifact(self.stage)))

    def complete(self) -> bool:
        """Whether the artifact is what it would be if made now, with all that it hangs on."""
        return plan.examine(self.job, self.stage)[self.stage].is_complete

    def run(self) -> None:
        """Makes the artifact, in a process of its own where TensorFlow is needed."""
        plan.build(self.job, self.stage)


class BuildGraph(ModelTask):
    """Builds the graphs: one to train, one to deploy."""

    makes = "graph"


class TrainModel(ModelTask):
    """Trains the model, or goes on with a training that was killed."""

    makes = "training"


class SaveCheckpoint(ModelTask):
    """Exports the checkpoint that is deployed: the inference graph, its variables, the goldens."""

    makes = "checkpoint"


class FreezeModel(ModelTask):
    """Freezes the checkpoint into one .pb."""

    makes = "frozen"


class MakeFormat(ModelTask):
    """Makes one format, such as mmap or savedmodel; one that cannot carry the model is an error."""

    format = luigi.Parameter(default="", description="the format to make, one of those that --formats takes")
    may_refuse = luigi.BoolParameter(
        significant=False,
        visibility=ParameterVisibility.PRIVATE,
        description="leave it to the validation to tell that the format cannot carry the model",
    )

    @property
    def stage(self) -> str:
        """The format's stage."""
        return known_format("--format", self.format)

    def complete(self) -> bool:
        """Whether the format is there; or its refusal, where the validation is going to tell it."""
        return super().complete() and (self.may_refuse or self._refusal() is None)

    def run(self) -> None:
        """Makes the format; a refusal is written down, and told again without trying again.

        Raises:
            FreezeError: the format cannot carry the model, and no validation is going to tell it.
        """
        super().run()
        refusal = self._refusal()
        if refusal is not None and not self.may_refuse:
            raise FreezeError(refusal)

    def _refusal(self) -> str | None:
        return read_refusal(self.job.folder(self.stage))


class AdoptCandidate(ModelTask):
    """Takes the file that is named with --candidate, and pairs its inputs and outputs with the checkpoint's."""

    makes = CANDIDATE


class ValidateModel(ModelTask):
    """Proves each format equal to its checkpoint, or fails."""

    makes = "validation"

    def complete(self) -> bool:
        """Whether the comparison is done and has passed."""
        return super().complete() and read_verdict(self.job)["verdict"] == "passed"

    def run(self) -> None:
        """Compares; a comparison that failed is written down and reported too, and fails again without being redone.

        Raises:
            ValidationFailed: a format is not proven equal.
        """
        super().run()
        if read_verdict(self.job)["verdict"] != "passed":
            for stage in ("costs", "report"):
                plan.build(self.job, stage)
        require_passed(self.job)


class MeasureCosts(ModelTask):
    """Measures what the checkpoint and each format cost: size, start, latency, throughput, memory."""

    makes = "costs"

    def requires(self) -> Iterable[luigi.Task]:
        """What it measures; and the validation, so that nothing of this chain is at work at the same time."""
        yield from super().requires()
        yield self.clone(ValidateModel)


class WriteReport(ModelTask):
    """Writes the report on the whole chain."""

    makes = "report"

    def complete(self) -> bool:
        """Whether the report is there and tells of a model that has passed."""
        return super().complete() and read_verdict(self.job)["verdict"] == "passed"


TASKS: dict[str, type[ModelTask]] = {
    **dict.fromkeys(CANDIDATES, MakeFormat),
    **{task.makes: task for task in (BuildGraph, TrainModel, SaveCheckpoint, FreezeModel, AdoptCandidate)},
    **{task.makes: task for task in (ValidateModel, MeasureCosts, WriteReport)},
}


def start_root(task: Any) -> None:
    """Prepares a run from the command line: how it talks, and what the root itself has to do first."""
    console.start_run(task.summary_lines, task.exits_zero)
    task.start()


# Whoever loads the tasks, by whatever import, has the settings and the closing lines with them, once.
find_config()
console.set_up()
ROOT_HOOKS.append(start_root)
