"""The two rows without a user in them: the most disliked items, and what is being disliked right now."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from conrec.arrays import Array
from conrec.baselines.base import CatalogueScorer
from conrec.config import PopularityConfig
from conrec.logs.log import Log
from conrec.protocol import DAY, NEGATIVE
from conrec.recommender import Queries

__all__ = ["LivePopularity", "MostDisliked"]


@dataclass(frozen=True, slots=True)
class MostDisliked(CatalogueScorer):
    """Items by their number of negatives in the training period; the same list for everybody.

    Attributes:
        counts: float32 [items].
    """

    counts: Array

    @classmethod
    def fit(cls, train_log: Log) -> MostDisliked:
        """Count the negatives of ``train_log``, the log of the training period alone."""
        return cls(train_log.negative_counts()[1].astype(np.float32))

    def scores(self, log: Log, queries: Queries) -> Float32[Array, "queries items"]:
        """The counts, once for each query."""
        return np.broadcast_to(self.counts, (len(queries), len(self.counts)))


@dataclass(frozen=True, slots=True)
class LivePopularity(CatalogueScorer):
    """Items by everybody's recent negatives, read up to the moment of the query and never fitted.

    An item's score at time t is the sum of ``0.5 ** ((t - s) / half life)`` over the negatives of all users on it at
    times s with ``t - days <= s < t``. It answers what the log itself exposes: what is in front of everybody
    this week is what will be disliked next.
    """

    config: PopularityConfig

    def scores(self, log: Log, queries: Queries) -> Float32[Array, "queries items"]:
        """One weighted count a distinct query time; cost grows with the negatives of a window, not of the log."""
        negative = np.flatnonzero(log.feedback == NEGATIVE)
        times, items = log.timestamp[negative], log.item[negative]
        moments, back = np.unique(queries.timestamp, return_inverse=True)
        first = np.searchsorted(times, moments - self.config.days * DAY, side="left")
        last = np.searchsorted(times, moments, side="left")
        live = np.empty((len(moments), log.n_items), dtype=np.float32)
        for row, (moment, begin, end) in enumerate(zip(moments, first, last, strict=True)):
            half_lives = (moment - times[begin:end]) / (self.config.half_life_days * DAY)
            live[row] = np.bincount(items[begin:end], weights=0.5**half_lives, minlength=log.n_items)
        return live[back]
