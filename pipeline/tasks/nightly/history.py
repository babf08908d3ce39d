"""`history.csv`: a line for each night, including those whose folders were removed."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import lru_cache
from itertools import chain
from typing import Any

from pipeline.errors import DamagedArtifact, DataError
from pipeline.report.csv_cells import read_cell, write_cells
from pipeline.settings import FAILED, PASSED
from pipeline.store.artifact import hold
from pipeline.store.file_names import HISTORY_FILE
from pipeline.store.folder import NotRegular

from .paths import NIGHT, Nights, damaged_record

_GROUPS = {"metrics": "metric_", "sizes": "size_bytes_", "latencies": "latency_ms_", "seconds": "seconds_"}


@dataclass(frozen=True)
class Night:
    """The result of a night.

    Args:
        reason: why the night failed; empty if it passed.
        compared_with: the night whose rows its model answered; None if there was none.
        rows, changed: the number of these rows, and of those with another decision; None if the model decides nothing.
        largest_difference: of any output, on the same rows; infinite where only one of two values is a number.
        metrics: on its own validation rows, by name.
        sizes, latencies: bytes, and the median milliseconds for the smallest batch, by format.
        seconds: the time that each stage took.
        digest: of the compared artifact.
        finished: the time, as an ISO date with its zone.
        is_removed: whether its folder was removed because of newer nights.
        comparisons: the number of lines of its results.csv; None if it was not counted.
    """

    date: str
    verdict: str
    reason: str = ""
    compared_with: str | None = None
    rows: int | None = None
    changed: int | None = None
    largest_difference: float | None = None
    digest: str = ""
    finished: str = ""
    is_removed: bool = False
    comparisons: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    sizes: Mapping[str, float] = field(default_factory=dict)
    latencies: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def has_passed(self) -> bool:
        return self.verdict == PASSED

    @property
    def changed_share(self) -> float | None:
        """The share of decisions that changed, from 0 to 1."""
        return self.changed / self.rows if self.rows and self.changed is not None else None

    def to_row(self) -> dict[str, Any]:
        """Return the line of history.csv, by column; None is left empty."""
        share = self.changed_share
        return {
            "date": self.date,
            "verdict": self.verdict,
            "reason": " ".join(self.reason.split()),
            "compared_with": self.compared_with,
            "rows": self.rows,
            "changed": self.changed,
            "changed_share": None if share is None else round(share, 6),
            "largest_difference": self.largest_difference,
            "digest": self.digest,
            "finished": self.finished,
            "removed": "yes" if self.is_removed else "no",
            "comparisons": self.comparisons,
            **{prefix + key: value for group, prefix in _GROUPS.items() for key, value in getattr(self, group).items()},
        }

    @classmethod
    def from_row(cls, row: Mapping[str, str]) -> Night:
        """Read a line of history.csv.

        Raises:
            ValueError, KeyError: a value is wrong or missing.
        """
        groups: dict[str, dict[str, float]] = {group: {} for group in _GROUPS}
        for column, value in row.items():
            for group, prefix in _GROUPS.items():
                if value and column.startswith(prefix):
                    groups[group][column.removeprefix(prefix)] = int(value) if value.isdecimal() else float(value)
        return cls(
            date=date.fromisoformat(row["date"]).isoformat(),
            verdict=row["verdict"],
            reason=row["reason"],
            compared_with=row["compared_with"] or None,
            rows=int(row["rows"]) if row["rows"] else None,
            changed=int(row["changed"]) if row["changed"] else None,
            largest_difference=float(row["largest_difference"]) if row["largest_difference"] else None,
            digest=row["digest"],
            finished=row["finished"],
            is_removed=row["removed"] == "yes",
            comparisons=int(row["comparisons"]) if row.get("comparisons") else None,
            **groups,
        )


def _require_kinds(night: Night) -> Night:
    """Check the values of a record, which may come from a bucket or a folder that others can write to.

    Raises:
        TypeError, ValueError: one is not of its kind.
    """
    if night.verdict not in (PASSED, FAILED):
        raise ValueError(f"the verdict {night.verdict}")
    texts = (night.date, night.reason, night.compared_with or "", night.digest, night.finished)
    counts = [count for count in (night.rows, night.changed, night.comparisons) if count is not None]
    groups = [getattr(night, group) for group in _GROUPS]
    if not all(isinstance(text, str) for text in texts) or not all(_is_number(count, int) for count in counts):
        raise TypeError("a text or a number of rows is something else")
    if not all(isinstance(group, Mapping) and all(map(_is_number, group.values())) for group in groups):
        raise TypeError(f"{' or '.join(_GROUPS)} are no numbers by name")
    return night


def _is_number(value: object, *kinds: type) -> bool:
    """Return True for a number that is not infinite, and of one of the kinds if some are given."""
    is_of_kind = isinstance(value, kinds or (int, float)) and not isinstance(value, bool)
    return is_of_kind and not math.isinf(value)  # type: ignore[arg-type]  # a number


def read_history(nights: Nights) -> dict[str, Night]:
    """Return the result of each night by date, in order: from the night's own record if it exists.

    A night with a damaged record has failed, for that reason; it does not stop the others.

    Raises: as `read_history_file`.
    """
    nights.refresh()
    history = read_history_file(nights)
    for night in nights.kept():
        known = history.get(night, Night(night, FAILED))
        try:
            record = read_record(nights, night)
        except DamagedArtifact as exc:
            record = replace(known, verdict=FAILED, reason=str(exc))
        if record is not None:
            history[night] = replace(record, is_removed=known.is_removed)
    return dict(sorted(history.items()))


def read_history_file(nights: Nights) -> dict[str, Night]:
    """Return the result of each night by date, from history.csv alone.

    Raises:
        DataError: history.csv cannot be read.
    """
    where = nights.place(HISTORY_FILE)
    try:
        content = nights.read(HISTORY_FILE)
    except (OSError, NotRegular) as exc:
        raise _unreadable(where, exc) from exc
    return {} if content is None else dict(_parse(content, where))


@lru_cache(maxsize=4)
def _parse(content: bytes, where: str) -> dict[str, Night]:
    try:
        rows = csv.DictReader(io.StringIO(content.decode(), newline=""))
        found = [Night.from_row({read_cell(name): read_cell(cell) for name, cell in row.items()}) for row in rows]
    except (UnicodeDecodeError, csv.Error, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise _unreadable(where, exc) from exc
    return {night.date: night for night in found}


def _unreadable(where: str, exc: Exception) -> DataError:
    return DataError(
        "the history of the nights cannot be read",
        where=where,
        got=f"{type(exc).__name__}: {exc}",
        next_step="Move it away: existing nights are listed again, removed ones are made again",
    )


def read_record(nights: Nights, night: str) -> Night | None:
    """Return the result in a night's own artifact; None if it has none.

    Raises:
        DamagedArtifact: the record was changed after it was finished.
    """
    found = nights.read_record(night)
    if found is None:
        return None
    manifest, content = found
    try:
        values = json.loads(content)
        if values["date"] != night:
            raise ValueError(f"the record of {values['date']}")
        largest = values.pop("largest_difference")
        values["largest_difference"] = None if largest is None else float(largest)
        return _require_kinds(Night(**values, **manifest.notes[NIGHT]))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise damaged_record(nights, night, exc) from exc


def is_done(nights: Nights, night: str, is_full: bool = False) -> bool:
    """Return True if a night has passed and is intact, or was removed because of newer ones.

    Args:
        is_full: hash all bytes of the night, not only those of the current one.

    Raises: as `read_history_file`.
    """
    nights.refresh()
    try:
        record = read_record(nights, night)
    except DamagedArtifact:  # the run that makes it again reports this
        return False
    if record is None:
        known = read_history_file(nights).get(night)
        return known is not None and known.is_removed
    return record.has_passed and nights.find_problem(night, is_full) is None


def write_history(nights: Nights, history: Mapping[str, Night]) -> None:
    """Write history.csv in one step.

    Raises:
        StoreError: the file cannot be written.
    """
    rows = [night.to_row() for _, night in sorted(history.items())]
    fixed = list(Night("", "").to_row())
    more = [column for prefix in _GROUPS.values() for column in sorted({*chain(*rows)}) if column.startswith(prefix)]
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(write_cells([*fixed, *more]))
    writer.writerows(write_cells(row.get(name, "") for name in (*fixed, *more)) for row in rows)
    nights.write(HISTORY_FILE, file.getvalue().encode())


def nearest_passed(night: str, history: Mapping[str, Night], kept: Iterable[str]) -> str | None:
    """Return the night to compare one with: the newest earlier night that passed and exists; else the oldest later one.

    A later night is used to fill a gap if all earlier nights were removed, or never existed.
    """
    there = [other for other in sorted(kept) if other != night and other in history and history[other].has_passed]
    earlier = [other for other in there if other < night]
    return earlier[-1] if earlier else next(iter(there), None)


def newest_passed(nights: Nights, history: Mapping[str, Night], without: Collection[str] = ()) -> str | None:
    """Return the newest night that passed, exists and is intact."""
    passed = (night for night in passed_nights(nights, history) if night not in without)
    return next((night for night in passed if nights.find_problem(night) is None), None)


def restore_current(nights: Nights) -> None:
    """Make `current` name the newest night that passed, if a run was killed before it did so.

    Raises: as `read_history`.
    """
    kept, current = nights.kept(), nights.current or ""
    if not any(night > current for night in kept):
        return
    with hold(nights.lock, wait=False) as is_held:
        if is_held:
            history = read_history(nights)
            newer = (night for night in passed_nights(nights, history) if night > current)
            # In full: it may be an older one because the newer was found to be damaged under its old time stamp.
            newest = next((night for night in newer if nights.find_problem(night, is_full=True) is None), None)
            if newest is not None:
                nights.set_current(newest)


def passed_nights(nights: Nights, history: Mapping[str, Night]) -> list[str]:
    """Return the nights that passed and exist, the newest first."""
    return [night for night in reversed(nights.kept()) if night in history and history[night].has_passed]


def missing_dates(dates: Iterable[str]) -> list[str]:
    """Return the missing dates between the first and the last of some dates."""
    known = sorted(date.fromisoformat(each) for each in dates)
    if not known:
        return []
    days = (known[0] + timedelta(days=number) for number in range((known[-1] - known[0]).days))
    return [day.isoformat() for day in days if day not in set(known)]
