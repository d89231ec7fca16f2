"""What a calibrated filter does later: with which weights and predict sets, and with stale predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.studies.guarantee_draws import BOUNDS, RULES, named
from benchmarks.studies.guarantee_pool import Pool, pool

from conrec.config import Config, load_config
from conrec.evaluation.evaluate import RunData
from conrec.evaluation.significance import Bootstrap
from conrec.filtering.calibrating.control import Liked, Rule, smallest_threshold
from conrec.filtering.calibrating.similarities import predict_sets, split_similarities
from conrec.filtering.catalogue import FilterCatalogue
from conrec.filtering.vectors.table import max_similarity

__all__ = ["later", "reach", "stale", "weighings"]

REACH = ((20, 1.0), (20, 0.99), (10, 0.99), (5, 0.99))
"""Sizes of the predict set and weights of ranks (`filter.rank_weight`); 1 is the rule of the paper."""
WEIGHINGS = (
    *({"rank_weight": one} for one in (1.0, 0.995, 0.99, 0.98, 0.95, 0.9)),
    *({"rank_weight": 1.0, "score_weight": one} for one in (0.1, 0.25, 0.5)),
)
DAY = 86_400


def later(first: Pool, second: Pool, rules: Sequence[Rule], resamples: int, seed: int) -> list[dict[str, Any]]:
    """Chosen on the validation period, measured on the test period, with an interval over its users."""
    liked = Liked.of(first.liked.similarity, first.liked_user)
    judged = Liked.of(second.liked.similarity, second.liked_user)
    thresholds = [smallest_threshold(liked, rule) for rule in rules]
    cuts = [np.float32(2 if one is None else one) for one in thresholds]
    shares = np.stack([judged.shares(judged.similarity > at) for at in cuts], axis=1)
    weights = np.stack([judged.weights(rule.cap) for rule in rules], axis=1).astype(np.float64)
    # Each user is one row; numerator and denominator of a rate are resampled together.
    bootstrap = Bootstrap.over(np.arange(judged.users), resamples, seed)
    parts = np.concatenate([shares * weights, weights], axis=1)
    sums = np.concatenate([drawn @ parts for drawn in bootstrap.draws()])
    low, high = np.quantile(sums[:, : len(rules)] / sums[:, len(rules) :], [0.025, 0.975], axis=0)
    found = []
    for place, (rule, threshold, at) in enumerate(zip(rules, thresholds, cuts, strict=True)):
        before = liked.shares(liked.similarity > at)
        found.append(
            {
                **named(rule),
                "threshold": threshold,
                "keeps_everything": threshold is None or threshold >= 1,
                "validation": float(np.average(before, weights=liked.weights(rule.cap))),
                "value": float(np.average(shares[:, place], weights=weights[:, place])),
                "low": float(low[place]),
                "high": float(high[place]),
                "caught": float((second.disliked.similarity > at).mean()),
            }
        )
    return found


def reach(
    run: Path, model: str, data: RunData, catalogue: FilterCatalogue, config: Config, seed: int
) -> list[dict[str, Any]]:
    """What the rule of the paper, and smaller predict sets, can do in the later period; rate "user"."""
    found = []
    for size, weight in REACH:
        settings = load_config(overrides={"prediction": {"predict_set": size}, "filter": {"rank_weight": weight}})
        rules = [replace(_rule(settings), bound=bound) for bound in BOUNDS]
        first, second = (pool(run, model, data, catalogue, settings, (one,)) for one in ("validation", "test"))
        rows = later(first, second, rules, config.evaluation.bootstraps, seed)
        found += [{"predict_set": size, "rank_weight": weight, **row} for row in rows]
    return found


def weighings(run: Path, model: str, data: RunData, catalogue: FilterCatalogue) -> list[dict[str, Any]]:
    """What could be caught on the validation period by weights of ranks and scores; what they were chosen by."""
    found = []
    for weights in WEIGHINGS:
        settings = load_config(overrides={"filter": weights})
        anchors, similarities = split_similarities(run, model, data, catalogue, settings, "validation")
        positives, negatives = similarities.positives, similarities.negatives
        liked = Liked.of(positives.similarity, anchors.user[positives.anchor])
        for bound in BOUNDS:
            threshold = smallest_threshold(liked, replace(_rule(settings), bound=bound))
            keeps = threshold is None or threshold >= 1
            at = np.float32(2 if threshold is None else threshold)
            caught = float((negatives.similarity > at).mean())
            found.append({"score_weight": 0.0, **weights, "bound": bound, "keeps_everything": keeps, "caught": caught})
    return found


def stale(run: Path, model: str, data: RunData, catalogue: FilterCatalogue, config: Config) -> list[dict[str, Any]]:
    """Test anchors judged by the predictions of their user's anchor before, beside their own; rate "user".

    Only anchors whose user has one a day or more before; of these the latest.
    """
    anchors = [data.anchors.of_split(split) for split in ("validation", "test")]
    sets = [predict_sets(run, model, data, config, one) for one in anchors]
    predicted = np.concatenate([one for one, _ in sets])
    weights = None if sets[0][1] is None else np.concatenate([one for _, one in sets if one is not None])
    user, time = (np.concatenate([getattr(one, key) for one in anchors]) for key in ("user", "timestamp"))
    test, begin = anchors[1], len(anchors[0])
    own = begin + np.arange(len(test))
    before = np.full(len(test), -1, dtype=np.int64)
    for row, place in enumerate(own):
        earlier = np.flatnonzero((user == user[place]) & (time <= time[place] - DAY))
        if len(earlier):
            before[row] = earlier[time[earlier].argmax()]
    liked_row, disliked_row = (
        np.repeat(np.arange(len(test)), rows.lengths) for rows in (test.future_positives, test.future_negatives)
    )

    def similarity(of: np.ndarray, rows: np.ndarray, items: np.ndarray) -> np.ndarray:
        return max_similarity(catalogue.table, predicted, of[rows], items, weights)[0]

    there = before >= 0
    seen, dislikes = there[liked_row], there[disliked_row]
    liked_row, liked = liked_row[seen], test.future_positives.values[seen]
    disliked_row, disliked = disliked_row[dislikes], test.future_negatives.values[dislikes]
    first = pool(run, model, data, catalogue, config, ("validation",))
    found = []
    for bound in BOUNDS:
        threshold = smallest_threshold(first.everybody, replace(_rule(config), bound=bound))
        at = np.float32(2 if threshold is None else threshold)
        row: dict[str, Any] = {"bound": bound, "keeps_everything": threshold is None or threshold >= 1}
        for name, of in (("fresh", own), ("stale", before)):
            up = Liked.of(similarity(of, liked_row, liked), test.user[liked_row])
            down = similarity(of, disliked_row, disliked) > at
            row[name] = {"value": up.rate(up.similarity > at), "caught": float(down.mean()) if len(down) else None}
        found.append(row)
    days = (time[own] - time[np.maximum(before, 0)])[there] / DAY
    counts = {"anchors": int(there.sum()), "users": len(np.unique(test.user[there]))}
    return [{**counts, "median_days": float(np.median(days)) if len(days) else None, **row} for row in found]


def _rule(config: Config) -> Rule:
    """Rate "user", in expectation, with the least threshold of these weights."""
    return replace(RULES[0], least=Rule.of(config.filter).least)
