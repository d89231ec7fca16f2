"""Are the nearest items by rebuilt embedding the nearest by the original one? Exact, ties by expectation; NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64

from conrec.arrays import Array
from conrec.seeds import generator

__all__ = ["ASKED_WHOLE", "NEAREST", "QUERIES", "neighbour_hits", "queries_of"]

NEAREST = 10
"""Neighbours of each item that are compared."""
ASKED_WHOLE = 2000
"""Catalogues of up to so many items are asked whole."""
QUERIES = 1000
"""Of larger ones a seeded sample of so many items is asked: the mean is then good to 0.01 and better."""
_CELLS = 16_000_000
"""Similarities that are held in memory at once."""


def queries_of(items: int, seed: int) -> Int64[Array, " queries"]:
    """The items whose neighbours are looked up, in their order: all, or a sample (`ASKED_WHOLE`)."""
    if items <= ASKED_WHOLE:
        return np.arange(items)
    return np.sort(generator(seed, "neighbour queries").choice(items, QUERIES, replace=False))


def neighbour_hits(
    original: Float[Array, "items d"],
    rebuilt: Sequence[Float[Array, "items e"]],
    queries: Int64[Array, " queries"],
    nearest: int = NEAREST,
) -> Float64[Array, "rebuilt queries"]:
    """Share of the nearest items by ``original`` that are among the nearest by each of ``rebuilt``, for each query.

    Similarity is the dot product: of rows of length 1 the cosine. The query itself is no neighbour. All other items
    are searched, none is approximated.

    Ties: items with the same codes have the same rebuilt embedding, and which of them are "among the ten nearest" is
    then no fact. They are taken in random order, and what is returned is the expectation over it, computed exactly:
    an item nearer than the last of the nearest counts 1; where t items tie for the s places that are left, each
    counts s / t. So it is on both sides, independently: the result does not depend on the order of the catalogue.
    Equal rows are multiplied once, so that rounding cannot part what is equal.

    Args:
        original: unit rows.
        rebuilt: one or more embeddings of the same items, unit rows; items with the same codes have equal ones.
        queries: items whose neighbours are looked up.
        nearest: how many neighbours; all others where there are fewer.

    Returns:
        In [0, 1]; nan where there is no other item.
    """
    nearest = min(nearest, len(original) - 1)
    if nearest < 1:
        return np.full((len(rebuilt), len(queries)), np.nan)
    truth, sides = _Side(original), [_Side(rows) for rows in rebuilt]
    hits = np.empty((len(rebuilt), len(queries)))
    chunk = max(1, _CELLS // len(original))
    for begin in range(0, len(queries), chunk):
        asked = queries[begin : begin + chunk]
        wanted = truth.nearest(asked, nearest)
        # Few items are among the nearest, and only of them it matters where the other side has them.
        query, item = np.nonzero(wanted.similarity >= wanted.last)
        chance = wanted.chance(query, item)
        for row, side in enumerate(sides):
            both = chance * side.nearest(asked, nearest).chance(query, item)
            hits[row, begin : begin + chunk] = np.bincount(query, both, len(asked)) / nearest
    return hits


@dataclass(frozen=True, slots=True)
class _Nearest:
    """The items around some queries.

    Attributes:
        similarity: [queries, items], of the query to itself -inf.
        last: [queries, 1], similarity of the last of the nearest.
        share: [queries], chance of each item that ties for the last places.
    """

    similarity: Array
    last: Array
    share: Array

    def chance(self, query: Array, item: Array) -> Array:
        """Probability that each item is among the nearest of the query beside it, float64."""
        similarity, last = self.similarity[query, item], self.last[query, 0]
        chance: Array = np.where(similarity > last, 1.0, np.where(similarity == last, self.share[query], 0.0))
        return chance


class _Side:
    """One of the embeddings, equal rows kept once."""

    def __init__(self, rows: Array) -> None:
        # Zero has two signs, which are equal and have different bytes.
        rows = np.ascontiguousarray(rows) + 0.0
        whole = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).reshape(-1)
        _, first, row = np.unique(whole, return_index=True, return_inverse=True)
        self.rows, self.row = rows[first], row.reshape(-1)
        if len(first) == len(rows):
            self.rows, self.row = rows, np.arange(len(rows))

    def nearest(self, asked: Array, nearest: int) -> _Nearest:
        """How near all items are to those asked, and who is among the nearest."""
        similarity = self.rows[self.row[asked]] @ self.rows.T
        if len(self.rows) < len(self.row):
            similarity = similarity[:, self.row]
        similarity[np.arange(len(asked)), asked] = -np.inf
        top = np.partition(similarity, -nearest, axis=1)[:, -nearest:]
        last = top[:, :1]
        left = nearest - (top > last).sum(axis=1)
        return _Nearest(similarity, last, left / (similarity == last).sum(axis=1))
