"""Luigi tasks, one per stage of the chain."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import fields
from functools import cached_property
from typing import Any, ClassVar

import luigi
from luigi.cmdline_parser import CmdlineParser
from luigi.parameter import ParameterVisibility
from luigi.target import FileSystemTarget

from pipeline.errors import FreezeError, PipelineError, SettingError
from pipeline.formats.registry import CANDIDATES, read_refusal
from pipeline.settings import PASSED
from pipeline.store.artifact import ArtifactState, sweep
from pipeline.store.file_names import REPORT_FILE

from . import console
from .chain.job import CANDIDATE, Job, known_format
from .chain.parameters import Parameters
from .chain.plan import Chain
from .chain.results import read_verdict
from .chain.stages import RESUMABLE
from .command_line import explain_parameters
from .config import read_operations, read_settings, set_up_parsers, with_parameters
from .config_defaults import lend_to_our_sections
from .external import DataFile, ExistingCandidate, ExistingCheckpoint
from .names import NAMESPACE, NamedByGiven
from .progress import show_link, show_progress
from .summary import require_passed, summary_lines
from .targets import artifact_target

# The last stage of the run that the command line asks for, as far as it is known.
_last_stages: list[str] = []
# Called with the root task of a command line before it runs.
ROOT_HOOKS: list[Callable[[Any], None]] = []


def run_root_hooks(task: luigi.Task) -> None:
    """Call the hooks if this is the root task of the command line."""
    command = CmdlineParser.get_instance()
    if command is not None and command.known_args.root_task == task.task_family:
        for hook in ROOT_HOOKS:
            hook(task)


def one_training() -> dict[str, int]:
    """Return Luigi's resource of a training: one at a time on a host, or as many as `[resources]` says."""
    return {f"training_on_{re.sub(r'[^a-z0-9]', '_', socket.gethostname().lower())}": 1}


luigi.namespace(NAMESPACE, scope=__name__)  # of the next class; those after it are documented by their plain names


@with_parameters(Parameters)
class ModelTask(NamedByGiven):
    """A task on one model, with the parameters that all of them have."""

    makes: ClassVar[str]
    _found_complete: dict[str, ArtifactState] | None = None  # which needs no second look at the end of the run
    force_stage = luigi.OptionalParameter(
        default="",
        positional=False,
        description="comma-separated stages to make again although they are complete, such as frozen; a stage after "
        "them runs only if their bytes change",
    )

    @property
    def stage(self) -> str:
        """The stage that this task makes.

        Raises:
            SettingError: there is no stage of that name.
        """
        return self.makes

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        run_root_hooks(self)
        if self.force_stage:
            with suppress(PipelineError):  # Luigi asks for `chain` again, and reports this
                pinned = self.chain.force(self.force_stage, self.stage)
                # As if it had been given: a scheduler hands it to other processes, and another run has another id.
                super().__init__(**{**self.param_kwargs, "force_stage": pinned})

    def start(self) -> None:
        """Prepare a run with this task as root: remove the working files of killed runs."""
        _last_stages[:] = [self.stage]
        sweep(self.job.paths, spare=RESUMABLE)

    def summary_lines(self) -> list[str]:
        """Return the lines to print at the end of a run."""
        return summary_lines(self.chain, self.stage, self._found_complete)

    def exits_zero(self) -> bool:
        """Return True to exit with 0 regardless of Luigi's own exit code; only for work that several hosts share."""
        return False

    @cached_property
    def parameters(self) -> Parameters:
        """The values of the parameters."""
        return Parameters(**{item.name: getattr(self, item.name) or "" for item in fields(Parameters)})

    @property
    def job(self) -> Job:
        """The parameters and settings, checked."""
        return self.chain.job

    @cached_property
    def chain(self) -> Chain:
        """The plan of the job.

        Raises:
            PipelineError: a parameter or a setting is wrong.
        """
        chain = Chain(self.make_job(), self.show_stage)
        job = chain.job
        if self.stage not in chain.stages:
            kind = "with a candidate" if job.candidate else "that starts at a checkpoint"
            raise SettingError(
                f"a chain {kind} has no {self.task_family}",
                where="--candidate" if job.candidate else "--checkpoint",
                got=self.parameters.candidate if job.candidate else self.parameters.checkpoint,
                wanted=f"one of {', '.join(dict.fromkeys(TASKS[stage].__name__ for stage in chain.stages))}",
            )
        if self.force_stage:
            chain.force(self.force_stage, self.stage)
        return chain

    def make_job(self) -> Job:
        """Check the parameters and settings, and make a job of them.

        Raises:
            PipelineError: one of them is wrong.
        """
        return Job.from_parameters(self.parameters, read_settings(), read_operations())

    def requires(self) -> Iterable[luigi.Task]:
        """Return the tasks of the upstream stages, and the external files."""
        stage = self.chain.stages[self.stage]
        for upstream in stage.reads:
            # Only MakeFormat has these parameters.
            more = {"format": upstream, "may_refuse": True} if TASKS[upstream] is MakeFormat else {}
            yield self.clone(TASKS[upstream], **more)
        is_first = not stage.reads and bool(self.parameters.data)  # what was given is looked at before anything is made
        if (stage.uses_data or is_first) and self.job.data is not None:
            yield DataFile(path=str(self.job.data))
        if stage.uses_data and self.parameters.checkpoint:
            yield ExistingCheckpoint(path=self.parameters.checkpoint)
        if stage.uses_candidate:
            yield ExistingCandidate(path=self.parameters.candidate)

    def output(self) -> FileSystemTarget:
        """Return the artifact: a folder, or what is published under the URL of the output root."""
        return artifact_target(self.job.paths, self.job.remote, self.stage)

    def complete(self) -> bool:
        """Return True if the artifact and everything upstream of it are up to date."""
        states = self.chain.examine(self.stage)
        is_complete = states[self.stage].is_complete
        self._found_complete = states if is_complete else None
        return is_complete

    def run(self) -> None:
        """Make the artifact, in a subprocess if that needs TensorFlow."""
        show_link(self, self.job.display_path("report", REPORT_FILE))
        if self.chain.stages[self.stage].starts_tensorflow:
            from pipeline.workers.child import load_meanwhile  # not needed where everything is complete

            load_meanwhile(self.chain.loads_up_to(next(iter(_last_stages), self.stage)))
        self.chain.build(self.stage)

    def show_stage(self, stage: str, line: str, share: float) -> None:
        """Show in luigid how far a stage is that this task makes."""
        show_progress(self, f"{stage}: {line}", round(100 * share))


