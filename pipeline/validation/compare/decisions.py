"""Decisions of candidates, compared with their checkpoint's and with labels.

Only counts are kept, and those of two parts of the rows can be added, so memory does not grow with the rows.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from pipeline.signature import Array, Decision

MAX_SHOWN_FLIPS, _MOST_CLASSES = 10, 10
_BINS, _CALIBRATION_BINS = 20, 10
_UNIT = 2**32  # scores are summed as integer multiples of 1/_UNIT, so that the order of rows does not matter


@dataclass
class Scores:
    """Counts of one side's decisions by true class, and of its scores by bin.

    A row's score is the deciding output for a threshold, and the largest output for an argmax.

    Args:
        bins: bin edges of the distribution, ascending, float64 `[21]`; scores beyond them count in the outer bins.
    """

    decision: Decision
    bins: Array
    confusion: Counter[tuple[int, int]] = field(default_factory=Counter)  # (true, decided)
    by_label: dict[int, Array] = field(default_factory=dict)  # int64 [20] each; -1 where there are no labels
    # rows, scores, hits
    _calibration: Array = field(default_factory=lambda: np.zeros((3, _CALIBRATION_BINS), np.int64))
    _is_probability: bool = True

    def add(self, output: Array, labels: Array | None) -> None:
        """Adds a batch.

        Args:
            output: see `decide`.
            labels: true classes, int `[rows]`; None if unknown.
        """
        decided, scores = decide(output, self.decision), _scores(output, self.decision)
        row_labels = np.full(len(scores), -1) if labels is None else labels
        bins = np.clip(np.searchsorted(self.bins, scores, side="right") - 1, 0, _BINS - 1)
        for label in np.unique(row_labels):
            counts = np.bincount(bins[row_labels == label], minlength=_BINS)
            self.by_label[int(label)] = self.by_label.get(int(label), 0) + counts
        if labels is None:
            return
        pairs, counts = np.unique(np.stack([labels, decided]), axis=1, return_counts=True)
        self.confusion.update(
            {(int(true), int(given)): int(n) for (true, given), n in zip(pairs.T, counts, strict=True)}
        )
        self._is_probability &= bool(np.all((scores >= 0) & (scores <= 1)))
        if self._is_probability:
            hits = labels == 1 if self.decision.threshold is not None else labels == decided
            bins = np.minimum((scores * _CALIBRATION_BINS).astype(np.int64), _CALIBRATION_BINS - 1)
            for row, weights in enumerate((np.ones(len(scores)), np.rint(scores * _UNIT), hits.astype(np.float64))):
                # These are integers far below 2^53, so their float64 sums are exact.
                self._calibration[row] += np.bincount(bins, weights, _CALIBRATION_BINS).astype(np.int64)

    def merge(self, later: Scores) -> None:
        """Adds the counts of later rows, made with the same bins."""
        for label, counts in later.by_label.items():
            self.by_label[label] = self.by_label.get(label, 0) + counts
        self.confusion.update(later.confusion)
        self._is_probability &= later._is_probability
        self._calibration += later._calibration

    def metrics(self) -> dict[str, Any]:
        """Computes the figures of `classification`; empty without labels."""
        return classification(self.confusion, self.decision) if self.confusion else {}

    def to_dict(self) -> dict[str, Any]:
        """Converts distribution and calibration to their form in verdict.json."""
        by_name = {
            _class_name(label, self.decision): counts.tolist() for label, counts in sorted(self.by_label.items())
        }
        return {"edges": self.bins.tolist(), "by_label": by_name, "calibration": self._calibration_table()}

    def _calibration_table(self) -> list[dict[str, Any]]:
        if not self.confusion or not self._is_probability:
            return []
        bins = np.linspace(0, 1, _CALIBRATION_BINS + 1)
        return [
            {
                "low": float(bins[index]),
                "high": float(bins[index + 1]),
                "rows": int(rows),
                "mean_score": int(scores) / (int(rows) * _UNIT) if rows else None,
                "share": int(hits) / int(rows) if rows else None,
            }
            for index, (rows, scores, hits) in enumerate(self._calibration.T)
        ]


@dataclass
class ClassFlips:
    """Counts of one class.

    Args:
        rows: that the checkpoint decides for it.
        lost: of these, rows that the candidate decides otherwise.
        gained: rows that the candidate alone decides for it.
        hits: rows with this label that the checkpoint decides rightly; 0 without labels.
        missed: of these, rows that the candidate does not.
    """

    rows: int = 0
    lost: int = 0
    gained: int = 0
    hits: int = 0
    missed: int = 0

    @property
    def share(self) -> float:
        """The largest share of its rows that were lost, missed or gained."""
        return max((self.lost + self.gained) / max(1, self.rows), self.missed / max(1, self.hits))

    def merge(self, later: ClassFlips) -> None:
        """Adds the counts of later rows."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(later, each.name))


