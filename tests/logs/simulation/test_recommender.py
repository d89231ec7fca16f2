"""The recommender learns from what it sees and holds back what was disliked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conrec.logs.simulation.days import days_of
from conrec.logs.simulation.reactions import Felt, Thresholds, react, thresholds_of
from conrec.logs.simulation.recommender import Recommender
from conrec.logs.simulation.seen import Seen
from conrec.logs.simulation.visits import Visits, exposures_of_users, seconds_of_day
from conrec.logs.simulation.world import draw_world
from conrec.protocol import DAY
from conrec.settings.simulation import SimulationConfig
from tests.logs.simulation.conftest import SMALL

THRESHOLDS = Thresholds(-1.2, 1.6)


def whole(config):
    days = list(days_of(draw_world(config), THRESHOLDS))
    return (
        np.concatenate([one.user for one in days]),
        np.concatenate([one.item for one in days]),
        np.concatenate([one.timestamp for one in days]),
        np.concatenate([one.reactions.feedback for one in days]),
    )


def test_a_disliked_item_is_not_shown_again_where_others_return():
    user, item, time, feedback = whole(SMALL.model_copy(update={"returning": True}))
    first: dict[tuple[int, int], int] = {}
    for one, other, at, sign in zip(user.tolist(), item.tolist(), time.tolist(), feedback.tolist(), strict=True):
        assert (one, other) not in first, "a disliked item came back"
        if sign == -1:
            first[one, other] = at
    counts = np.unique(user * SMALL.items + item, return_counts=True)[1]
    assert len(first) > 200
    assert (counts > 1).sum() > 200


def test_a_disliked_category_is_shown_less_only_where_it_is_suppressed():
    """Share of a category among a user's exposures before and after he first disliked it."""
    category = draw_world(SMALL).catalogue.category
    change = {}
    for suppression in (0.0, 4.0):
        user, item, time, feedback = whole(SMALL.model_copy(update={"suppression": suppression, "off_topic": 0.0}))
        before, after = [], []
        for one in range(SMALL.users):
            own = user == one
            mine, at, sign = category[item[own]], time[own] // DAY, feedback[own]
            for disliked in np.unique(mine[sign == -1]):
                day = at[(mine == disliked) & (sign == -1)][0]
                if (at < day).sum() >= 20 and (at > day).sum() >= 20:
                    before.append((mine[at < day] == disliked).mean())
                    after.append((mine[at > day] == disliked).mean())
        change[suppression] = np.mean(after) / np.mean(before)
    assert change[4.0] < 0.75 * change[0.0]
    assert change[0.0] > 0.7


def test_what_is_liked_is_shown_more_than_by_chance():
    config = SMALL.model_copy(update={"drift": 0.0})
    world = draw_world(config)
    user, item, time, _ = whole(config)
    likes = np.zeros((config.users, config.categories), dtype=bool)
    np.put_along_axis(likes, world.people.category[:, : config.liked], True, axis=1)
    liked = likes[user, world.catalogue.category[item]]
    late = time > config.start + 20 * DAY
    assert liked[late].mean() > liked[time < config.start + 2 * DAY].mean() + 0.05


def test_a_feed_has_distinct_new_items_and_as_many_as_there_are():
    world = draw_world(SMALL.model_copy(update={"items": 40, "new_items": 0.0}))
    platform = Recommender(world, np.full(SMALL.users, 60))
    users, random = np.array([3, 9]), np.random.default_rng(0)
    platform.open_day(0)
    met: list[set[int]] = [set(), set()]
    for wanted in ([10, 1], [15, 2], [40, 3]):
        row, item = platform.feed(random, users, np.array(wanted))
        platform.learn(users[row], item, np.zeros(len(row), dtype=np.int8))
        for place in (0, 1):
            own = item[row == place].tolist()
            assert len(set(own)) == len(own) <= wanted[place]
            assert not met[place] & set(own)
            met[place] |= set(own)
    assert len(met[1]) == 6
    assert 30 <= len(met[0]) <= 40


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 10**6)), max_size=80))
def test_what_was_seen_is_always_known(pairs):
    seen = Seen(np.full(10, max(len(pairs), 1)))
    users, items = (np.asarray([pair[place] for pair in pairs], dtype=np.int64) for place in (0, 1))
    seen.add(users, items)
    assert seen.holds(users, items).all()


def test_what_was_not_seen_is_rarely_taken_for_seen():
    exposures = np.array([500, 2, 3000])
    seen = Seen(exposures)
    users = np.repeat(np.arange(3), exposures)
    seen.add(users, np.arange(len(users)))
    for user in range(3):
        others = np.arange(10_000, 30_000)
        assert seen.holds(np.full(len(others), user), others).mean() < 0.075
    assert not Seen(exposures).holds(users, np.arange(len(users))).any()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 300)), min_size=1, max_size=20), st.integers(0, 99))
def test_seconds_rise_within_each_user_and_stay_in_the_day(rows, seed):
    sessions = np.asarray([one for one, _ in rows])
    shown = np.asarray([one + more for one, more in rows])
    seconds = seconds_of_day(np.random.default_rng(seed), sessions, shown)
    assert len(seconds) == shown.sum()
    for own in np.split(seconds, np.cumsum(shown)[:-1]):
        assert (np.diff(own) >= 1).all()
        assert own.min() >= 0
        assert own.max() < DAY


def test_all_exposures_are_handed_out_and_some_users_are_far_busier():
    config = SimulationConfig(users=3000, events=300_000, days=20)
    exposures = exposures_of_users(config)
    assert np.sort(exposures)[-30:].mean() > 8 * np.median(exposures)
    visits, given_out = Visits(config, exposures), np.zeros(3000, dtype=np.int64)
    came = []
    for day in range(20):
        sessions, shown = visits.of_day(day, 0, 3000, np.random.default_rng(day))
        assert (sessions <= shown).all()
        assert not shown[visits.arrival > day].any()
        given_out += shown
        came.append(np.count_nonzero(shown))
    np.testing.assert_array_equal(given_out, exposures)
    assert came[0] < came[-1]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.sampled_from([0.0, 0.1, 0.5]), st.sampled_from([1.5, 3.0, 8.0]))
def test_thresholds_give_the_shares_on_what_they_were_made_of(seed, off_topic, ratio):
    config = SimulationConfig(positive_share=0.2, positives_per_negative=ratio, off_topic=off_topic)
    random = np.random.default_rng(seed)
    n = 4000
    other = random.random(n) < off_topic * config.negative_share
    felt = Felt(random.standard_normal(n).astype(np.float32), random.random(n) < 0.7, other, np.zeros(n, dtype=bool))
    found = react(config, random, felt, thresholds_of(config, felt))
    negatives = (found.feedback == -1).sum()
    assert negatives == pytest.approx(config.negative_share * n, abs=2)
    assert (found.feedback == 1).sum() == pytest.approx(0.2 * n, abs=2)
    assert (found.feedback[other] == -1).all()
    assert (found.reason[found.feedback != -1] == -1).all()


def test_nobody_presses_where_nobody_would():
    felt = Felt(np.array([0.0, 1.0], dtype=np.float32), *(np.zeros(2, dtype=bool) for _ in range(3)))
    found = react(SMALL, np.random.default_rng(0), felt, thresholds_of(SMALL, felt))
    assert found.feedback.tolist() == [0, 0]
