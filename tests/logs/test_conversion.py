"""Conversion row by row: parts of a file give what the whole gives; reasons; what is noted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conrec.config import DataConfig, EventColumns, FeedbackRule
from conrec.errors import DataError
from conrec.logs import validation
from conrec.logs.conversion import CONVERTED, Part, check_columns, convert
from conrec.logs.counts import FileCounts
from conrec.logs.files import Raw
from conrec.logs.validation import clean_events

T = 1_600_000_000
LATEST = 1_800_000_000
ITEMS = pa.table({"item_id": ["i0", "i1"]})
COLUMNS = EventColumns(feedback="feedback", reason="reason")


def raw_of(rows: dict[str, Any]) -> Raw:
    return Raw(Path("events.csv"), pa.table(rows), lambda row: row + 2, "line")


def press(reasons: list[str | None], feedback: int = -1) -> Raw:
    n = len(reasons)
    given = {"item_id": ["i0"] * n, "timestamp": range(T, T + n), "feedback": [feedback] * n, "reason": reasons}
    return raw_of({"user_id": ["u"] * n, **given})


def clean(raw: Raw, **rule: Any) -> tuple[pa.Table, FileCounts]:
    config = DataConfig(source="table", feedback=FeedbackRule.model_validate(rule), max_refused=1)
    return clean_events(raw, COLUMNS, config, ITEMS)


def test_the_reasons_of_the_paper_by_default() -> None:
    stay = ["don't want this item", "Don’t want this CATEGORY", "dont", None, "", " ", "image_is-unpleasant"]
    go = ["already bought", "Already_Bought", "clickbait", " CLICKBAIT-price ", "fake", "counterfeit", "ai image"]
    events, counts = clean(press([*stay, *go]))
    assert events["timestamp"].to_pylist() == list(range(T, T + len(stay)))
    assert counts.refused == {"reason left out": len(go)}
    assert counts.noted == {"reason not in the table": 1}
    assert counts.examples["reason not in the table"] == "line 4: reason = 'dont'"
    reasons = next(one for one in counts.rules if one.rule == "reasons")
    assert (reasons.kept, reasons.changed, reasons.refused) == (len(stay), 0, len(go))


def test_a_table_of_reasons_takes_the_place_of_the_default() -> None:
    events, counts = clean(press(["fake", "bad day", "7"]), reasons={"bad_day": "drop", "7": "keep"})
    assert (events.num_rows, counts.refused, counts.noted) == (
        2, {"reason left out": 1}, {"reason not in the table": 1},
    )  # fmt: skip


def test_reasons_touch_negatives_alone() -> None:
    for feedback in (0, 1):
        events, counts = clean(press(["fake", "who knows"], feedback))
        assert (events.num_rows, counts.refused, counts.noted) == (2, {}, {})


def test_event_names_that_undo() -> None:
    raw = raw_of(
        {"user_id": ["u"] * 4, "item_id": ["i0"] * 4, "timestamp": [T] * 4, "event": ["no", "no more", "yes", "unlike"]}
    )
    rule = FeedbackRule(events={"no": -1, "yes": 1, "no more": "undo dislike", "unlike": "undo like"})
    found = convert(raw, EventColumns(event="event"), DataConfig(feedback=rule), LATEST, 100)
    assert found.schema == CONVERTED
    assert found["position"].to_pylist() == [100, 101, 102, 103]
    assert (found["feedback"].to_pylist(), found["undoes"].to_pylist()) == ([-1, 0, 1, 0], [0, -1, 0, 1])


def test_a_row_with_two_notes_counts_under_both() -> None:
    raw = raw_of(
        {"user_id": [" u", "v"], "item_id": ["i0", "i1 "], "timestamp": [T * 1000, T], "feedback": [-1, 1],
         "reason": ["?", None]}
    )  # fmt: skip
    config = DataConfig(source="table", timestamp_unit="auto")
    _, counts = clean_events(raw, COLUMNS, config, ITEMS)
    assert counts.noted == {
        "white space around an id": 2,
        "timestamp in milliseconds": 1,
        "reason not in the table": 1,
    }
    changed = {one.rule: one.changed for one in counts.rules if one.changed}
    assert changed == {"ids": 2, "time": 1}
    assert "  rule ids: 2 kept, 2 of them changed, 0 refused" in counts.lines()


rows = st.lists(
    st.tuples(
        st.sampled_from([1.0, 2.5, 1e17, None, float("nan")]),
        st.sampled_from(["i0", " i1", "", "i9"]),
        st.sampled_from([T, T + 1, 5, None]),
        st.sampled_from([-1, 0, 1, 2]),
        st.sampled_from(["fake", "new", None]),
    ),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, max_examples=30)
@given(rows, st.integers(1, 5))
def test_parts_give_what_the_whole_gives(rows: list[tuple[Any, ...]], size: int) -> None:
    rows = [(7.0, "i0", T, 1, None), *rows]
    names = ("user_id", "item_id", "timestamp", "feedback", "reason")
    types = (pa.float64(), pa.string(), pa.int64(), pa.int64(), pa.string())
    columns = (pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), types, strict=True))
    raw = raw_of(dict(zip(names, columns, strict=True)))
    config = DataConfig(source="table", max_refused=1)
    parts = pa.concat_tables(
        convert(Part(raw.table.slice(first, size), first, raw), COLUMNS, config, LATEST, first)
        for first in range(0, len(rows), size)
    )
    whole = convert(raw, COLUMNS, config, LATEST)
    assert parts.drop_columns("shown").equals(whole.drop_columns("shown"))
    for one, other in zip(whole["shown"].to_pylist(), parts["shown"].to_pylist(), strict=True):
        assert one is None or one == other  # each part shows its own first rows too


def test_a_file_in_parts_is_cleaned_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = press(["fake", "new", None, "new", "fake", None])
    whole = clean(raw)
    monkeypatch.setattr(validation, "PART", 2)
    in_parts = clean(raw)
    assert in_parts[0].equals(whole[0])
    assert in_parts[1] == whole[1]


def test_a_part_that_is_wholly_wrong_is_no_mistake_of_the_file() -> None:
    raw = press(["a"] * 3).with_table(
        pa.table({"user_id": ["u"] * 3, "item_id": ["i0"] * 3, "timestamp": ["soon", str(T), str(T + 1)],
                  "feedback": [1] * 3, "reason": [None] * 3})
    )  # fmt: skip
    config = DataConfig(source="table")
    part = Part(raw.table.slice(0, 1), 0, raw)
    assert convert(part, COLUMNS, config, LATEST)["refused"].to_pylist() == ["timestamp not readable"]
    check_columns(raw, COLUMNS, config, LATEST)
    with pytest.raises(DataError, match=r"line 2, column 'timestamp': not one of 1 values is a whole number"):
        check_columns(part, COLUMNS, config, LATEST)
    assert part.place(0, "timestamp") == "events.csv, line 2, column 'timestamp'"
