"""A user's feedback as one row of a sparse matrix: what the neighbour models and EASE are fitted on and asked with.

An entry is ``Σ_s w(s) · 0.5 ** (age / half life)`` over the signs s that the user ever gave the item, aged by the
latest event of that sign: a dislike counts once however often it is repeated, and an exposure after it undoes nothing.
With the signs apart, each has its own block of columns instead (negative, neutral, positive), and nothing is summed.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Integer
from scipy.sparse import coo_array, csr_array

from conrec.arrays import Array
from conrec.logs.log import Log
from conrec.protocol import DAY
from conrec.recommender import Queries

__all__ = ["DISLIKES", "SignWeights", "interactions", "profiles"]

SignWeights = tuple[float, float, float]
"""w(s) of a negative, a neutral and a positive event; a sign of weight 0 is not read."""
DISLIKES: SignWeights = (1.0, 0.0, 0.0)


def interactions(
    log: Log, weights: SignWeights, half_life_days: float | None = None, *, apart: bool = False
) -> csr_array:
    """All feedback of ``log``, aged by the last event of the whole log.

    Args:
        log: such as that of the training period.
        weights: of the signs.
        half_life_days: an event weighs half after so many days; None: always the same.
        apart: whether each sign has its own block of columns.

    Returns:
        float64 [users, items] with 32-bit indices; [users, 3 items] with the signs apart.
    """
    age = log.timestamp.max(initial=0) - log.timestamp
    decay = _decay(age, half_life_days)
    return _matrix(log.user, log.item, log.feedback, decay, weights, (log.n_users, log.n_items), apart)


def profiles(
    log: Log, queries: Queries, weights: SignWeights, half_life_days: float | None = None, *, apart: bool = False
) -> csr_array:
    """What each user had given strictly before the time of his query.

    Args:
        log: the whole log; only histories are read.
        queries: Q questions.
        weights: of the signs.
        half_life_days: an event weighs half after so many days; None: always the same.
        apart: whether each sign has its own block of columns.

    Returns:
        float64 [Q, items] with 32-bit indices; [Q, 3 items] with the signs apart.
    """
    pasts = [log.history(int(user), int(time)) for user, time in zip(queries.user, queries.timestamp, strict=True)]
    events = np.concatenate([np.empty(0, dtype=np.int64), *pasts])
    row = np.repeat(np.arange(len(queries)), [len(past) for past in pasts])
    decay = _decay(queries.timestamp[row] - log.timestamp[events], half_life_days)
    shape = (len(queries), log.n_items)
    return _matrix(row, log.item[events], log.feedback[events], decay, weights, shape, apart)


def _decay(age: Integer[Array, " events"], half_life_days: float | None) -> Float64[Array, " events"]:
    """Weight of events so many seconds old."""
    return np.ones(len(age)) if half_life_days is None else 0.5 ** (age / (half_life_days * DAY))


def _matrix(
    row: Integer[Array, " events"],
    item: Integer[Array, " events"],
    feedback: Integer[Array, " events"],
    decay: Float64[Array, " events"],
    weights: SignWeights,
    shape: tuple[int, int],
    apart: bool,
) -> csr_array:
    """The last event of each row, item and sign; events of a row are in time order."""
    sign = feedback.astype(np.int64) + 1
    weight = np.asarray(weights)[sign]
    read = weight != 0
    column = (sign * shape[1] + item)[read]
    row, value = row[read].astype(np.int64), (weight * decay)[read]
    _, last = np.unique((row * 3 * shape[1] + column)[::-1], return_index=True)
    last = len(row) - 1 - last
    row, column, value = row[last].astype(np.int32), column[last].astype(np.int32), value[last]
    if apart:
        shape = (shape[0], 3 * shape[1])
    else:
        column %= np.int32(shape[1])  # a sum over the signs of an item, below
    matrix = coo_array((value, (row, column)), shape=shape).tocsr()
    matrix.sort_indices()
    return matrix
