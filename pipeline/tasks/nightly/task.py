"""Luigi task for one night."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Any

import luigi
import luigi.tools.range  # loaded because this declares sections of tasks.cfg
from luigi.cmdline_parser import CmdlineParser
from luigi.task import MixinNaiveBulkComplete

from pipeline.errors import PipelineError, SettingError, StoreError
from pipeline.settings import NightlySettings
from pipeline.store.artifact import ArtifactPaths, ArtifactState, ArtifactStatus
from pipeline.store.manifest import Manifest

from ..chain.job import Job
from ..config import read_operations, read_settings
from ..external import DataFile, ExistingCheckpoint
from ..model import ROOT_HOOKS, ModelTask
from .history import Night, is_done, read_history
from .paths import NIGHT, Nights

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
        is_range = command is not None and command.known_args.root_task.startswith("Range")
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
            return {f"nights of {self.nights.home.absolute()}": 1}
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

    def make_job(self) -> Job:
        """Check the parameters and settings, and make a job of them whose paths are those of the night.

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
        pattern = given.data or self.settings.data
        job = Job.from_parameters(replace(given, data=data_of(pattern, self.date)), read_settings())
        _refuse_other_model(job)
        return replace(job, paths=ArtifactPaths(job.paths.home, self.night))

    @cached_property
    def nights(self) -> Nights:
        """The paths of all nights of this name."""
        home = self.job.paths.root
        return Nights(ArtifactPaths(home.parent, home.name))

    def requires(self) -> Iterable[luigi.Task]:
        """Return the day's data, and the checkpoint if the chain starts at one."""
        if self.job.data is not None:
            yield DataFile(path=str(self.job.data))
        if self.parameters.checkpoint:
            yield ExistingCheckpoint(path=self.parameters.checkpoint)

    def output(self) -> luigi.LocalTarget:
        """Return the folder with the outcome of the night."""
        return luigi.LocalTarget(str(self.job.paths.artifact(NIGHT)))

    def complete(self) -> bool:
        """Return True if the night has passed and is unchanged, or was removed in favour of newer ones."""
        return is_done(self.nights, self.night)

    def examine(self) -> dict[str, ArtifactState]:
        """Return the state of the night, and of its chain if the night still has to be made."""
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
        outcome = run_night(self.chain, self.nights, self.settings)
        if outcome is None:
            return
        run_hook(self.settings, self.nights, outcome)
        mail_recovery(self.nights, outcome)
        if outcome.error is not None:
            raise outcome.error

    def summary_lines(self) -> list[str]:
        """Return the nights that this run has made, or else the requested one, and the current one."""
        history = read_history(self.nights)
        shown = [night for night in history.values() if night.finished >= _STARTED.isoformat()]
        shown = shown or [night for night in history.values() if night.date == self.night]
        lines = [f"{night.date}   {_describe(night)}" for night in shown[-_MOST_SHOWN:]]
        if self.nights.current is not None:
            lines.append(f"current      {self.nights.link} -> {self.nights.current}")
        return [*lines, f"nights       {self.nights.page}"] if history else lines


def _refuse_other_model(job: Job) -> None:
    """Refuse to go on with the nights of another class. Raises: as `Job.refuse_other_model`."""
    with suppress(StoreError):  # there is no night yet, or the run that reads it reports what is wrong with it
        job.refuse_other_model(Manifest.read(Nights(job.paths).link / "graph"))


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
