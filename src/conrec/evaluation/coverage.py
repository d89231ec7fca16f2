"""How much of the catalogue a model's rankings touch."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int32
from scipy.sparse import csr_array

from conrec.arrays import Array
from conrec.evaluation.significance import LEVEL, Bootstrap, Figure

__all__ = ["distinct_items"]

RESAMPLES = 200
"""Of the bootstrap's resamples, how many this figure uses: a union costs more than a mean."""


def distinct_items(top: Int32[Array, "anchors k"], bootstrap: Bootstrap) -> Figure:
    """Number of distinct items in the top K of all anchors together; a collapse shows here first.

    A resample of users, some drawn twice and some not at all, always names fewer items than the users
    themselves. Its percentiles would lie below the value, so they are moved by the mean shortfall: the interval
    shows the spread around the value.

    Args:
        top: K items of each anchor, -1 for none.
        bootstrap: the resamples over the users of these anchors.

    >>> top = np.array([[3, 5], [5, -1]], dtype=np.int32)
    >>> distinct_items(top, Bootstrap.over(np.array([0, 0]), 10, 0)).value
    2.0
    """
    row, place = np.nonzero(top >= 0)
    found, item = np.unique(top[row, place], return_inverse=True)
    value = float(len(found))
    ones = np.ones(len(row))
    named = csr_array((ones, (bootstrap.user[row], item.reshape(-1))), shape=(bootstrap.n_users, len(found)))
    drawn = np.concatenate([(draws > 0).astype(np.float64) @ named > 0 for draws in _first(bootstrap)])
    resampled = drawn.sum(axis=1).astype(np.float64)
    low, high = np.quantile(resampled - resampled.mean(), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Figure(value, value + min(float(low), 0.0), value + max(float(high), 0.0), len(top))


def _first(bootstrap: Bootstrap) -> list[Array]:
    """The first `RESAMPLES` draws."""
    blocks, left = [], RESAMPLES
    for draws in bootstrap.draws():
        blocks.append(draws[:left])
        left -= len(blocks[-1])
        if left <= 0:
            break
    return blocks
