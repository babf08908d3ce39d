"""Finds labels that stand in the rows themselves: a model that reads them is good for nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.signature import Array, Batch

from .material import Material

_MOST_ROWS, _LEAST_ROWS = 2000, 20
_MOST_ELEMENTS = 1000  # of an input in which a label is looked for
_OWN, _OTHERS = 0.5, 0.02  # shares of the rows with the label's word: of its class at least, of all others at most
_LEAST_OF_CLASS = 5
_THEN = "If it is not there where the model is used, the figures of its quality are worth nothing: give data without it"
_WORD = re.compile(r"\w+")


def find_leaks(material: Material) -> Iterator[str]:
    """Yields a sentence for each input that holds the label of its row.

    Texts leak if half of the rows of a class have its name, or its number, as a word, and next to none of the others
    do. Numbers leak if an element is the label in each row.
    """
    if material.labels is None or material.is_made_up:
        return
    count, first = min(_MOST_ROWS, len(material.rows), material.sizes.held), material.rows.first
    if count < _LEAST_ROWS or all(values.size > _MOST_ELEMENTS for values in first.values()):
        return
    rows = material.rows.read(0, count)
    labels = material.labels.read(0, count)["labels"]
    classes = [int(each) for each, rows_of in zip(*np.unique(labels, return_counts=True), strict=True) if rows_of]
    if len(classes) < 2 or labels.ndim != 1:
        return
    decision = material.signature.decision
    yield from _in_texts(rows, labels, classes, decision.labels if decision is not None else ())
    yield from _in_numbers(rows, labels)


def _in_texts(rows: Batch, labels: Array, classes: Sequence[int], names: Sequence[str]) -> Iterator[str]:
    for input, values in rows.items():
        if values.dtype != object or values.size != len(labels):
            continue
        words = [set(_WORD.findall(bytes(text).decode("utf-8", "ignore").lower())) for text in values.ravel()]
        for number in classes:
            own, known = labels == number, [str(number), *names[number : number + 1]]
            for name in known:
                parts = set(_WORD.findall(name.lower()))
                has_name = np.array([bool(parts) and parts <= found for found in words])
                if own.sum() < _LEAST_OF_CLASS or own.all():
                    continue
                shares = float(has_name[own].mean()), float(has_name[~own].mean())
                if shares[0] >= _OWN and shares[1] <= _OTHERS:
                    yield (
                        f"warning: the label may stand in the rows: {shares[0]:.0%} of those of class {name} have the "
                        f"word {name} in {input}, and {shares[1]:.0%} of the others. {_THEN}"
                    )
                    return


def _in_numbers(rows: Batch, labels: Array) -> Iterator[str]:
    for input, values in rows.items():
        flat = values.reshape(len(values), -1)
        if flat.dtype.kind not in "iuf" or flat.shape[1] > _MOST_ELEMENTS:
            continue
        places = np.flatnonzero((flat == labels[:, None]).all(axis=0))
        if len(places):
            at = f"{input}[{places[0]}]" if flat.shape[1] > 1 else input
            yield (
                f"warning: the label may stand in the rows: {at} is the label in all {len(labels)} rows that were "
                f"looked at. {_THEN}"
            )
