"""Training choices against the rule of candidates, read off the log by loops."""

from __future__ import annotations

import numpy as np
import pytest

from conrec.arrays import Ragged
from conrec.baselines.language.exposed import draw_exposed
from conrec.logs.anchors import Anchors, build_anchors
from conrec.logs.log import Log
from conrec.protocol import DAY, NEGATIVE, Periods
from tests.conformance import CUT, small_log

HORIZON = 7 * DAY


@pytest.fixture(scope="module")
def log() -> Log:
    return small_log(users=20, items=40, events=1500).before(CUT)


def drawn(log: Log, others: int, seed: int = 0):
    anchors = build_anchors(log, Periods(CUT, CUT + DAY, CUT + 2 * DAY), HORIZON).of_split("train")
    return draw_exposed(log, anchors, HORIZON, others, np.random.default_rng(seed))


def test_what_the_user_met_that_day_comes_first_and_nothing_barred_comes(log: Log) -> None:
    choices = drawn(log, 6)
    assert len(choices) > 100
    for row in range(len(choices)):
        user, time, others = int(choices.user[row]), int(choices.timestamp[row]), choices.others[row].tolist()
        day = time // DAY
        history = {int(log.item[e]) for e in log.events_of(user) if log.timestamp[e] < time}
        window = [e for e in log.events_of(user) if time <= log.timestamp[e] < time + HORIZON]
        disliked = {int(log.item[e]) for e in window if log.feedback[e] == NEGATIVE}
        own = {int(log.item[e]) for e in window if log.timestamp[e] // DAY == day} - history - disliked
        everybody = {int(log.item[e]) for e in range(len(log)) if log.timestamp[e] // DAY == day}
        barred = history | {int(log.item[e]) for e in window}
        assert len(set(others)) == len(others) == 6
        assert int(choices.item[row]) in disliked
        assert not set(others) & (history | disliked)
        assert len(set(others) & own) == min(6, len(own))
        assert len(set(others) & (everybody - barred)) == min(6 - min(6, len(own)), len(everybody - barred))


def test_a_small_catalogue_is_exhausted(log: Log) -> None:
    choices = drawn(log, 60)
    for row in range(0, len(choices), 17):
        user, time = int(choices.user[row]), int(choices.timestamp[row])
        window = log.events_of(user, time, time + HORIZON)
        barred = set(log.item[log.history(user, time)].tolist())
        disliked = set(log.item[window[log.feedback[window] == NEGATIVE]].tolist())
        late = set(log.item[window[log.timestamp[window] // DAY > time // DAY]].tolist())
        today = set(log.item[window[log.timestamp[window] // DAY == time // DAY]].tolist())
        free = set(range(log.n_items)) - barred - disliked - (late - today)
        assert set(choices.others[row].tolist()) == free


def test_popular_items_of_the_day_come_more_often() -> None:
    items = np.r_[np.zeros(1, int), np.repeat(1, 60), np.repeat(2, 20), np.arange(3, 23)]
    users = np.r_[0, np.arange(1, 101)]
    names = tuple(f"u{one:03}" for one in range(101))
    feedback = np.r_[-1, np.ones(100, int)]
    log = Log.from_columns(names, tuple(f"i{one}" for one in range(23)), users, items, np.full(101, DAY), feedback)
    anchors = Anchors(
        np.zeros(1, np.int64),
        np.zeros(1, np.int32),
        np.full(1, DAY),
        np.zeros(1, np.int8),
        Ragged.from_rows([[0]]),
        Ragged.from_rows([[]]),
        np.full((1, 20), -1, np.int32),
        np.ones(1, dtype=bool),
        np.zeros(1, np.int32),
    )
    rng = np.random.default_rng(0)
    first = [int(draw_exposed(log, anchors, HORIZON, 1, rng).others[0][0]) for _ in range(300)]
    assert 0.5 < np.mean(np.equal(first, 1)) < 0.7
    assert 0.12 < np.mean(np.equal(first, 2)) < 0.28


def test_the_same_chance_draws_the_same(log: Log) -> None:
    one, two, other = (drawn(log, 5, seed) for seed in (3, 3, 4))
    assert all((a == b).all() for a, b in zip(one.others, two.others, strict=True))
    assert any((a != b).any() for a, b in zip(one.others, other.others, strict=True))
