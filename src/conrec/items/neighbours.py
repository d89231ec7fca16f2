"""Are the nearest items by rebuilt embedding the nearest by the original one? Exact, ties by expectation; NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64, Int64

from conrec.arrays import Array
from conrec.seeds import generator

__all__ = ["NEAREST", "QUERIES", "neighbour_hits", "queries_of"]

NEAREST = 10
"""Neighbours of each item that are compared."""
QUERIES = 2000
"""Items whose neighbours are looked up; a seeded sample where there are more."""
_CELLS = 4_000_000
"""Similarities that are held in memory at once."""


def queries_of(items: int, seed: int) -> Int64[Array, " queries"]:
    """The items whose neighbours are looked up, in their order: all, or a sample of `QUERIES`."""
    if items <= QUERIES:
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
        wanted = truth.chances(asked, nearest)
        for row, side in enumerate(sides):
            found = side.chances(asked, nearest)
            hits[row, begin : begin + chunk] = np.einsum("qi,qi->q", wanted, found) / nearest
    return hits


class _Side:
    """One of the two embeddings, equal rows kept once."""

    def __init__(self, rows: Array) -> None:
        # Zero has two signs, which are equal and have different bytes.
        rows = np.ascontiguousarray(rows) + 0.0
        whole = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).reshape(-1)
        _, first, self.row = np.unique(whole, return_index=True, return_inverse=True)
        self.rows = rows[first]

    def chances(self, asked: Array, nearest: int) -> Array:
        """Probability that each item is among the nearest of each one asked, float64 [asked, items]."""
        similarity = (self.rows[self.row[asked]] @ self.rows.T)[:, self.row]
        similarity[np.arange(len(asked)), asked] = -np.inf
        last = np.partition(similarity, -nearest, axis=1)[:, -nearest, None]
        inside, tied = similarity > last, similarity == last
        left = nearest - inside.sum(axis=1, keepdims=True)
        chances: Array = np.where(inside, 1.0, tied * (left / tied.sum(axis=1, keepdims=True)))
        return chances
