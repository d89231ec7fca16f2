"""What a score trades: dislikes caught against likes lost, at every threshold and at one stated false-filter rate.

What stands above a threshold is dropped. A rule with few distinct scores (block the category after 1, 2, 3 dislikes)
reaches few false-filter rates. To compare it with others at a rate between two of them, the pairs whose score is
the next one are dropped with the probability that brings the rate there (Fawcett 2006, section 10: the straight line
between two points of an ROC curve can be had by drawing lots between the two). Beyond the last rate that a rule
reaches these are the pairs of which it knows nothing, dropped at random: nothing is then gained over chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

import numpy as np
from jaxtyping import Bool, Float, Int64

from conrec.arrays import Array

__all__ = ["AtRate", "Reachable", "Split", "dropped"]

TINY = 1e-9
"""A rate times a count is taken for a whole number within this."""


@dataclass(frozen=True, slots=True)
class Reachable:
    """One threshold of a rule, and what it does.

    Attributes:
        threshold: what is above it is dropped.
        false_filter_rate: share of the liked items that it drops.
        caught: share of the disliked items that it drops; None without any.
    """

    threshold: float
    false_filter_rate: float
    caught: float | None


@dataclass(frozen=True, slots=True)
class AtRate:
    """A score brought to one false-filter rate.

    Attributes:
        threshold: what is above it is dropped.
        ties: of the pairs whose score is the threshold, the share that is dropped; 0: none, nothing is drawn.
        caught: share of the disliked items that are then dropped; None without any.
        below: the nearest rate that the score reaches without lots, at or below the one asked for.
        beyond: whether the rate lies beyond all that the score reaches without dropping what it knows nothing of.
    """

    threshold: float
    ties: float
    caught: float | None
    below: Reachable
    beyond: bool


@dataclass(frozen=True, slots=True)
class Split:
    """Scores of liked and of disliked pairs, sorted from the highest down.

    Attributes:
        positives, negatives: float [n], falling.
        positive_user, negative_user: int64 [n], who they are of (row in the bootstrap).
        floor: score of what nothing is known of.
    """

    positives: Array
    negatives: Array
    positive_user: Array
    negative_user: Array
    floor: float

    @classmethod
    def of(cls, positives: Array, negatives: Array, positive_user: Array, negative_user: Array, floor: float) -> Split:
        """Sort the scores."""
        up, down = (np.argsort(-one, kind="stable") for one in (positives, negatives))
        return cls(positives[up], negatives[down], positive_user[up], negative_user[down], floor)

    def reachable(self) -> list[Reachable]:
        """Every distinct false-filter rate that a threshold gives, with the lowest threshold for it; rising.

        Thresholds are scores that occur, and the floor; empty without liked items.
        """
        if not len(self.positives):
            return []
        scores = np.concatenate([self.positives, self.negatives, np.asarray([self.floor], self.positives.dtype)])
        levels = np.unique(scores)[::-1]
        lost, caught = (_above(one, levels) for one in (self.positives, self.negatives))
        last = np.flatnonzero(np.append(lost[1:] != lost[:-1], True))
        return [self._point(float(levels[at]), int(lost[at]), int(caught[at])) for at in last]

    def _point(self, threshold: float, lost: int, caught: int) -> Reachable:
        whole = len(self.negatives)
        return Reachable(threshold, lost / len(self.positives), caught / whole if whole else None)

    def at_rate(self, rate: float) -> AtRate | None:
        """The score at one false-filter rate in (0, 1); None without liked items."""
        n = len(self.positives)
        if n == 0:
            return None
        allowed = rate * n
        level = float(self.positives[min(floor(allowed + TINY), n - 1)])
        before, here = _at(self.positives, level)
        caught, there = _at(self.negatives, level)
        ties = max(allowed - before, 0.0) / here
        whole = len(self.negatives)
        share = (caught + ties * there) / whole if whole else None
        ties = 0.0 if ties < TINY else ties
        below = self._point(level, before, caught)
        return AtRate(level, ties, share, below, level <= self.floor and ties > 0)

    def resampled(
        self, draws: Int64[Array, "resamples users"], rates: Float[Array, " rates"]
    ) -> Float[Array, "resamples rates"]:
        """`at_rate`'s share caught on resamples of users, the threshold found anew on each.

        NaN where a resample holds no liked or no disliked item.

        Args:
            draws: how often each user is drawn.
            rates: in (0, 1).
        """
        found = np.full((len(draws), len(rates)), np.nan)
        if not (len(self.positives) and len(self.negatives)):
            return found
        # Of each liked pair: where its score's group begins and ends among the liked, and among the disliked.
        begin, end = _span(self.positives, self.positives)
        above, upto = _span(self.negatives, self.positives)
        for row, drawn in enumerate(draws):
            lost = np.append(0, np.cumsum(drawn[self.positive_user]))
            caught = np.append(0, np.cumsum(drawn[self.negative_user]))
            if not (lost[-1] and caught[-1]):
                continue
            allowed = rates * lost[-1]
            at = np.searchsorted(lost[1:], np.floor(allowed + TINY), side="right")
            ties = np.maximum(allowed - lost[begin[at]], 0.0) / (lost[end[at]] - lost[begin[at]])
            before, there = caught[above[at]], caught[upto[at]] - caught[above[at]]
            found[row] = (before + ties * there) / caught[-1]
        return found


def dropped(
    scores: Float[Array, " pairs"], threshold: float | None, ties: float, luck: Float[Array, " pairs"]
) -> Bool[Array, " pairs"]:
    """Which pairs a threshold drops: those above it, and of those that equal it the ones with ``luck <= ties``.

    Args:
        scores: of the pairs.
        threshold: None keeps everything.
        ties: see `AtRate`.
        luck: in (0, 1], drawn once for each pair, so that all methods draw the same lots.
    """
    if threshold is None:
        return np.zeros(len(scores), dtype=np.bool_)
    level = scores.dtype.type(threshold)
    return np.asarray((scores > level) | ((scores == level) & (luck <= ties)))


def _above(falling: Array, levels: Array) -> Array:
    """How many of some falling scores are above each level."""
    return np.asarray(np.searchsorted(-falling, -levels, side="left"))


def _at(falling: Array, level: float) -> tuple[int, int]:
    """How many of some falling scores are above a level, and how many equal it."""
    begin, end = (int(np.searchsorted(-falling, -level, side=side)) for side in ("left", "right"))
    return begin, end - begin


def _span(falling: Array, levels: Array) -> tuple[Array, Array]:
    """First place, and the one behind the last, of each level among falling scores."""
    return np.searchsorted(-falling, -levels, side="left"), np.searchsorted(-falling, -levels, side="right")
