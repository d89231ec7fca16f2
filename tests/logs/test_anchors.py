"""Anchors against a slow transcription of the protocol's words; evaluation/test_oracles has independent figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conrec.errors import ArtefactError
from conrec.logs.anchor_table import anchor_tables, anchors_from_table
from conrec.logs.anchors import Anchors, build_anchors
from conrec.logs.log import Log
from conrec.logs.schema import ANCHORS, SPLITS
from conrec.protocol import CANDIDATES, DAY, Periods, periods_of

Event = tuple[str, str, int, int]


def log_of(events: list[Event]) -> Log:
    """A log of (user, item, timestamp, feedback) in source order, indices by sorted id."""
    users, items = (tuple(sorted({event[column] for event in events})) for column in (0, 1))
    return Log.from_columns(
        users,
        items,
        np.asarray([users.index(event[0]) for event in events]),
        np.asarray([items.index(event[1]) for event in events]),
        np.asarray([event[2] for event in events]),
        np.asarray([event[3] for event in events]),
    )


def slow_anchors(events: list[Event], cuts: tuple[int, int], horizon: int) -> list[tuple[Any, ...]]:
    """The protocol, word for word: rows of (user, t, split, negatives, positives, long tail, negatives before)."""
    ordered = sorted(events, key=lambda event: event[2])  # stable: (timestamp, position in the source)
    validation, test = cuts
    last = ordered[-1][2]
    found = []
    for user in sorted({event[0] for event in events}):
        mine = [event for event in ordered if event[0] == user]
        train_negatives = sum(event[3] == -1 and event[2] < validation for event in mine)
        for split in SPLITS:
            window_end = None
            for _, _, t, feedback in mine:
                period = "train" if t < validation else "validation" if t < test else "test"
                period_end = {"train": validation, "validation": test, "test": last + 1}[split]
                if period != split or feedback != -1:
                    continue
                if split != "train":  # windows tile the period; every training negative opens one
                    if window_end is not None and t < window_end:
                        continue
                    window_end = t + horizon
                history = [event for event in mine if event[2] < t]
                window = [event for event in mine if t <= event[2] < t + horizon and event[2] < period_end]
                known = {event[1] for event in history}
                negatives, positives = [], []
                for _, item, _, sign in window:
                    if sign == -1 and item not in known and item not in negatives:
                        negatives.append(item)
                    if sign == 1 and item not in positives:
                        positives.append(item)
                if history and negatives:
                    before = sum(event[3] == -1 for event in history)
                    found.append((user, t, split, negatives, positives, train_negatives < 3, before))
    return found


def as_table(anchors: Anchors, log: Log) -> pa.Table:
    return pa.concat_tables(anchor_tables(anchors, log.user_ids, log.item_ids))


def rows_of(anchors: Anchors, log: Log) -> list[tuple[Any, ...]]:
    columns = ("user_id", "timestamp", "split", "future_negatives", "future_positives", "long_tail_user")
    return [(*(row[name] for name in columns), row["negative_history"]) for row in as_table(anchors, log).to_pylist()]


event_lists = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "only once"]),
        st.sampled_from(["x", "y", "z", "w", "v"]),
        st.integers(0, 40),
        st.sampled_from([-1, -1, 0, 1]),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(event_lists, st.integers(0, 40), st.integers(1, 20), st.integers(1, 15))
def test_anchors_are_what_the_protocol_says(events: list[Event], first: int, gap: int, horizon: int) -> None:
    log = log_of(events)
    periods = Periods(first, first + gap, max(event[2] for event in events) + 1)
    if periods.end <= periods.test:
        events = [*events, ("a", "x", periods.test, 1)]
        log, periods = log_of(events), Periods(first, first + gap, periods.test + 1)
    anchors = build_anchors(log, periods, horizon)
    expected = slow_anchors(events, (periods.validation, periods.test), horizon)
    assert sorted(rows_of(anchors, log)) == sorted(expected)
    assert anchors.anchor_id.tolist() == list(range(len(expected)))
    assert (np.diff(anchors.timestamp) >= 0).all()
    table = as_table(anchors, log)
    assert [row[0] for row in table["future_negatives"].to_pylist()] == table["next_item"].to_pylist()


def test_windows_tile_and_are_cut_off_at_the_end_of_the_period() -> None:
    day = [(f"u{item}", f"i{item}", 0, 1) for item in range(10)]
    mine = [("u", "x", 1, 0), *(("u", f"d{t}", t, -1) for t in (10, 16, 17, 25, 30, 31))]
    log = log_of([*day, *mine, ("z", "x", 40, 1)])
    anchors = build_anchors(log, Periods(10, 30, 41), 7)
    assert [(t, split, negatives) for _, t, split, negatives, *_ in rows_of(anchors, log)] == [
        (10, "validation", ["d10", "d16"]),
        (17, "validation", ["d17"]),
        (25, "validation", ["d25"]),  # d30 and d31 are less than 7 later, but in the next period
        (30, "test", ["d30", "d31"]),
    ]


def test_a_window_without_anchor_still_moves_the_next_one() -> None:
    # At 10 the user has no history: no anchor, but the window [10, 17) is used up.
    log = log_of([("u", "a", 10, -1), ("u", "b", 12, -1), ("u", "c", 18, -1), ("v", "a", 0, 1), ("v", "a", 50, 1)])
    anchors = build_anchors(log, Periods(5, 40, 51), 7)
    assert [row[:4] for row in rows_of(anchors, log)] == [("u", 18, "validation", ["c"])]


def test_a_repeated_dislike_is_no_target() -> None:
    log = log_of([("u", "a", 1, -1), ("u", "a", 10, -1), ("u", "a", 11, 1), ("v", "a", 0, 1), ("v", "a", 50, 1)])
    assert rows_of(build_anchors(log, Periods(5, 40, 51), 7), log) == []


def test_ties_with_the_anchor_are_window_not_history() -> None:
    log = log_of([("u", "h", 1, 0), ("u", "p", 10, 1), ("u", "a", 10, -1), ("v", "a", 0, 1), ("v", "a", 50, 1)])
    ((_, t, _, negatives, positives, long_tail, before),) = rows_of(build_anchors(log, Periods(5, 40, 51), 7), log)
    assert (t, negatives, positives, long_tail, before) == (10, ["a"], ["p"], True, 0)


@pytest.mark.parametrize("random_log", range(4), indirect=True)
def test_properties_of_windows(random_log: Log) -> None:
    log, horizon = random_log, 7 * DAY
    periods = periods_of(log.timestamp, 0.6, 0.8)
    anchors = build_anchors(log, periods, horizon)
    assert set(anchors.split.tolist()) == {0, 1, 2}
    latest: dict[tuple[int, int], int] = {}
    for row in range(len(anchors)):
        user, t, split = int(anchors.user[row]), int(anchors.timestamp[row]), int(anchors.split[row])
        begin, end = periods.span(SPLITS[split])
        assert begin <= t < end
        history = set(log.item[log.history(user, t)].tolist())
        inside = set(log.item[log.events_of(user, t, min(end, t + horizon))].tolist())
        negatives = anchors.future_negatives[row].tolist()
        assert history
        assert history.isdisjoint(negatives)
        assert {*negatives, *anchors.future_positives[row].tolist()} <= inside
        assert len(set(negatives)) == len(negatives)
        if SPLITS[split] != "train":
            assert t >= latest.get((user, split), t)
            latest[user, split] = t + horizon


@pytest.mark.parametrize("random_log", [5], indirect=True)
def test_a_table_and_back(random_log: Log) -> None:
    periods = periods_of(random_log.timestamp, 0.6, 0.8)
    anchors = build_anchors(random_log, periods, DAY)
    assert anchors.candidates.shape == (len(anchors), CANDIDATES)
    drawn = np.where((anchors.split > 0)[:, None], anchors.next_item[:, None] + np.arange(CANDIDATES), -1)
    drawn = np.where(drawn < 0, -1, drawn % random_log.n_items)
    drawn[:, -3:] = -1
    anchors = anchors.with_candidates(drawn)
    table = as_table(anchors, random_log)
    assert table.schema == ANCHORS
    again = anchors_from_table(table, random_log)
    for name in ("anchor_id", "user", "timestamp", "split", "candidates", "long_tail_user", "negative_history"):
        assert np.array_equal(getattr(again, name), getattr(anchors, name)), name
        assert getattr(again, name).dtype == getattr(anchors, name).dtype, name
    for name in ("future_negatives", "future_positives"):
        assert np.array_equal(getattr(again, name).values, getattr(anchors, name).values)
        assert np.array_equal(getattr(again, name).offsets, getattr(anchors, name).offsets)
    test = again.of_split("test")
    assert test.anchor_id.tolist() == again.anchor_id[again.split == 2].tolist()
    assert len(test.queries) == len(test)


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("user_id", "nobody", "is 'nobody'; expected a user of events.parquet"),
        ("split", "later", "is 'later'; expected one of train, validation, test"),
        ("next_item", "nothing", "is 'nothing'; expected an item of items.parquet"),
        ("next_item", None, "is None; expected an item"),
        ("next_item", "i01", "is 'i01'; expected the first of future_negatives"),
        ("future_negatives", [], "is empty; expected at least the next item"),
        ("future_negatives", ["i00", "nothing"], "names 'nothing'; expected an item"),
        ("future_positives", ["nothing"], "names 'nothing'; expected an item"),
        ("candidates", ["i00", "nothing"], "names 'nothing'; expected an item"),
        ("candidates", [f"i{n:02d}" for n in range(21)], "holds 21 items, 21 of them distinct; expected at most 20"),
        ("candidates", ["i00", "i00"], "holds 2 items, 1 of them distinct"),
        ("candidates", None, "is there without candidates; expected null"),
        ("candidate_answer", None, "is None; expected the next item, and it among the candidates"),
        ("candidate_answer", "i02", "is 'i02'; expected the next item, and it among the candidates"),
        ("timestamp", None, "is null; expected a value of int64"),
    ],
)
def test_a_row_that_contradicts_the_log_or_itself_is_named(column: str, value: Any, says: str) -> None:
    log = log_of([("u", f"i{n:02d}", n, 1) for n in range(25)])
    row = {
        "anchor_id": 0, "user_id": "u", "timestamp": 30, "split": "test", "next_item": "i00",
        "future_negatives": ["i00"], "future_positives": [], "candidates": ["i02", "i00"], "candidate_answer": "i00",
        "long_tail_user": True, "negative_history": 0,
    }  # fmt: skip
    right = pa.Table.from_pylist([row, {**row, "anchor_id": 1}], ANCHORS)
    assert anchors_from_table(right, log).candidates[1, :3].tolist() == [2, 0, -1]
    wrong = pa.Table.from_pylist([row, {**row, column: value}], ANCHORS)
    with pytest.raises(ArtefactError) as caught:
        anchors_from_table(wrong, log, "RUN/data/anchors.parquet")
    place = "candidate_answer" if says.startswith("is there") else column
    assert f"RUN/data/anchors.parquet, row 2, column {place!r}: {says}" in str(caught.value)
