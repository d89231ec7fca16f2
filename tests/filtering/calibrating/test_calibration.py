"""Calibration and its report against sums done by hand, on items whose angles are known."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conrec.arrays import Array
from conrec.artefacts import read_json, write_tensors
from conrec.config import load_config
from conrec.errors import ArtefactError, ConfigError
from conrec.evaluation.evaluate import read_run_data
from conrec.evaluation.predictions import write_predictions
from conrec.filtering.calibrating.calibration import calibrate
from conrec.filtering.calibrating.similarities import split_similarities
from conrec.filtering.calibrating.testing import USER_RATE, report_on_test, test_report
from conrec.filtering.calibrating.threshold import BOUNDS, best_within, in_words, read_threshold, write_threshold
from conrec.filtering.catalogue import FilterCatalogue
from conrec.filtering.filter import NegativeFilter
from conrec.filtering.policy import Policy
from conrec.filtering.predict_sets import write_predict_sets
from conrec.filtering.vectors.table import max_similarity
from conrec.filtering.weighing import Weighing
from conrec.items.semantic_ids import SemanticIds, write_semantic_ids
from conrec.logs.anchors import Anchors
from conrec.logs.schema import SPLITS
from conrec.recommender import Ranking
from tests.filtering.calibrating.worlds import ANGLE, config_of, cosine, world

REBUILT = np.stack([np.cos(ANGLE), np.sin(ANGLE)], axis=1).astype(np.float32)


def test_calibrated_on_validation_and_measured_on_test(tmp_path: Path) -> None:
    # Likes in validation lie 20, 30, …, 90 degrees from the only prediction, item 0.
    data, catalogue = world(tmp_path, [[2], [3, 4], [5, 6, 7], [8, 9]], [0])
    threshold = calibrate(tmp_path, "conrec", data, catalogue, config_of(0.4))
    # n = 4 users: (1 + 1) / 5 <= 0.4 and (1.5 + 1) / 5 > 0.4, so one like of the first user may be lost.
    assert threshold.threshold == pytest.approx(cosine(30), abs=2e-3)
    assert (threshold.positives, threshold.false_filters, threshold.negatives, threshold.caught) == (8, 1, 4, 4)
    assert (threshold.anchors, threshold.users, threshold.liked_users, threshold.bound) == (4, 4, 4, 0.4)
    assert (threshold.user_rate, threshold.rate, threshold.guarantee) == (0.25, "user", "expectation")
    assert (threshold.confidence, threshold.pairs_per_user, threshold.by_category) == (None, 1, {})
    assert "1 of 8 future positives of 4 users" in threshold.statement
    assert "0.2500 of a user's on average, 0.1250 of them all" in threshold.statement
    assert "averaged over users, is at most 0.4 in expectation" in threshold.statement
    assert read_threshold(tmp_path, "conrec", catalogue.sid_hash) == threshold
    report = test_report(tmp_path, ("conrec",), data, catalogue, config_of())["conrec"]
    # Test: candidates 0 9 | 1 9 | 16, likes 1 | 9 10, dislikes 0 17 | 1 | 16; dropped is what is under 30 degrees.
    assert report["filtering_rate"]["value"] == pytest.approx(2 / 5)
    assert [report["filtering_rate"][one] for one in ("pairs", "anchors", "users")] == [5, 3, 3]
    assert report["false_filter_rate"]["value"] == pytest.approx(1 / 3)
    assert [report["false_filter_rate"][one] for one in ("pairs", "anchors", "users")] == [3, 2, 2]
    assert report[USER_RATE]["value"] == pytest.approx(1 / 2)
    assert [report[USER_RATE][one] for one in ("pairs", "anchors", "users")] == [3, 2, 2]
    assert report["caught"]["value"] == pytest.approx(2 / 4)
    for name in ("caught", USER_RATE, "false_filter_rate"):
        assert 0 <= report[name]["low"] <= report[name]["value"] <= report[name]["high"] <= 1
    assert (report["bound"], report["rate"], report["guarantee"]) == (0.4, "user", "expectation")
    assert read_json(tmp_path / "results" / "filter.json") == {"conrec": report}


def test_the_share_among_all_pairs(tmp_path: Path) -> None:
    data, catalogue = world(tmp_path, [[2], [3, 4], [5, 6, 7], [8, 9]], [0])
    config = config_of(0.4, rate="pair", pairs_per_user=2)
    threshold = calibrate(tmp_path, "conrec", data, catalogue, config)
    # Users weigh 1, 2, 2, 2 and c = 2: (1 + 2) / (7 + 2) <= 0.4, and (2 + 2) / 9 > 0.4.
    assert threshold.threshold == pytest.approx(cosine(30), abs=2e-3)
    assert (threshold.rate, threshold.pairs_per_user, threshold.false_filters) == ("pair", 2, 1)
    assert "a user with more than 2 counts as one with so many) is at most 0.4" in threshold.statement


def test_a_guarantee_for_most_draws_is_dearer(tmp_path: Path) -> None:
    data, catalogue = world(tmp_path, [[angle % 18] for angle in range(300)], [0])
    first = calibrate(tmp_path, "conrec", data, catalogue, config_of(0.2))
    second = calibrate(tmp_path, "conrec", data, catalogue, config_of(0.2, guarantee="probability", confidence=0.95))
    assert first.threshold is not None
    assert second.threshold is not None
    assert second.threshold > first.threshold
    assert (first.confidence, second.confidence) == (None, 0.95)
    assert "is at most 0.2 for 95% of the draws of the validation users" in second.statement
    assert [one.bound for one in second.choices] == sorted(BOUNDS)
    for dear, cheap in zip(second.choices, first.choices, strict=True):
        assert dear.keeps_everything or (dear.user_rate or 0) <= (cheap.user_rate or 0) <= cheap.bound


CATEGORIES = [["near"]] * 4 + [["near", "far"]] * 2 + [["far"]] * 4 + [["rare"]] * 4 + [[]] * 4


def test_each_category_has_its_own_threshold_and_guarantee(tmp_path: Path) -> None:
    validation = [[2 + user % 4, 6 + user % 4] for user in range(40)]
    before = [(user, item) for user in range(5) for item in (0, 6)] + [(6, 10), (7, 14)]
    data, catalogue = world(tmp_path, validation, [0], CATEGORIES, before)
    config = config_of(0.3, segments="category", segment_users=5)
    threshold = calibrate(tmp_path, "conrec", data, catalogue, config)
    # near: items 2 to 5, ten users each; (10 + 1) / 41 <= 0.3 drops item 2 alone. far: items 4 and 5 are half of what
    # ten users each like of it, (5 + 5 + 1) / 41; item 6 is all that ten others like of it.
    near, far = threshold.by_category["near"], threshold.by_category["far"]
    assert near == pytest.approx(cosine(30), abs=2e-3)
    assert far == pytest.approx(cosine(60), abs=2e-3)
    assert threshold.pooled == ("", "rare"), "nobody, or too few, liked something of them in training"
    assert (threshold.by_category[""], threshold.by_category["rare"]) == (None, None)
    of_item = threshold.thresholds_of_items(catalogue.details.categories)
    assert of_item[:4].tolist() == [np.float32(near)] * 4
    assert of_item[4:6].tolist() == [np.float32(near)] * 2, "of two categories the highest"
    assert of_item[6:10].tolist() == [np.float32(far)] * 4
    assert np.isposinf(of_item[10:]).all()
    assert threshold.thresholds_of_items([["new"], ["near", "new"]]).tolist() == [np.inf, np.inf]
    # Item 2 is 20 degrees off and dropped for ten users; nothing else is.
    assert (threshold.false_filters, threshold.positives) == (10, 80)
    assert threshold.user_rate == pytest.approx(10 * 0.5 / 40)
    assert not threshold.keeps_everything
    assert "thresholds of their categories, of which 2 can drop something" in threshold.statement
    assert read_threshold(tmp_path, "conrec") == threshold
    assert {one.threshold for one in threshold.choices} == {None}
    strict = calibrate(tmp_path, "conrec", data, catalogue, config_of(0.02, segments="category", segment_users=5))
    assert strict.keeps_everything
    assert "no category has a threshold that can drop something" in strict.statement
    calibrate(tmp_path, "conrec", data, catalogue, config)
    report = report_on_test(tmp_path, "conrec", data, catalogue, config)
    assert report["filtering_rate"]["value"] == pytest.approx(2 / 5)
    assert report[USER_RATE]["value"] == pytest.approx(1 / 2)
    assert report["by_category"] == threshold.by_category
    assert report["categories"]["near"] == {USER_RATE: 1.0, "false_filter_rate": 1.0, "pairs": 1, "users": 1}
    assert report["categories"]["far"] == {USER_RATE: 0.0, "false_filter_rate": 0.0, "pairs": 1, "users": 1}


def test_predictions_are_weighted_as_the_filter_weighs_them(tmp_path: Path) -> None:
    """Scores 0 and -1: the second prediction counts exp(-score_weight) as much."""
    data, catalogue = world(tmp_path, [[2]] * 6 + [[5]] * 4, [0, 2], scores=[0.0, -1.0])
    plain = calibrate(tmp_path, "conrec", data, catalogue, config_of(0.5))
    assert plain.keeps_everything, "6 of 10 like item 2, which is predicted"
    weighted = calibrate(tmp_path, "conrec", data, catalogue, config_of(0.5, score_weight=2.0))
    # Item 2: exp(-2) as the second prediction, so that its 20 degrees from the first weigh more. Item 5: 50 degrees.
    assert weighted.threshold == pytest.approx(cosine(20), abs=2e-3)
    assert calibrate(tmp_path, "conrec", data, catalogue, config_of(0.5, score_weight=0.01)).threshold == pytest.approx(
        np.exp(-0.01), abs=2e-3
    )
    ranked = calibrate(tmp_path, "conrec", data, catalogue, config_of(0.5, rank_weight=0.98))
    assert ranked.threshold == pytest.approx(0.98, abs=2e-3)
    assert (ranked.rank_weight, ranked.score_weight) == (0.98, 0.0)
    assert read_threshold(tmp_path, "conrec") == ranked


def test_scores_weigh_as_a_store_rounds_them(tmp_path: Path) -> None:
    """What was calibrated and what is served agree to the last bit, and would not with the exact scores."""
    scores = [-0.1234567, -1.7654321, -3.3333333]
    data, catalogue = world(tmp_path, [[2]] * 6 + [[5]] * 4 + [[12]] * 10, [0, 5, 9], scores=scores)
    settings = config_of(0.6, score_weight=0.7)
    threshold = calibrate(tmp_path, "conrec", data, catalogue, settings)
    _, found = split_similarities(tmp_path, "conrec", data, catalogue, settings, "validation")
    ranking = Ranking(np.asarray([[0, 5, 9]], dtype=np.int32), np.asarray([scores], dtype=np.float32))
    write_semantic_ids(tmp_path / "items" / "semantic_ids.parquet", catalogue.item_ids, catalogue.sids)
    write_tensors(tmp_path / "items" / "rebuilt.safetensors", {"rebuilt": REBUILT})
    write_predict_sets(tmp_path, "conrec", ["u"], ranking, catalogue)
    served = NegativeFilter.load(tmp_path, "conrec", policy=Policy())
    assert threshold.score_weight == 0.7
    items = [catalogue.item_ids[item] for item in found.positives.item]
    np.testing.assert_array_equal(served.judge("u", items).similarity, found.positives.similarity)
    exact = Weighing(1.0, 0.7).weights(ranking.score, np.zeros(1, dtype=np.int64))
    once = np.zeros(len(items), dtype=np.int64)
    plain, _ = max_similarity(catalogue.table, ranking.item, once, found.positives.item, exact)
    assert (plain != found.positives.similarity).any()


def test_with_weights_no_threshold_is_below_that_of_the_filter(tmp_path: Path) -> None:
    """Likes at 100 to 170 degrees: a bound of 40 % alone would have a threshold below 0."""
    data, catalogue = world(tmp_path, [[10 + user % 8] for user in range(40)], [0])
    plain = calibrate(tmp_path, "conrec", data, catalogue, config_of(0.4))
    assert plain.threshold is not None
    assert plain.threshold < -0.5
    settings = config_of(0.4, rank_weight=0.99)
    weighed = calibrate(tmp_path, "conrec", data, catalogue, settings)
    assert (weighed.threshold, weighed.false_filters, weighed.user_rate) == (0.0, 0, 0.0)
    assert weighed.caught == 40, "dislikes are at 10 degrees"
    assert min(point.threshold for point in weighed.curve) == 0
    assert all(one.threshold is None or one.threshold >= 0 for one in weighed.choices)
    by_category = calibrate(
        tmp_path, "conrec", data, catalogue, config_of(0.4, rank_weight=0.99, segments="category", segment_users=1)
    )
    assert by_category.by_category == {"": 0.0}
    # A file that says less is reported as the filter reads it.
    write_threshold(tmp_path, replace(weighed, threshold=-0.9))
    report = report_on_test(tmp_path, "conrec", data, catalogue, settings)
    write_threshold(tmp_path, weighed)
    assert report["filtering_rate"] == report_on_test(tmp_path, "conrec", data, catalogue, settings)["filtering_rate"]


def test_likes_that_are_predicted_themselves_leave_nothing_to_drop(tmp_path: Path) -> None:
    data, catalogue = world(tmp_path, [[0], [0], [0, 5]], [0])
    threshold = calibrate(tmp_path, "conrec", data, catalogue, config_of(0.3))
    assert threshold.threshold is not None
    assert threshold.threshold >= 1.0
    assert threshold.keeps_everything
    assert "3 of 4 future positives" in threshold.statement
    assert "keeps everything" in threshold.statement
    assert report_on_test(tmp_path, "conrec", data, catalogue, config_of())["filtering_rate"]["value"] == 0


def test_only_the_predict_set_counts(tmp_path: Path) -> None:
    data, catalogue = world(tmp_path, [[2]] * 3, [17, 2])
    near = calibrate(tmp_path, "conrec", data, catalogue, config_of(0.3, predict_set=1))
    assert near.threshold == pytest.approx(cosine(150), abs=2e-3)
    assert calibrate(tmp_path, "conrec", data, catalogue, config_of(0.3, predict_set=2)).keeps_everything


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "at least 3 such users are needed"),
        ({"guarantee": "probability"}, "at least 9 such users are needed"),
        ({"rate": "pair"}, "at least 60 are needed, of which no user counts for more than 20"),
        ({"rate": "pair", "guarantee": "probability"}, "within a false-filter rate of 0.25: the filter keeps"),
    ],
)
def test_too_few_users_keep_everything(tmp_path: Path, settings: dict[str, object], says: str) -> None:
    data, catalogue = world(tmp_path, [[1], [2]], [0])
    threshold = calibrate(tmp_path, "conrec", data, catalogue, config_of(0.25, **settings))
    assert threshold.threshold is None
    assert says in threshold.statement
    assert "keeps everything" in threshold.statement
    assert read_json(tmp_path / "filter" / "conrec.json")["threshold"] is None
    report = report_on_test(tmp_path, "conrec", data, catalogue, config_of())
    assert [report[name]["value"] for name in ("filtering_rate", "false_filter_rate", USER_RATE, "caught")] == [0] * 4


def test_nobody_who_likes_anything(tmp_path: Path) -> None:
    data, catalogue = world(tmp_path, [[], []], [0])
    threshold = calibrate(tmp_path, "conrec", data, catalogue, config_of(0.05, segments="category"))
    assert (threshold.threshold, threshold.user_rate, threshold.liked_users) == (None, None, 0)
    assert threshold.by_category == {"": None}
    assert threshold.keeps_everything
    assert "no future positives" in threshold.statement
    assert len(in_words(threshold)) == 1


def test_an_anchor_without_predictions_is_refused(tmp_path: Path) -> None:
    data, catalogue = world(tmp_path, [[2]] * 5, [0])
    ranking = Ranking(np.full((8, 20), -1, dtype=np.int32), np.full((8, 20), -np.inf, dtype=np.float32))
    ranking.item[0, 0], ranking.score[0, 0] = 0, 1
    write_predictions(tmp_path / "predictions" / "conrec.parquet", data.anchors, ranking, data.log.item_ids)
    with pytest.raises(ArtefactError, match="has no rows for 4 of 5 anchors"):
        calibrate(tmp_path, "conrec", data, catalogue, config_of())


def test_a_model_without_predictions_is_named(tmp_path: Path) -> None:
    data, catalogue = world(tmp_path, [[2]], [0])
    with pytest.raises(ArtefactError, match=r"sasrec\.parquet: this file is missing"):
        calibrate(tmp_path, "sasrec", data, catalogue, config_of())


def test_a_filter_that_cannot_drop_says_why_and_what_else_to_choose(tmp_path: Path) -> None:
    # 100 users: 8 like what is predicted itself, so 5 % leaves nothing to drop, and 10 % drops those at 0 degrees only.
    data, catalogue = world(tmp_path, [[0]] * 8 + [[5]] * 92, [0])
    threshold = calibrate(tmp_path, "conrec", data, catalogue, config_of(0.05))
    assert threshold.keeps_everything
    lines = in_words(threshold)
    assert lines[0].startswith("Nothing can be dropped. 8 of 100 future positives of 100 users")
    said = [line.strip() for line in lines[2:]]
    assert said[:3] == ["1%: keeps everything", "2%: keeps everything", "5%: keeps everything"]
    assert said[3].startswith("10%: threshold 0.64")
    assert said[3].endswith(
        "drops 8.0% of what was liked (8.0% of a user's on average) and 100.0% of what was disliked"
    )
    assert len(said) == len(BOUNDS)
    ten = best_within(threshold.choices, 0.1)
    assert ten is not None
    assert (ten.bound, ten.caught) == (0.1, 1.0)
    assert best_within(threshold.choices, 0.15) == ten, "a bound between two is met by the lower one"
    assert best_within(threshold.choices, 0.07) is None
    assert ten.threshold in {point.threshold for point in threshold.curve}
    assert in_words(calibrate(tmp_path, "conrec", data, catalogue, config_of(0.1))) == []


@pytest.mark.parametrize("bad", [{"rate": "item"}, {"guarantee": "hope"}, {"pairs_per_user": 0}, {"confidence": 1.0}])
def test_settings_that_mean_nothing_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        load_config(overrides={"filter": bad})


def plain_losses(anchors: Anchors, predicted: Array, rebuilt: Array, of_item: Array) -> list[list[bool]]:
    """Whether each like of each validation user is dropped, one at a time."""
    lost: dict[int, list[bool]] = {}
    for row in np.flatnonzero(anchors.split == SPLITS.index("validation")):
        for item in anchors.future_positives[int(row)]:
            similarity = (rebuilt[predicted[row]] @ rebuilt[item]).max()
            lost.setdefault(int(anchors.user[row]), []).append(bool(similarity > of_item[item]))
    return list(lost.values())


@pytest.mark.parametrize("segments", ["none", "category"])
@pytest.mark.parametrize("rate", ["user", "pair"])
def test_on_a_real_log_against_plain_sums(prepared_folder: Path, tmp_path: Path, rate: str, segments: str) -> None:
    """MovieLens-100K with made-up embeddings and predictions: what is dropped, pair by pair, and what that comes to."""
    run = tmp_path / "run"
    shutil.copytree(prepared_folder / "data", run / "data")
    data = read_run_data(run)
    random = np.random.default_rng(0)
    n = data.log.n_items
    rebuilt = random.normal(size=(n, 6)).astype(np.float32)
    rebuilt /= np.linalg.norm(rebuilt, axis=1, keepdims=True)
    codes = np.stack([np.arange(n) // 64, np.arange(n) % 64, np.zeros(n)], axis=1).astype(np.int32)
    items = SemanticIds(codes, codes, 64)
    catalogue = FilterCatalogue.build(data.log.item_ids, items, rebuilt, items_file=run / "data" / "items.parquet")
    anchors = data.anchors.select(data.anchors.split > 0)
    predicted = random.permuted(np.tile(np.arange(n, dtype=np.int32), (len(anchors), 1)), axis=1)[:, :3]
    ranking = Ranking(predicted, np.zeros(predicted.shape, dtype=np.float32))
    write_predictions(run / "predictions" / "random.parquet", anchors, ranking, data.log.item_ids)
    config = config_of(0.2, rate=rate, segments=segments, segment_users=300)
    threshold = calibrate(run, "random", data, catalogue, config)
    of_item = threshold.thresholds_of_items(catalogue.details.categories)
    # Rows are kept in half precision: what is so near a threshold may be on either side of it.
    sure, unsure = (plain_losses(anchors, predicted, rebuilt, of_item + margin) for margin in (2e-3, -2e-3))
    assert (threshold.liked_users, threshold.positives) == (len(sure), sum(map(len, sure)))
    assert sum(map(sum, sure)) <= threshold.false_filters <= sum(map(sum, unsure))
    low, high = (float(np.mean([np.mean(one) for one in lost])) for lost in (sure, unsure))
    assert threshold.user_rate is not None
    assert low <= threshold.user_rate <= high < low + 0.03
    weights = [min(len(one), threshold.pairs_per_user) for one in sure]
    shares = [np.mean(one) for one in sure]
    bounded = (np.dot(weights, shares) + threshold.pairs_per_user) / (sum(weights) + threshold.pairs_per_user)
    if segments == "none":
        assert 0.18 < bounded <= 0.2
    else:
        assert 0 < np.average(shares, weights=weights) < 0.2, "an item of several categories takes the highest"
        assert len({one for one in threshold.by_category.values() if one is not None}) > 3
        assert len(threshold.pooled) > 1
        assert len({threshold.by_category[name] for name in threshold.pooled}) == 1
