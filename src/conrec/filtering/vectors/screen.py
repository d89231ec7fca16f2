"""Whether candidates come too close to a predict set, compiled: screens first, full rows only where they leave it open.

The answers are those of `ItemTable.similarities` to the last bit; without numba that is what is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from conrec.arrays import Array
from conrec.filtering.vectors.compiled import SCALE, compiled, product

if TYPE_CHECKING:
    from conrec.filtering.vectors.table import ItemTable

__all__ = ["dropped"]

BLOCK = 256
"""Candidates of one matrix product; their first look (32 KiB) stays in the nearest cache."""


def dropped(table: ItemTable, items: Array, members: Array, weights: Array, thresholds: Array) -> Array:
    """See `ItemTable.dropped`; items are int32 and may be those of another catalogue."""
    out = np.zeros(len(items), dtype=np.bool_)
    _dropped(
        table.rows,
        table.lengths,
        table.first,
        table.second,
        table.third,
        items,
        members,
        weights,
        float(SCALE**2),
        table.slack,
        thresholds,
        out,
    )
    return out


@compiled
def _dropped(
    rows: Array,
    lengths: Array,
    first: Array,
    second: Array,
    third: Array,
    items: Array,
    members: Array,
    weights: Array,
    unit: float,
    slack: float,
    thresholds: Array,
    out: Array,
) -> None:
    size, width, features = len(members), first.shape[1], rows.shape[1]
    screen, last = second.shape[1], third.shape[1]
    room = np.float32(slack * weights.max())
    look = np.empty((width, size), np.float32)
    predicted = np.empty((size, screen), np.int16)
    for i in range(size):
        predicted[i] = second[members[i]]
        for j in range(width):
            look[j, i] = np.float32(first[members[i], j] * (weights[i] / unit))
    block = np.zeros((BLOCK, width), np.float32)
    bounds = np.empty((BLOCK, size), np.float32)
    near = np.empty((BLOCK, screen), np.int16)
    left = np.empty(BLOCK, np.int64)
    for begin in range(0, len(items), BLOCK):
        count = min(BLOCK, len(items) - begin)
        for c in range(count):
            item = items[begin + c]
            if item < 0 or item >= len(rows):
                item = 0  # nothing checks an index any more; below it is left out
            row, place = first[item], block[c]
            for j in range(len(place)):
                place[j] = np.float32(row[j])
        np.dot(block, look, bounds)
        # What the first look leaves is read in one go, so that the waits for memory overlap.
        lefts = 0
        for c in range(count):
            row_of_bounds = bounds[c]
            best = row_of_bounds[0]
            for i in range(1, size):
                best = row_of_bounds[i] if row_of_bounds[i] > best else best
            item = items[begin + c]
            if best + room > thresholds[begin + c] and item >= 0 and item < len(rows):
                left[lefts] = c
                lefts += 1
        for at in range(lefts):
            wide, kept = second[items[begin + left[at]]], near[at]
            for j in range(len(kept)):
                kept[j] = wide[j]
        for at in range(lefts):
            c = left[at]
            item, threshold, candidate = items[begin + c], thresholds[begin + c], near[at]
            for i in range(size):
                if not bounds[c, i] + room > threshold:
                    continue
                weight, other, member = weights[i], predicted[i], members[i]
                above = float(product(candidate, other, screen))
                if not weight * (above / unit + slack) > threshold:
                    continue
                rests = float(np.int32(candidate[screen - 1]) * np.int32(other[screen - 1]))
                if weight * ((above - 2 * rests) / unit - slack) > threshold:
                    out[begin + c] = True
                    break
                above += float(product(third[item], third[member], last)) - rests
                if not weight * (above / unit + slack) > threshold:
                    continue
                rests = float(np.int32(third[item, last - 1]) * np.int32(third[member, last - 1]))
                if weight * ((above - 2 * rests) / unit - slack) > threshold:
                    out[begin + c] = True
                    break
                whole = float(product(rows[item], rows[member], features))
                if np.float32(whole / (lengths[item] * lengths[member]) * weight) > threshold:
                    out[begin + c] = True
                    break
