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
    """See `ItemTable.dropped`, which checks what comes in."""
    out = np.zeros(len(items), dtype=np.bool_)
    weight = np.ascontiguousarray(weights, dtype=np.float64)
    to_one = weight / SCALE**2
    look = table.first[members] * to_one[:, None]
    _dropped(
        table.rows,
        table.lengths,
        table.first,
        table.second,
        items.astype(np.int32, copy=False),
        members.astype(np.int32, copy=False),
        look.astype(np.float32),
        weight,
        float(SCALE**2),
        table.slack,
        np.ascontiguousarray(thresholds, dtype=np.float32),
        out,
    )
    return out


@compiled
def _dropped(
    rows: Array,
    lengths: Array,
    first: Array,
    second: Array,
    items: Array,
    members: Array,
    look: Array,
    weights: Array,
    unit: float,
    slack: float,
    thresholds: Array,
    out: Array,
) -> None:
    size, width = look.shape
    features, screen = rows.shape[1], second.shape[1]
    room = np.float32(slack * weights.max())
    block = np.zeros((BLOCK, width), np.float32)
    bounds = np.empty((size, BLOCK), np.float32)
    best = np.empty(BLOCK, np.float32)
    near = np.empty((BLOCK, screen), np.int16)
    left = np.empty(BLOCK, np.int64)
    predicted = np.empty((size, screen), np.int16)
    for i in range(size):
        predicted[i] = second[members[i]]
    for begin in range(0, len(items), BLOCK):
        count = min(BLOCK, len(items) - begin)
        for c in range(count):
            look_at = first[max(items[begin + c], 0)]
            for j in range(width):
                block[c, j] = np.float32(look_at[j])
        np.dot(look, block.T, bounds)
        best[:] = bounds[0]
        for i in range(1, size):
            row = bounds[i]
            for c in range(BLOCK):
                best[c] = row[c] if row[c] > best[c] else best[c]  # max() would not become one instruction of many
        # What is left is read in one go, so that the waits for memory overlap.
        lefts = 0
        for c in range(count):
            if items[begin + c] >= 0 and best[c] + room > thresholds[begin + c]:
                left[lefts] = c
                lefts += 1
        for place in range(lefts):
            wide = second[items[begin + left[place]]]
            for j in range(screen):
                near[place, j] = wide[j]
        for place in range(lefts):
            c = left[place]
            item, threshold, candidate = items[begin + c], thresholds[begin + c], near[place]
            for i in range(size):
                if not bounds[i, c] + room > threshold:
                    continue
                weight, other = weights[i], predicted[i]
                above = float(product(candidate, other, screen))
                if not weight * (above / unit + slack) > threshold:
                    continue
                rests = float(np.int32(candidate[screen - 1]) * np.int32(other[screen - 1]))
                if weight * ((above - 2 * rests) / unit - slack) > threshold:
                    out[begin + c] = True
                    break
                whole = float(product(rows[item], rows[members[i]], features))
                if np.float32(whole / (lengths[item] * lengths[members[i]]) * weight) > threshold:
                    out[begin + c] = True
                    break
