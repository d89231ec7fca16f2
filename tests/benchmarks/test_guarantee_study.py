"""The study of the guarantee: its parts against plain sums, and its tables and plots from a small run of it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from benchmarks.studies import guarantee, guarantee_plots
from benchmarks.studies.guarantee import by_category, lost, over_splits, study
from benchmarks.studies.guarantee_draws import BOUNDS, RULES, TrueRate, draw, hoeffding_bentkus, simulation
from benchmarks.studies.guarantee_later import DAY, later, reach, stale, weighings
from benchmarks.studies.guarantee_pool import Pool

from conrec.arrays import Array, Ragged
from conrec.config import load_config
from conrec.evaluation.evaluate import read_run_data
from conrec.evaluation.predictions import read_predictions
from conrec.filtering.calibrating.calibration import calibrate
from conrec.filtering.calibrating.control import Liked, Rule, smallest_threshold
from conrec.filtering.calibrating.segments import Segments
from conrec.filtering.calibrating.similarities import Pairs
from conrec.filtering.catalogue import FilterCatalogue


@pytest.fixture
def run_copy(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "run", ignore=shutil.ignore_patterns("models")))


NOWHERE = np.empty(0, dtype=np.int64)


def pool_of(seed: int, users: int) -> Pool:
    random = np.random.default_rng(seed)
    liked = draw(random, users)
    items = random.integers(0, 30, size=len(liked.similarity)).astype(np.int32)
    disliked = random.uniform(-1, 1, size=2 * users).astype(np.float32)
    return Pool(
        Pairs(liked.similarity, NOWHERE, items),
        Pairs(disliked, NOWHERE, random.integers(0, 30, size=2 * users).astype(np.int32)),
        liked.user,
        random.integers(0, users, size=2 * users),
        users,
    )


def test_the_splits_against_sums_by_hand() -> None:
    pairs = pool_of(0, 60)
    rules = [replace(RULES[0], bound=0.2), replace(RULES[2], bound=0.4)]
    found = over_splits(pairs, rules, 7, 3)
    halves = guarantee._halves(60, 7, 3)
    assert len({half.tobytes() for half in halves}) == 7
    for rule, one in zip(rules, found, strict=True):
        sums, pools = np.zeros(2), []
        for half in halves:
            assert half.sum() == 30
            seen = half[pairs.liked_user]
            threshold = smallest_threshold(Liked.of(pairs.liked.similarity[seen], pairs.liked_user[seen]), rule)
            at = np.float32(2 if threshold is None else threshold)
            weighted, whole = np.zeros(2), np.zeros(2)
            for user in range(60):
                own = pairs.liked.similarity[pairs.liked_user == user]
                weight = min(len(own), rule.cap)
                part = np.asarray([weight * (own > at).mean(), weight])
                whole += part
                weighted += 0 if half[user] else part
            sums += weighted
            pools.append(whole[0] / whole[1])
        assert one["mean"] == pytest.approx(sums[0] / sums[1])
        assert one["pool_above"] == pytest.approx(np.mean(np.asarray(pools) > rule.bound))
        assert (one["rate"], one["guarantee"], one["bound"]) == (rule.rate, "expectation", rule.bound)


def test_the_mean_over_splits_of_exchangeable_users_is_within_the_bound() -> None:
    """Without noise of its own: over all splits this holds exactly, and 200 of them are near."""
    rules = [replace(RULES[0], bound=bound) for bound in (0.05, 0.2)]
    for one in over_splits(pool_of(1, 120), rules, 200, 0):
        assert one["bound"] / 3 < one["mean"] <= one["bound"] + 2 * one["error"]


def test_categories_are_judged_as_their_thresholds_are_applied() -> None:
    pairs = pool_of(2, 80)
    # Items 0 to 9 are "a", 10 to 19 both, 20 to 29 "b" or, pooled, "c".
    groups = Ragged.from_rows([[0]] * 10 + [[0, 1]] * 10 + [[1]] * 5 + [[2]] * 5)
    segments = Segments(("a", "b", "c"), groups, np.asarray([False, False, True]))
    rule = Rule(0.3)
    (found,) = by_category(pairs, segments, [rule], 5, 0)
    assert found["categories"] == 3
    highest, rates = np.zeros((3, 2)), []
    for half in guarantee._halves(80, 5, 0):
        seen = half[pairs.liked_user]
        chosen = segments.thresholds(pairs.liked.similarity[seen], pairs.liked_user[seen], pairs.liked.item[seen], rule)
        assert list(chosen) == ["a", "b", "c"]
        dropped = pairs.liked.similarity > segments.of_items(chosen)[pairs.liked.item]
        for place in range(3):
            inside = np.asarray([place in groups[int(item)] for item in pairs.liked.item])
            for user in np.flatnonzero(~half):
                own = inside & (pairs.liked_user == user)
                if own.any():
                    highest[place] += (dropped[own].mean(), 1)
        rates.append(lost(pairs.everybody, ~half, dropped, 1))
    assert found["highest_mean"] == pytest.approx((highest[:, 0] / highest[:, 1]).max())
    assert found["all_items"]["mean"] == pytest.approx(sum(a for a, _ in rates) / sum(b for _, b in rates))


def test_the_later_period_is_judged_with_an_interval() -> None:
    first, second = pool_of(3, 100), pool_of(4, 90)
    rules = [replace(rule, bound=0.2) for rule in RULES]
    found = later(first, second, rules, 200, 0)
    for rule, one in zip(rules, found, strict=True):
        judged = Liked.of(second.liked.similarity, second.liked_user)
        at = np.float32(2 if one["threshold"] is None else one["threshold"])
        assert one["value"] == pytest.approx(judged.rate(judged.similarity > at, rule.cap))
        assert one["low"] <= one["value"] <= one["high"]
    assert found[0]["low"] < found[0]["high"]


def test_weights_catch_on_validation_what_the_calibration_says(run_copy: Path) -> None:
    data, catalogue = read_run_data(run_copy), FilterCatalogue.load(run_copy)
    found = {
        (one["rank_weight"], one["score_weight"], one["bound"]): one
        for one in weighings(run_copy, "conrec", data, catalogue)
    }
    for weights in ({"rank_weight": 0.9}, {"rank_weight": 1.0, "score_weight": 0.25}):
        threshold = calibrate(run_copy, "conrec", data, catalogue, load_config(overrides={"filter": weights}))
        for choice in threshold.choices:
            one = found[weights["rank_weight"], weights.get("score_weight", 0.0), choice.bound]
            assert one["keeps_everything"] == choice.keeps_everything
            assert one["caught"] == pytest.approx(choice.caught)
    rows = reach(run_copy, "conrec", data, catalogue, load_config(), 0)
    threshold = calibrate(run_copy, "conrec", data, catalogue, load_config())
    chosen = {one.bound: one.threshold for one in threshold.choices}
    whole = [one for one in rows if (one["predict_set"], one["rank_weight"]) == (20, 0.99)]
    assert {one["bound"]: one["threshold"] for one in whole} == chosen


def test_stale_predictions_are_those_of_the_anchor_before(run_copy: Path) -> None:
    """Anchor by anchor, like by like."""
    config = load_config()
    data, catalogue = read_run_data(run_copy), FilterCatalogue.load(run_copy)
    found = stale(run_copy, "conrec", data, catalogue, config)
    anchors = data.anchors
    path = run_copy / "predictions" / "conrec.parquet"
    predicted: dict[int, Array] = {}
    for split in ("validation", "test"):
        some = anchors.of_split(split)
        ranking = read_predictions(path, some, data.log.item_ids, anchors.anchor_id)
        predicted.update(zip(some.anchor_id.tolist(), ranking.item[:, :20], strict=True))
    threshold = calibrate(run_copy, "conrec", data, catalogue, config)
    chosen = {one.bound: one.threshold for one in threshold.choices}
    weights = 0.99 ** np.arange(20)
    rows = []
    for row in np.flatnonzero(anchors.split == 2):
        earlier = np.flatnonzero(
            (anchors.split > 0)
            & (anchors.user == anchors.user[row])
            & (anchors.timestamp <= anchors.timestamp[row] - DAY)
        )
        if len(earlier):
            rows.append((row, max(earlier, key=lambda one: anchors.timestamp[one])))
    assert found[0]["anchors"] == len(rows) > 0
    for one in found:
        at = np.float32(2 if chosen[one["bound"]] is None else chosen[one["bound"]])
        for name, place in (("fresh", 0), ("stale", 1)):
            lost_by: dict[int, list[bool]] = {}
            for pair in rows:
                for item in anchors.future_positives[int(pair[0])]:
                    cosines = (
                        catalogue.table.similarities(np.asarray([item]), predicted[int(anchors.anchor_id[pair[place]])])
                        * weights
                    )
                    lost_by.setdefault(int(anchors.user[pair[0]]), []).append(bool(np.float32(cosines.max()) > at))
            assert one[name]["value"] == pytest.approx(np.mean([np.mean(each) for each in lost_by.values()]))


@pytest.mark.parametrize("cap", [1, 3])
def test_the_true_rate_of_a_threshold(cap: int) -> None:
    truth = draw(np.random.default_rng(5), 300)
    rates = TrueRate(truth, cap)
    for threshold in (-1.0, 0.0, 0.5, float(truth.similarity[7])):
        assert rates.at(threshold) == pytest.approx(truth.rate(truth.similarity > np.float32(threshold), cap))
    assert (rates.at(None), rates.at(2.0)) == (0.0, 0.0)
    assert rates.at(rates.threshold(0.1)) <= 0.1 < rates.at(rates.threshold(0.1) - 0.01)


def test_hoeffding_bentkus_passes_only_low_rates() -> None:
    def shares(rate: float) -> Array:
        return np.repeat([1.0, 0.0], [round(1000 * rate), 1000 - round(1000 * rate)])

    assert [hoeffding_bentkus(shares(rate), 0.1, 0.1) for rate in (0.0, 0.05, 0.1, 0.2)] == [True, True, False, False]


def test_the_simulation_keeps_its_promise_and_the_counting_of_pairs_does_not() -> None:
    found = {(one["rate"], one["guarantee"], one["bound"]): one for one in simulation(150, 60, RULES_AT_10, 0)}
    mean = found["user", "expectation", 0.1]
    assert mean["mean"] <= 0.1 + 2 * mean["error"]
    assert found["user", "probability", 0.1]["above"] <= 0.1 + 2 * np.sqrt(0.09 / 60)
    counted = found["user", "pairs taken for exchangeable", 0.1]
    assert counted["mean"] > 0.1 + 2 * counted["error"]


RULES_AT_10 = [replace(rule, bound=0.1) for rule in RULES[:2]]


def test_tables_and_plots(tmp_path: Path) -> None:
    result = study({}, (), 3, 4)
    first, second = pool_of(6, 40), pool_of(7, 50)
    rules = [replace(rule, bound=bound) for rule in RULES for bound in BOUNDS]
    groups = Ragged.from_rows([[0]] * 15 + [[1]] * 15)
    segments = Segments(("a", "b"), groups, np.zeros(2, dtype=np.bool_))
    model = {
        "splits": [{"predict_set": 20, **one} for one in over_splits(first, rules, 3, 0)],
        "by_category": by_category(first, segments, rules[:10], 3, 0),
        "later": later(first, second, rules, 50, 0),
        "reach": [{"predict_set": 20, "rank_weight": 0.99, **one} for one in later(first, second, rules[:5], 50, 0)],
        "weighings": [
            {"rank_weight": 0.9, "score_weight": 0.0, "bound": bound, "keeps_everything": bound < 0.05, "caught": 0.123}
            for bound in BOUNDS
        ],
        "stale": [
            {
                "anchors": 12,
                "median_days": 3.5,
                "bound": bound,
                "keeps_everything": bound < 0.05,
                "fresh": {"value": 0.04, "caught": 0.2},
                "stale": {"value": 0.03, "caught": 0.1},
            }
            for bound in BOUNDS
        ],
        **guarantee._counts({"both": first, "validation": first, "test": second}),
    }
    result["runs"]["board-games"] = {"models": {"conrec": model}}
    text = guarantee_plots.tables(result)
    assert text.count("| board games | conrec | 20 | user |") >= 5
    assert "| board games | conrec | 20 | 0.99 |" in text
    assert "| board games | conrec | 0.9 | 0 | – | – | 0.123 | 0.123 | 0.123 |" in text
    assert "| board games | conrec | 12 | 3.5 | 5% | 20.0% for 4.0% | 10.0% for 3.0% |" in text
    assert text.count("pairs taken for exchangeable") == 2 * len(BOUNDS)
    for name, painter in (("splits", guarantee_plots.paint_splits), ("simulation", guarantee_plots.paint_simulation)):
        written = guarantee_plots.write_drawing(guarantee_plots.draw(painter(result), 3.0, "", ""), tmp_path, name)
        assert [path.name for path in written] == [f"{name}-light.svg", f"{name}-dark.svg"]
        assert all(path.read_text(encoding="utf-8").startswith("<?xml") for path in written)
