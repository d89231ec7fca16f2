"""What each prediction counts: by rank, score and age."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conrec.errors import ConfigError
from conrec.filtering.calibrating.threshold import read_threshold, write_threshold
from conrec.filtering.filter import NegativeFilter
from conrec.filtering.policy import Policy
from conrec.filtering.weighing import DAY, Weighing

Build = Callable[[float | None], Path]
SCORES = np.asarray([np.log([0.5, 0.25, 0.1]), [np.log(0.2), np.log(0.2), -np.inf]], dtype=np.float32)
AT = np.asarray([0, 14 * int(DAY)])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("score_weight", -0.1),
        ("score_weight", float("nan")),
        ("half_life_days", 0.0),
        ("rank_weight", 0.0),
        ("rank_weight", 1.01),
    ],
)
def test_impossible_weights_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"filter.{name}"):
        Weighing(**{name: value})


def test_weights_are_their_formulas() -> None:
    assert Weighing().weights(SCORES, AT, 0.0) is None
    by_rank = Weighing(0.9).weights(SCORES, AT, 0.0)
    np.testing.assert_allclose(by_rank, [[1, 0.9, 0.81]] * 2)
    by_score = Weighing(score_weight=1.0).weights(SCORES, AT, 0.0)
    np.testing.assert_allclose(by_score, [[1, 0.5, 0.2], [1, 1, 0]], rtol=1e-6)
    np.testing.assert_allclose(Weighing(1.0, 2.0).weights(SCORES, AT, 0.0), np.square(by_score), rtol=1e-6)
    by_age = Weighing(half_life_days=7.0).weights(SCORES, AT, 14 * DAY)
    np.testing.assert_allclose(by_age, [[0.25] * 3, [1] * 3])
    # A clock that is behind makes nothing younger than new.
    np.testing.assert_allclose(Weighing(half_life_days=7.0).weights(SCORES, AT, -5.0), 1)
    together = Weighing(0.9, 1.0, 7.0).weights(SCORES, AT, 14 * DAY)
    np.testing.assert_allclose(together, by_rank * by_score * by_age, rtol=1e-6)


def test_with_weights_no_threshold_is_below_zero() -> None:
    assert Weighing().least == -np.inf
    for one in (Weighing(0.9), Weighing(1.0, 0.1), Weighing(half_life_days=3.0)):
        assert one.least == 0


def test_a_user_whose_set_is_empty_has_weights_without_nan() -> None:
    nothing = np.full((1, 2), -np.inf, dtype=np.float32)
    weights = Weighing(score_weight=3.0).weights(nothing, np.zeros(1, dtype=np.int64), 0.0)
    assert weights is not None
    assert np.isfinite(weights).all()


def test_the_filter_weighs_as_the_threshold_was_calibrated_whatever_the_policy(circle_run: Build) -> None:
    run = circle_run(0.5)
    write_threshold(run, replace(read_threshold(run, "conrec"), rank_weight=0.6))
    for policy in (None, Policy(keep_at_least=1)):
        judged = NegativeFilter.load(run, "conrec", policy=policy).judge("bob", ["i4", "7", "i3"])
        # bob's set is i4 and 7, at 90 and 180 degrees; i3 is at 60.
        np.testing.assert_allclose(judged.similarity, [1, 0.6, np.cos(np.deg2rad(30))], atol=2e-5)
