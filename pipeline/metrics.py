"""What a model's decisions are worth: decisions from outputs, and their quality against labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .signature import Decision

Array = np.ndarray[Any, Any]


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
