"""Items grouped by the first of their codes. NumPy only."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from conrec.arrays import Array

__all__ = ["prefix_groups"]


def prefix_groups(codes: Int[Array, "items levels"], length: int) -> Int[Array, " items"]:
    """For each item the number of its prefix of ``length`` codes, from 0, in lexicographic order of the prefixes.

    >>> prefix_groups(np.asarray([[3, 1], [0, 2], [3, 0], [3, 1]]), 2).tolist()
    [2, 0, 1, 2]
    """
    group = np.zeros(len(codes), dtype=np.int64)
    for column in codes[:, :length].T:
        # One level after the other, so that no product of codebook sizes is ever formed.
        group = np.unique(group * (int(column.max(initial=0)) + 1) + column, return_inverse=True)[1].reshape(-1)
    return group
