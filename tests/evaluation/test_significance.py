"""The bootstrap against a loop that draws users one by one, and on data whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from conrec.evaluation import significance
from conrec.evaluation.significance import Bootstrap


def _values(seed: int, anchors: int = 200, users: int = 40) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    user = (users * random.random(anchors) ** 2).astype(np.int32) + 100
    values = random.integers(0, 2, (anchors, 3)).astype(np.float64)
    values[random.random((anchors, 3)) < 0.2] = np.nan
    return user, values


def test_means_are_those_of_a_literal_loop_over_the_same_draws() -> None:
    user, values = _values(0)
    bootstrap = Bootstrap.over(user, 50, seed=3)
    found = bootstrap.means(values)
    names = np.unique(user)
    counts = np.concatenate(list(bootstrap.draws()))
    assert counts.shape == (50, len(names))
    assert (counts.sum(axis=1) == len(names)).all()
    for resample in range(50):
        drawn = [name for name, times in zip(names, counts[resample], strict=True) for _ in range(times)]
        for column in range(3):
            pool = [values[a, column] for name in drawn for a in range(len(user)) if user[a] == name]
            counted = [one for one in pool if not np.isnan(one)]
            assert found[resample, column] == pytest.approx(sum(counted) / len(counted), abs=1e-12)


def test_figures_are_percentiles_of_the_resamples() -> None:
    user, values = _values(1)
    bootstrap = Bootstrap.over(user, 500, seed=3)
    means = bootstrap.means(values)
    for column, figure in enumerate(bootstrap.figures(values)):
        assert figure is not None
        assert figure.value == pytest.approx(np.nanmean(values[:, column]))
        assert figure.anchors == (~np.isnan(values[:, column])).sum()
        assert (figure.low, figure.high) == tuple(np.percentile(means[:, column], [2.5, 97.5]))


def test_blocks_and_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    user, values = _values(2)
    whole = Bootstrap.over(user, 100, seed=0).means(values)
    monkeypatch.setattr(significance, "BLOCK", 7 * len(np.unique(user)))
    np.testing.assert_array_equal(Bootstrap.over(user, 100, seed=0).means(values), whole)
    assert not np.array_equal(Bootstrap.over(user, 100, seed=1).means(values), whole)


def test_the_order_of_anchors_is_nothing() -> None:
    user, values = _values(3)
    order = np.random.default_rng(0).permutation(len(user))
    first = Bootstrap.over(user, 100, seed=0).means(values)
    np.testing.assert_allclose(Bootstrap.over(user[order], 100, seed=0).means(values[order]), first, atol=1e-12)


def test_a_comparison_is_the_difference_on_the_same_resamples() -> None:
    user, values = _values(4)
    other = _values(5)[1]
    bootstrap = Bootstrap.over(user, 400, seed=0)
    both = ~np.isnan(values) & ~np.isnan(other)
    own, its = np.where(both, values, np.nan), np.where(both, other, np.nan)
    difference = bootstrap.means(own) - bootstrap.means(its)
    for column, one in enumerate(bootstrap.compare(values, other)):
        assert one is not None
        assert one.difference == pytest.approx(np.nanmean(own[:, column]) - np.nanmean(its[:, column]))
        assert (one.low, one.high) == pytest.approx(tuple(np.percentile(difference[:, column], [2.5, 97.5])))
        assert one.share_above == pytest.approx((difference[:, column] > 1e-12).mean(), abs=0.02)
        assert one.anchors == both[:, column].sum()


def test_a_model_against_itself_is_a_tie() -> None:
    user, values = _values(6)
    for one in Bootstrap.over(user, 100, seed=0).compare(values, values):
        assert one is not None
        assert (one.difference, one.low, one.high, one.share_above) == (0, 0, 0, 0.5)


def test_pairing_sees_what_intervals_apart_cannot() -> None:
    random = np.random.default_rng(0)
    user = np.repeat(np.arange(300), 3)
    hard = random.random(300)[user]
    first = (random.random(900) < hard).astype(float)
    second = np.where(random.random(900) < 0.06, 0.0, first)
    bootstrap = Bootstrap.over(user, 1000, seed=0)
    a, b = bootstrap.figures(np.stack([first, second], axis=1))
    (pair,) = bootstrap.compare(first[:, None], second[:, None])
    assert a is not None
    assert b is not None
    assert pair is not None
    assert b.high > a.low
    assert pair.low > 0
    assert pair.share_above == 1.0


def test_intervals_cover_the_truth_nineteen_times_in_twenty() -> None:
    random = np.random.default_rng(7)
    truth, covered, alone = 0.3, 0, 0
    trials = 300
    for trial in range(trials):
        user = np.repeat(np.arange(80), random.integers(1, 6, 80))
        # Anchors of a user hit together: an interval over anchors would be too narrow, one over users is not.
        habit = random.beta(0.6, 1.4, 80)
        values = (random.random(len(user)) < habit[user]).astype(np.float64)[:, None]
        (figure,) = Bootstrap.over(user, 300, seed=trial).figures(values)
        (naive,) = Bootstrap.over(np.arange(len(user)), 300, seed=trial).figures(values)
        assert figure is not None
        assert naive is not None
        covered += figure.low <= truth <= figure.high
        alone += naive.low <= truth <= naive.high
    assert 0.90 <= covered / trials <= 0.98
    assert alone < covered - 0.05 * trials


def test_one_user_has_no_spread_and_no_anchors_no_figure() -> None:
    values = np.array([[1.0, np.nan], [0.0, np.nan]])
    bootstrap = Bootstrap.over(np.array([4, 4]), 20, seed=0)
    figure, nothing = bootstrap.figures(values)
    assert figure is not None
    assert (figure.value, figure.low, figure.high, figure.anchors) == (0.5, 0.5, 0.5, 2)
    assert nothing is None
    assert bootstrap.compare(values, values)[1] is None


def test_resamples_without_a_counting_anchor_are_left_out() -> None:
    values = np.array([[1.0], [np.nan], [np.nan]])
    bootstrap = Bootstrap.over(np.array([0, 1, 2]), 200, seed=0)
    assert np.isnan(bootstrap.means(values)).any()
    (figure,) = bootstrap.figures(values)
    assert figure is not None
    assert (figure.value, figure.low, figure.high, figure.anchors) == (1.0, 1.0, 1.0, 1)
