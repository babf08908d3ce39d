"""The rows of the checks that search: made once for a validation, the same for the checkpoint and each candidate."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from pipeline.data.between import Classes, find_edges, mix_rows, pick_pairs
from pipeline.data.generated import generate_value
from pipeline.data.ladders import Ground, Ladder, climb
from pipeline.signature import Array, Batch, batch_size_of

from .material import Material
from .stability import BATCH_SIZES

_FURTHER_SIZES = (*range(1, 17), 24, 31, 32, 33, 48, 63, 65, 100, 127, 128, 129, 150, 200, 300, 1025)
_USUAL, _LEAST_ROWS, _SEED = 64, 24, 2017
_PAIRS = 16
_OFFSETS = (2.0**-18, 2.0**-14, 2.0**-10, 2.0**-7, 2.0**-4)  # of the way between two rows, on both sides of an edge
_MOST_UNUSUAL = 32


class SearchRows:
    """The rows that `sizes`, `ladders`, `boundary` and `repeated` feed.

    Attributes:
        edges: the rows of `boundary`, once they are found.
    """

    def __init__(self, material: Material) -> None:
        self._material = material
        self.edges: list[Ladder] = []

    @cached_property
    def most(self) -> int:
        """The most rows of one kind: fewer where they are large."""
        return min(self._material.settings.search_rows, max(_LEAST_ROWS, self._material.sizes.held))

    @cached_property
    def fixed(self) -> frozenset[str]:
        """Inputs that keep the value of the first row, because all rows of a batch have one value."""
        material = self._material
        return material.whole if len(material.whole) < len(material.signature.inputs) else frozenset()

    @cached_property
    def usual(self) -> Batch:
        """Some rows of the data, from its beginning to its end."""
        return self._spread(min(_USUAL, self.most))

    @cached_property
    def sizes(self) -> tuple[list[int], list[int]]:
        """The sizes of batches to feed, and those for which there is no room."""
        size, held = self._material.batch_size, self._material.sizes.held
        wanted = [*BATCH_SIZES, 3, size - 1, size, size + 1, 2 * size + 1]
        taken, left_out, rows = list[int](), list[int](), 0
        for each in dict.fromkeys(one for one in (*wanted, *_FURTHER_SIZES) if one > 0):
            if each <= held and rows + each <= self._material.settings.search_rows:
                taken.append(each)
                rows += each
            else:
                left_out.append(each)
        return sorted(taken), sorted(left_out)

    def batch_of(self, size: int) -> Batch:
        """Returns the batch of one size."""
        material = self._material
        if material.value is not None:
            value = generate_value(material.value, size, _SEED, demands=material.demands)
            return {name: array[np.newaxis] for name, array in value.items()}
        start = sum(each for each in self.sizes[0] if each < size)
        return material.rows.take((start + np.arange(size)) % max(1, len(material.rows)))

    @cached_property
    def ladders(self) -> list[Ladder]:
        """The rows of `ladders`."""
        material = self._material
        ground = Ground(
            material.signature,
            self.usual,
            material.demands,
            material.table_keys,
            self.fixed,
            self.most,
            material.sizes.held,
        )
        return climb(ground, material.settings.chosen_ladders)

    def find_edges(self, outputs: Sequence[tuple[str, Classes]]) -> None:
        """Finds the rows of `boundary`, by the answers of the checkpoint.

        Args:
            outputs: the name of what decides, and how.
        """
        rows = self._spread(self.most)
        for name, classes in outputs:
            known = classes(rows).tolist()
            pairs = pick_pairs(known, max(1, min(_PAIRS, self.most // (2 * len(_OFFSETS) + 2))), _SEED)
            if pairs:
                self.edges.append(self._edge(name, rows, pairs, classes))

    def _spread(self, most: int) -> Batch:
        """Returns rows of the data, from its beginning to its end."""
        count = len(self._material.rows)
        return self._material.rows.take(np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64)))

    def _edge(self, name: str, rows: Batch, pairs: Sequence[tuple[int, int]], classes: Classes) -> Ladder:
        one, other = (
            {input: values[[pair[side] for pair in pairs]] for input, values in rows.items()} for side in (0, 1)
        )
        low, high = find_edges(one, other, classes, self.fixed)
        shares: list[tuple[str, Array]] = [("before", low), ("behind", high)]
        for offset in _OFFSETS:
            shares += [(f"{offset:.2g} before", low - offset), (f"{offset:.2g} behind", high + offset)]
        made = [mix_rows(one, other, np.clip(share, 0, 1), self.fixed) for _, share in shares]
        labels = tuple(f"{name}: {what} edge {number}" for what, _ in shares for number in range(len(pairs)))
        return Ladder("boundary", labels, {input: np.concatenate([each[input] for each in made]) for input in one})

    @cached_property
    def again(self) -> Batch:
        """The batch that `repeated` asks again and again."""
        size = batch_size_of(self._material.signature) or min(3, len(self._material.rows), self._material.sizes.held)
        return self._material.rows.read(0, size)

    @cached_property
    def unusual(self) -> dict[str, Batch]:
        """Batches of one row, or of the fixed size, by name: what the answers to usual rows may not depend on."""
        found, size = dict(self._material.edge_cases), batch_size_of(self._material.signature) or 1
        ends = [
            (ladder, row) for ladder in self.ladders for row in {0, len(ladder.labels) // 2, len(ladder.labels) - 1}
        ]
        for ladder, row in ends[: max(0, _MOST_UNUSUAL - len(found))]:
            found[ladder.labels[row]] = {
                name: np.repeat(values[row : row + 1], size, 0) for name, values in ladder.rows.items()
            }
        return found


def search_of(material: Material) -> SearchRows:
    """Returns the rows that searches feed in a validation; the same ones for every candidate."""
    found: SearchRows = material.kept.setdefault("search", SearchRows(material))
    return found
