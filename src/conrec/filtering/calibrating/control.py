"""The guarantee: the smallest threshold whose false-filter rate is bounded for users who were not seen.

Candidates of one user hang together, users do not: the unit is the user. User u has n_u liked candidates, of which a
threshold t drops the share s_u(t), the lower t, the more. He weighs m_u = min(n_u, c); with c = 1 every user weighs
the same (rate "user"), with a larger c the weighted mean of s_u is the share among all liked candidates, in which no
user counts for more than c of them (rate "pair"). Within a bound a means E[m_u (s_u - a)] <= 0, a loss of at most
(1 - a) c.

- *Expectation*: conformal risk control (Angelopoulos, Bates, Fisch, Lei, Schuster 2022, arXiv 2208.02814, theorem 1)
  with that loss: sum_u m_u (s_u - a) + (1 - a) c <= 0. For c = 1 it is (sum_u s_u + 1) / (n + 1) <= a, their equation
  4. It holds of users who are exchangeable with those that were seen.
- *Probability*: risk-controlling prediction sets (Bates, Angelopoulos, Lei, Malik, Jordan 2021, arXiv 2101.02703,
  theorem 1) with a test by betting (Waudby-Smith and Ramdas 2024, arXiv 2010.09686): a gambler who stakes the share v
  of what he has on every user losing less than a has prod_u (1 + v m_u (a - s_u) / c) in the end. If the rate were
  above a, this would be 1 or less in expectation, so it reaches 1 / delta with probability delta at most (Markov).
  The stakes are several, fixed beforehand, and his money is divided among them; so the order of users does not
  matter, and what he has falls with every loss: the thresholds that pass are an interval, as theorem 1 wants. It
  holds of users who are independent draws of one population.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, Int64

from conrec.arrays import Array
from conrec.filtering.weighing import Weighing
from conrec.settings.filtering import FilterConfig

__all__ = ["Liked", "Rule", "capital", "controlled", "smallest_threshold", "stakes"]

ROUNDING = 1e-12
"""Sums of shares are right up to this; a tie with the bound is within it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What is bounded, by how much, and how surely.

    Attributes:
        bound: allowed false-filter rate, in (0, 1).
        rate: "user" or "pair", see above.
        guarantee: "expectation" or "probability".
        confidence: 1 - delta, for "probability".
        pairs_per_user: c, for "pair".
        least: no threshold below it is chosen: where predictions are weighted the filter has none below 0
            (`Weighing.least`). A higher threshold drops less, so that what is bounded stays so.
    """

    bound: float
    rate: Literal["user", "pair"] = "user"
    guarantee: Literal["expectation", "probability"] = "expectation"
    confidence: float = 0.9
    pairs_per_user: int = 20
    least: float = -inf

    @classmethod
    def of(cls, config: FilterConfig) -> Rule:
        """The rule that is configured."""
        weighing = Weighing(config.rank_weight, config.score_weight, config.half_life_days)
        return cls(
            config.false_filter_rate,
            config.rate,
            config.guarantee,
            config.confidence,
            config.pairs_per_user,
            weighing.least,
        )

    @property
    def cap(self) -> int:
        """c, the weight that no user exceeds."""
        return 1 if self.rate == "user" else self.pairs_per_user


@dataclass(frozen=True, slots=True)
class Liked:
    """Liked candidates of some users, who have at least one each.

    Attributes:
        similarity: float32 [pairs], to the user's predict set; NaN where it is unknown: such a pair is never dropped.
        user: int64 [pairs], row of the pair's user.
        total: int64 [users], n_u.
    """

    similarity: Array
    user: Array
    total: Array

    @classmethod
    def of(cls, similarity: Float32[Array, " pairs"], users: Int[Array, " pairs"]) -> Liked:
        """Group pairs by user.

        Args:
            similarity: of each pair.
            users: whose it is, any numbers.
        """
        user, total = np.unique(users, return_inverse=True, return_counts=True)[1:]
        return cls(similarity, user.reshape(-1).astype(np.int64), total.astype(np.int64))

    @property
    def users(self) -> int:
        """Number of users."""
        return len(self.total)

    def shares(self, dropped: Bool[Array, " pairs"]) -> Float64[Array, " users"]:
        """s_u, the share of each user's liked candidates that is dropped."""
        count: Array = np.bincount(self.user[dropped], minlength=self.users) / self.total
        return count

    def weights(self, cap: int) -> Int64[Array, " users"]:
        """m_u, what each user weighs."""
        weight: Array = np.minimum(self.total, cap)
        return weight

    def rate(self, dropped: Bool[Array, " pairs"], cap: int | None = 1) -> float | None:
        """The false-filter rate, None without any user.

        Args:
            dropped: whether each pair is dropped.
            cap: 1: the mean of users' shares; None: the share among all pairs; else that with capped weights.
        """
        if not self.users:
            return None
        if cap is None:
            return float(dropped.mean())
        return float(np.average(self.shares(dropped), weights=self.weights(cap)))


