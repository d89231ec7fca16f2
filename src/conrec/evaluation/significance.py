"""Intervals and paired comparisons from one bootstrap over users.

A resample draws as many users as there are, with replacement; a figure on it is the sum of its anchors' values over
the number of its anchors, so that users with many anchors weigh as they do in the figure itself. All figures of a
table are taken on the same resamples: two models are then compared on the same users, drawn the same number of times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int, Int64

from conrec.arrays import Array
from conrec.seeds import generator

__all__ = ["LEVEL", "Bootstrap", "Comparison", "Figure"]

LEVEL = 0.95
"""Coverage of every printed interval."""
BLOCK = 4_000_000
"""Draw counts (resamples times users) held at once."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean over anchors with its percentile interval.

    Attributes:
        value: the mean over the anchors that count.
        low: 2.5th percentile over the resamples.
        high: 97.5th percentile.
        anchors: how many anchors count.
    """

    value: float
    low: float
    high: float
    anchors: int

    def to_json(self) -> dict[str, float | int]:
        """The four fields, as in ``metrics.json``."""
        return {"value": self.value, "low": self.low, "high": self.high, "anchors": self.anchors}


@dataclass(frozen=True, slots=True)
class Comparison:
    """The difference of two models on the same anchors.

    Attributes:
        difference: mean of the first less mean of the second.
        low: 2.5th percentile of the difference over the resamples.
        high: 97.5th percentile.
        share_above: share of resamples with a difference above 0; those at exactly 0 count half.
        anchors: how many anchors count.
    """

    difference: float
    low: float
    high: float
    share_above: float
    anchors: int

    def to_json(self) -> dict[str, float | int]:
        """The five fields, as in ``comparisons.json``."""
        return {
            "difference": self.difference,
            "low": self.low,
            "high": self.high,
            "share_above": self.share_above,
            "anchors": self.anchors,
        }


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Resamples of the users behind a set of anchors.

    Attributes:
        user: int64 [anchors], which of the ``n_users`` distinct users each anchor belongs to.
        n_users: number of distinct users.
        resamples: number of resamples.
        seed: seed of the draws; they depend on it, on ``n_users`` and on ``resamples`` alone.
    """

    user: Array
    n_users: int
    resamples: int
    seed: int

    @classmethod
    def over(cls, users: Int[Array, " anchors"], resamples: int, seed: int) -> Bootstrap:
        """The bootstrap over the users of some anchors, one entry of ``users`` an anchor."""
        distinct, user = np.unique(users, return_inverse=True)
        return cls(user.reshape(-1).astype(np.int64), len(distinct), resamples, seed)

    def draws(self) -> Iterator[Int64[Array, "block users"]]:
        """How often each user is drawn in each resample, in blocks of bounded memory; the same on every call."""
        random = generator(self.seed, "bootstrap", self.n_users)
        block = max(1, BLOCK // max(1, self.n_users))
        even = np.full(self.n_users, 1 / self.n_users)
        for begin in range(0, self.resamples, block):
            size = min(block, self.resamples - begin)
            yield random.multinomial(self.n_users, even, size=size).astype(np.int64)

    def means(self, values: Float64[Array, "anchors columns"]) -> Float64[Array, "resamples columns"]:
        """Mean of each column on each resample, over the anchors that count.

        Args:
            values: a value for each anchor (rows) and figure (columns), NaN where the anchor does not count.

        Returns:
            NaN where a resample holds no anchor that counts.
        """
        sums, counts = self._per_user(values)
        parts = []
        for draws in self.draws():
            drawn = draws.astype(np.float64)
            total = drawn @ counts
            parts.append(np.divide(drawn @ sums, total, out=np.full(total.shape, np.nan), where=total > 0))
        return np.concatenate(parts) if parts else np.empty((0, values.shape[1]))

    def figures(self, values: Float64[Array, "anchors columns"]) -> list[Figure | None]:
        """Each column's mean with its interval; None where no anchor counts.

        Resamples without an anchor that counts say nothing about the figure and are left out of its percentiles.
        """
        resampled = self.means(values)
        return [_figure(values[:, column], resampled[:, column]) for column in range(values.shape[1])]

    def compare(
        self, first: Float64[Array, "anchors columns"], second: Float64[Array, "anchors columns"]
    ) -> list[Comparison | None]:
        """Column by column, ``first`` less ``second`` on the anchors that count for both; None where none does."""
        both = ~np.isnan(first) & ~np.isnan(second)
        values = np.where(both, first - second, np.nan)
        resampled = self.means(values)
        result: list[Comparison | None] = []
        for column in range(values.shape[1]):
            figure = _figure(values[:, column], resampled[:, column])
            if figure is None:
                result.append(None)
                continue
            kept = resampled[~np.isnan(resampled[:, column]), column]
            above = float((kept > 0).mean() + (kept == 0).mean() / 2)
            result.append(Comparison(figure.value, figure.low, figure.high, above, figure.anchors))
        return result

    def _per_user(self, values: Array) -> tuple[Array, Array]:
        """Sum of the values and number of anchors that count, float64 [users, columns] each."""
        counted = ~np.isnan(values)
        sums = np.zeros((self.n_users, values.shape[1]))
        counts = np.zeros_like(sums)
        np.add.at(sums, self.user, np.where(counted, values, 0.0))
        np.add.at(counts, self.user, counted.astype(np.float64))
        return sums, counts


def _figure(values: Array, resampled: Array) -> Figure | None:
    """Mean and percentile interval of one column."""
    counted = values[~np.isnan(values)]
    if len(counted) == 0:
        return None
    kept = resampled[~np.isnan(resampled)]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(kept, [tail, 1 - tail])
    return Figure(float(counted.mean()), float(low), float(high), len(counted))
