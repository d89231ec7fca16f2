"""Training stretches of the users' events, and the order in which batches of them are seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from conrec.arrays import Array
from conrec.errors import DataError
from conrec.logs.log import Log

__all__ = ["batches_by_length", "stretches_of"]

POOL = 16
"""Batches that are sorted by length together."""


def stretches_of(log: Log, max_length: int, signs: Sequence[int]) -> list[Array]:
    """Positions of the users' events of the given signs, in stretches of at most ``max_length``, int64 [n] each.

    A longer history is cut into stretches that overlap by half, so that most positions have seen at least
    half of ``max_length`` events before them, as they will at query time. Users without such events have none.

    Raises:
        DataError: nobody has one.
    """
    found = []
    for user in range(log.n_users):
        events = log.events_of(user)
        kept = events[np.isin(log.feedback[events], signs)]
        if len(kept) == 0:
            continue
        last = max(0, len(kept) - max_length)
        begins = [*range(0, last, max(1, max_length // 2)), last]
        found += [kept[begin : begin + max_length] for begin in begins]
    if not found:
        raise DataError("the training period has no negative events", expected="at least one to learn from")
    return found


def batches_by_length(stretches: Sequence[Any], size: int, random: np.random.Generator) -> list[list[Any]]:
    """All stretches in random batches of similar lengths: most users have few negatives, and padding costs time.

    Args:
        stretches: anything with a length.
        size: of a batch; the last of a pool may be smaller.
        random: draws the order.
    """
    order = random.permutation(len(stretches))
    batches = []
    for begin in range(0, len(order), POOL * size):
        pool = sorted((stretches[one] for one in order[begin : begin + POOL * size]), key=len)
        batches += [pool[first : first + size] for first in range(0, len(pool), size)]
    return [batches[one] for one in random.permutation(len(batches))]
