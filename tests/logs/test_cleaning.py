"""Rules over several events (undo, duplicates, presses, bots, order): against plain Python, and on both engines."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conrec.config import CleaningConfig, DataConfig, EventColumns, FeedbackRule, dump_config, load_config
from conrec.errors import ConfigError
from conrec.logs.conversion import CONVERTED
from conrec.logs.counts import FileCounts
from conrec.logs.engines import DuckDb
from conrec.logs.files import Raw
from conrec.logs.relations.cleaning import clean
from conrec.logs.validation import clean_events

T = 1_000_000_020  # the first second of a minute
ITEMS = pa.table({"item_id": ["i0", "i1"]})
Row = tuple[str, str, int, int, int]  # user, item, timestamp, feedback, undoes


def source_of(rows: int) -> Raw:
    return Raw(Path("events.csv"), pa.table({"x": list(range(rows))}), lambda row: row + 1, "row")


def converted_of(rows: list[Row]) -> pa.Table:
    columns = dict(zip(("user_id", "item_id", "timestamp", "feedback", "undoes"), zip(*rows, strict=True), strict=True))
    nothing: dict[str, Any] = dict.fromkeys(("refused", "noted", "shown"), pa.nulls(len(rows), pa.string()))
    return pa.table({"position": range(len(rows)), **columns, **nothing}, schema=CONVERTED)


def run(rows: list[Row], **cleaning: Any) -> tuple[list[int], FileCounts]:
    """Positions that stay, and the counts."""
    duplicates = cleaning.pop("duplicates", "last")
    config = DataConfig(cleaning=CleaningConfig(**cleaning), duplicates=duplicates)
    with DuckDb() as engine:
        engine.table("converted", converted_of(rows))
        engine.table("catalogue", ITEMS)
        counts = clean(engine, config, source_of(len(rows)), "i0").counts(1.0, may_be_empty=True)
        kept = engine.read("SELECT * FROM clean_events ORDER BY position")
    assert kept.schema.names == ["position", "user_id", "item_id", "timestamp", "feedback"]
    return kept["position"].to_pylist(), counts


def presses(*rows: tuple[int, int, int]) -> list[Row]:
    """(seconds after T, feedback, undoes) of one user and item."""
    return [("u", "i0", T + after, feedback, undoes) for after, feedback, undoes in rows]


def test_an_undo_takes_back_what_it_names_as_far_as_the_undo_before() -> None:
    rows = presses((0, -1, 0), (1, 1, 0), (2, -1, 0), (3, 0, -1), (4, -1, 0), (5, 0, 0), (6, 0, -1), (7, -1, 0))
    kept, counts = run(rows)
    assert kept == [1, 5, 7]
    assert counts.refused == {"taken back by an undo": 3, "undo": 2}
    assert counts.examples["taken back by an undo"] == f"row 1: user 'u', item 'i0', timestamp {T}"
    by_rule = {one.rule: one for one in counts.rules}
    assert (by_rule["undo"].kept, by_rule["undo"].changed, by_rule["undo"].refused) == (3, 0, 5)
    assert (by_rule["catalogue"].kept, by_rule["order"].kept) == (8, 3)


def test_an_undo_of_a_like_leaves_dislikes_and_other_items_alone() -> None:
    others = [("u", "i1", T, 1, 0), ("v", "i0", T, 1, 0)]
    kept, counts = run([*others, *presses((0, -1, 0), (1, 1, 0), (2, 0, 1))])
    assert kept == [0, 1, 2]
    assert counts.refused == {"taken back by an undo": 1, "undo": 1}


@pytest.mark.parametrize(
    "rows",
    [
        presses((0, 0, -1)),
        presses((0, 1, 0), (1, 0, -1)),
        presses((0, -1, 0), (1, 0, -1), (2, 0, -1)),
        presses((5, -1, 0), (4, 0, -1)),  # the undo is the earlier one
    ],
)
def test_an_undo_with_nothing_to_undo_is_counted(rows: list[Row]) -> None:
    _, counts = run(rows)
    assert counts.refused["undo with nothing to undo"] == 1


def test_an_undo_reaches_back_as_many_hours_as_the_setting_says() -> None:
    rows = presses((0, -1, 0), (1, -1, 0), (3601, 0, -1), (9000, 0, -1))
    kept, counts = run(rows, undo_within_hours=1)
    assert kept == [0]
    assert counts.refused == {"taken back by an undo": 1, "undo": 1, "undo with nothing to undo": 1}
    assert run(rows)[0] == []


def test_what_is_undone_a_day_later_stays_unless_the_setting_says_any_age() -> None:
    rows = presses((0, -1, 0), (86_400, 0, -1), (100_000, -1, 0), (186_401, 0, -1), (200_000, 0, -1))
    kept, counts = run(rows)
    assert kept == [2]
    assert counts.refused == {
        "taken back by an undo": 1,
        "undo": 1,
        "undo of an older event": 1,
        "undo with nothing to undo": 1,
    }
    kept, counts = run(rows, undo_within_hours="always")
    assert kept == []
    assert counts.refused == {"taken back by an undo": 2, "undo": 2, "undo with nothing to undo": 1}


@pytest.mark.parametrize("hours", [0, -1, 1e9, float("inf"), float("nan"), True, None, "none", "24"])
def test_hours_that_are_none(hours: Any) -> None:
    with pytest.raises(ConfigError, match=r'undo_within_hours: .* is neither "always" nor a number of hours above 0'):
        load_config(overrides={"data": {"cleaning": {"undo_within_hours": hours}}})


def test_any_age_is_kept_in_the_file_of_a_run(tmp_path: Path) -> None:
    config = load_config(overrides={"data": {"cleaning": {"undo_within_hours": "always"}}})
    (tmp_path / "config.toml").write_text(dump_config(config))
    assert load_config(file=tmp_path / "config.toml").data.cleaning.undo_within_hours == "always"


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(0, 12_000))
def test_undos_later_than_a_time_and_the_setting_change_nothing_before_it(seed: int, count: int, cut: int) -> None:
    rows = sorted(draw_rows(seed, count), key=lambda row: row[2])
    early = [row for row in rows if row[2] <= T + cut]
    if not early:
        return
    hours = 0.5
    old = {n for n, row in enumerate(early) if row[2] < T + cut - hours * 3600}
    whole, then = (run(some, undo_within_hours=hours, duplicates="all")[0] for some in (rows, early))
    assert old & set(whole) == old & set(then)


def test_an_undo_in_the_same_second_goes_by_the_order_of_the_source() -> None:
    assert run(presses((0, -1, 0), (0, 0, -1)))[0] == []
    assert run(presses((0, 0, -1), (0, -1, 0)))[0] == [1]


def test_undos_come_before_duplicates_and_of_unknown_items_first() -> None:
    rows = [*presses((0, -1, 0), (0, -1, 0), (1, 0, -1)), ("u", "i9", T, 0, -1)]
    kept, counts = run(rows)
    assert (kept, list(counts.refused)) == ([], ["unknown item", "taken back by an undo", "undo"])
    assert run([("u", "i9", T, 0, -1), ("u", "i0", T, 1, 0)])[0] == [1]


def test_a_burst_of_presses_counts_once() -> None:
    rows = presses((0, -1, 0), (4, -1, 0), (8, -1, 0), (8, 1, 0), (20, -1, 0))
    kept, counts = run(rows, repeat_seconds=5, duplicates="all")
    assert (kept, counts.refused) == ([0, 3, 4], {"repeated press": 2})
    assert counts.examples["repeated press"].startswith("row 2: ")
    assert run(rows, duplicates="all")[0] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("setting", "reason"), [("bot_events_per_minute", "minute"), ("bot_events_per_day", "day")])
def test_all_events_of_a_user_who_is_too_fast_are_refused(setting: str, reason: str) -> None:
    fast = [("bot", f"i{n % 2}", T + n, 0, 0) for n in range(4)]
    rows = [*fast, ("bot", "i0", T + 9_000_000, 1, 0), ("u", "i0", T, 1, 0), ("u", "i1", T + 90_000, 1, 0)]
    kept, counts = run(rows, **{setting: 3})
    assert (kept, counts.refused) == ([5, 6], {f"too many events in a {reason}": 5})
    assert "user 'bot', who has 4" in counts.examples[f"too many events in a {reason}"]
    assert run(rows, **{setting: 4})[0] == list(range(7))


def test_presses_are_merged_before_users_are_judged() -> None:
    rows = presses(*[(n, 1, 0) for n in range(10)])
    assert run(rows, repeat_seconds=1, bot_events_per_minute=1)[0] == [0]


def test_events_out_of_order_stay_and_are_noted() -> None:
    rows = [("u", "i0", T + 5, 1, 0), ("v", "i0", T, 1, 0), ("u", "i1", T + 4, 1, 0), ("u", "i0", T + 5, -1, 0)]
    kept, counts = run(rows, duplicates="all")
    assert kept == [0, 1, 2, 3]
    assert counts.noted == {"earlier than the row before of the same user": 1}
    assert counts.examples["earlier than the row before of the same user"] == (
        f"row 3: user 'u', timestamp {T + 4} after {T + 5}"
    )


EVENTS = ["no", "un"] * 2


def test_what_the_user_asked_for_is_no_sign_of_a_broken_file() -> None:
    raw = Raw(
        Path("e.csv"),
        pa.table({"user_id": ["u"] * 4, "item_id": ["i0"] * 4, "timestamp": range(T, T + 4), "event": EVENTS}),
        lambda row: row + 2,
        "line",
    )
    rule = FeedbackRule(events={"no": -1, "un": "undo dislike", "yes": 1})
    config = DataConfig(feedback=rule, max_refused=0)
    extra = pa.concat_tables([raw.table, pa.table([["u"], ["i1"], [T], ["yes"]], names=raw.table.column_names)])
    events, counts = clean_events(raw.with_table(extra), EventColumns(event="event"), config, ITEMS)
    assert events.to_pylist() == [{"user_id": "u", "item_id": "i1", "timestamp": T, "feedback": 1}]
    assert counts.refused == {"taken back by an undo": 2, "undo": 2}
    assert "  rule undo: 1 kept, 0 of them changed, 4 refused" in counts.lines()


def plain(rows: list[Row], cleaning: CleaningConfig, duplicates: str) -> tuple[list[int], dict[str, int], int]:
    """The rules once more, row by row: positions that stay, refusals by reason, rows out of order."""
    why: dict[int, str] = {n: "unknown item" for n, row in enumerate(rows) if row[1] not in ("i0", "i1")}

    def left() -> list[int]:
        return sorted((n for n in range(len(rows)) if n not in why), key=lambda n: (rows[n][2], n))

    open_events: dict[tuple[str, str, int], list[int]] = {}
    hours = cleaning.undo_within_hours
    for n in left():
        user, item, when, feedback, undoes = rows[n]
        if not undoes:
            open_events.setdefault((user, item, feedback), []).append(n)
            continue
        found = open_events.pop((user, item, undoes), [])
        back = [one for one in found if hours == "always" or when - rows[one][2] <= hours * 3600]
        why |= dict.fromkeys(back, "taken back by an undo")
        why[n] = "undo" if back else "undo of an older event" if found else "undo with nothing to undo"
    if duplicates == "last":
        last = {rows[n][:3]: n for n in sorted(left())}
        for n in left():
            if (stays := last[rows[n][:3]]) != n:
                why[n] = "duplicate event" if rows[n][3] == rows[stays][3] else "contradicting event"
    before: dict[tuple[str, str, int], int] = {}
    repeated = []
    for n in left():
        user, item, when, feedback, _ = rows[n]
        if cleaning.repeat_seconds and when - before.get((user, item, feedback), -(10**9)) <= cleaning.repeat_seconds:
            repeated.append(n)
        before[user, item, feedback] = when
    why |= dict.fromkeys(repeated, "repeated press")
    for width, most, span in (
        (60, cleaning.bot_events_per_minute, "minute"),
        (86_400, cleaning.bot_events_per_day, "day"),
    ):
        pace = Counter((rows[n][0], rows[n][2] // width) for n in left())
        fast = {user for (user, _), n in pace.items() if most is not None and n > most}
        why |= {n: f"too many events in a {span}" for n in left() if rows[n][0] in fast}
    latest: dict[str, int] = {}
    backwards = 0
    for n in sorted(left()):
        backwards += rows[n][2] < latest.get(rows[n][0], 0)
        latest[rows[n][0]] = rows[n][2]
    return sorted(left()), dict(Counter(why.values())), backwards


def draw_rows(seed: int, count: int) -> list[Row]:
    draw = np.random.default_rng(seed)
    kinds = [(-1, 0), (0, 0), (1, 0), (0, -1), (0, 1)]
    return [
        (f"u{draw.integers(3)}", f"i{draw.choice([0, 0, 0, 1, 1, 9])}",
         T + int(draw.integers(0, 200)) * int(draw.choice([1, 60])),
         *kinds[draw.choice(5, p=[0.4, 0.1, 0.3, 0.1, 0.1])])
        for _ in range(count)
    ]  # fmt: skip


settings_of_rules = st.fixed_dictionaries(
    {
        "undo_within_hours": st.sampled_from(["always", 0.01, 0.5]),
        "repeat_seconds": st.sampled_from([0, 1, 60]),
        "bot_events_per_minute": st.sampled_from([None, 1, 3]),
        "bot_events_per_day": st.sampled_from([None, 5, 20]),
    }
)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 60), settings_of_rules, st.sampled_from(["last", "all"]))
def test_the_queries_do_what_the_plain_rules_do(seed: int, count: int, values: dict[str, Any], duplicates: str) -> None:
    rows = draw_rows(seed, count)
    kept, counts = run(rows, **values, duplicates=duplicates)
    expected, refused, backwards = plain(rows, CleaningConfig(**values), duplicates)
    assert (kept, counts.refused) == (expected, refused)
    assert counts.noted.get("earlier than the row before of the same user", 0) == backwards
    assert counts.rows == count == counts.kept + sum(counts.refused.values())
    remaining = count
    for one in counts.rules:
        remaining -= one.refused
        assert one.kept == remaining
    assert counts.kept == remaining


def test_spark_keeps_and_counts_the_same(tmp_path: Path) -> None:
    pytest.importorskip("pyspark")
    cases = [{"undo_within_hours": 0.5, "repeat_seconds": 60, "bot_events_per_minute": 3, "bot_events_per_day": 20}]
    for number, values in enumerate(cases):
        rows = [*draw_rows(number, 300), ('it\'s; "quoted"\n', "i0", T, 1, 0)]
        converted = converted_of(rows).to_pylist()
        converted[3] |= {"refused": "timestamp not readable", "shown": "timestamp = 'soon'"}
        converted[4] |= {"refused": "timestamp not readable"}
        for row in (7, 8, -1):
            converted[row] |= {"noted": "white space around an id; reason not in the table", "shown": "both"}
        case = tmp_path / str(number)
        case.mkdir()
        config = DataConfig(cleaning=CleaningConfig.model_validate(values))
        (case / "config.json").write_text(config.model_dump_json())
        pq.write_table(pa.Table.from_pylist(converted, schema=CONVERTED), case / "converted.parquet")
        pq.write_table(ITEMS, case / "catalogue.parquet")
    script = [sys.executable, str(Path(__file__).with_name("spark_clean.py")), str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for number, values in enumerate(cases):
        case = tmp_path / str(number)
        with DuckDb() as engine:
            for name in ("converted", "catalogue"):
                engine.table(name, pq.read_table(case / f"{name}.parquet"))
            config = DataConfig(cleaning=CleaningConfig.model_validate(values))
            counts = clean(engine, config, source_of(301), "i0").counts(1.0)
            kept = engine.read("SELECT * FROM clean_events ORDER BY position")
        assert json.loads((case / "spark.json").read_text()) == counts.to_json()
        assert pq.read_table(case / "spark.parquet").to_pylist() == kept.to_pylist()
        assert counts.noted["reason not in the table"] == counts.noted["white space around an id"] > 0