@dataclass
class Flips:
    """Counts of the rows on which a candidate's decision differs from its checkpoint's.

    Args:
        nearest_row: the row closest to another decision in the checkpoint; None before the first row.
        by_class: counts by class.
    """

    decision: Decision
    rows: int = 0
    flipped: int = 0
    nearest_row: int | None = None
    nearest_distance: float = float("inf")
    by_class: dict[int, ClassFlips] = field(default_factory=dict)
    _surest: list[tuple[float, int, int, int]] = field(default_factory=list)

    def add(
        self, reference: Array, candidate: Array, numbers: range, labels: Array | None = None
    ) -> tuple[Array, Array]:
        """Adds a batch.

        Args:
            reference, candidate: see `decide`.
            numbers: the row numbers.
            labels: true classes, int `[rows]`; None if unknown.

        Returns:
            The decisions of both, int64 `[rows]`.
        """
        expected, actual = decide(reference, self.decision), decide(candidate, self.decision)
        distances = np.nan_to_num(margins(reference, self.decision), nan=np.inf)
        self.rows += len(expected)
        self.flipped += int((expected != actual).sum())
        self._count_classes(expected, actual, labels)
        nearest = int(np.argmin(distances))
        self._update_nearest(numbers[nearest], float(distances[nearest]))
        for index in np.flatnonzero(expected != actual):
            self._keep_surest((float(distances[index]), -numbers[index], int(expected[index]), int(actual[index])))
        return expected, actual

    def merge(self, later: Flips) -> None:
        """Adds the counts of later rows."""
        self.rows += later.rows
        self.flipped += later.flipped
        for number, counts in later.by_class.items():
            self.by_class.setdefault(number, ClassFlips()).merge(counts)
        if later.nearest_row is not None:
            self._update_nearest(later.nearest_row, later.nearest_distance)
        for item in later._surest:
            self._keep_surest(item)

    def _count_classes(self, expected: Array, actual: Array, labels: Array | None) -> None:
        has_flipped, hits = expected != actual, np.zeros(len(expected), bool) if labels is None else labels == expected
        for name, classes, which in (
            ("rows", expected, np.ones_like(has_flipped)),
            ("lost", expected, has_flipped),
            ("gained", actual, has_flipped),
            ("hits", expected, hits),
            ("missed", expected, hits & has_flipped),
        ):
            for number, count in zip(*np.unique(classes[which], return_counts=True), strict=True):
                counts = self.by_class.setdefault(int(number), ClassFlips())
                setattr(counts, name, getattr(counts, name) + int(count))

    def lost_class(self, share: float) -> str:
        """Says which class has more flips than its share allows, by the most; nothing if none has.

        A class of few rows may lose one, whatever the share.
        """
        worst, sentence = 0.0, ""
        for number, counts in sorted(self.by_class.items()):
            name = _class_name(number, self.decision)
            for flips, of, what in (
                (counts.lost, counts.rows, "that the checkpoint decides for it are decided otherwise"),
                (counts.missed, counts.hits, "with this label, which the checkpoint decides rightly, are missed"),
                (counts.gained, counts.rows, "are new in it, beside its own {}"),
            ):
                allowed = max(1, int(share * of))
                if flips > allowed and flips / max(1, of) > worst:
                    worst, count = flips / max(1, of), str(flips) if "{}" in what else f"{flips} of {of}"
                    sentence = f"class {name}: {count} rows {what.format(of)}; allowed are {allowed}"
        return sentence

    def _update_nearest(self, row: int, distance: float) -> None:
        if distance < self.nearest_distance or self.nearest_row is None:
            self.nearest_row, self.nearest_distance = row, distance

    def _keep_surest(self, item: tuple[float, int, int, int]) -> None:
        """Keeps the surest rows; the heap has the least sure one on top, to be replaced first."""
        (heapq.heappush if len(self._surest) < MAX_SHOWN_FLIPS else heapq.heappushpop)(self._surest, item)

    @property
    def surest(self) -> list[dict[str, Any]]:
        """Up to ten flipped rows, those with the checkpoint's surest decisions first."""
        return [
            {
                "row": -row,
                "reference": _class_name(expected, self.decision),
                "candidate": _class_name(actual, self.decision),
                "distance": distance if np.isfinite(distance) else None,
            }
            for distance, row, expected, actual in sorted(self._surest, reverse=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Converts the flips to their form in verdict.json."""
        return {
            "rows": self.rows,
            "flipped": self.flipped,
            "nearest_row": self.nearest_row,
            "nearest_distance": self.nearest_distance if np.isfinite(self.nearest_distance) else None,
            "flips": self.surest,
            "classes": self._classes_to_dict(),
        }

    def _classes_to_dict(self) -> list[dict[str, Any]]:
        """Returns the counts of the classes with most flips for their rows."""
        ordered = sorted(self.by_class.items(), key=lambda item: (-item[1].share, item[0]))
        return [
            {"class": _class_name(number, self.decision), **asdict(counts)}
            for number, counts in ordered[:_MOST_CLASSES]
            if counts.lost or counts.gained
        ]


def score_bins_for(output: Array, decision: Decision) -> Array:
    """Chooses the edges of 20 bins for scores like those of a batch: 0 to 1 if all are within, else min to max."""
    scores = _scores(output, decision)
    finite = scores[np.isfinite(scores)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    return np.linspace(0, 1, _BINS + 1) if low >= 0 and high <= 1 else np.linspace(low, max(high, low + 1), _BINS + 1)


def has_decisions(output: Array, decision: Decision, rows: int) -> bool:
    """Returns True if an output decides each row: float `[rows]` or `[rows, 1]` for a threshold, else `[rows, n]`."""
    if not output.ndim or len(output) != rows or output.dtype.kind in "OSUb":
        return False
    return output.size == rows if decision.threshold is not None else output.ndim == 2 and output.shape[1] > 0


def _scores(output: Array, decision: Decision) -> Array:
    wide = output.astype(np.float64)
    return wide.max(axis=-1) if decision.threshold is None else wide.reshape(len(wide))


def _class_name(index: int, decision: Decision) -> str:
    if index < 0:
        return "all"
    return decision.labels[index] if index < len(decision.labels) else str(index)


def decide(output: Array, decision: Decision) -> Array:
    """Decides the class of each row.

    Args:
        output: float `[rows]` for a threshold, `[rows, classes]` for an argmax.

    Returns:
        int64 `[rows]`; a NaN decides for class 0 at a threshold.
    """
    if decision.threshold is None:
        return np.asarray(np.argmax(output.astype(np.float64), axis=-1))
    return (output.reshape(len(output)).astype(np.float64) >= decision.threshold).astype(np.int64)


def margins(output: Array, decision: Decision) -> Array:
    """Measures the distance of each row from another decision: float64 `[rows]`."""
    wide = output.astype(np.float64)
    if decision.threshold is None:
        ascending = np.sort(wide, axis=-1)
        return np.asarray(ascending[..., -1] - ascending[..., -2]) if wide.shape[-1] > 1 else np.full(len(wide), np.inf)
    return np.abs(wide.reshape(len(wide)) - decision.threshold)


def classification(confusion: Mapping[tuple[int, int], int], decision: Decision) -> dict[str, Any]:
    """Computes accuracy, precision, recall, F1 and the confusion matrix.

    Precision, recall and F1 are those of class 1 for a threshold, and unweighted means over the
    classes for an argmax; 0 where they would divide by zero.

    Args:
        confusion: number of rows by true and decided class; not empty.

    Returns:
        The figures by name; `confusion` has a row per true class and a column per decided class.
    """
    from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

    pairs = np.array(list(confusion), np.int64).reshape(-1, 2)
    (labels, decided), counts = pairs.T, np.array(list(confusion.values()))
    classes = max(int(pairs.max()) + 1, len(decision.labels), 2)
    names = list(decision.labels) + [str(index) for index in range(len(decision.labels), classes)]
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels,
        decided,
        labels=range(classes),
        average="binary" if decision.threshold is not None else "macro",
        sample_weight=counts,
        zero_division=0,
    )
    return {
        "rows": int(counts.sum()),
        "accuracy": float(accuracy_score(labels, decided, sample_weight=counts)),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "labels": names,
        "confusion": confusion_matrix(
            labels, decided, labels=range(classes), sample_weight=counts.astype(np.int64)
        ).tolist(),
    }
