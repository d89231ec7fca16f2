"""Clean events: every row is kept or refused for one reason; structural mistakes are one error."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conrec.config import DataConfig, EventColumns, FeedbackRule
from conrec.errors import ConfigError, DataError
from conrec.logs.counts import FileCounts
from conrec.logs.files import Raw
from conrec.logs.schema import EVENTS
from conrec.logs.validation import clean_events, feedback_column

NOW = 1_700_000_000
T = 1_000_000_000
ITEMS = pa.table({"item_id": [f"i{n}" for n in range(5)]})
STARS = FeedbackRule(negative_at_most=2, positive_at_least=4)


def raw_of(columns: dict[str, Any]) -> Raw:
    return Raw(Path("events.csv"), pa.table(columns), lambda row: row + 2, "line")


def clean(
    user_id: Any = None, item_id: Any = None, timestamp: Any = None, rating: Any = None, **settings: Any
) -> tuple[pa.Table, FileCounts]:
    rows = max(len(one) for one in (user_id, item_id, timestamp, rating) if one is not None)
    raw = raw_of(
        {
            "user_id": ["u"] * rows if user_id is None else user_id,
            "item_id": ["i0"] * rows if item_id is None else item_id,
            "timestamp": list(range(T, T + rows)) if timestamp is None else timestamp,
            "rating": [1.0] * rows if rating is None else rating,
        }
    )
    config = DataConfig(source="table", feedback=STARS, **{"max_refused": 1, **settings})
    return clean_events(raw, EventColumns(rating="rating"), config, ITEMS, NOW)


def test_ratings_become_feedback_and_the_order_stays() -> None:
    events, counts = clean(rating=["5", "1", "2", "2.5", "3", "4"], timestamp=[T + 9, T, T, T + 1, T + 5, T + 2],
                           item_id=["i0", "i0", "i1", "i2", "i3", "i4"])  # fmt: skip
    assert events.schema == EVENTS
    assert events["feedback"].to_pylist() == [1, -1, -1, 0, 0, 1]
    assert events["timestamp"].to_pylist() == [T + 9, T, T, T + 1, T + 5, T + 2]
    assert (counts.rows, counts.kept, counts.refused) == (6, 6, {})


@pytest.mark.parametrize(
    ("columns", "reason", "shown"),
    [
        ({"user_id": ["u", "", "u"]}, "empty user id", "user_id = ''"),
        ({"user_id": ["u", None, "u"]}, "empty user id", "user_id = None"),
        ({"item_id": ["i0", "  ", "i1"]}, "empty item id", "item_id = '  '"),
        ({"timestamp": [T, None, T + 1]}, "timestamp not readable", "timestamp = None"),
        ({"timestamp": [str(T), "soon", str(T + 1)]}, "timestamp not readable", "timestamp = 'soon'"),
        ({"timestamp": [str(T), f"{T}.5", str(T + 1)]}, "timestamp not readable", f"'{T}.5'"),
        ({"timestamp": [float(T), T + 0.5, T + 1.0]}, "timestamp not readable", f"{T}.5"),
        ({"timestamp": [T, 12, T + 1]}, "timestamp before 1990 or in the future", "1970-01-01"),
        ({"timestamp": [T, NOW + 90_000, T + 1]}, "timestamp before 1990 or in the future", "2023-11-15"),
        ({"timestamp": [T, T * 1000, T + 1]}, "timestamp before 1990 or in the future",
         "(beyond the calendar; in milliseconds it is 2001-09-09)"),
        ({"timestamp": [str(T), str(T * 10**6), str(T)], "item_id": ["i0", "i1", "i2"]},
         "timestamp before 1990 or in the future", "(beyond the calendar; in microseconds it is 2001-09-09)"),
        ({"timestamp": [datetime(2001, 9, 9), datetime(1970, 1, 12), datetime(2001, 9, 10)]},
         "timestamp before 1990 or in the future", "(1970-01-12)"),
        ({"rating": [1.0, float("nan"), 5.0]}, "rating not a number", "rating = nan"),
        ({"rating": ["1", "NaN", "5"]}, "rating not a number", "rating = 'NaN'"),
        ({"rating": ["1", "", "5"]}, "rating not a number", "rating = ''"),
        ({"rating": [1, None, 5]}, "rating not a number", "rating = None"),
        ({"rating": [1.0, float("inf"), 5.0]}, "rating not a number", "rating = inf"),
        ({"item_id": ["i0", "i9", "i1"]}, "unknown item", "'i9' is not in the items file (which begins with 'i0')"),
    ],
)  # fmt: skip
def test_a_wrong_row_is_refused_counted_and_shown(columns: dict[str, Any], reason: str, shown: str) -> None:
    events, counts = clean(**columns)
    assert (counts.rows, counts.kept, counts.refused) == (3, 2, {reason: 1})
    assert events.num_rows == 2
    assert counts.examples[reason].startswith("line 3: ")
    assert shown in counts.examples[reason]


def test_the_last_of_equal_events_stays_or_all_of_them() -> None:
    same = {"timestamp": [T, T, T + 1, T], "rating": [3, 3, 1, 3]}
    events, counts = clean(**same)
    assert counts.refused == {"duplicate event": 2}
    assert counts.examples["duplicate event"].endswith(f"user 'u', item 'i0', timestamp {T} come again")
    assert events["feedback"].to_pylist() == [-1, 0]
    assert events["timestamp"].to_pylist() == [T + 1, T]
    events, counts = clean(**same, duplicates="all")
    assert (events.num_rows, counts.refused) == (4, {})


def test_feedback_that_contradicts_the_last_is_counted_on_its_own() -> None:
    events, counts = clean(timestamp=[T] * 4, rating=[1, 5, 2, 5], item_id=["i0", "i0", "i0", "i0"])
    assert counts.refused == {"contradicting event": 2, "duplicate event": 1}
    assert counts.examples["contradicting event"] == (
        f"line 2: user 'u', item 'i0', timestamp {T} have feedback -1 here and 1 on line 5, which stays"
    )
    assert events["feedback"].to_pylist() == [1]
    events, counts = clean(timestamp=[T] * 3, rating=[1, 5, 5], user_id=["a", "b", "a"])
    assert counts.refused == {"contradicting event": 1}
    assert events["user_id"].to_pylist() == ["b", "a"]


def test_a_refused_row_is_no_duplicate() -> None:
    events, counts = clean(timestamp=[T, T], rating=["1", "?"])
    assert counts.refused == {"rating not a number": 1}
    assert events["feedback"].to_pylist() == [-1]


def test_limits_of_time_are_inclusive() -> None:
    events, _ = clean(timestamp=[631_152_000, NOW + 86_400])
    assert events.num_rows == 2


@pytest.mark.parametrize(
    ("timestamp", "settings", "says"),
    [
        ([T * 1000, T * 1000 + 1, 5], {}, ["line 2", "milliseconds (2001-09-09)", 'data.timestamp_unit = "ms"']),
        ([str(T * 10**6), str(T * 10**6)], {}, ["microseconds", '"us"']),
        ([T * 10**9, T * 10**9], {}, ["nanoseconds", '"ns"']),
        ([T, T], {"timestamp_unit": "ms"}, ["in seconds", '"s"']),
        (["2001-09-09T01:46:40Z", "2001-09-10"], {}, ["line 2", "timestamp", 'data.timestamp_unit = "iso"']),
        (["soon", "later"], {}, ["not one of 2 values", "'soon'", "whole seconds"]),
        ([T + 0.5, T + 0.25], {}, ["not one of 2 values"]),
        ([True, False], {}, ["not one of 2 values"]),
        ([str(T), str(T)], {"timestamp_unit": "iso"}, ["ISO 8601"]),
    ],
)
def test_another_unit_of_time_is_one_error(timestamp: Any, settings: dict[str, Any], says: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        clean(timestamp=timestamp, **settings)
    for part in ["events.csv", "column 'timestamp'", *says]:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("timestamp", "unit"),
    [
        ([T, T + 1], "s"),
        ([f" {T}", f"{T + 1}.0"], "s"),
        ([float(T), float(T + 1)], "s"),
        ([T * 1000 + 999, (T + 1) * 1000], "ms"),
        ([str(T * 10**9), str((T + 1) * 10**9)], "ns"),
        (["2001-09-09T01:46:40Z", "2001-09-09T03:46:41+02:00"], "iso"),
        (["2001-09-09 01:46:40.9", "2001-09-09 01:46:41"], "iso"),
        ([datetime(2001, 9, 9, 1, 46, 40), datetime(2001, 9, 9, 1, 46, 41)], "s"),
        (pa.array([T, T + 1]).cast(pa.timestamp("s")).cast(pa.timestamp("ns", "Europe/Berlin")), "s"),
    ],
)
def test_times_in_every_unit(timestamp: Any, unit: str) -> None:
    events, _ = clean(timestamp=timestamp, timestamp_unit=unit)
    assert events["timestamp"].to_pylist() == [T, T + 1]


def test_dates_are_midnight_utc() -> None:
    events, _ = clean(timestamp=[date(2001, 9, 9)])
    assert events["timestamp"].to_pylist() == [T - 6400]


def test_ids_lose_their_type_and_nothing_else() -> None:
    for user in (["7", "8"], [7, 8], [7.0, 8.0], pa.array(["7", "8"]).dictionary_encode()):
        events, _ = clean(user_id=user)
        assert events["user_id"].to_pylist() == ["7", "8"]
    events, counts = clean(user_id=[7.0, float("nan")])
    assert events["user_id"].to_pylist() == ["7"]
    assert counts.refused == {"empty user id": 1}
    events, _ = clean(user_id=[" 7", "7\t"])
    assert events["user_id"].to_pylist() == ["7", "7"]
    events, counts = clean(user_id=["7", " 7"], timestamp=[T, T])
    assert counts.refused == {"duplicate event": 1}
    events, _ = clean(item_id=[" i0 ", "i1"])
    assert events["item_id"].to_pylist() == ["i0", "i1"]
    with pytest.raises(DataError, match=r"type list.*expected text or whole numbers"):
        clean(user_id=[["a"], ["b"]])
    with pytest.raises(DataError, match="every value is empty"):
        clean(user_id=["", " "])


def test_a_rating_column_without_a_number_is_one_error() -> None:
    with pytest.raises(DataError, match=r"line 2, column 'rating': not one of 2 values is a number; .*'good'"):
        clean(rating=["good", "bad"])


def test_too_many_refused_rows_are_an_error_with_the_counts() -> None:
    with pytest.raises(DataError) as caught:
        clean(item_id=["x", "y", "i0", "z"], rating=["?", "1", "1", "1"], max_refused=0.5)
    for part in ("3 of 4 rows", "1 rating not a number, 2 unknown item", "line 3: item 'y'", "at most 50%"):
        assert part in str(caught.value)
    with pytest.raises(DataError, match="2 of 2 rows"):
        clean(item_id=["x", "y"])


def test_half_may_be_refused() -> None:
    _, counts = clean(item_id=["x", "i0"], max_refused=0.5)
    assert counts.kept == 1


def test_event_names() -> None:
    raw = raw_of({"user_id": ["u"] * 4, "item_id": ["i0", "i1", "i2", "i3"], "timestamp": [T] * 4,
                  "event": ["dislike", "view", "buy", "share"]})  # fmt: skip
    rule = FeedbackRule(events={"dislike": -1, "view": 0, "buy": 1})
    events, counts = clean_events(raw, EventColumns(event="event"), DataConfig(feedback=rule), ITEMS, NOW)
    assert events["feedback"].to_pylist() == [-1, 0, 1]
    assert counts.refused == {"event name not listed": 1}
    with pytest.raises(ConfigError, match=r"data\.feedback\.events"):
        clean_events(raw, EventColumns(event="event"), DataConfig(), ITEMS, NOW)


def test_negatives_for_some_reasons_are_left_out_and_counted() -> None:
    raw = raw_of({"user_id": ["u"] * 4, "item_id": ["i0", "i1", "i2", "i3"], "timestamp": [T] * 4,
                  "feedback": [-1, -1, -1, 1], "reason": ["bought", "bought", None, "bought"]})  # fmt: skip
    rule = FeedbackRule(reasons={"Bought": "drop"})
    columns = EventColumns(feedback="feedback", reason="reason")
    events, counts = clean_events(raw, columns, DataConfig(feedback=rule, max_refused=0.1), ITEMS, NOW)
    assert events["item_id"].to_pylist() == ["i2", "i3"]
    assert counts.refused == {"reason left out": 2}
    events, counts = clean_events(raw, columns, DataConfig(), ITEMS, NOW)
    assert (events.num_rows, counts.noted) == (4, {"reason not in the table": 2})
    assert counts.examples["reason not in the table"] == "line 2: reason = 'bought'"


@pytest.mark.parametrize("values", [["-1", "0", "1", "2"], [-1, 0, 1, 3], [-1.0, 0.0, 1.0, 0.5]])
def test_feedback_as_it_is(values: Any) -> None:
    raw = raw_of({"user_id": ["u"] * 4, "item_id": ["i0", "i1", "i2", "i3"], "timestamp": [T] * 4, "feedback": values})
    events, counts = clean_events(raw, EventColumns(feedback="feedback"), DataConfig(), ITEMS, NOW)
    assert events["feedback"].to_pylist() == [-1, 0, 1]
    assert counts.refused == {"feedback not -1, 0 or 1": 1}


def test_a_rating_needs_a_sensible_rule() -> None:
    raw = raw_of({"user_id": ["u"], "item_id": ["i0"], "timestamp": [T], "rating": [1]})
    for rule in (
        FeedbackRule(),
        FeedbackRule(positive_at_least=4),
        FeedbackRule(negative_at_most=4, positive_at_least=4),
    ):
        with pytest.raises(ConfigError, match=r"data\.feedback"):
            clean_events(raw, EventColumns(rating="rating"), DataConfig(feedback=rule), ITEMS, NOW)
    events, _ = clean_events(
        raw, EventColumns(rating="rating"), DataConfig(feedback=FeedbackRule(negative_at_most=2)), ITEMS, NOW
    )
    assert events["feedback"].to_pylist() == [-1]


def test_exactly_one_column_tells_likes_from_dislikes() -> None:
    assert feedback_column(EventColumns(), ["user_id", "rating"]).rating == "rating"
    assert feedback_column(EventColumns(event="kind"), ["kind", "rating"]).event == "kind"
    for columns, present in ((EventColumns(), ["x"]), (EventColumns(), ["rating", "event"]),
                             (EventColumns(rating="a", event="b"), ["a", "b"])):  # fmt: skip
        with pytest.raises(ConfigError, match="exactly one of rating, event and feedback"):
            feedback_column(columns, present)


texts = st.sampled_from(["u1", "u2", "i0", "i1", "", " ", "i9"])
times = st.sampled_from([str(T), str(T + 1), "x", "", "5"])
stars = st.sampled_from(["1", "3", "5", "nan", "", "bad"])


@settings(deadline=None)
@given(st.lists(st.tuples(texts, texts, times, stars), max_size=12))
def test_counts_add_up_and_kept_rows_are_those_that_are_right(rows: list[tuple[str, str, str, str]]) -> None:
    rows = [("u", "i0", str(T + 7), "1"), *rows]  # one good row, so that no column is wholly unreadable
    user, item, timestamp, rating = (list(column) for column in zip(*rows, strict=True))
    events, counts = clean(user, item, timestamp, rating)
    assert counts.rows == len(rows) == counts.kept + sum(counts.refused.values())
    good = [
        row for row in rows
        if row[0].strip() and row[1] in ("i0", "i1") and row[2] in (str(T), str(T + 1), str(T + 7)) and row[3] in "135"
        and row[3]
    ]  # fmt: skip
    last = {(u, i, t): position for position, (u, i, t, _) in enumerate(good)}
    expected = [good[position] for position in sorted(last.values())]
    assert [(e["user_id"], e["item_id"], str(e["timestamp"])) for e in events.to_pylist()] == [r[:3] for r in expected]
    assert np.array_equal(events["feedback"], [{"1": -1, "3": 0, "5": 1}[row[3]] for row in expected])


def test_counts_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValueError):
        FileCounts("a.csv", 3, 2)