luigi.namespace(scope=__name__)


class BuildGraph(ModelTask):
    """Build the graphs: one for training, one for deployment."""

    makes = "graph"


class TrainModel(ModelTask):
    """Train the model, or resume an interrupted training."""

    makes = "training"
    resources = one_training()


class SaveCheckpoint(ModelTask):
    """Export the checkpoint to deploy: the inference graph, its variables, the goldens."""

    makes = "checkpoint"


class FreezeModel(ModelTask):
    """Freeze the checkpoint into one .pb."""

    makes = "frozen"


class MakeFormat(ModelTask):
    """Make one format, such as mmap or savedmodel; fail if the format cannot represent the model."""

    format = luigi.Parameter(default="", description="the format to make, one of those that --formats accepts")
    may_refuse = luigi.BoolParameter(
        significant=False,
        visibility=ParameterVisibility.PRIVATE,
        description="succeed if the format cannot represent the model, because the validation reports that",
    )

    @property
    def stage(self) -> str:
        """The stage of the format."""
        return known_format("--format", self.format)

    def complete(self) -> bool:
        """Return True if the format is up to date; or its refusal, if the validation is going to report that."""
        return super().complete() and (self.may_refuse or self._refusal() is None)

    def run(self) -> None:
        """Make the format; a refusal is stored, and reported again without another attempt.

        Raises:
            FreezeError: the format cannot carry the model, and no validation will report that.
        """
        super().run()
        refusal = self._refusal()
        if refusal is not None and not self.may_refuse:
            raise FreezeError(refusal)

    def _refusal(self) -> str | None:
        return read_refusal(self.job.folder(self.stage))


class AdoptCandidate(ModelTask):
    """Import the file that --candidate names, and match its inputs and outputs with the checkpoint's."""

    makes = CANDIDATE


class ValidateModel(ModelTask):
    """Prove that each format is equal to its checkpoint, or fail."""

    makes = "validation"

    def complete(self) -> bool:
        """Return True if the comparison is up to date and has passed."""
        return super().complete() and read_verdict(self.job)["verdict"] == PASSED

    def run(self) -> None:
        """Compare; a failed comparison is stored and reported too, and fails again without being repeated.

        Raises:
            ValidationFailed: a format is not proven equal.
        """
        super().run()
        if read_verdict(self.job)["verdict"] != PASSED:
            for stage in ("costs", "report"):
                self.chain.build(stage)
        require_passed(self.job)


class MeasureCosts(ModelTask):
    """Measure the cost of the checkpoint and of each format: size, start, latency, throughput, memory."""

    makes = "costs"

    def requires(self) -> Iterable[luigi.Task]:
        """Return the formats to measure; and the validation, so that no other stage runs during the measurement."""
        yield from super().requires()
        yield self.clone(ValidateModel)


class WriteReport(ModelTask):
    """Write the report on the whole chain."""

    makes = "report"

    def complete(self) -> bool:
        """Return True if the report is up to date and the model has passed."""
        return super().complete() and read_verdict(self.job)["verdict"] == PASSED


TASKS: dict[str, type[ModelTask]] = {
    **dict.fromkeys(CANDIDATES, MakeFormat),
    **{task.makes: task for task in (BuildGraph, TrainModel, SaveCheckpoint, FreezeModel, AdoptCandidate)},
    **{task.makes: task for task in (ValidateModel, MeasureCosts, WriteReport)},
}


def start_root(task: Any) -> None:
    """Prepare a run from the command line: the console, then the root task itself."""
    console.start_run(task.summary_lines, task.exits_zero)
    task.start()


# Loading the tasks, by any import, also sets up configuration and console, once.
lend_to_our_sections()
set_up_parsers()
explain_parameters()
console.set_up()
ROOT_HOOKS.append(start_root)
