"""What sources share: samples of users, rows of several files, times as text."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conrec.config import DataConfig
from conrec.logs.counts import Counts, FileCounts
from conrec.logs.files import Raw, TextFormat, read_raw
from conrec.logs.schema import EVENTS, ITEMS
from conrec.logs.sources import Loaded, load
from conrec.logs.sources.base import file_names
from conrec.logs.sources.mind import iso_moments
from conrec.logs.sources.rows import items_of_events, join_files, made_from
from conrec.logs.sources.sampling import sample_users


def log_of(users: int, events: int = 300, items: int = 40) -> Loaded:
    random = np.random.default_rng(3)
    table = pa.table(
        {
            "user_id": [f"u{one}" for one in random.integers(users, size=events)],
            "item_id": [f"i{one}" for one in random.integers(items, size=events)],
            "timestamp": pa.array(np.arange(events) + 10**9),
            "feedback": pa.array(random.integers(-1, 2, size=events), pa.int8()),
        },
        schema=EVENTS,
    )
    catalogue = pa.Table.from_pylist(
        [{"item_id": f"i{one}", "title": "", "text": "x", "category": [], "image": None} for one in range(items)], ITEMS
    )
    counts = Counts(
        FileCounts("e", events + 2, events, {"unknown item": 2}, {}, {"unknown item": "line 1: x"}),
        FileCounts("i", items, items),
    )
    return Loaded("made", table, catalogue, counts, {})


def test_a_sample_keeps_whole_histories_and_counts_the_rest() -> None:
    whole = log_of(50)
    small = sample_users(whole, 10, 1)
    kept = set(small.events["user_id"].to_pylist())
    assert len(kept) == 10
    rows = whole.events.to_pylist()
    assert small.events.to_pylist() == [row for row in rows if row["user_id"] in kept]
    assert set(small.items["item_id"].to_pylist()) == set(small.events["item_id"].to_pylist())
    counts = small.counts.events
    assert counts.refused == {"unknown item": 2, "user not in the sample": 300 - small.events.num_rows}
    assert counts.kept == small.events.num_rows
    assert any("user not in the sample (first: user 'u" in line for line in small.counts.lines())
    assert small.counts.items.kept == small.items.num_rows


def test_samples_are_nested_and_depend_on_the_seed_alone() -> None:
    whole = log_of(50)
    users = {size: set(sample_users(whole, size, 1).events["user_id"].to_pylist()) for size in (5, 10, 20)}
    assert users[5] < users[10] < users[20]
    shuffled = whole.events.take(np.random.default_rng(0).permutation(whole.events.num_rows))
    other = Loaded("made", shuffled, whole.items, whole.counts, {})
    assert set(sample_users(other, 10, 1).events["user_id"].to_pylist()) == users[10]
    assert set(sample_users(whole, 10, 2).events["user_id"].to_pylist()) != users[10]
    assert sample_users(whole, 50, 1) is whole


def test_a_sample_is_a_setting_of_every_source(tmp_path: Path) -> None:
    whole = log_of(50)
    ratings = whole.events.drop_columns(["feedback"]).append_column("rating", pa.array([5] * whole.events.num_rows))
    pq.write_table(ratings.append_column("category_id", ratings["rating"]), tmp_path / "ratings.parquet")
    config = DataConfig(source="ciao", folder=tmp_path, sample_users=10, sample_seed=1)
    loaded = load(config)
    assert loaded.events["user_id"].to_pylist() == sample_users(whole, 10, 1).events["user_id"].to_pylist()
    last = loaded.counts.events.rules[-1]
    assert (last.rule, last.kept) == ("sample of users", loaded.events.num_rows)
    assert loaded.counts.events.rows == last.kept + sum(one.refused for one in loaded.counts.events.rules)


def test_rows_of_several_files_know_their_place(tmp_path: Path) -> None:
    raws = []
    for name, values in (("a", [3, 4]), ("b", [5]), ("c", [3, 6])):
        path = tmp_path / f"{name}.csv"
        path.write_text("x,y\n\n" + "".join(f"{value},{name}\n" for value in values))
        raws.append(read_raw(path, TextFormat(), ("x", "y")))
    assert join_files(raws[:1]) is raws[0]
    joined = join_files(raws)
    assert joined.table["x"].to_pylist() == ["3", "4", "5", "3", "6"]
    assert [joined.at(row) for row in range(5)] == [
        "a.csv, line 3", "a.csv, line 4", "b.csv, line 3", "c.csv, line 3", "c.csv, line 4",
    ]  # fmt: skip
    assert [joined.number(row) for row in range(5)] == [3, 4, 3, 3, 4]
    assert joined.place(4, "x") == f"{tmp_path / 'c.csv'}, line 4, column 'x'"
    assert joined.path.name == "a.csv + b.csv + c.csv"
    many = made_from(joined, pa.table({"z": [0, 1, 2]}), np.asarray([4, 4, 2]))
    assert [many.at(row) for row in range(3)] == ["c.csv, line 4", "c.csv, line 4", "b.csv, line 3"]
    assert many.with_table(pa.table({"w": [9, 9, 9]})).number(2) == 3
    items = items_of_events(joined, "x", ("y",))
    assert items.table.to_pylist() == [
        {"x": "3", "y": "a"},
        {"x": "4", "y": "a"},
        {"x": "5", "y": "b"},
        {"x": "6", "y": "c"},
    ]
    assert items.at(3) == "c.csv, line 4"
    assert items.path.name == "items of a.csv + b.csv + c.csv"


def test_items_of_events_pass_over_rows_without_one() -> None:
    raw = Raw(Path("e"), pa.table({"item": pa.array([None, 7, 7, 5])}), lambda row: row + 1, "row")
    found = items_of_events(raw, "item")
    assert found.table["item"].to_pylist() == [7, 5]
    assert [found.at(row) for row in range(2)] == ["row 2", "row 4"]


def test_names_of_files_are_told_apart() -> None:
    paths = [Path("/a/x/n"), Path("/a/y/n"), Path("/a/y/m")]
    assert file_names(paths) == ["x/n", "y/n", "m"]


@given(st.integers(min_value=0, max_value=2**32 - 1))
def test_times_as_text_come_back(seconds: int) -> None:
    moment = datetime.fromtimestamp(seconds, UTC)
    text = f"{moment.month}/{moment.day}/{moment.year} {moment.hour % 12 or 12}:{moment:%M:%S} {moment:%p}"
    assert iso_moments(pa.array([text])).to_pylist() == [f"{moment:%Y-%m-%dT%H:%M:%SZ}"]


@pytest.mark.parametrize(
    "text", ["", "x", None, "2/29/2019 1:00:00 AM", "13/1/2019 1:00:00 AM", "2/1/2019", "2019-02-01"]
)
def test_what_is_no_time_stays(text: str | None) -> None:
    assert iso_moments(pa.array([text], pa.string())).to_pylist() == [text]
