"""Metrics of the nights as a text file for Prometheus's textfile collector.

The format: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from pipeline.errors import SettingError, logger

from .history import Night
from .paths import Nights

Samples = list[tuple[Mapping[str, str], float]]


def metrics_file(pattern: str, name: str) -> Path:
    """Return the file of the setting `[nightly] metrics_file`.

    Args:
        pattern: a path with `{name}` for the name of the nights.

    Raises:
        SettingError: the pattern has another placeholder.
    """
    try:
        return Path(pattern.format_map({"name": name}))
    except (KeyError, ValueError, IndexError, AttributeError) as exc:
        raise SettingError(
            "not a file name", where="[nightly] metrics_file", got=pattern, wanted="{name} and no other braces"
        ) from exc


def write_metrics(path: Path, nights: Nights, history: Mapping[str, Night]) -> None:
    """Write the file in one step; a failure is only a warning, because it does not change the nights.

    Args:
        history: at least one night.
    """
    fresh = path.with_name(f".{path.name}.new")  # the collector reads what ends in .prom
    try:
        fresh.write_text(prometheus_text(nights, history), encoding="utf-8")
        fresh.replace(path)
    except OSError as exc:
        logger.warning("%s: the metrics cannot be written: %s", path, exc.strerror)


def prometheus_text(nights: Nights, history: Mapping[str, Night]) -> str:
    """Return the metrics of the newest night and of the current one in Prometheus's text format."""
    own = {"name": nights.name}
    lines: list[str] = []
    for metric, (meaning, samples) in _metrics(nights, history).items():
        lines += [f"# HELP {metric} {meaning}", f"# TYPE {metric} gauge"] if samples else []
        lines += [f"{metric}{_labels({**own, **labels})} {value!r}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _metrics(nights: Nights, history: Mapping[str, Night]) -> dict[str, tuple[str, Samples]]:
    newest = history[max(history)]
    passed = [night for night in history.values() if night.has_passed]
    current = history.get(nights.current or "")
    share = newest.changed_share
    return {
        "pipeline_night_passed": ("Whether the newest night passed: 1, or 0.", [({}, float(newest.has_passed))]),
        "pipeline_night_date_seconds": (
            "The newest night's date, as the time of its midnight in UTC.",
            [({}, _seconds(f"{newest.date}T00:00:00+00:00"))],
        ),
        "pipeline_night_last_success_timestamp_seconds": (
            "When the last night that passed was finished.",
            [({}, max(_seconds(night.finished) for night in passed))] if passed else [],
        ),
        "pipeline_night_current_age_seconds": (
            "How old the model that current names was when this was written.",
            [({}, max(0.0, round(time.time() - _seconds(current.finished), 3)))] if current else [],
        ),
        "pipeline_night_changed_decisions": (
            "How many decisions of the newest night are not those of the night before.",
            [({}, float(newest.changed))] if newest.changed is not None else [],
        ),
        "pipeline_night_changed_decisions_ratio": (
            "The same as a share of the rows compared.",
            [({}, share)] if share is not None else [],
        ),
        "pipeline_night_duration_seconds": (
            "How long each stage of the newest night took.",
            [({"stage": stage}, float(seconds)) for stage, seconds in newest.seconds.items()],
        ),
        "pipeline_night_size_bytes": (
            "What each format of the newest night takes on disk.",
            [({"format": format}, float(size)) for format, size in newest.sizes.items()],
        ),
        "pipeline_nights_kept": ("How many nights are kept.", [({}, float(len(nights.kept())))]),
    }


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def _labels(labels: Mapping[str, str]) -> str:
    escapes = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
    return "{" + ",".join(f'{name}="{value.translate(escapes)}"' for name, value in labels.items()) + "}"
