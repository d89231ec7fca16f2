"""Who is asked at which time, and whoever is left out is counted."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conrec.errors import ConfigError, DataError
from conrec.logs.log import Log
from conrec.predicting.times import moment
from conrec.predicting.users import all_users, end_of, users_of_file


@pytest.fixture
def log():
    """ann at 10 and 30, bob at 20, cem at 30."""
    users, times = np.asarray([0, 1, 0, 2]), np.asarray([10, 20, 30, 30]) + 10**9
    return Log.from_columns(("ann", "bob", "cem"), ("x",), users, np.zeros(4, int), times, np.full(4, -1))


def test_all_users_with_a_history_are_asked_at_the_end(log):
    asked = all_users(log, end_of(log))
    assert asked.table["user_id"].to_pylist() == ["ann", "bob", "cem"]
    assert asked.table["timestamp"].to_pylist() == [10**9 + 31] * 3
    early = all_users(log, 10**9 + 20)
    assert early.table["user_id"].to_pylist() == ["ann"]
    assert early.counts.lines() == [
        "users of the log: 3 rows = 1 kept + 2 refused",
        "  refused 2: no event before the time (first: user 'bob')",
    ]
    with pytest.raises(DataError, match="no user has an event"):
        all_users(log, 10**9)


def test_files_name_users_and_times(log, tmp_path):
    path = tmp_path / "who.csv"
    path.write_text(
        "timestamp,user_id\n1000000025, bob\n1000000020,bob\n1000000040,dan\n,ann\n1000000025,bob\n1000000015,ann\n"
    )
    asked = users_of_file(path, log, None)
    assert asked.table.to_pylist() == [
        {"user_id": "bob", "timestamp": 10**9 + 25},
        {"user_id": "ann", "timestamp": 10**9 + 15},
    ]
    assert asked.counts.refused == {
        "timestamp that cannot be read": 1,
        "user without any event in the log": 1,
        "no event before the time": 1,
        "asked before": 1,
    }
    assert asked.counts.examples["asked before"] == "line 6: user 'bob', timestamp '1000000025'"


def test_one_time_for_all_overrules_the_column(log, tmp_path):
    path = tmp_path / "who.parquet"
    pq.write_table(pa.table({"user_id": ["bob", "ann"], "timestamp": [10**9 + 99, None]}), path)
    asked = users_of_file(path, log, 10**9 + 21)
    assert asked.table["timestamp"].to_pylist() == [10**9 + 21] * 2
    assert asked.counts.noted == {"timestamp that is not read, since one time is given for all": 2}
    pq.write_table(pa.table({"user_id": ["bob", "ann"]}), path)
    assert users_of_file(path, log, None).table["timestamp"].to_pylist() == [10**9 + 31] * 2


def test_times_in_a_file_may_be_written_as_with_at(log, tmp_path):
    """Digits and ISO 8601, also side by side; a time in another unit is refused and named."""
    path = tmp_path / "who.csv"
    path.write_text(
        "user_id,timestamp\nann,2001-09-09T01:46:55Z\nbob,1000000025\nbob,2001-09-09T03:46:59+02:00\nann,soon\n"
        "ann,1000000025000\n"
    )
    asked = users_of_file(path, log, None)
    assert asked.table["timestamp"].to_pylist() == [10**9 + 15, 10**9 + 25, 10**9 + 19][:2]
    assert asked.counts.refused == {
        "timestamp that cannot be read": 1,
        "timestamp in the future": 1,
        "no event before the time": 1,
    }
    example = asked.counts.examples["timestamp in the future"]
    assert example.endswith("is more than ten years ahead: this looks like milliseconds (2001-09-09)")
    path.write_text("user_id,timestamp\nann,2001-09-10\nbob,2001-09-10\n")
    assert len(users_of_file(path, log, None)) == 2
    stamps = pa.array([10**9 + 15], pa.timestamp("s", "UTC"))
    pq.write_table(pa.table({"user_id": ["ann"], "timestamp": stamps}), tmp_path / "who.parquet")
    assert users_of_file(tmp_path / "who.parquet", log, None).table["timestamp"].to_pylist() == [10**9 + 15]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("user_id,timestamp\nann,1000000025000\n", "1000000025000 is in milliseconds (2001-09-09)"),
        ("user_id,timestamp\nann,soon\n", "not one of 1 values"),
        ("user;timestamp\nann;1000000025\n", "needs a first line with the names user_id and perhaps timestamp"),
        ("user_id\nzoe\n", "nobody in the file can be asked: 1 of 1 rows cannot be used"),
        ('user_id\n"ann\nbob\n', "quotes in pairs"),
    ],
)
def test_what_is_wrong_with_a_file_has_hints_that_hold_for_it(log, tmp_path, text, said):
    """No word of settings of a log's own files."""
    path = tmp_path / "who.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=r"who\.csv") as caught:
        users_of_file(path, log, None)
    assert said in str(caught.value)
    assert "data." not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [("user\nann\n", "has no column 'user_id'"), ("user_id\nzoe\n", "1 user without any event"), ("", "is empty")],
)
def test_files_that_ask_nobody(log, tmp_path, text, said):
    path = tmp_path / "who.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=r"who\.csv") as caught:
        users_of_file(path, log, None)
    assert said in str(caught.value)


def test_digests_depend_on_every_question(log):
    asked = all_users(log, end_of(log))
    assert asked.digest() != asked.digest(0, 2) != asked.digest(1, 3)
    assert asked.digest() == all_users(log, end_of(log)).digest()
    assert asked.digest() != all_users(log, end_of(log) + 1).digest()


@given(st.integers(0, 2_000_000_000))
def test_digits_are_seconds(seconds):
    assert moment(f" {seconds} ") == seconds


def test_words_are_no_time():
    with pytest.raises(ConfigError, match="--at: 'now' is no time"):
        moment("now")


@pytest.mark.parametrize(("factor", "unit"), [(10**3, "milliseconds"), (10**6, "microseconds"), (10**9, "nanoseconds")])
def test_times_in_another_unit_are_named(factor, unit):
    with pytest.raises(
        ConfigError, match=rf"--at: {893286639 * factor} is more than ten .* like {unit} \(1998-04-22\)"
    ):
        moment(f"{893286639 * factor}")


@pytest.mark.parametrize("text", ["9999-01-01", "1" * 40])
def test_times_far_ahead_are_refused(text):
    with pytest.raises(ConfigError, match="is more than ten years ahead; expected seconds"):
        moment(text)
