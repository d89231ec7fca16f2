"""One group of items placed at the nearest free codes, beside the semantic IDs that are taken. NumPy only.

The rules are those of `collisions.resolve_nearest`. Nothing is computed for items that nobody disputes:
of a million items with few collisions, few have their residuals taken at all.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int64

from conrec.arrays import Array
from conrec.items.naming.nearest_codes import NearestCodes
from conrec.items.semantic_ids import LEVELS, sid_keys

__all__ = ["Space", "place"]

PIECE = 1 << 16
"""Items whose residuals are held at a time."""


class Space:
    """Latents and codebooks, and residuals of some items at a time.

    Args:
        latents: what was quantised.
        codebooks: codewords of each level.

    Attributes:
        size: codes per level.
        second, last: the codebooks of those levels.
    """

    def __init__(self, latents: Float[Array, "items latent"], codebooks: Float[Array, "3 codebook latent"]) -> None:
        self._latents, self._codebooks = latents, codebooks.astype(np.float64)
        self.size = codebooks.shape[1]
        self.second, self.last = (NearestCodes(one) for one in self._codebooks[1:])

    def before_second(self, items: Int[Array, " n"], codes: Int[Array, "items 3"]) -> Float64[Array, "n latent"]:
        """What is left of some items after their first code."""
        left: Array = self._latents[items].astype(np.float64) - self._codebooks[0][codes[items, 0]]
        return left

    def before_last(self, items: Int[Array, " n"], codes: Int[Array, "items 3"]) -> Float64[Array, "n latent"]:
        """What is left of some items after their second code."""
        left: Array = self.before_second(items, codes) - self._codebooks[1][codes[items, 1]]
        return left

    def distances(self, items: Int[Array, " n"], codes: Int[Array, "items 3"]) -> Float64[Array, " n"]:
        """Squared distance of what is left before the last code to its codeword."""
        found = np.empty(len(items))
        for begin in range(0, len(items), PIECE):
            some = items[begin : begin + PIECE]
            left = self.before_last(some, codes) - self._codebooks[2][codes[some, 2]]
            found[begin : begin + PIECE] = (left**2).sum(axis=1)
        return found


class _Taken:
    """The last codes that are taken in each bucket: under each pair of first and second codes.

    Args:
        keys: semantic IDs that are taken, distinct and sorted.
        size: codes per level.
    """

    def __init__(self, keys: Int64[Array, " taken"], size: int) -> None:
        self._keys, self._size = keys, size
        self._changed: dict[int, Array] = {}

    def codes(self, bucket: int) -> Array:
        """Last codes that are taken there, int64."""
        changed = self._changed.get(bucket)
        if changed is None:
            begin, end = np.searchsorted(self._keys, (bucket * self._size, (bucket + 1) * self._size))
            changed = self._keys[begin:end] % self._size
        return changed

    def room(self, buckets: Int64[Array, " n"]) -> Int64[Array, " n"]:
        """How many last codes are free in each bucket, as the keys had it."""
        ends = np.searchsorted(self._keys, (buckets + 1) * self._size)
        return self._size - (ends - np.searchsorted(self._keys, buckets * self._size))

    def counts(self, first: int) -> Array:
        """How many are taken under each second code of a first one, as the keys had it; int64 [codes]."""
        pairs = self._size**2
        begin, end = np.searchsorted(self._keys, (first * pairs, (first + 1) * pairs))
        return np.bincount(self._keys[begin:end] // self._size % self._size, minlength=self._size)

    def take(self, bucket: int, code: int) -> None:
        """Take one more."""
        self._changed[bucket] = np.concatenate([self.codes(bucket), [code]])


def place(
    space: Space,
    codes: Int64[Array, "items 3"],
    items: Int64[Array, " group"],
    taken: Int64[Array, " taken"],
    cap: int | None,
) -> None:
    """Resolve the codes of one group, in place.

    Args:
        space: of all items.
        codes: raw codes of the group, whatever of the others.
        items: the group.
        taken: keys of the semantic IDs that other items have, distinct and sorted.
        cap: see `conrec.items.naming.collisions.resolve_nearest`.
    """
    sizes = (space.size,) * LEVELS
    keys = sid_keys(codes[items], sizes)
    keeps, distance = _keepers(space, codes, items, keys, taken)
    kept = _Taken(np.sort(np.concatenate([taken, keys[keeps]])), space.size)
    others, distance = items[~keeps], distance[~keeps]
    if cap is not None and cap < space.size:
        bucket = codes[others, 0] * space.size + codes[others, 1]
        order = np.lexsort((others, distance, bucket))
        left = order[_take_last(space, codes, others[order], kept, cap)]
        left = left[np.lexsort((others[left], distance[left], codes[others[left], 0]))]
        _wander(space, codes, others[left], kept, cap)
        return
    late = _leave_full_buckets(space, codes, others, distance, kept)
    distance[late] = space.distances(others[late], codes)
    bucket = codes[others, 0] * space.size + codes[others, 1]
    # First come the items of the bucket itself, then its guests; nearest first; then by item.
    order = np.lexsort((others, distance, late, bucket))
    _take_last(space, codes, others[order], kept, None)


def _keepers(
    space: Space, codes: Array, items: Array, keys: Int64[Array, " group"], taken: Array
) -> tuple[Bool[Array, " group"], Float64[Array, " group"]]:
    """Which items keep their codes: of those that share them the nearest, where they are not taken.

    Returns:
        With it the distance of each item that shares its codes, or whose codes are taken; 0 for the others.
    """
    free = ~np.isin(keys, taken)
    _, group, counts = np.unique(keys, return_inverse=True, return_counts=True)
    disputed = np.flatnonzero((counts[group] > 1) | ~free)
    distance = np.zeros(len(items))
    distance[disputed] = space.distances(items[disputed], codes)
    order = disputed[np.lexsort((items[disputed], distance[disputed], keys[disputed]))]
    keeps = free.copy()
    later = np.zeros(len(order), dtype=np.bool_)
    later[1:] = keys[order[1:]] == keys[order[:-1]]
    keeps[order[later]] = False
    return keeps, distance


def _leave_full_buckets(
    space: Space, codes: Array, others: Array, distance: Float64[Array, " others"], kept: _Taken
) -> Bool[Array, " others"]:
    """Give those who find no free last code, the farthest of each bucket, the nearest second code with room.

    They get the nearest last code under it too, free or not.

    Returns:
        Who they are.
    """
    size = space.size
    bucket = codes[others, 0] * size + codes[others, 1]
    order = np.lexsort((others, distance, bucket))
    buckets, begins, counts = np.unique(bucket[order], return_index=True, return_counts=True)
    late = np.zeros(len(others), dtype=np.bool_)
    room = kept.room(buckets)
    for full in np.flatnonzero(counts > room).tolist():
        late[order[begins[full] + room[full] : begins[full] + counts[full]]] = True
    guests = np.flatnonzero(late)
    if not len(guests):
        return late
    guests = guests[np.lexsort((others[guests], distance[guests], codes[others[guests], 0]))]
    staying = np.sort(bucket[~late])
    firsts, begins = np.unique(codes[others[guests], 0], return_index=True)
    for first, group in zip(firsts.tolist(), np.split(guests, begins[1:]), strict=True):
        begin, end = np.searchsorted(staying, (first * size, (first + 1) * size))
        count = kept.counts(first) + np.bincount(staying[begin:end] % size, minlength=size)
        moving = others[group]
        points = space.before_second(moving, codes)
        slack = space.second.slack(np.sqrt((points**2).sum(axis=1))).tolist()
        for some, rows in space.second.blocks(points):
            for item, point, row, doubt in zip(moving[some], points[some], rows, slack[some], strict=True):
                second = space.second.nearest(point, row, doubt, np.flatnonzero(count >= size))
                codes[item, 1] = second
                count[second] += 1
    moving = others[guests]
    nobody = np.empty(0, dtype=np.int64)
    for begin in range(0, len(moving), PIECE):
        piece = moving[begin : begin + PIECE]
        points = space.before_last(piece, codes)
        slack = space.last.slack(np.sqrt((points**2).sum(axis=1))).tolist()
        for some, rows in space.last.blocks(points):
            for item, point, row, doubt in zip(piece[some], points[some], rows, slack[some], strict=True):
                codes[item, 2] = space.last.nearest(point, row, doubt, nobody)
    return late


def _take_last(
    space: Space, codes: Array, others: Int64[Array, " n"], kept: _Taken, cap: int | None
) -> Bool[Array, " n"]:
    """Let items take the nearest free last code one after the other; with a cap, of their nearest ones alone.

    Args:
        others: in this order; those of a bucket one behind the other.

    Returns:
        Who found none.
    """
    size = space.size
    left = np.zeros(len(others), dtype=np.bool_)
    bucket = codes[others, 0] * size + codes[others, 1]
    for begin in range(0, len(others), PIECE):
        piece = others[begin : begin + PIECE]
        points = space.before_last(piece, codes)
        slack = space.last.slack(np.sqrt((points**2).sum(axis=1))).tolist()
        for some, rows in space.last.blocks(points):
            where = range(begin + some.start, begin + some.start + len(rows))
            for at, point, row, doubt in zip(where, points[some], rows, slack[some], strict=True):
                home = int(bucket[at])
                code = _nearest_free(space, point, row, doubt, kept.codes(home), cap)
                if code < 0:
                    left[at] = True
                else:
                    codes[others[at], 2] = code
                    kept.take(home, code)
    return left


def _nearest_free(space: Space, point: Array, row: Array, slack: float, gone: Array, cap: int | None) -> int:
    """The nearest last code that is not gone; -1 where there is none among the ``cap`` nearest of all."""
    if len(gone) == space.size:
        return -1
    values = row[gone]
    code = space.last.nearest(point, row, slack, gone)
    if cap is not None and len(gone) >= cap:
        nearer = space.last.nearer(point, values, gone, float(row[code]), code, slack)
        return code if nearer < cap else -1
    return code


def _wander(space: Space, codes: Array, others: Int64[Array, " n"], kept: _Taken, cap: int) -> None:
    """Let items that found no last code under their second one look under the others, nearest first, in place.

    Args:
        others: by first code; within one, in the order of their turns.
    """
    size, first = space.size, -1
    # Codewords of the second level times those of the last, a row when it is first needed.
    products: dict[int, Array] = {}
    in_vain: dict[bytes, list[int]] = {}  # second codes that items of the same latent have tried
    for begin in range(0, len(others), PIECE):
        piece = others[begin : begin + PIECE]
        points = space.before_second(piece, codes)
        lengths = np.sqrt((points**2).sum(axis=1))
        slack = space.second.slack(lengths).tolist()
        last_slack = space.last.slack(lengths + space.second.longest).tolist()
        for some, rows in space.second.blocks(points):
            below = space.last.rows(points[some])
            for place_, item in enumerate(piece[some].tolist()):
                at = some.start + place_
                if codes[item, 0] != first:
                    first, in_vain = int(codes[item, 0]), {}
                point, row = points[at], rows[place_]
                tried = in_vain.setdefault(point.tobytes(), [])
                gone = np.asarray(tried, dtype=np.int64)
                code = -1
                while code < 0 and len(tried) < size:
                    second = space.second.nearest(point, row, slack[at], gone)
                    bucket, gone = first * size + second, np.asarray([second])
                    if second not in products:
                        products[second] = 2 * (space.second.wide[second] @ space.last.wide.T)
                    left = point - space.second.codebook[second]
                    last = below[place_] + products[second]
                    code = _nearest_free(space, left, last, last_slack[at], kept.codes(bucket), cap)
                    if code < 0:
                        tried.append(second)
                if code < 0:
                    second = next(one for one in tried if len(kept.codes(first * size + one)) < size)
                    bucket, left = first * size + second, point - space.second.codebook[second]
                    last = below[place_] + products[second]
                    code = _nearest_free(space, left, last, last_slack[at], kept.codes(bucket), None)
                codes[item, 1:] = second, code
                kept.take(bucket, code)
