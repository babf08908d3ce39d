"""What candidates decide, compared with their checkpoint and with labels: counted batch by batch, never kept.

The counts of two parts of the rows can be added, so that any number of rows takes the same memory.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.signature import Array, Decision

MOST_FLIPS = 10  # rows that are shown
_BINS, _CALIBRATION_BINS = 20, 10
_UNIT = 2**32  # scores are summed as whole numbers of 1/_UNIT, so that the sum is the same in whatever order


@dataclass
class Scores:
    """How one side decides: against the labels, and by the size of its scores.

    A score is the deciding output at a threshold, and the largest of a row for an argmax.

    Args:
        edges: of the bins of the distribution, ascending, float64 `[21]`; what is beyond them counts in the outer ones.
        labels: names by class.
    """

    decision: Decision
    edges: Array
    confusion: Counter[tuple[int, int]] = field(default_factory=Counter)  # (true, decided)
    by_label: dict[int, Array] = field(default_factory=dict)  # int64 [20] each; -1 where there are no labels
    # rows, scores, hits
    _calibration: Array = field(default_factory=lambda: np.zeros((3, _CALIBRATION_BINS), np.int64))
    _is_probability: bool = True

    def add(self, output: Array, labels: Array | None) -> None:
        """Adds a batch.

        Args:
            output: as `metrics.decide` takes it.
            labels: int `[rows]`; None where there are none.
        """
        decided, scores = decide(output, self.decision), _scores(output, self.decision)
        kept = np.full(len(scores), -1) if labels is None else labels
        bins = np.clip(np.searchsorted(self.edges, scores, side="right") - 1, 0, _BINS - 1)
        for label in np.unique(kept):
            counts = np.bincount(bins[kept == label], minlength=_BINS)
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
            places = np.minimum((scores * _CALIBRATION_BINS).astype(np.int64), _CALIBRATION_BINS - 1)
            for row, weights in enumerate((np.ones(len(scores)), np.rint(scores * _UNIT), hits.astype(np.float64))):
                # Whole numbers, far below 2^53: their sums in float64 are exact.
                self._calibration[row] += np.bincount(places, weights, _CALIBRATION_BINS).astype(np.int64)

    def absorb(self, later: Scores) -> None:
        """Adds what was counted on later rows, with the same edges."""
        for label, counts in later.by_label.items():
            self.by_label[label] = self.by_label.get(label, 0) + counts
        self.confusion.update(later.confusion)
        self._is_probability &= later._is_probability
        self._calibration += later._calibration

    def metrics(self) -> dict[str, Any]:
        """The figures of `metrics.classification`; empty where there are no labels."""
        return classification(self.confusion, self.decision) if self.confusion else {}

    def to_dict(self) -> dict[str, Any]:
        """The distribution and the calibration as they stand in verdict.json."""
        named = {_label(label, self.decision): counts.tolist() for label, counts in sorted(self.by_label.items())}
        return {"edges": self.edges.tolist(), "by_label": named, "calibration": self._calibrated()}

    def _calibrated(self) -> list[dict[str, Any]]:
        if not self.confusion or not self._is_probability:
            return []
        edges = np.linspace(0, 1, _CALIBRATION_BINS + 1)
        return [
            {
                "low": float(edges[index]),
                "high": float(edges[index + 1]),
                "rows": int(rows),
                "mean_score": int(scores) / (int(rows) * _UNIT) if rows else None,
                "share": int(hits) / int(rows) if rows else None,
            }
            for index, (rows, scores, hits) in enumerate(self._calibration.T)
        ]


@dataclass
class Flips:
    """The rows that a candidate decides otherwise than its checkpoint.

    Args:
        nearest_row: the row whose decision hangs by the least; None before the first.
    """

    decision: Decision
    rows: int = 0
    flipped: int = 0
    nearest_row: int | None = None
    nearest_distance: float = float("inf")
    _shown: list[tuple[float, int, int, int]] = field(default_factory=list)

    def add(self, reference: Array, candidate: Array, numbers: range) -> tuple[Array, Array]:
        """Adds a batch.

        Args:
            reference, candidate: as `metrics.decide` takes them.
            numbers: those of the rows.

        Returns:
            The decisions of both, int64 `[rows]`.
        """
        ours, theirs = decide(reference, self.decision), decide(candidate, self.decision)
        distances = np.nan_to_num(margins(reference, self.decision), nan=np.inf)
        self.rows += len(ours)
        self.flipped += int((ours != theirs).sum())
        nearest = int(np.argmin(distances))
        self._note_nearest(numbers[nearest], float(distances[nearest]))
        for index in np.flatnonzero(ours != theirs):
            self._show((float(distances[index]), -numbers[index], int(ours[index]), int(theirs[index])))
        return ours, theirs

    def absorb(self, later: Flips) -> None:
        """Adds what was counted on later rows."""
        self.rows += later.rows
        self.flipped += later.flipped
        if later.nearest_row is not None:
            self._note_nearest(later.nearest_row, later.nearest_distance)
        for item in later._shown:
            self._show(item)

    def _note_nearest(self, row: int, distance: float) -> None:
        if distance < self.nearest_distance or self.nearest_row is None:
            self.nearest_row, self.nearest_distance = row, distance

    def _show(self, item: tuple[float, int, int, int]) -> None:
        """Keeps those that were the surest; a heap keeps the least sure on top, ready to leave."""
        (heapq.heappush if len(self._shown) < MOST_FLIPS else heapq.heappushpop)(self._shown, item)

    @property
    def shown(self) -> list[dict[str, Any]]:
        """Up to ten flipped rows, the surest of the checkpoint's decisions first."""
        return [
            {
                "row": -row,
                "reference": _label(ours, self.decision),
                "candidate": _label(theirs, self.decision),
                "distance": distance if np.isfinite(distance) else None,
            }
            for distance, row, ours, theirs in sorted(self._shown, reverse=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        """The flips as they stand in verdict.json."""
        return {
            "rows": self.rows,
            "flipped": self.flipped,
            "nearest_row": self.nearest_row,
            "nearest_distance": self.nearest_distance if np.isfinite(self.nearest_distance) else None,
            "flips": self.shown,
        }


def bins_for(output: Array, decision: Decision) -> Array:
    """The edges of 20 bins for scores like a batch's: 0 to 1 where all are within, else from least to largest."""
    scores = _scores(output, decision)
    finite = scores[np.isfinite(scores)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    return np.linspace(0, 1, _BINS + 1) if low >= 0 and high <= 1 else np.linspace(low, max(high, low + 1), _BINS + 1)


def has_decisions(output: Array, decision: Decision, rows: int) -> bool:
    """Whether an output decides each of some rows: float `[rows]` or `[rows, 1]` at a threshold, else `[rows, n]`."""
    if not output.ndim or len(output) != rows or output.dtype.kind in "OSUb":
        return False
    return output.size == rows if decision.threshold is not None else output.ndim == 2 and output.shape[1] > 0


def _scores(output: Array, decision: Decision) -> Array:
    wide = output.astype(np.float64)
    return wide.max(axis=-1) if decision.threshold is None else wide.reshape(len(wide))


def _label(index: int, decision: Decision) -> str:
    if index < 0:
        return "all"
    return decision.labels[index] if index < len(decision.labels) else str(index)


def decide(output: Array, decision: Decision) -> Array:
    """The class of each row.

    Args:
        output: float `[rows]` for a threshold, `[rows, classes]` for an argmax.

    Returns:
        int64 `[rows]`; a NaN decides for class 0 at a threshold.
    """
    if decision.threshold is None:
        return np.asarray(np.argmax(output.astype(np.float64), axis=-1))
    return (output.reshape(len(output)).astype(np.float64) >= decision.threshold).astype(np.int64)


def margins(output: Array, decision: Decision) -> Array:
    """How far each row is from being decided otherwise: float64 `[rows]`."""
    wide = output.astype(np.float64)
    if decision.threshold is None:
        ordered = np.sort(wide, axis=-1)
        return np.asarray(ordered[..., -1] - ordered[..., -2]) if wide.shape[-1] > 1 else np.full(len(wide), np.inf)
    return np.abs(wide.reshape(len(wide)) - decision.threshold)


def classification(confusion: Mapping[tuple[int, int], int], decision: Decision) -> dict[str, Any]:
    """Accuracy, precision, recall, F1 and confusion.

    Precision, recall and F1 are those of class 1 for a threshold, and unweighted means over the
    classes for an argmax; 0 where they would divide by zero.

    Args:
        confusion: how many rows by the true class and the decided one; at least one.

    Returns:
        The figures by name; `confusion` holds a row per true class and a column per decided one.
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
