"""Luigi task for one night."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import luigi
import luigi.tools.range  # loaded because this declares sections of tasks.cfg
from luigi.cmdline_parser import CmdlineParser
from luigi.target import FileSystemTarget
from luigi.task import MixinNaiveBulkComplete

from pipeline.errors import PipelineError, SettingError, StoreError, logger
from pipeline.settings import NightlySettings, StoreSettings
from pipeline.store.artifact import ArtifactState, ArtifactStatus, is_url
from pipeline.store.file_names import NIGHTS_PAGE_FILE, REPORT_FILE

from ..chain.job import Job
from ..command_line import is_our_command
from ..config import read_operations, read_settings
from ..external import DataFile, ExistingCheckpoint
from ..model import ROOT_HOOKS, ModelTask, one_training
from ..progress import show_link
from ..targets import artifact_target

if TYPE_CHECKING:
    from .history import Night
    from .paths import Nights

_STARTED = datetime.now(UTC).replace(microsecond=0)
_MOST_SHOWN = 20


class NightlyRun(MixinNaiveBulkComplete, ModelTask):
    """Make one night: the whole chain on that day's data, compared with the night before.

    Luigi's ranges ask for the completeness of many nights at once: nights are complete by their own rule, which the
    existence of a folder does not tell.
    """

    date = luigi.DateParameter(description="the day whose data it is, such as 2026-11-25")
    makes = "report"
    _is_range_prepared = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        command = CmdlineParser.get_instance()
        is_range = (
            command is not None
            and command.known_args.root_task.startswith("Range")
            and is_our_command(command.known_args)
        )
        if is_range and not NightlyRun._is_range_prepared:
            NightlyRun._is_range_prepared = True
            for hook in ROOT_HOOKS:
                hook(self)

    @classmethod
    def get_params(cls) -> list[tuple[str, luigi.Parameter[Any]]]:
        """Return the parameters, the date first: Luigi's ranges give the day to the first one."""
        parameters: Any = super().get_params()
        return sorted(parameters, key=lambda item: item[0] != "date")

    @property
    def night(self) -> str:
        """The date, which is the name of the folder."""
        day: date = self.date
        return day.isoformat()

    @property
    def resources(self) -> dict[str, int]:  # type: ignore[override]  # as Luigi's documentation does
        """One night of a name at a time, with any number of workers: each night is compared with the one before."""
        try:
            place = self.nights.place()
            name = f"nights of {place if is_url(place) else os.path.abspath(place)}"
            return {name: 1, **(one_training() if "training" in self.chain.stages else {})}
        except PipelineError:  # Luigi asks for them even if the task cannot be scheduled, for this reason
            return {}

    @property
    def priority(self) -> int:  # type: ignore[override]
        """Oldest night first; the scheduler treats negative priorities as zero."""
        day: date = self.date
        return date.max.toordinal() - day.toordinal()

    @cached_property
    def settings(self) -> NightlySettings:
        """`[nightly]`."""
        return read_operations().nightly

    @cached_property
    def day_job(self) -> Job:
        """The job on the day's data; its paths are those of all nights.

        Raises: as `ModelTask.make_job`.
        """
        if self.parameters.candidate:
            raise SettingError(
                "a night makes its formats and takes no candidate",
                where="--candidate",
                got=self.parameters.candidate,
                next_step="Use WriteReport --candidate",
            )
        if self.force_stage:
            raise SettingError(
                "a night is made as a whole, and is history once it has passed",
                where="--force-stage",
                got=self.force_stage,
                next_step="Delete the night's folder to make it again",
            )
        given = self.parameters
        day = replace(given, data=data_of(given.data or self.settings.data, self.date))
        return Job.from_parameters(day, read_settings(), read_operations())

    @cached_property
    def nights(self) -> Nights:
        """All nights of this name.

        Raises: as `day_job`.
            SettingError: they are those of another model.
        """
        from .remote import nights_of  # this and `history` are not needed by other tasks

        nights = nights_of(self.day_job.paths, self.day_job.remote)
        _refuse_other_model(self.day_job, nights)
        return nights

    def make_job(self) -> Job:
        """Check the parameters and settings, and make a job of them whose paths are those of the night.

        Raises: as `ModelTask.make_job`.
        """
        from pipeline.report.facts import Overview  # most runs have no nights

        job = self.day_job
        remote = None if job.remote is None else job.remote.below(self.night)
        # All bytes of a night that is made again are looked at.
        operations = replace(job.operations, store=StoreSettings("always"))
        overview = Overview(f"the nights of {self.nights.name}", f"../../{NIGHTS_PAGE_FILE}")
        return replace(job, paths=self.nights.of(self.night), remote=remote, operations=operations, overview=overview)

    def start(self) -> None:
        """Prepare a run with this task as root: clean up after killed runs."""
        from .history import restore_current

        super().start()
        try:
            restore_current(self.nights)
        except PipelineError as exc:  # a night that is complete is not run, and would not report it
            logger.error("%s", exc)

    def requires(self) -> Iterable[luigi.Task]:
        """Return the day's data, and the checkpoint if the chain starts at one."""
        if self.job.data is not None:
            yield DataFile(path=str(self.job.data))
        if self.parameters.checkpoint:
            yield ExistingCheckpoint(path=self.parameters.checkpoint)

    def output(self) -> FileSystemTarget:
        """Return the outcome of the night: a folder, or what is published under the URL of the output root."""
        from .paths import NIGHT

        return artifact_target(self.job.paths, self.job.remote, NIGHT)

    def complete(self) -> bool:
        """Return True if the night has passed and is unchanged, or was removed in favour of newer ones."""
        from .history import is_done

        return is_done(self.nights, self.night, self.day_job.operations.store.is_full)

    def examine(self) -> dict[str, ArtifactState]:
        """Return the state of the night, and of its chain if the night still has to be made."""
        from .history import read_history
        from .paths import NIGHT

        if self.complete():
            return {NIGHT: ArtifactState(ArtifactStatus.COMPLETE)}
        known = read_history(self.nights).get(self.night)
        reason = "it was not made yet"
        if known is not None:
            reason = f"it failed: {known.reason}" if not known.has_passed else "it was changed after it was finished"
        status = ArtifactStatus.MISSING if known is None else ArtifactStatus.STALE
        return {**self.chain.examine(self.stage), NIGHT: ArtifactState(status, (reason,))}

    def run(self) -> None:
        """Make the night, and send its notifications.

        Raises:
            PipelineError: the night failed.
        """
        from .notify import check_notifications, mail_recovery, run_hook
        from .run import run_night

        check_notifications(self.settings, self.nights.name)
        show_link(self, self.job.display_path("report", REPORT_FILE))
        outcome = run_night(self.chain, self.nights, self.settings)
        if outcome is None:
            return
        run_hook(self.settings, self.nights, outcome)
        mail_recovery(self.nights, outcome)
        if outcome.error is not None:
            raise outcome.error

    def show_stage(self, stage: str, line: str, share: float) -> None:
        """Show in luigid how far the night is."""
        stages = self.chain.up_to()
        super().show_stage(stage, line, (stages.index(stage) + share) / len(stages))

    def summary_lines(self) -> list[str]:
        """Return the nights that this run has made, or else the requested one, and the current one."""
        from .history import read_history
        from .paths import CURRENT

        history = read_history(self.nights)
        shown = [night for night in history.values() if night.finished >= _STARTED.isoformat()]
        shown = shown or [night for night in history.values() if night.date == self.night]
        lines = [f"{night.date}   {_describe(night)}" for night in shown[-_MOST_SHOWN:]]
        if (current := self.nights.current) is not None:
            lines.append(f"current      {self.nights.place(CURRENT)} -> {current}")
        return [*lines, f"nights       {self.nights.place(NIGHTS_PAGE_FILE)}"] if history else lines


