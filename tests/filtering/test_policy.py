"""What is done with a candidate beside the threshold: weights, ageing, a floor, an allow-list, a dry run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conrec.errors import ConfigError
from conrec.filtering.filter import NegativeFilter
from conrec.filtering.policy import Policy
from conrec.filtering.stores.base import StoreUnavailableError
from conrec.filtering.weighing import DAY
from conrec.settings.filtering import FilterConfig
from tests.filtering.conftest import build_circle_run

Build = Callable[[float | None], Path]
EVERYTHING = ["i0", "i1", "i2", "i3", "i4", "7"]


def with_policy(run: Path, **fields: object) -> NegativeFilter:
    return NegativeFilter.load(run, "conrec", policy=Policy(**fields))  # type: ignore[arg-type]


def test_the_settings_are_the_policy() -> None:
    config = FilterConfig(half_life_days=7, keep_at_least=3, allow=("i1",), dry_run=True)
    assert Policy.of(config) == Policy(7.0, 3, frozenset({"i1"}), True)
    assert Policy.of(FilterConfig()) == Policy()


def test_a_floor_below_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"filter\.keep_at_least"):
        Policy(keep_at_least=-1)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 6), st.booleans())
def test_the_floor_is_its_literal_rule(seed: int, floor: int, grouped: bool) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 30))
    dropped = rng.random(n) < 0.6
    similarity = rng.integers(0, 4, n).astype(np.float32)  # many ties
    requests = rng.integers(0, 3, n) if grouped else None
    spared = Policy(keep_at_least=floor).spared(dropped, similarity, requests)
    expected = np.zeros(n, dtype=bool)
    group = requests if requests is not None else np.zeros(n, dtype=int)
    for one in set(group.tolist()):
        here = [at for at in range(n) if group[at] == one]
        kept = sum(not dropped[at] for at in here)
        for at in sorted((at for at in here if dropped[at]), key=lambda at: (similarity[at], at)):
            if kept < floor:
                expected[at] = True
                kept += 1
    np.testing.assert_array_equal(spared, expected)


def test_of_each_request_enough_remains_and_the_least_similar_come_back(circle_run: Build) -> None:
    run = circle_run(-2.0)  # above everything: all would be dropped
    judged = with_policy(run, keep_at_least=2).judge("ann", EVERYTHING)
    assert judged.dropped.tolist() == [True, True, True, True, False, False]
    assert judged.reason.tolist() == [1, 1, 1, 1, 5, 5]
    few = with_policy(run, keep_at_least=2).judge("ann", ["i0"])
    assert few.dropped.tolist() == [False]
    # Unknown items are kept anyway and count as remaining.
    assert with_policy(run, keep_at_least=2).judge("ann", ["i0", "x", "y"]).dropped.tolist() == [True, False, False]
    pairs = with_policy(run, keep_at_least=1).decide(["ann", "bob", "ann", "bob"], ["i0", "i4", "i1", "i0"])
    assert pairs.dropped.tolist() == [True, True, False, False]
    requests = with_policy(run, keep_at_least=1).decide_rows(
        ["ann"], np.zeros(3, dtype=np.int64), np.asarray([0, 1, 2], dtype=np.int32), np.asarray([7, 9, 9])
    )
    assert requests.dropped.tolist() == [False, True, False]


def test_allowed_items_are_never_dropped(circle_run: Build) -> None:
    run = circle_run(0.5)
    assert with_policy(run, allow=frozenset({"i1"})).judge("ann", ["i0", "i1", "i3"]).reason.tolist() == [1, 6, 0]
    assert with_policy(run).judge("ann", ["i0", "i1"], allow=["i0"]).reason.tolist() == [6, 1]
    assert with_policy(run, allow=frozenset({"i1"})).decide(["ann"] * 2, ["i0", "i1"]).reason.tolist() == [1, 6]


def test_a_dry_run_says_what_it_would_drop(circle_run: Build) -> None:
    run = circle_run(0.5)
    judged = with_policy(run, dry_run=True).judge("ann", ["i0", "i3"])
    assert judged.reason.tolist() == [7, 0]
    assert not judged.dropped.any()
    assert with_policy(run, dry_run=True).judge("ann", ["i0"], dry_run=False).dropped.all()
    assert with_policy(run).filter("ann", ["i0"], dry_run=True).kept[0].reason == "kept: dry run"


def test_ageing_never_drops_more(circle_run: Build) -> None:
    run = circle_run(-0.6)  # i4 to 7 is at 90 degrees, i0 to 7 at 180: a weight would bring them nearer to 0
    fresh = with_policy(run).judge("bob", EVERYTHING).dropped
    day = 200.0 * DAY
    aged = with_policy(run, half_life_days=1.0)
    assert not (
        aged.judge("ann", EVERYTHING, now=day).dropped & ~with_policy(run).judge("ann", EVERYTHING).dropped
    ).any()
    assert not (aged.judge("bob", EVERYTHING, now=day).dropped & ~fresh).any()
    assert not aged.judge("ann", ["7"], now=day).dropped.any()


def test_a_threshold_for_one_question(circle_run: Build) -> None:
    negative_filter = NegativeFilter.load(circle_run(0.5), "conrec")
    assert negative_filter.judge("ann", ["i0", "i1"], threshold=0.99).reason.tolist() == [1, 0]


class Away:
    """A store whose server is away."""

    meta = None

    def get(self, user_id: str) -> None:
        raise StoreUnavailableError("does not answer", where="the store")

    get_many = get


def test_a_store_that_is_away_keeps_everything_and_says_so(circle_run: Build) -> None:
    run = circle_run(0.5)
    negative_filter = NegativeFilter.load(run, "conrec")
    negative_filter.store = Away()  # type: ignore[assignment]
    judged = negative_filter.judge("ann", ["i0", "x"])
    assert not judged.dropped.any()
    assert judged.reason.tolist() == [8, 8]
    assert np.isnan(judged.similarity).all()
    assert not negative_filter.mask("ann", negative_filter.indices(["i0"])).any()
    with pytest.raises(StoreUnavailableError):
        negative_filter.predict_set("ann")


@pytest.fixture(scope="module")
def one_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_circle_run(tmp_path_factory.mktemp("policy"), 0.4)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_fast_path_says_what_judge_says(one_run: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    policy = Policy(
        half_life_days=None if rng.random() < 0.5 else 30.0,
        keep_at_least=int(rng.integers(0, 4)),
        allow=frozenset(rng.choice(EVERYTHING, rng.integers(0, 3)).tolist()),
        dry_run=bool(rng.random() < 0.2),
    )
    negative_filter = NegativeFilter.load(one_run, "conrec", policy=policy)
    calibration = negative_filter.calibration
    assert calibration is not None
    calibration = replace(
        calibration, rank_weight=float(rng.choice([1, 0.8])), score_weight=float(rng.choice([0, 0.7]))
    )
    negative_filter = NegativeFilter(negative_filter.catalogue, negative_filter.store, calibration, policy)
    candidates = rng.choice([*EVERYTHING, "unknown"], rng.integers(0, 12)).tolist()
    now = float(negative_filter.store.meta.written_at + rng.integers(0, 60) * DAY)
    for user in ("ann", "bob", "42", "empty", "stranger"):
        fast = negative_filter.mask(user, negative_filter.indices(candidates), now=now)
        np.testing.assert_array_equal(fast, negative_filter.judge(user, candidates, now=now).dropped)
