"""Item vectors from co-feedback: items that the same users reject are near each other, and so are those they like.

Of each sign apart: the users of every two items are counted, weighed as positive pointwise mutual information, and
the symmetric matrix is reduced to its leading eigenvectors (Levy and Goldberg, NeurIPS 2014; smoothing of Levy,
Goldberg and Dagan, TACL 2015, eq. 3)::

    PPMI(i, j) = max(0, log( n(i, j) · Σ n(·)^a / ( n(i) · n(j)^a ) )),   vectors U √Λ
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from jaxtyping import Float32, Int, Integer
from scipy.sparse import coo_array, csr_array
from scipy.sparse.linalg import eigsh

from conrec.arrays import Array
from conrec.config import CollaborativeConfig
from conrec.seeds import generator

__all__ = ["co_feedback_vectors", "ppmi"]

SIGNS = {"negative": -1, "positive": 1}


def co_feedback_vectors(
    users: Int[Array, " events"],
    items: Int[Array, " events"],
    feedback: Integer[Array, " events"],
    n_items: int,
    config: CollaborativeConfig,
    seed: int,
) -> dict[str, Float32[Array, "items dim"]]:
    """Vectors of each sign that has a weight.

    What items with feedback get does not depend, by as much as a bit, on how many others there are: the table is of
    the items alone of which two were given the same feedback by one user.

    Args:
        users: index of the user of each event of the training period.
        items: index of its item.
        feedback: -1, 0 or 1.
        n_items: rows of the result.
        config: weights, length of the vectors, how many items of a user count, smoothing.
        seed: of the items of a user with too many, and of the start of the eigenvector iteration.

    Returns:
        "negative" and "positive", those with a weight: float32 [items, dim] with rows of zeros for items of which
        no two were given the same feedback by one user; fewer columns where fewer eigenvalues are positive, none where
        none is.
    """
    weights = {"negative": config.negative_weight, "positive": config.positive_weight}
    vectors = {}
    for name, sign in SIGNS.items():
        if weights[name]:
            own = feedback == sign
            known, counts = _together(users[own], items[own], config.items_per_user, (seed, "co-feedback", name))
            found = _leading(ppmi(counts, config.smoothing), config.dim, generator(seed, "co-feedback", name))
            vectors[name] = np.zeros((n_items, found.shape[1]), dtype=np.float32)
            vectors[name][known] = found
    return vectors


def _together(users: Array, items: Array, most: int, seed: tuple[int, str, str]) -> tuple[Array, csr_array]:
    """How many users every two different items have in common.

    Args:
        users: int [events].
        items: int [events].
        most: of a user with more items so many, drawn at random, count.
        seed: and purpose, of that draw; it is of each user's own, and the same for items with other indices in the same
            order.

    Returns:
        The items that have a user in common with another one, ascending, int [known]; and int64 [known, known].
    """
    who, user = np.unique(users, return_inverse=True)
    known, item = np.unique(items, return_inverse=True)
    ones = np.ones(len(items), dtype=np.int64)
    given = csr_array(coo_array((ones, (user, item)), shape=(len(who), len(known))))
    given.sort_indices()
    given.data[:] = 1  # once a user, however often he gave it
    for row in np.flatnonzero(np.diff(given.indptr) > most):
        begin, end = given.indptr[row], given.indptr[row + 1]
        left_out = generator(*seed, "items", int(who[row])).permutation(end - begin)[most:]
        given.data[begin + left_out] = 0
    given.eliminate_zeros()
    counts = csr_array(given.T @ given)
    counts.setdiag(0)
    counts.eliminate_zeros()
    with_others = np.flatnonzero(np.diff(counts.indptr))
    return known[with_others], csr_array(counts[with_others][:, with_others])


def ppmi(counts: csr_array, smoothing: float) -> csr_array:
    """Positive pointwise mutual information of a symmetric table of counts, made symmetric again by its mean."""
    total = np.asarray(counts.sum(axis=1), dtype=np.float64)
    smooth = total**smoothing
    table = coo_array(counts, dtype=np.float64)
    row, column = table.coords
    with np.errstate(divide="ignore"):
        information = np.log(table.data * smooth.sum() / (total[row] * smooth[column]))
    kept = information > 0
    found = csr_array(coo_array((information[kept], (row[kept], column[kept])), shape=counts.shape))
    return csr_array((found + found.T) / 2)


def _leading(matrix: csr_array, dim: int, chance: np.random.Generator) -> Float32[Array, "items _"]:
    """``U √Λ`` of the largest positive eigenvalues, with the largest entry of every eigenvector positive."""
    n = matrix.shape[0]
    if not matrix.nnz:
        return np.zeros((n, 0), dtype=np.float32)
    if n <= dim + 1:  # fewer than the iteration takes
        values, axes = np.linalg.eigh(matrix.toarray())
        values, axes = values[::-1][:dim], axes[:, ::-1][:, :dim]
    else:
        start = chance.normal(size=n) * (np.asarray(matrix.sum(axis=1)) > 0)
        # Where the iteration begins anew, SciPy 1.17 draws at random; the versions before begin alike every time.
        draws: dict[str, Any] = {"rng": chance} if "rng" in inspect.signature(eigsh).parameters else {}
        values, axes = eigsh(matrix, k=dim, which="LA", v0=start, tol=1e-8, **draws)
        values, axes = values[::-1], axes[:, ::-1]
    values, axes = values[values > 1e-9], axes[:, values > 1e-9]
    sign = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    vectors: Array = (axes * sign * np.sqrt(values)).astype(np.float32)
    vectors[np.asarray(matrix.sum(axis=1)) == 0] = 0
    return vectors
