"""The nearest predicted item of each of many pairs, compiled: short rows first, full rows only where they can matter.

The answers are those of the plain way in `conrec.filtering.vectors.table.max_similarity` to the last bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from conrec.arrays import Array
from conrec.filtering.vectors.compiled import SCALE, compiled, product

if TYPE_CHECKING:
    from conrec.filtering.vectors.table import ItemTable

__all__ = ["nearest_of_pairs"]

BLOCK = 64
"""Pairs whose rows are read in one go, so that the waits for memory overlap."""


def nearest_of_pairs(
    table: ItemTable, predicted: Array, sets: Array, items: Array, weights: Array | None
) -> tuple[Array, Array]:
    """See `conrec.filtering.vectors.table.max_similarity`, which checks what comes in."""
    similarity = np.full(len(items), np.nan, dtype=np.float32)
    nearest = np.full(len(items), -1, dtype=np.int32)
    pairs = np.flatnonzero((sets >= 0) & (items >= 0))
    if (np.diff(sets[pairs]) < 0).any():  # the rows of a set stay in the nearest cache from one pair to the next
        pairs = pairs[np.argsort(sets[pairs], kind="stable")]
    _nearest_of_pairs(
        table.rows,
        table.lengths,
        table.first,
        np.ascontiguousarray(predicted, dtype=np.int32),
        np.ones(predicted.shape) if weights is None else np.ascontiguousarray(weights, dtype=np.float64),
        sets.astype(np.int64, copy=False),
        items.astype(np.int32, copy=False),
        pairs,
        float(SCALE**2),
        table.slack,
        similarity,
        nearest,
    )
    return similarity, nearest


@compiled
def _nearest_of_pairs(
    rows: Array,
    lengths: Array,
    first: Array,
    predicted: Array,
    weights: Array,
    sets: Array,
    items: Array,
    pairs: Array,
    unit: float,
    slack: float,
    similarity: Array,
    nearest: Array,
) -> None:
    size, features, width = predicted.shape[1], rows.shape[1], first.shape[1]
    bounds = np.empty(size, np.float64)
    looks = np.empty((BLOCK, width), np.int16)
    wholes = np.empty((BLOCK, features), np.int16)
    own = np.empty(BLOCK, np.float64)
    for begin in range(0, len(pairs), BLOCK):
        count = min(BLOCK, len(pairs) - begin)
        for c in range(count):
            item = items[pairs[begin + c]]
            own[c] = lengths[item]
            for j in range(width):
                looks[c, j] = first[item, j]
            for j in range(features):
                wholes[c, j] = rows[item, j]
        for c in range(count):
            pair = pairs[begin + c]
            here = sets[pair]
            start, most = -1, -np.inf
            for i in range(size):
                member = predicted[here, i]
                if member >= 0:
                    bounds[i] = weights[here, i] * (float(product(looks[c], first[member], width)) / unit + slack)
                    if bounds[i] > most:
                        start, most = i, bounds[i]
            if start < 0:
                continue
            # From the one that looks nearest on; those whose bound lies below what was found need no full row.
            best, at = -np.inf, start
            for step in range(size):
                i = start if step == 0 else (step - 1 if step <= start else step)
                member = predicted[here, i]
                if member < 0 or bounds[i] < best:
                    continue
                whole = float(product(wholes[c], rows[member], features))
                value = whole / (own[c] * lengths[member]) * weights[here, i]
                if value > best or (value == best and i < at):
                    best, at = value, i
            similarity[pair] = np.float32(best)
            nearest[pair] = predicted[here, at]
