"""Whether candidates come too close to a predict set, compiled: screens first, full rows only where they leave it open.

The answers are those of `ItemTable.similarities` to the last bit; without numba that is what is used.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np

from conrec.arrays import Array

if TYPE_CHECKING:
    from conrec.filtering.item_table import ItemTable

try:
    from numba import njit
except ImportError:  # the extra `serve` brings it
    COMPILED = False
else:
    COMPILED = True

__all__ = ["COMPILED", "dropped", "warm"]

BLOCK = 256
"""Candidates of one matrix product; their first look (32 KiB) stays in the nearest cache."""


def dropped(table: ItemTable, items: Array, members: Array, weights: Array, thresholds: Array) -> Array:
    """See `ItemTable.dropped`, which checks what comes in."""
    from conrec.filtering.item_table import SCALE  # noqa: PLC0415

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


def warm(table: ItemTable) -> None:
    """Compile before the first request, which takes seconds where nothing is cached."""
    if COMPILED and len(table):
        from conrec.filtering.pair_kernel import nearest_of_pairs  # noqa: PLC0415  (it needs this module)

        one = np.zeros(1, dtype=np.int32)
        dropped(table, one, one, np.ones(1), np.zeros(1, dtype=np.float32))
        nearest_of_pairs(table, one[:, None], one, one, None)


def _compiled(function: Any) -> Any:
    # contract: a product and a sum may become one instruction; the screens have room for that, the full rows are whole
    # numbers. nnan: no row holds NaN.
    plain = inspect.unwrap(function)  # without the checks of types that tests wrap around every function
    if not COMPILED:
        return plain
    try:
        return njit(nogil=True, cache=True, fastmath={"contract", "nnan"})(plain)
    except RuntimeError:  # nowhere to keep what was compiled: a read-only system without a home
        return njit(nogil=True, fastmath={"contract", "nnan"})(plain)


@_compiled
def _product(left: Array, right: Array, features: int) -> np.int32:
    """Dot product of the first features of two rows; no partial sum passes 2^31 (Cauchy and Schwarz)."""
    total = np.int32(0)
    for feature in range(features):
        total = np.int32(total + np.int32(np.int32(left[feature]) * np.int32(right[feature])))
    return total


@_compiled
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
                above = float(_product(candidate, other, screen))
                if not weight * (above / unit + slack) > threshold:
                    continue
                rests = float(np.int32(candidate[screen - 1]) * np.int32(other[screen - 1]))
                if weight * ((above - 2 * rests) / unit - slack) > threshold:
                    out[begin + c] = True
                    break
                whole = float(_product(rows[item], rows[members[i]], features))
                if np.float32(whole / (lengths[item] * lengths[members[i]]) * weight) > threshold:
                    out[begin + c] = True
                    break
