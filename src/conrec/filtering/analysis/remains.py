"""What remains of an anchor's candidates: how diverse it is, and how much of the catalogue is still shown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32

from conrec.arrays import Array, Ragged
from conrec.filtering.vectors.table import ItemTable

__all__ = ["Candidates", "Remains"]

_CELLS = 50_000_000
"""Numbers of candidates' rows held at once."""


@dataclass(frozen=True, slots=True)
class Remains:
    """What a filter leaves of each anchor's candidates.

    Attributes:
        kept: int64 [anchors], candidates that are kept.
        diversity: float64 [anchors], mean of 1 - cosine over the pairs of kept candidates; 0 where fewer than two
            are kept, NaN where the anchor had no candidates.
        entropy: float64 [anchors], of the categories of what is kept, in bits, an item with m of them giving 1/m to
            each; 0 where nothing with a category is kept, NaN where the anchor had no candidate with one.
        over_half_lost: float64 [anchors], 1 where more than half of the candidates are dropped, NaN without any.
        shown: distinct items that some anchor still shows.
    """

    kept: Array
    diversity: Array
    entropy: Array
    over_half_lost: Array
    shown: int


@dataclass(frozen=True, slots=True)
class Candidates:
    """The candidates of some anchors, made ready to be judged under many filters.

    Attributes:
        item: int32 [anchors, C], -1 for none.
        cosines: float32 [anchors, C, C] of the candidates among each other, 0 on the diagonal.
        owner: int64 [entries], flat place (anchor * C + column) of each (candidate, category).
        cell: int64 [entries], which distinct (anchor, category) it is of.
        weight: float64 [entries], 1 / number of the item's categories.
        cell_anchor: int64 [cells], anchor of each distinct (anchor, category).
    """

    item: Array
    cosines: Array
    owner: Array
    cell: Array
    weight: Array
    cell_anchor: Array

    @classmethod
    def of(cls, item: Int32[Array, "anchors C"], table: ItemTable, categories: Ragged | None) -> Candidates:
        """Look up the candidates once.

        Args:
            item: candidates of each anchor, -1 for none.
            table: rebuilt embeddings of all items.
            categories: categories of each item, None where no item has one.
        """
        n, width = item.shape
        cosines = np.zeros((n, width, width), dtype=np.float32)
        step = max(1, _CELLS // max(1, width * table.rows.shape[1]))
        for begin in range(0, n, step):
            part = np.maximum(item[begin : begin + step], 0)
            rows = table.rebuilt(part.ravel()).reshape(*part.shape, -1)
            cosines[begin : begin + step] = rows @ rows.transpose(0, 2, 1)
        cosines[:, np.arange(width), np.arange(width)] = 0.0
        if categories is None:
            categories = Ragged(np.zeros(len(table) + 1, dtype=np.int64), np.empty(0, dtype=np.int32))
        there = np.flatnonzero(item.ravel() >= 0)
        held = categories.take(item.ravel()[there])
        owner = np.repeat(there, held.lengths)
        key = (owner // max(width, 1)) * (int(held.values.max(initial=0)) + 1) + held.values
        cells, cell = np.unique(key, return_inverse=True)
        cell_anchor = cells // (int(held.values.max(initial=0)) + 1)
        weight = 1.0 / np.repeat(held.lengths, held.lengths)
        return cls(item, cosines, owner, cell.reshape(-1).astype(np.int64), weight, cell_anchor)

    def keeping(self, kept: Bool[Array, "anchors C"]) -> Remains:
        """What remains where the marked candidates are kept; marks of places without a candidate do not count."""
        there = self.item >= 0
        kept = kept & there
        count, had = kept.sum(axis=1), there.sum(axis=1)
        marks = kept.astype(np.float32)
        # Mean over the ordered pairs of two kept candidates; the diagonal is 0.
        cosines = (np.matmul(self.cosines, marks[:, :, None])[:, :, 0] * marks).sum(axis=1, dtype=np.float64)
        pairs = count * (count - 1)
        diversity = np.where(pairs > 0, 1 - cosines / np.maximum(pairs, 1), 0.0)
        over_half = (2 * (had - count) > had).astype(np.float64)
        none = had == 0
        diversity[none] = over_half[none] = np.nan
        return Remains(count, diversity, self._entropy(kept), over_half, len(np.unique(self.item[kept])))

    def _entropy(self, kept: Array) -> Array:
        n = len(self.item)
        weight = np.where(kept.ravel()[self.owner], self.weight, 0.0) if len(self.owner) else self.weight
        held = np.bincount(self.cell, weights=weight, minlength=len(self.cell_anchor))
        whole = np.bincount(self.cell_anchor, weights=held, minlength=n)
        share = np.divide(held, whole[self.cell_anchor], out=np.zeros(len(held)), where=held > 0)
        parts = -share * np.log2(share, out=np.zeros(len(share)), where=share > 0)
        entropy = np.bincount(self.cell_anchor, weights=parts, minlength=n).astype(np.float64)
        entropy[np.bincount(self.cell_anchor, minlength=n) == 0] = np.nan
        return np.abs(entropy)  # minus nought is nought
