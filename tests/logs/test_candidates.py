"""Candidates: the order of fallbacks, what may never be drawn, and independence from the order of users."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from conrec.logs.anchor_table import anchor_tables
from conrec.logs.anchors import Anchors, build_anchors
from conrec.logs.log import Log
from conrec.logs.prepare import Prepared
from conrec.logs.schema import SPLITS
from conrec.protocol import CANDIDATES, DAY, Periods, periods_of
from tests.logs.small_logs import draw_log

WEEK = 7 * DAY


def candidates_of(log: Log, seed: int = 0, horizon: int = WEEK) -> tuple[Anchors, np.ndarray, Periods]:
    periods = periods_of(log.timestamp, 0.6, 0.8)
    anchors = build_anchors(log, periods, horizon, seed)
    return anchors, anchors.candidates, periods


def check_rules(log: Log, anchors: Anchors, drawn: np.ndarray, periods: Periods, horizon: int) -> dict[str, int]:
    """Every rule of the module, in plain sets; how many candidates came from which step."""
    steps = dict.fromkeys(("own", "same day", "days before", "catalogue"), 0)
    for row in range(len(anchors)):
        split = SPLITS[anchors.split[row]]
        chosen = drawn[row][drawn[row] >= 0].tolist()
        if split == "train":
            assert chosen == []
            continue
        user, t = int(anchors.user[row]), int(anchors.timestamp[row])
        day, end = t // DAY, min(t + horizon, periods.span(split)[1])
        history = set(log.item[log.history(user, t)].tolist())
        window = set(log.item[log.events_of(user, t, end)].tolist())
        negatives = set(anchors.future_negatives[row].tolist())
        met = {
            int(log.item[event])
            for event in log.events_of(user, t, end)
            if log.timestamp[event] // DAY == day and log.feedback[event] >= 0
        }
        own = met - negatives - history
        next_item = int(anchors.next_item[row])

        def others(of_day: int, user: int = user) -> set[int]:
            return set(log.item[(log.timestamp // DAY == of_day) & (log.user != user)].tolist())

        assert next_item in chosen
        assert len(set(chosen)) == len(chosen)
        rest = set(chosen) - {next_item}
        if len(own) >= CANDIDATES - 1:
            assert rest <= own
            steps["own"] += len(rest)
            continue
        assert own <= rest
        steps["own"] += len(own)
        rest -= own
        free = set(range(log.n_items)) - history - window
        assert rest <= free
        assert len(chosen) == min(CANDIDATES, 1 + len(own) + len(free))
        first_day = int(log.timestamp[0] // DAY)
        for of_day in range(day, first_day - 1, -1):
            offered = others(of_day) & free
            step = "same day" if of_day == day else "days before"
            steps[step] += len(rest & offered)
            if rest <= offered:
                rest = set()
                break
            assert offered <= rest  # a day is used up before the day before it is asked
            rest -= offered
            free -= offered
        steps["catalogue"] += len(rest)
    return steps


def test_the_rules_on_random_logs() -> None:
    steps = dict.fromkeys(("own", "same day", "days before", "catalogue"), 0)
    shapes: tuple[dict[str, int], ...] = (
        {},
        {"users": 4, "events": 300, "days": 8, "items": 80},
        {"users": 5, "events": 60, "items": 100},
        {"items": 25, "events": 250},
    )
    for seed, shape in product(range(6), shapes):
        log = draw_log(seed, **shape)
        anchors, drawn, periods = candidates_of(log)
        assert drawn.shape == (len(anchors), CANDIDATES)
        for step, count in check_rules(log, anchors, drawn, periods, WEEK).items():
            steps[step] += count
    assert all(steps.values()), steps


def test_the_rules_on_ml100k(prepared_ml100k: Prepared) -> None:
    anchors = prepared_ml100k.anchors
    live = anchors.select(anchors.split > 0)
    assert (live.candidates >= 0).all()
    steps = check_rules(prepared_ml100k.log, live, live.candidates, prepared_ml100k.periods, WEEK)
    assert steps["own"] > steps["same day"] > steps["days before"]


def small(rows: list[tuple[int, int, int, int]], users: int, items: int) -> Log:
    user, item, time, feedback = (np.asarray(column) for column in zip(*rows, strict=True))
    names = tuple(f"u{n:03d}" for n in range(users)), tuple(f"i{n:03d}" for n in range(items))
    return Log.from_columns(*names, user, item, time, feedback)


def test_more_than_19_of_his_own_day_are_drawn_among() -> None:
    rows = [(0, 0, DAY, 1), (0, 1, 10 * DAY, -1), *((0, 2 + n, 10 * DAY + n, n % 2) for n in range(30)), (1, 0, 0, 1)]
    log = small(rows, 2, 60)
    periods = Periods(5 * DAY, 9 * DAY, 20 * DAY)
    draws = [set(build_anchors(log, periods, WEEK, seed).candidates[0].tolist()) for seed in range(20)]
    assert all(1 in drawn and len(drawn) == 20 and max(drawn) < 32 for drawn in draws)
    assert set().union(*draws) == set(range(1, 32))
    assert len({frozenset(drawn) for drawn in draws}) > 15


def test_others_are_drawn_by_the_number_of_that_days_events() -> None:
    # 60 items of the day, one of them with 400 events of others, the rest with 1; the user's own do not count.
    rows = [(0, 0, DAY, 1), (0, 1, 10 * DAY, -1)]
    rows += [(1 + n % 5, 2, 10 * DAY + n, 0) for n in range(400)] + [(1, 3 + n, 10 * DAY, 1) for n in range(59)]
    log = small(rows, 6, 100)
    periods = Periods(5 * DAY, 9 * DAY, 20 * DAY)
    drawn = np.stack([build_anchors(log, periods, WEEK, seed).candidates[0] for seed in range(100)])
    shares = np.bincount(drawn.ravel(), minlength=100) / len(drawn)
    assert shares[1] == 1.0
    assert shares[2] > 0.99
    assert shares[3:62] == pytest.approx(18 / 59, abs=0.2)
    assert shares[[0, *range(62, 100)]].sum() == 0
    first = (drawn == 1).argmax(axis=1)  # the true item stands anywhere
    assert np.bincount(first, minlength=20) == pytest.approx(5, abs=9)


def test_a_small_catalogue_gives_fewer() -> None:
    log = small([(0, 0, DAY, 1), (0, 1, 10 * DAY, -1), (1, 2, 10 * DAY, 1)], 2, 5)
    periods = Periods(5 * DAY, 9 * DAY, 20 * DAY)
    anchors = build_anchors(log, periods, WEEK, 0)
    (row,) = anchors.candidates
    assert sorted(row[:4].tolist()) == [1, 2, 3, 4]
    assert (row[4:] == -1).all()
    (table,) = anchor_tables(anchors, log.user_ids, log.item_ids)
    assert table["candidates"].to_pylist() == [[f"i{item:03d}" for item in row[:4]]]


def test_neither_the_order_of_users_nor_other_anchors_matter() -> None:
    log = draw_log(3)
    anchors, drawn, _ = candidates_of(log)
    by_key = {
        (log.user_ids[u], int(t)): row.tolist()
        for u, t, row in zip(anchors.user, anchors.timestamp, drawn, strict=True)
    }
    turned = Log.from_columns(
        log.user_ids[::-1], log.item_ids, log.n_users - 1 - log.user, log.item, log.timestamp, log.feedback
    )
    again, redrawn, _ = candidates_of(turned)
    for u, t, row in zip(again.user, again.timestamp, redrawn, strict=True):
        assert by_key[turned.user_ids[u], int(t)] == row.tolist()
    assert not np.array_equal(candidates_of(log, 1)[1], drawn)


def test_events_after_the_day_change_nothing() -> None:
    log = draw_log(4)
    anchors, drawn, periods = candidates_of(log, horizon=DAY)
    row = int(np.flatnonzero(anchors.split == 1)[0])
    cut = (int(anchors.timestamp[row]) // DAY + 1) * DAY
    late = log.timestamp >= max(cut, int(anchors.timestamp[row]) + DAY)
    changed = replace(log, item=np.where(late, (log.item + 7) % log.n_items, log.item).astype(np.int32))
    assert late.any()
    again = build_anchors(changed, periods, DAY, 0)
    same = (again.user == anchors.user[row]) & (again.timestamp == anchors.timestamp[row])
    assert again.candidates[same].tolist() == [drawn[row].tolist()]
