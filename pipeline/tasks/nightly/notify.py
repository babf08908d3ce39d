"""Notify people of a night: run their own command, and send an e-mail when a night passes after a failed one.

Luigi itself sends an e-mail about a failed night, as for every task: `[email] receiver`.
"""

from __future__ import annotations

import os
import shlex
import subprocess

import luigi.notifications

from pipeline.errors import SettingError, logger
from pipeline.settings import NightlySettings
from pipeline.store.artifact import is_url
from pipeline.store.file_names import NIGHTS_PAGE_FILE

from .paths import NIGHT, Nights
from .prometheus import metrics_file
from .run import Outcome


def check_notifications(settings: NightlySettings, name: str) -> None:
    """Check the hook and the name of the metrics file before a night is made, rather than after.

    Raises:
        SettingError: the hook is not a command line, or the file name has an unknown placeholder.
    """
    _split_hook(settings)
    metrics_file(settings.metrics_file, name)


def _split_hook(settings: NightlySettings) -> list[str]:
    try:
        return shlex.split(settings.hook)
    except ValueError as exc:
        raise SettingError("not a command", where="[nightly] hook", got=settings.hook, wanted=exc) from exc


def run_hook(settings: NightlySettings, nights: Nights, outcome: Outcome) -> None:
    """Run the command; a failure is only a warning, because it does not change the night.

    The command runs without a shell and gets the values through the environment only.
    """
    words = _split_hook(settings)
    if not words:
        return
    night = outcome.night
    values = {
        "EVENT": outcome.event,
        "NAME": nights.name,
        "DATE": night.date,
        "VERDICT": night.verdict,
        "REASON": night.reason,
        "REPORT": _absolute(nights.place(NIGHTS_PAGE_FILE)),
        "NIGHT": _absolute(nights.place(night.date, NIGHT)),
    }
    environment = {**os.environ, **{f"PIPELINE_{key}": value.replace("\0", "") for key, value in values.items()}}
    try:
        done = subprocess.run(
            words,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=settings.hook_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        logger.warning("[nightly] hook: %s took longer than %g s", words[0], settings.hook_seconds)
    except OSError as exc:
        logger.warning("[nightly] hook: %s cannot be run: %s", words[0], exc.strerror)
    else:
        if done.returncode:
            last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            logger.warning("[nightly] hook: %s ended with exit code %d: %s", words[0], done.returncode, last)


def _absolute(place: str) -> str:
    return place if is_url(place) else os.path.abspath(place)


def mail_recovery(nights: Nights, outcome: Outcome) -> None:
    """Send an e-mail to the receivers of the failure, with Luigi's own settings."""
    if outcome.event == "recovered":
        night = outcome.night
        lines = [
            f"The night of {night.date} of {nights.name} passed, after one that had failed.",
            f"current names {nights.current}.",
            f"See {_absolute(nights.place(NIGHTS_PAGE_FILE))}",
        ]
        luigi.notifications.send_error_email(f"Luigi: {nights.name} {night.date} RECOVERED", "\n\n".join(lines))
