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
AT_ONCE = 1024
"""Candidates that go through all looks together."""
READ = 64
"""Rows of a later look that are read in one go, so that the waits for memory overlap (8 KiB)."""


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
    room = np.float32(slack * weights.max())
    look = np.empty((width, size), np.float32)
    for i in range(size):
        for j in range(width):
            look[j, i] = np.float32(first[members[i], j] * (weights[i] / unit))
    block = np.zeros((BLOCK, width), np.float32)
    bounds = np.empty((BLOCK, size), np.float32)
    # What is still open: pairs of a candidate and a member, and their product so far.
    most = min(AT_ONCE, len(items)) * size
    candidate, member, above = np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most)
    for start in range(0, len(items), AT_ONCE):
        left = 0
        for begin in range(start, min(start + AT_ONCE, len(items)), BLOCK):
            left = _first_look(first, items, look, room, thresholds, begin, block, bounds, candidate, member, left)
        above[:left] = 0
        for later in (second, third):
            left = _later_look(
                later, items, members, weights, unit, slack, thresholds, candidate, member, above, left, out
            )
        for at in range(left):
            c, i = candidate[at], member[at]
            if not out[c]:
                whole = float(product(rows[items[c]], rows[members[i]], features))
                cosine = whole / (lengths[items[c]] * lengths[members[i]])
                out[c] = np.float32(cosine * weights[i]) > thresholds[c]


@compiled
def _first_look(
    first: Array,
    items: Array,
    look: Array,
    room: np.float32,
    thresholds: Array,
    begin: int,
    block: Array,
    bounds: Array,
    candidate: Array,
    member: Array,
    left: int,
) -> int:
    """List the pairs of a block that its bounds leave open, behind the ``left`` that are listed; how many there are."""
    count, size = min(BLOCK, len(items) - begin), look.shape[1]
    for c in range(count):
        item = items[begin + c]
        if item < 0 or item >= len(first):
            item = 0  # nothing checks an index any more; below it is left out
        row, place = first[item], block[c]
        for j in range(len(place)):
            place[j] = np.float32(row[j])
    np.dot(block, look, bounds)
    for c in range(count):
        bound, item, threshold = bounds[c], items[begin + c], thresholds[begin + c]
        best = bound[0]
        for i in range(1, size):
            best = bound[i] if bound[i] > best else best
        if best + room > threshold and item >= 0 and item < len(first):
            for i in range(size):
                if bound[i] + room > threshold:
                    candidate[left], member[left] = begin + c, i
                    left += 1
    return left


@compiled
def _later_look(
    later: Array,
    items: Array,
    members: Array,
    weights: Array,
    unit: float,
    slack: float,
    thresholds: Array,
    candidate: Array,
    member: Array,
    above: Array,
    left: int,
    out: Array,
) -> int:
    """Decide what one more look can, keep the other pairs at the front of the list; how many those are."""
    width, kept = later.shape[1], 0
    near = np.empty((READ, width), np.int16)
    for begin in range(0, left, READ):
        count = min(READ, left - begin)
        for at in range(count):
            row, place = later[items[candidate[begin + at]]], near[at]
            for j in range(len(place)):
                place[j] = row[j]
        for at in range(count):
            c, i = candidate[begin + at], member[begin + at]
            if out[c]:
                continue
            own, other, weight, threshold = near[at], later[members[i]], weights[i], thresholds[c]
            here = above[begin + at] + float(product(own, other, width))
            if not weight * (here / unit + slack) > threshold:
                continue
            rests = float(np.int32(own[width - 1]) * np.int32(other[width - 1]))
            if weight * ((here - 2 * rests) / unit - slack) > threshold:
                out[c] = True
                continue
            candidate[kept], member[kept], above[kept] = c, i, here - rests
            kept += 1
    return kept