def _refuse_other_model(job: Job, nights: Nights) -> None:
    """Refuse to go on with the nights of another class. Raises: as `Job.refuse_other_model`."""
    with suppress(StoreError):  # the run that reads it reports what is wrong with it
        if (current := nights.current) is not None:
            job.refuse_other_model(nights.manifest(current, "graph"))


def _describe(night: Night) -> str:
    if not night.has_passed:
        return f"{night.verdict}: {night.reason}"
    if night.compared_with is None:
        return f"{night.verdict}: there was no night to compare it with"
    if night.changed is None:
        return f"{night.verdict}: compared with {night.compared_with}, nothing in it decides"
    return f"{night.verdict}: {night.changed} of {night.rows} decisions changed since {night.compared_with}"


def data_of(pattern: str, day: date) -> str:
    """Return the data file of a day.

    Args:
        pattern: a path with `{date}`, or `{year}`, `{month}` and `{day}`.

    Raises:
        SettingError: the pattern has another placeholder.
    """
    year, month, number = day.isoformat().split("-")
    try:
        return pattern.format_map({"date": day.isoformat(), "year": year, "month": month, "day": number})
    except (KeyError, ValueError, IndexError, AttributeError) as exc:
        raise SettingError(
            "not the data file of a day",
            where="[nightly] data, or --data",
            got=pattern,
            wanted="a path with {date}, or {year}, {month} and {day}",
        ) from exc
