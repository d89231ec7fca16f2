"""Does the guarantee of the filter hold? Random splits of real users, a simulated population, and the later period.

    python -m benchmarks.studies.guarantee --run movietweetings=RUN --run board-games=RUN
        [--models conrec …] [--splits 200] [--draws 400] [--out benchmarks/results/guarantee.json]
    python -m benchmarks.studies.guarantee_plots benchmarks/results/guarantee.json [--images docs/images]

A RUN is a finished run folder; its predictions are read, nothing is trained. For each of them and each model:

- *splits*: the windows of validation and test anchors are pooled, the users with a liked candidate in them cut in half
  at random, the threshold chosen on one half. The rate on the other half is what conformal risk control bounds in
  expectation over splits, exactly so: by the split the users are exchangeable. The rate of all users of the pool is
  what the other guarantee bounds, in all but a share delta of the splits (the half that was calibrated on is among
  them, which makes that easier than a population of strangers would be); the rate on the other half alone has its own
  noise beside, and exceeds the bound more often. With thresholds by category (last model), the same for each.
- *later*: chosen on the validation period, measured on the test period, as in production. These users are not
  exchangeable with those, and nothing is promised. With which weights and predict sets, and with predictions that are
  stale, is in `guarantee_later`.

The simulation draws calibration users from a population whose true rate is known.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.common.machine import machine
from benchmarks.common.rounding import rounded
from benchmarks.studies.guarantee_draws import BOUNDS, RULES, named, simulation, tightness
from benchmarks.studies.guarantee_later import later, reach, stale, weighings
from benchmarks.studies.guarantee_pool import Pool, pool

from conrec.arrays import Array
from conrec.artefacts import read_json, write_json
from conrec.config import Config, load_config
from conrec.evaluation.evaluate import read_run_data
from conrec.filtering.calibrating.control import Liked, Rule, smallest_threshold
from conrec.filtering.calibrating.segments import Segments, segments_of
from conrec.filtering.catalogue import FilterCatalogue
from conrec.progress import meter
from conrec.seeds import generator

PERIODS = ("validation", "test")
KNOWN_TRUTH = ("simulation", "tightness")
SMALL = 5
"""A predict set within which low bounds can be met."""
MAIN = 0.05
"""Categories are judged from this bound on."""
MODELS = ("live-popularity", "most-disliked", "sasrec", "lc-rec-negatives", "conrec")


def lost(liked: Liked, users: Array, dropped: Array, cap: int) -> tuple[float, float]:
    """Sum of weighted shares, and of weights, of some users (bool [users])."""
    weights = liked.weights(cap)
    return float((liked.shares(dropped) * weights)[users].sum()), float(weights[users].sum())


def over_splits(pairs: Pool, rules: Sequence[Rule], splits: int, seed: int) -> list[dict[str, Any]]:
    """What comes of each rule with one threshold for all items."""
    everybody, liked_by = np.ones(pairs.users, dtype=np.bool_), pairs.everybody
    gathered: dict[Rule, list[tuple[float, ...]]] = {rule: [] for rule in rules}
    for half in _halves(pairs.users, splits, seed):
        seen = half[pairs.liked_user]
        liked = Liked.of(pairs.liked.similarity[seen], pairs.liked_user[seen])
        for rule in rules:
            threshold = smallest_threshold(liked, rule)
            at = np.float32(2 if threshold is None else threshold)
            dropped = pairs.liked.similarity > at
            caught = pairs.disliked.similarity[~half[pairs.disliked_user]] > at
            other, whole = lost(liked_by, ~half, dropped, rule.cap), lost(liked_by, everybody, dropped, rule.cap)
            keeps = threshold is None or threshold >= 1
            gathered[rule].append((*other, whole[0] / whole[1], caught.mean() if len(caught) else 0.0, keeps))
    return [{**named(rule), **_of_splits(np.asarray(rows), rule.bound)} for rule, rows in gathered.items()]


def _halves(users: int, splits: int, seed: int) -> list[Array]:
    """Which users are calibrated on, bool [users], for each split."""
    halves = []
    for split in range(splits):
        half = np.zeros(users, dtype=np.bool_)
        half[generator(seed, "guarantee", split).permutation(users)[: users // 2]] = True
        halves.append(half)
    return halves


def _of_splits(rows: Array, bound: float) -> dict[str, Any]:
    """Summary of (lost, weight, rate of the pool, caught, keeps everything), one row a split."""
    rate = rows[:, 0] / rows[:, 1]
    # The mean of a ratio of sums is that of its parts: what is promised is E[lost] <= bound * E[weight].
    mean = rows[:, 0].sum() / rows[:, 1].sum()
    error = float((rows[:, 0] - mean * rows[:, 1]).std(ddof=1) / rows[:, 1].mean() / np.sqrt(len(rows)))
    return {
        "mean": float(mean),
        "error": error,
        "low": float(np.quantile(rate, 0.05)),
        "high": float(np.quantile(rate, 0.95)),
        "other_half_above": float((rate > bound + 1e-12).mean()),
        "pool_above": float((rows[:, 2] > bound + 1e-12).mean()),
        "caught": float(rows[:, 3].mean()),
        "keeps_everything": float(rows[:, 4].mean()),
    }


def by_category(pairs: Pool, segments: Segments, rules: Sequence[Rule], splits: int, seed: int) -> list[dict[str, Any]]:
    """What comes of each rule with a threshold a category: the rate of each, as it is applied to items of several."""
    parts = list(segments.parted(pairs.liked.item))
    groups, members = [names for names, _ in parts], [rows for _, rows in parts]
    within = [Liked.of(pairs.liked.similarity[one], pairs.liked_user[one]) for one in members]
    at_least = [np.bincount(pairs.liked_user[one], minlength=pairs.users) > 0 for one in members]
    gathered: dict[Rule, list[list[tuple[float, float, float, bool]]]] = {rule: [] for rule in rules}
    whole: dict[Rule, list[tuple[float, ...]]] = {rule: [] for rule in rules}
    everybody, liked_by = np.ones(pairs.users, dtype=np.bool_), pairs.everybody
    for half in _halves(pairs.users, splits, seed):
        seen = half[pairs.liked_user]
        for rule in rules:
            found = segments.thresholds(
                pairs.liked.similarity[seen], pairs.liked_user[seen], pairs.liked.item[seen], rule
            )
            of_item = segments.of_items(found)
            dropped = pairs.liked.similarity > of_item[pairs.liked.item]
            caught = (pairs.disliked.similarity > of_item[pairs.disliked.item])[~half[pairs.disliked_user]]
            rows = []
            for group, liked, member, there in zip(groups, within, members, at_least, strict=True):
                shares = liked.shares(dropped[member])
                other = ~half[there]
                able = found[segments.names[group[0]]]
                rows.append(
                    (
                        float(shares[other].sum()),
                        float(other.sum()),
                        float(shares.mean()),
                        bool(able is not None and able < 1),
                    )
                )
            gathered[rule].append(rows)
            everything = not any(row[3] for row in rows)
            pool_lost = lost(liked_by, everybody, dropped, 1)
            whole[rule].append(
                (*lost(liked_by, ~half, dropped, 1), pool_lost[0] / pool_lost[1], caught.mean(), everything)
            )
    return [
        {
            **named(rule),
            "categories": len(groups),
            **_of_categories(np.asarray(gathered[rule], dtype=np.float64), rule.bound),
            "all_items": _of_splits(np.asarray(whole[rule]), rule.bound),
        }
        for rule in rules
    ]


def _of_categories(rows: Array, bound: float) -> dict[str, Any]:
    """Summary of (lost, users, rate of the pool, can drop), [splits, categories, 4]."""
    sums = rows[:, :, :2].sum(axis=0)
    mean = np.divide(sums[:, 0], sums[:, 1], out=np.zeros(len(sums)), where=sums[:, 1] > 0)
    above = (rows[:, :, 2] > bound + 1e-12).mean(axis=0)
    worst = int(mean.argmax())
    residual = rows[:, worst, 0] - mean[worst] * rows[:, worst, 1]
    error = residual.std(ddof=1) / max(rows[:, worst, 1].mean(), 1e-9) / np.sqrt(len(rows))
    return {
        "able": float(rows[:, :, 3].sum(axis=1).mean()),
        "mean_of_means": float(mean.mean()),
        "highest_mean": float(mean[worst]),
        "error_of_highest": float(error),
        "highest_pool_above": float(above.max()),
    }


def of_run(run: Path, models: Sequence[str], splits: int, config: Config, seed: int) -> dict[str, Any]:
    """Everything about one run."""
    data, catalogue = read_run_data(run), FilterCatalogue.load(run)
    categories = catalogue.details.categories
    segments = segments_of(categories, data.log.before(data.periods.validation), config.filter.segment_users)
    least = Rule.of(config.filter).least
    rules = [replace(rule, bound=bound, least=least) for rule in RULES for bound in BOUNDS]
    of_users = [rule for rule in rules if rule.rate == "user"]
    of_categories = [rule for rule in of_users if rule.bound >= MAIN]
    plain = load_config(overrides={"filter": {"rank_weight": 1.0}})
    small = load_config(overrides={"prediction": {"predict_set": SMALL}})
    there = [model for model in models if (run / "predictions" / f"{model}.parquet").is_file()]
    found: dict[str, Any] = {}
    with meter("models", len(there)) as step:
        for model in there:
            both, *periods = (
                pool(run, model, data, catalogue, config, one) for one in (PERIODS, PERIODS[:1], PERIODS[1:])
            )
            fewer = pool(run, model, data, catalogue, small, PERIODS)
            counted = {
                name: pool(run, model, data, catalogue, plain, of)
                for name, of in (("both", PERIODS), ("validation", PERIODS[:1]), ("test", PERIODS[1:]))
            }
            size = {"predict_set": config.prediction.predict_set}
            found[model] = {
                "splits": [
                    *({**size, **row} for row in over_splits(both, rules, splits, seed)),
                    *({"predict_set": SMALL, **row} for row in over_splits(fewer, of_users, splits, seed)),
                ],
                "by_category": [] if model != there[-1] else by_category(both, segments, of_categories, splits, seed),
                "later": later(periods[0], periods[1], rules, config.evaluation.bootstraps, seed),
                "reach": reach(run, model, data, catalogue, config, seed),
                "weighings": weighings(run, model, data, catalogue),
                "stale": stale(run, model, data, catalogue, config),
                **_counts(counted),
            }
            step(note=model)
    return {
        "models": found,
        "splits": splits,
        "categories": len(segments.names),
        "categories_pooled": int(segments.pooled.sum()),
        "categories_of_an_item": float(np.mean([len(row) for row in categories])),
    }


def _counts(alike: Mapping[str, Pool]) -> dict[str, Any]:
    """How many likes there are, and how many of them have the codes of a predicted item; of pools without weights."""
    return {
        name: {
            "users": one.users,
            "liked": len(one.liked),
            "most_of_a_user": int(np.bincount(one.liked_user).max(initial=0)),
            "liked_that_are_predicted": float((one.liked.similarity >= 1).mean()) if len(one.liked) else None,
            "disliked_that_are_predicted": float((one.disliked.similarity >= 1).mean()) if len(one.disliked) else None,
        }
        for name, one in alike.items()
    }


def study(
    runs: Mapping[str, Path],
    models: Sequence[str],
    splits: int,
    draws: int,
    seed: int = 0,
    before: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The whole study.

    Args:
        runs: folders by name.
        models: rows of them.
        splits: of users.
        draws: of calibration users in the simulation; 0: none are made.
        seed: of splits and draws.
        before: an earlier result, of which runs that are not given now, and with no draws the simulation, stay.
    """
    config = load_config()
    rules = [replace(rule, bound=bound) for rule in RULES for bound in BOUNDS]
    return {
        "study": "guarantee",
        "machine": machine("cpu"),
        "confidence": RULES[1].confidence,
        "pairs_per_user": RULES[2].cap,
        **(_known_truth(rules, draws, seed) if draws else {key: (before or {})[key] for key in KNOWN_TRUTH}),
        "runs": {
            **(before or {"runs": {}})["runs"],
            **{name: of_run(folder, models, splits, config, seed) for name, folder in runs.items()},
        },
    }


def _known_truth(rules: Sequence[Rule], draws: int, seed: int) -> dict[str, Any]:
    """What needs no run."""
    found = {str(users): {"draws": draws, "rules": simulation(users, draws, rules, seed)} for users in (100, 500)}
    return dict(zip(KNOWN_TRUTH, (found, tightness((300, 1500), max(1, draws // 2), seed)), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--run", action="append", default=[], metavar="NAME=FOLDER", help="a finished run; repeatable")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--draws", type=int, default=400, help="of calibration users; 0: the simulation of --out stays")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/guarantee.json"))
    given = parser.parse_args()
    runs = {name: Path(folder) for name, _, folder in (one.partition("=") for one in given.run)}
    before = read_json(given.out) if given.out.is_file() else None
    write_json(given.out, rounded(study(runs, given.models, given.splits, given.draws, before=before)))
    print(given.out)


if __name__ == "__main__":
    main()