def controlled(shares: Float64[Array, " users"], weights: Int64[Array, " users"], rule: Rule) -> bool:
    """Whether a threshold at which users lose ``shares`` meets the rule.

    >>> controlled(np.zeros(19), np.ones(19, dtype=np.int64), Rule(0.05))  # (0 + 1) / (19 + 1) <= 0.05
    True
    >>> controlled(np.zeros(18), np.ones(18, dtype=np.int64), Rule(0.05))
    False
    >>> [controlled(np.zeros(n), np.ones(n, dtype=np.int64), Rule(0.05, guarantee="probability")) for n in (44, 45)]
    [False, True]

    Args:
        shares: s_u.
        weights: m_u, at most ``rule.cap``.
        rule: the rule.
    """
    if rule.guarantee == "expectation":
        lost = float((weights * shares).sum())
        return (lost + rule.cap) / (float(weights.sum()) + rule.cap) <= rule.bound + ROUNDING
    return capital(shares, weights, rule) >= -log(1 - rule.confidence) - ROUNDING


def capital(shares: Float64[Array, " users"], weights: Int64[Array, " users"], rule: Rule) -> float:
    """Logarithm of what the gambler has in the end, of 1 at the start.

    Each of the `stakes` has a quarter of the money of the one before.
    """
    stake = stakes(len(shares), rule)
    money = 0.25 ** np.arange(len(stake))
    won = weights * (rule.bound - shares) / rule.cap
    with np.errstate(divide="ignore"):  # log 0: all is lost
        logs = np.log(np.maximum(0.0, 1 + stake[:, None] * won)).sum(axis=1)
    return float(np.logaddexp.reduce(logs + np.log(money / money.sum())))


def stakes(users: int, rule: Rule) -> Float64[Array, " stakes"]:
    """The shares v of his money that the gambler stakes, fixed by the number of users, bound and confidence alone.

    The first is what is best against losses of 0 or 1 (variance a (1 - a)): sqrt(2 log(1 / delta) / (n a (1 - a)));
    losses that vary less, as shares of several candidates and capped weights do, want more, so that the others are
    twice, four times … as high. The highest is 1 / (1 - a), where one user can take all that there is; with it alone,
    no losses at all pass as soon as (1 - a)^n <= delta, as in an exact binomial test.
    """
    variance = rule.bound * (1 - rule.bound)
    first = np.sqrt(-2 * np.log(1 - rule.confidence) / (max(users, 1) * variance))
    highest = 1 / (1 - rule.bound)
    doublings = int(np.ceil(np.log2(highest / min(first, highest))))
    stake: Array = np.minimum(highest, first * 2.0 ** np.arange(doublings + 1))
    return stake


def smallest_threshold(liked: Liked, rule: Rule) -> float | None:
    """The smallest threshold that meets a rule; None where not even dropping none of the liked candidates meets it.

    Candidates with a similarity above a threshold are dropped. What a user loses falls with the threshold, and a
    smaller loss never breaks the rule, so that bisection finds the smallest; it is the similarity of a liked candidate,
    as nothing changes between two of them, or ``rule.least``.

    >>> smallest_threshold(Liked.of(np.float32([0.1, 0.2, 0.9]), np.arange(3)), Rule(0.5))  # (1 + 1) / (3 + 1) <= 0.5
    0.20000000298023224

    Args:
        liked: of the users to calibrate on.
        rule: what is to hold.
    """
    values = np.unique(liked.similarity[~np.isnan(liked.similarity)])
    weights = liked.weights(rule.cap)

    def meets(place: int) -> bool:
        return controlled(liked.shares(liked.similarity > values[place]), weights, rule)

    low, high = 0, len(values) - 1
    if high < 0 or not meets(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if meets(middle) else (middle + 1, high)
    return max(float(values[high]), rule.least)
