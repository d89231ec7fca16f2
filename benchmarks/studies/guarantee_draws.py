"""The guarantee of the filter where the truth is known: draws from a made-up population (see `guarantee`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.stats import binom

from conrec.arrays import Array
from conrec.filtering.calibrating.control import Liked, Rule, controlled, smallest_threshold
from conrec.seeds import generator

__all__ = ["BOUNDS", "RULES", "named", "simulation", "tightness"]

BOUNDS = (0.01, 0.02, 0.05, 0.1, 0.2)
RULES = tuple(
    Rule(BOUNDS[0], rate, guarantee, 0.9) for rate in ("user", "pair") for guarantee in ("expectation", "probability")
)
"""Each is taken with every bound."""
POPULATION = 100_000


def named(rule: Rule) -> dict[str, Any]:
    """A rule in the results."""
    confidence = rule.confidence if rule.guarantee == "probability" else None
    return {"rate": rule.rate, "guarantee": rule.guarantee, "bound": rule.bound, "confidence": confidence}


def draw(random: np.random.Generator, users: int) -> Liked:
    """Users of a made-up population: 1 to some dozen likes, alike within a user; who likes more loses less of it."""
    likes = random.geometric(0.3, size=users)
    user = np.repeat(np.arange(users), likes)
    taste = random.normal(0, 1, size=users) - 0.05 * likes
    return Liked.of(np.tanh(taste[user] + random.normal(0, 0.5, size=len(user))).astype(np.float32), user)


class TrueRate:
    """The rate of every threshold in a population: what each pair adds to it, summed from the highest similarity on."""

    def __init__(self, truth: Liked, cap: int) -> None:
        weights = truth.weights(cap)
        order = np.argsort(truth.similarity)
        self.similarity = truth.similarity[order]
        of_pair = (weights / truth.total)[truth.user[order]] / weights.sum()
        self.above = np.append(np.cumsum(of_pair[::-1])[::-1], 0.0)

    def at(self, threshold: float | None) -> float:
        """The rate of a threshold."""
        if threshold is None:
            return 0.0
        return float(self.above[np.searchsorted(self.similarity, np.float32(threshold), side="right")])

    def threshold(self, rate: float) -> float:
        """The smallest threshold with at most this rate."""
        return float(self.similarity[np.flatnonzero(self.above[1:] <= rate)[0]])


def simulation(users: int, draws: int, rules: Sequence[Rule], seed: int) -> list[dict[str, Any]]:
    """The true rate of the chosen threshold over draws of calibration users; and of the rule that counts pairs."""
    random = generator(seed, "guarantee simulation", users)
    truth = draw(random, POPULATION)
    curves = {cap: TrueRate(truth, cap) for cap in {rule.cap for rule in rules}}
    rates: dict[Rule, list[float]] = {rule: [] for rule in rules}
    counted: dict[float, list[float]] = {bound: [] for bound in BOUNDS}

    for _ in range(draws):
        liked = draw(random, users)
        for rule in rules:
            rates[rule].append(curves[rule.cap].at(smallest_threshold(liked, rule)))
        for bound in BOUNDS:
            alone = Liked.of(liked.similarity, np.arange(len(liked.similarity)))
            counted[bound].append(curves[1].at(smallest_threshold(alone, Rule(bound))))
    found = [{**named(rule), **_of_draws(np.asarray(rates[rule]), rule.bound)} for rule in rules]
    wrong = {"rate": "user", "guarantee": "pairs taken for exchangeable", "confidence": None}
    return [*found, *({**wrong, "bound": bound, **_of_draws(np.asarray(counted[bound]), bound)} for bound in BOUNDS)]


def _of_draws(rates: Array, bound: float) -> dict[str, float]:
    return {
        "mean": float(rates.mean()),
        "error": float(rates.std(ddof=1) / np.sqrt(len(rates))),
        "above": float((rates > bound).mean()),
    }


def hoeffding_bentkus(shares: Array, bound: float, delta: float) -> bool:
    """Whether the bound is met by equations 9 and 11 of Bates et al. (arXiv 2101.02703)."""
    n, mean = len(shares), float(shares.mean())
    kept, best = (1 - mean, mean), (1 - bound, bound)
    divergence = sum(p * np.log(p / q) for p, q in zip(kept, best, strict=True) if p > 0) if mean < bound else 0.0
    return bool(min(np.exp(-n * divergence), np.e * binom.cdf(np.ceil(n * mean), n, bound)) <= delta)


def waudby_smith_ramdas(shares: Array, bound: float, delta: float) -> bool:
    """Whether the bound is met by proposition 5 of Bates et al., with the users in the order that they are in."""
    n = len(shares)
    seen = np.arange(1, n + 1)
    mean = (0.5 + np.cumsum(shares)) / (1 + seen)
    variance = (0.25 + np.cumsum((shares - mean) ** 2)) / (1 + seen)
    stake = np.minimum(1, np.sqrt(-2 * np.log(delta) / (n * np.append(0.25, variance[:-1]))))
    return bool(np.cumsum(np.log1p(-stake * (shares - bound))).max() >= -np.log(delta))


def tightness(users: Sequence[int], draws: int, seed: int) -> list[dict[str, Any]]:
    """The share of draws in which each test for the "probability" guarantee passes, by the true rate over the bound."""
    random = generator(seed, "guarantee tightness")
    truth = TrueRate(draw(random, POPULATION), 1)
    found = []
    for n in users:
        for bound in BOUNDS:
            rule = replace(RULES[1], bound=bound)
            for over in (0.5, 0.7, 0.9):
                threshold = truth.threshold(over * bound)
                passed = np.zeros(3)
                for _ in range(draws):
                    liked = draw(random, n)
                    shares = liked.shares(liked.similarity > threshold)
                    passed += (
                        controlled(shares, liked.weights(1), rule),
                        hoeffding_bentkus(shares, bound, 1 - rule.confidence),
                        waudby_smith_ramdas(shares, bound, 1 - rule.confidence),
                    )
                ours, hoeffding, ordered = (passed / draws).tolist()
                named = {"ours": ours, "hoeffding_bentkus": hoeffding, "waudby_smith_ramdas": ordered}
                found.append({"users": n, "bound": bound, "true_rate_over_bound": over, **named})
    return found
