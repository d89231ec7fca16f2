"""When new items do not fit the codebooks any more, and when chance alone makes it look so."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import binomtest

from conrec.items.growing import drift
from conrec.items.growing.drift import FEWEST_NEW, Fit, Reference, Verdict, drift_of, fit_of, jensen_shannon, verdict_of

ROOM = {"code": 3, "items": 10, "room": 4096}


def some(n: int, mean: float, seed: int) -> Fit:
    """Errors as they are in practice: positive, with a spread of half their mean."""
    error = np.random.default_rng(seed).gamma(4.0, mean / 4.0, n)
    return Fit(error, 1 - error)


def codes_of(n: int, seed: int, size: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(size, size=(n, 3)).astype(np.int32)


def reference(trained: bool = False, n: int = 400, second_codes: int = 0) -> Reference:
    """Items with a mean error of 0.5 that use 16 first codes alike."""
    return Reference(some(n, 0.5, 0), trained, n, second_codes, np.full(16, 60))


def state(*asked) -> str:
    return verdict_of(drift_of(*asked), ROOM).state


def test_fit_is_the_squared_distance_and_the_cosine():
    centred = np.asarray([[3.0, 4.0], [1.0, 0.0]], dtype=np.float32)
    fit = fit_of(centred, np.asarray([[3.0, 0.0], [0.0, 2.0]], dtype=np.float32))
    np.testing.assert_allclose(fit.error, [16.0, 5.0])
    np.testing.assert_allclose(fit.cosine, [0.6, 0.0], atol=1e-6)


@given(st.lists(st.integers(0, 50), min_size=2, max_size=20).filter(any), st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_divergence_is_that_of_scipy_in_bits(counts, seed):
    first = np.asarray(counts, dtype=np.float64)
    second = np.random.default_rng(seed).random(len(counts))
    assert jensen_shannon(first, second) == pytest.approx(jensenshannon(first, second, base=2) ** 2, abs=1e-7)


def test_divergence_ends_at_0_and_1():
    assert jensen_shannon(np.asarray([3.0, 1.0]), np.asarray([6.0, 2.0])) == pytest.approx(0)
    assert jensen_shannon(np.asarray([3.0, 0.0]), np.asarray([0.0, 2.0])) == pytest.approx(1)


def test_more_of_the_same_fits_whatever_the_draw():
    """Twenty draws of new items from what the reference is from: not one says retrain."""
    for seed in range(1, 21):
        n = (20, 60, 150)[seed % 3]
        codes = codes_of(n, seed)
        found = drift_of(some(n, 0.5, seed), codes, codes, reference(), seed)
        assert found["error"]["low"] <= found["error"]["ratio"] <= found["error"]["high"]
        assert verdict_of(found, ROOM).state == "fits", found["error"]
        assert found["first_codes"]["p"] > 0.001
    assert found["moved"] == {"items": 0, "share": 0.0}


def test_items_that_are_rebuilt_worse_call_for_retraining_once_they_are_enough():
    codes = codes_of(300, 1)
    found = drift_of(some(300, 0.75, 5), codes, codes, reference(), 0)
    verdict = verdict_of(found, ROOM)
    assert verdict.state == "retrain"
    assert verdict.reason.startswith("reconstruction error 1.")
    assert "threshold 1.2," in verdict.reason
    assert found["cosine"]["high"] < 0


@pytest.mark.parametrize("n", [1, 2, FEWEST_NEW - 1])
def test_a_few_items_decide_nothing_however_odd(n):
    """Ten times the error, and all with another second code: no interval is made up, and no verdict."""
    codes = codes_of(FEWEST_NEW, 1)
    other = (codes + 1) % 16
    found = drift_of(some(n, 5.0, 6), codes[:n], other[:n], reference(), 0)
    assert found["error"]["low"] is found["error"]["high"] is found["cosine"]["low"] is found["cosine"]["high"] is None
    verdict = verdict_of(found, ROOM)
    assert verdict.state == "too few to tell"
    assert verdict.reason.endswith("and it takes 20 items to say that they do not fit")
    assert state(some(FEWEST_NEW, 5.0, 6), codes, other, reference(), 0) == "retrain"
    # What is counted and no sample decides all the same.
    assert verdict_of(found, {"code": 3, "items": 901, "room": 1000}).state == "retrain"
    assert verdict_of({**found, "unnamed": 1}, ROOM).state == "retrain"


@given(st.integers(1, 400), st.data())
@settings(max_examples=100, deadline=None)
def test_intervals_of_shares_are_those_of_scipy(n, data):
    found = data.draw(st.integers(0, n))
    expected = binomtest(found, n).proportion_ci(method="wilson")
    assert drift._wilson(found, n) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_the_difference_of_shares_is_that_of_the_paper():
    """Newcombe (1998), table II: 56/70 and 48/80 differ by 0.2, from 0.0524; 9/10 and 3/10 by 0.6, from 0.1705."""
    assert drift._more(56, 70, 48, 80) == pytest.approx(0.0524, abs=5e-5)
    assert drift._more(9, 10, 3, 10) == pytest.approx(0.1705, abs=5e-5)


def test_training_items_as_reference_get_an_allowance():
    """They are rebuilt better than any others: 1.36 times their error is what a codebook that fits shows."""
    codes, fit = codes_of(400, 1), some(400, 0.68, 5)
    assert state(fit, codes, codes, reference(), 0) == "retrain"
    assert state(fit, codes, codes, reference(trained=True), 0) == "fits"
    assert "threshold 1.63," in verdict_of(drift_of(fit, codes, codes, reference(trained=True), 0), ROOM).reason


def test_overflow_calls_for_retraining():
    codes = codes_of(200, 1)
    other = codes.copy()
    other[:30, 1] = (other[:30, 1] + 1) % 16
    found = drift_of(some(200, 0.5, 2), codes, other, reference(), 0)
    assert found["another_second_code"]["items"] == found["moved"]["items"] == 30
    assert found["another_second_code"]["low"] < 0.15 < found["another_second_code"]["high"]
    verdict = verdict_of(found, ROOM)
    assert verdict.state == "retrain"
    assert verdict.reason.startswith("15.0% of the items took another second code")
    # Where a run's own items had to do so as often, as with a cap, it is no news.
    assert state(some(200, 0.5, 2), codes, other, reference(second_codes=60), 0) == "fits"
    assert state(some(200, 0.5, 2), codes, (codes + 1) % 16, reference(second_codes=124), 0) == "retrain"
    other = codes.copy()
    other[:4, 1] = (other[:4, 1] + 1) % 16
    assert state(some(200, 0.5, 2), codes, other, reference(), 0) == "fits"


def test_full_first_codes_and_items_without_a_name_call_for_retraining():
    codes = codes_of(50, 1)
    found = drift_of(some(50, 0.5, 2), codes, codes, reference(), 0)
    assert verdict_of(found, {"code": 3, "items": 900, "room": 1000}).state == "fits"
    verdict = verdict_of(found, {"code": 3, "items": 901, "room": 1000})
    assert verdict == Verdict("retrain", "first code 3 names 901 of at most 1,000 items (threshold 90%)")
    assert verdict_of(found, {"code": 3, "items": 901, "room": None}).state == "fits"
    found = drift_of(some(50, 0.5, 2), codes, codes, reference(), 0, unnamed=1)
    assert verdict_of(found, ROOM).reason.startswith("1 item found no semantic ID left")


def test_other_first_codes_are_told_and_decide_nothing():
    codes = codes_of(100, 1)
    codes[:, 0] = 3
    found = drift_of(some(100, 0.5, 2), codes, codes, reference(), 0)
    assert found["first_codes"]["divergence"] > 0.5 > found["first_codes"]["expected"]
    assert found["first_codes"]["p"] < 0.01
    assert verdict_of(found, ROOM).state == "fits"


def test_a_fourth_code_is_no_move_and_large_samples_are_drawn_from(monkeypatch):
    monkeypatch.setattr(drift, "MOST", 50)
    codes = codes_of(100, 1)
    found = drift_of(some(100, 0.5, 2), codes, np.column_stack([codes, codes[:, :1]]), reference(), 0)
    assert found["moved"]["items"] == found["another_second_code"]["items"] == 0
    assert found["items"] == 100


def test_what_is_compared_in_pieces_is_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    one, two = (rng.normal(size=(25, 6)).astype(np.float32) for _ in range(2))
    whole = fit_of(one, two)
    monkeypatch.setattr(drift, "PIECE", 7)
    np.testing.assert_array_equal(fit_of(one, two).error, whole.error)
