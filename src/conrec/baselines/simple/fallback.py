"""How often each item was disliked of late: the item bias of the personal models, and the order of all other items."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from conrec.arrays import Array
from conrec.baselines.simple.profiles import DISLIKES, interactions
from conrec.logs.log import Log

__all__ = ["LEAST", "active_users", "by_dislikes", "dislikes_of_late"]

LEAST = 1e-6
"""Score of the most disliked item where nothing else is known; far below what a neighbour gives."""


def dislikes_of_late(training_log: Log, half_life_days: float | None) -> Float64[Array, " items"]:
    """Users who disliked each item, each halved with the time from his dislike to the end of the training period."""
    return np.asarray(interactions(training_log, DISLIKES, half_life_days).sum(axis=0), dtype=np.float64).reshape(-1)


def by_dislikes(dislikes: Float64[Array, " items"]) -> Float64[Array, " items"]:
    """``LEAST`` times each item's share of the greatest number of dislikes."""
    greatest = dislikes.max(initial=0.0)
    return LEAST * dislikes / (greatest if greatest > 0 else 1.0)


def active_users(training_log: Log) -> int:
    """Users with an event."""
    return len(np.unique(training_log.user))
