"""The threshold against a brute-force search, and the report against sums done by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from conrec.arrays import Array, Ragged
from conrec.artefacts import read_json
from conrec.config import Config, load_config
from conrec.errors import ArtefactError
from conrec.evaluation.evaluate import RunData
from conrec.evaluation.predictions import write_predictions
from conrec.filtering.calibrating.calibration import calibrate, report_on_test, test_report
from conrec.filtering.calibrating.threshold import (
    BOUNDS,
    best_within,
    choose_threshold,
    in_words,
    read_threshold,
    share_above,
    trade_off,
)
from conrec.filtering.catalogue import FilterCatalogue
from conrec.items.semantic_ids import SemanticIds
from conrec.logs.anchors import Anchors
from conrec.logs.log import Log
from conrec.protocol import Periods
from conrec.recommender import Ranking

SIMILARITIES = hnp.arrays(np.float32, st.integers(0, 40), elements=st.sampled_from([-1, -0.5, 0, 0.25, 0.5, 0.9, 1]))


@given(SIMILARITIES, st.sampled_from([0.01, 0.05, 0.1, 0.25, 0.29, 0.5, 0.95]))
def test_the_threshold_is_the_smallest_that_meets_the_bound(positives: Array, bound: float) -> None:
    n = len(positives)

    def meets(threshold: float) -> bool:
        return bool((int((positives > np.float32(threshold)).sum()) + 1) / (n + 1) <= bound)

    found = choose_threshold(positives, bound)
    if found is None:
        assert not meets(2.0)
        return
    assert meets(found)
    assert not meets(found - 1e-4)


def test_no_positives_or_too_few_keep_everything() -> None:
    assert choose_threshold(np.empty(0, dtype=np.float32), 0.5) is None
    assert choose_threshold(np.zeros(18, dtype=np.float32), 0.05) is None
    assert choose_threshold(np.zeros(19, dtype=np.float32), 0.05) == 0.0


def test_fresh_positives_are_filtered_no_more_often_than_the_bound() -> None:
    """Over many logs, the mean share of a fresh liked candidate above the threshold stays within the bound."""
    rng = np.random.default_rng(0)
    dropped = []
    for _ in range(4000):
        draw = rng.normal(size=60).astype(np.float32)
        threshold = choose_threshold(draw[:-1], 0.1)
        assert threshold is not None
        dropped.append(draw[-1] > np.float32(threshold))
    assert np.mean(dropped) == pytest.approx(0.1, abs=0.015)  # floor(0.1 * 60) / 60


@given(SIMILARITIES, SIMILARITIES)
def test_the_curve_falls_from_everything_to_nothing(positives: Array, negatives: Array) -> None:
    curve = trade_off(positives, negatives)
    for values, name in ((positives, "false_filter_rate"), (negatives, "caught")):
        rates = [getattr(point, name) for point in curve]
        if not len(values):
            assert set(rates) <= {None}
            continue
        assert rates == sorted(rates, reverse=True)
        assert rates[-1] == 0.0
        assert rates == [float((values > np.float32(point.threshold)).mean()) for point in curve]


ANGLE = np.deg2rad(np.arange(0, 180, 10.0))
"""Items 0 to 17 on a half circle, ten degrees apart."""


def world(run: Path, validation_positives: list[list[int]], predicted: list[int]) -> tuple[RunData, FilterCatalogue]:
    """One anchor a user: as many validation anchors as lists of positives, then three test anchors."""
    n = len(ANGLE)
    codes = np.stack([np.arange(n) // 9, np.arange(n) % 9, np.zeros(n)], axis=1).astype(np.int32)
    item_ids = tuple(f"item {one}" for one in range(n))
    rebuilt = np.stack([np.cos(ANGLE), np.sin(ANGLE)], axis=1).astype(np.float32)
    catalogue = FilterCatalogue.build(item_ids, SemanticIds(codes, codes, 9), rebuilt)
    count = len(validation_positives)
    anchors = Anchors(
        np.arange(count + 3),
        np.arange(count + 3, dtype=np.int32),
        np.arange(count + 3, dtype=np.int64),
        np.asarray([1] * count + [2] * 3, dtype=np.int8),
        Ragged.from_rows([[1]] * count + [[0, 17], [1], [16]]),
        Ragged.from_rows([*validation_positives, [1], [9, 10], []]),
        np.asarray([[-1, -1]] * count + [[0, 9], [1, 9], [16, -1]], dtype=np.int32),
        np.zeros(count + 3, dtype=np.bool_),
        np.zeros(count + 3, dtype=np.int32),
    )
    none = np.empty(0, dtype=np.int32)
    log = Log.from_columns(
        tuple(f"u{one:03}" for one in range(count + 3)), item_ids, none, none, none.astype(np.int64), none
    )
    ranking = Ranking(
        np.asarray([predicted] * (count + 3), dtype=np.int32), np.zeros((count + 3, len(predicted)), dtype=np.float32)
    )
    write_predictions(run / "predictions" / "conrec.parquet", anchors, ranking, item_ids)
    return RunData(log, anchors, Periods(0, 1, 2)), catalogue


def config_of(bound: float = 0.25, predict_set: int = 20) -> Config:
    return load_config(
        overrides={
            "filter": {"false_filter_rate": bound},
            "evaluation": {"bootstraps": 200},
            "prediction": {"predict_set": predict_set},
        }
    )


def test_calibrated_on_validation_and_measured_on_test(tmp_path: Path) -> None:
    # Likes in validation lie 20, 30, …, 90 degrees from the only prediction, item 0.
    data, catalogue = world(tmp_path, [[2], [3, 4], [5, 6, 7], [8, 9]], [0])
    threshold = calibrate(tmp_path, "conrec", data, catalogue, config_of(0.25))
    # n = 8: (1 + 1) / 9 <= 0.25 and (2 + 1) / 9 > 0.25, so one like may be lost: 20 degrees is dropped, 30 is not.
    assert threshold.threshold == pytest.approx(np.cos(np.deg2rad(30)), abs=1e-6)
    assert (threshold.positives, threshold.false_filters, threshold.negatives, threshold.caught) == (8, 1, 4, 4)
    assert (threshold.anchors, threshold.users, threshold.bound) == (4, 4, 0.25)
    assert "1 of 8 future positives" in threshold.statement
    assert read_threshold(tmp_path, "conrec", catalogue.sid_hash) == threshold
    report = test_report(tmp_path, ("conrec",), data, catalogue, config_of())["conrec"]
    # Test: candidates 0 9 | 1 9 | 16, likes 1 | 9 10, dislikes 0 17 | 1 | 16; dropped is what is under 30 degrees.
    assert report["filtering_rate"]["value"] == pytest.approx(2 / 5)
    assert (report["filtering_rate"]["pairs"], report["filtering_rate"]["anchors"]) == (5, 3)
    assert report["false_filter_rate"]["value"] == pytest.approx(1 / 3)
    assert (report["false_filter_rate"]["pairs"], report["false_filter_rate"]["anchors"]) == (3, 2)
    assert report["caught"]["value"] == pytest.approx(2 / 4)
    assert all(0 <= report[name]["low"] <= report[name]["value"] <= report[name]["high"] <= 1 for name in ("caught",))
    assert read_json(tmp_path / "results" / "filter.json") == {"conrec": report}


def test_likes_that_are_predicted_themselves_leave_nothing_to_drop(tmp_path: Path) -> None:
    data, catalogue = world(tmp_path, [[0], [0], [0, 5]], [0])
    threshold = calibrate(tmp_path, "conrec", data, catalogue, config_of(0.3))
    assert threshold.threshold == 1.0
    assert "3 of 4 future positives" in threshold.statement
    assert "keeps everything" in threshold.statement
    assert report_on_test(tmp_path, "conrec", data, catalogue, config_of())["filtering_rate"]["value"] == 0


def test_only_the_predict_set_counts(tmp_path: Path) -> None:
    data, catalogue = world(tmp_path, [[2]] * 3, [17, 2])
    near = calibrate(tmp_path, "conrec", data, catalogue, config_of(0.3, predict_set=1))
    assert near.threshold == pytest.approx(np.cos(np.deg2rad(150)), abs=1e-6)
    assert calibrate(tmp_path, "conrec", data, catalogue, config_of(0.3, predict_set=2)).threshold == 1.0


@pytest.mark.parametrize(
    ("positives", "says"), [([[], []], "no future positives"), ([[1], [2]], "at least 3 are needed")]
)
def test_what_cannot_be_calibrated_keeps_everything(tmp_path: Path, positives: list[list[int]], says: str) -> None:
    data, catalogue = world(tmp_path, positives, [0])
    threshold = calibrate(tmp_path, "conrec", data, catalogue, config_of(0.25))
    assert threshold.threshold is None
    assert says in threshold.statement
    assert "keeps everything" in threshold.statement
    assert read_json(tmp_path / "filter" / "conrec.json")["threshold"] is None
    report = report_on_test(tmp_path, "conrec", data, catalogue, config_of())
    assert [report[name]["value"] for name in ("filtering_rate", "false_filter_rate", "caught")] == [0, 0, 0]


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


def test_best_thresholds_are_on_the_curve() -> None:
    rng = np.random.default_rng(0)
    positives = rng.uniform(-1, 1, 3000).astype(np.float32)
    negatives = rng.uniform(-1, 1, 900).astype(np.float32)
    curve = trade_off(positives, negatives)
    for bound in BOUNDS:
        point = best_within(curve, len(positives), bound)
        assert point is not None
        assert point.threshold == choose_threshold(positives, bound)
        assert point.caught == share_above(negatives, point.threshold)
    assert best_within(curve, len(positives), 1e-4) is None
    assert best_within((), 10, 0.5) is None


def test_a_filter_that_cannot_drop_says_why_and_what_else_to_choose(tmp_path: Path) -> None:
    # 100 likes: 8 are predicted themselves, so 5 % leaves nothing to drop, and 10 % drops those at 0 degrees only.
    data, catalogue = world(tmp_path, [[0]] * 8 + [[5]] * 92, [0])
    threshold = calibrate(tmp_path, "conrec", data, catalogue, config_of(0.05))
    assert threshold.keeps_everything
    lines = in_words(threshold)
    assert lines[0].startswith("Nothing can be dropped. 8 of 100 future positives")
    said = [line.strip() for line in lines[2:]]
    assert said[:2] == ["1%: keeps everything", "5%: keeps everything"]
    assert said[2] == "10%: threshold 0.6428, drops 8.0% of what was liked and 100.0% of what was disliked"
    assert len(said) == len(BOUNDS)
    assert in_words(calibrate(tmp_path, "conrec", data, catalogue, config_of(0.1))) == []
    nobody, catalogue = world(tmp_path, [[], []], [0])
    assert len(in_words(calibrate(tmp_path, "conrec", nobody, catalogue, config_of(0.05)))) == 1
