"""Equal false-filter rates: between two that can be reached, beyond the last, on resamples, against plain versions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conrec.arrays import Array
from conrec.filtering.analysis.trading import Reachable, Split, dropped
from tests.filtering.analysis.small_world import plain_caught

few_levels = st.lists(st.integers(0, 4).map(float), min_size=1, max_size=12)
rates = st.sampled_from([0.01, 0.05, 0.1, 0.2, 0.25, 0.5, 0.9])


def split(positives: list[float], negatives: list[float], floor: float = 0.0) -> Split:
    """Every pair of a user of its own."""
    up, down = np.float32(positives), np.float32(negatives)
    return Split.of(up, down, np.arange(len(up)), np.arange(len(down)), floor)


def test_between_two_thresholds_lots_are_drawn() -> None:
    # Above 1: 1 of 4 liked, 1 of 2 disliked. Above 0: 3 of 4 and 2 of 2. Half the way from 0.25 to 0.75 is 0.5.
    scores = split([2, 1, 1, 0], [2, 1])
    assert scores.reachable() == [Reachable(2.0, 0.0, 0.0), Reachable(1.0, 0.25, 0.5), Reachable(0.0, 0.75, 1.0)]
    at = scores.at_rate(0.5)
    assert at is not None
    assert (at.threshold, at.ties, at.caught, at.beyond) == (1.0, 0.5, 0.75, False)
    assert at.below == Reachable(1.0, 0.25, 0.5)


def test_a_rate_that_is_reached_draws_no_lots_and_goes_as_low_as_it_may() -> None:
    at = split([3, 0, 0, 0], [2, 1, 0]).at_rate(0.25)
    assert at is not None
    assert (at.threshold, at.ties, at.caught) == (0.0, 0.0, pytest.approx(2 / 3))
    assert not at.beyond


def test_beyond_what_is_known_the_rest_is_dropped_at_random() -> None:
    # The rule knows one of ten liked items and two of four disliked ones; 0.1 to 1 is dropped by lot.
    at = split([1.0] + [0.0] * 9, [1, 1, 0, 0]).at_rate(0.55)
    assert at is not None
    assert at.beyond
    assert at.caught == pytest.approx(0.5 + 0.5 * 0.5)
    assert at.below == Reachable(0.0, 0.1, 0.5)


def test_without_liked_or_disliked_items() -> None:
    assert split([], [1.0]).at_rate(0.05) is None
    assert split([], [1.0]).reachable() == []
    at = split([1.0, 0.5], []).at_rate(0.5)
    assert at is not None
    assert at.caught is None
    assert at.below.caught is None
    assert np.isnan(split([], [1.0]).resampled(np.ones((2, 1), dtype=np.int64), np.asarray([0.05]))).all()


@given(few_levels, few_levels, rates)
@settings(deadline=None)
def test_it_is_the_straight_line_between_neighbours(
    positives: list[float], negatives: list[float], rate: float
) -> None:
    at = split(positives, negatives).at_rate(rate)
    assert at is not None
    assert at.caught == pytest.approx(plain_caught(positives, negatives, rate))
    assert at.below.false_filter_rate <= rate + 1e-9
    # In expectation over the lots just as many liked items are lost as were asked for.
    up, down = np.float32(positives), np.float32(negatives)
    for scores, share in ((up, rate), (down, at.caught)):
        expected = (scores > np.float32(at.threshold)).mean() + at.ties * (scores == np.float32(at.threshold)).mean()
        assert expected == pytest.approx(share)


@given(few_levels, few_levels)
@settings(deadline=None)
def test_reachable_points_are_those_of_all_thresholds(positives: list[float], negatives: list[float]) -> None:
    up, down = np.asarray(positives), np.asarray(negatives)
    levels = np.unique([*positives, *negatives, 0.0])
    every = {(float((up > one).mean()), float((down > one).mean())) for one in levels}
    best = {lost: max(caught for other, caught in every if other == lost) for lost, _ in every}
    found = split(positives, negatives).reachable()
    assert [one.false_filter_rate for one in found] == pytest.approx(sorted(best))
    assert [one.caught for one in found] == pytest.approx([best[lost] for lost in sorted(best)])
    assert [(up > one.threshold).mean() for one in found] == [one.false_filter_rate for one in found]


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=10),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=10),
    st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=1, max_size=4),
)
@settings(deadline=None)
def test_a_resample_is_the_figure_of_the_pairs_that_it_draws(
    positives: list[tuple[int, int]], negatives: list[tuple[int, int]], draws: list[list[int]]
) -> None:
    """A user who is drawn three times has his pairs three times."""
    up, down = (np.asarray(one).T for one in (positives, negatives))
    scores = Split.of(up[0].astype(np.float32), down[0].astype(np.float32), up[1], down[1], 0.0)
    wanted = np.asarray([0.1, 0.25, 0.5])
    found = scores.resampled(np.asarray(draws), wanted)
    for row, drawn in zip(found, np.asarray(draws), strict=True):
        more, less = np.repeat(up[0], drawn[up[1]]), np.repeat(down[0], drawn[down[1]])
        if not (len(more) and len(less)):
            assert np.isnan(row).all()
            continue
        assert row == pytest.approx([plain_caught(more.tolist(), less.tolist(), rate) for rate in wanted])


def test_dropping_with_and_without_lots() -> None:
    scores, luck = np.float32([3, 2, 2, 1]), np.asarray([0.9, 0.2, 0.6, 0.1])

    def names(threshold: float | None, ties: float) -> list[bool]:
        mask: Array = dropped(scores, threshold, ties, luck)
        found: list[bool] = mask.tolist()
        return found

    assert names(2.0, 0.0) == [True, False, False, False]
    assert names(2.0, 0.5) == [True, True, False, False]
    assert names(2.0, 1.0) == [True, True, True, False]
    assert names(None, 1.0) == [False] * 4
