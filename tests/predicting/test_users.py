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
from conrec.predicting.users import all_users, end_of, moment, users_of_file


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
    assert users_of_file(path, log, 10**9 + 21).table["timestamp"].to_pylist() == [10**9 + 21] * 2
    pq.write_table(pa.table({"user_id": ["bob", "ann"]}), path)
    assert users_of_file(path, log, None).table["timestamp"].to_pylist() == [10**9 + 31] * 2


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


@given(st.integers(0, 4_000_000_000))
def test_digits_are_seconds(seconds):
    assert moment(f" {seconds} ") == seconds


def test_words_are_no_time():
    with pytest.raises(ConfigError, match="--at: 'now' is no time"):
        moment("now")
