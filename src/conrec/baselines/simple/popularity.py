"""The two rows without a user in them: the most disliked items, and what is being disliked right now."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32

from conrec.arrays import Array
from conrec.baselines.base import CatalogueScorer, Curve
from conrec.logs.log import Log
from conrec.protocol import DAY, NEGATIVE
from conrec.recommender import Queries
from conrec.settings.baselines.simple import PopularityConfig
from conrec.workspace import Workspace

__all__ = ["SPACE", "LivePopularity", "MostDisliked"]

SPACE: dict[str, tuple[float | int, ...]] = {"days": (7, 30, 90), "half_life_days": (3.0, 7.0, 14.0)}
"""The grid that `conrec baselines search` searches, of live popularity; the other has nothing to choose."""


@dataclass(frozen=True, slots=True)
class MostDisliked(CatalogueScorer):
    """Items by their number of negatives in the training period; the same list for everybody.

    Attributes:
        counts: float32 [items].
        curve: none.
    """

    counts: Array
    curve: Curve = field(default_factory=dict)

    @classmethod
    def count(cls, training_log: Log) -> MostDisliked:
        """Count the negatives of the log of the training period alone."""
        return cls(training_log.negative_counts()[1].astype(np.float32))

    @classmethod
    def fit(cls, space: Workspace, name: str) -> MostDisliked:
        """Count the negatives of the training period."""
        return cls.count(space.training_log)

    @property
    def parameters(self) -> int:
        """One count an item."""
        return len(self.counts)

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
    curve: Curve = field(default_factory=dict)

    @classmethod
    def fit(cls, space: Workspace, name: str) -> LivePopularity:
        """Nothing is fitted."""
        return cls(space.config.baselines.popularity)

    @property
    def parameters(self) -> int:
        """None are learned."""
        return 0

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
