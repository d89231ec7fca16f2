"""The log in memory."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from conrec.logs.log import Log
from conrec.logs.schema import EVENTS

EVENTS_ROWS = [("b", "y", 20, -1), ("a", "x", 10, 1), ("b", "x", 10, 0), ("a", "y", 20, -1), ("b", "y", 10, -1)]


@pytest.fixture
def log() -> Log:
    columns = dict(zip(EVENTS.names, zip(*EVENTS_ROWS, strict=True), strict=True))
    return Log.from_tables(
        pa.table({k: list(v) for k, v in columns.items()}, EVENTS), pa.table({"item_id": ["y", "x", "z"]})
    )


def test_order_is_by_time_then_by_position_in_the_source(log: Log) -> None:
    assert log.user_ids == ("a", "b")
    assert log.item_ids == ("y", "x", "z")
    seen = [(log.user_ids[u], log.item_ids[i]) for u, i in zip(log.user, log.item, strict=True)]
    assert seen == [("a", "x"), ("b", "x"), ("b", "y"), ("b", "y"), ("a", "y")]
    assert log.timestamp.tolist() == [10, 10, 10, 20, 20]
    assert (log.n_users, log.n_items, len(log)) == (2, 3, 5)


def test_events_of_a_user(log: Log) -> None:
    assert log.events_of(1).tolist() == [1, 2, 3]
    assert log.events_of(1, 10, 20).tolist() == [1, 2]
    assert log.events_of(1, 11).tolist() == [3]
    assert log.history(1, 20).tolist() == [1, 2]
    assert log.history(1, 10).tolist() == []


def test_before_is_strict_and_keeps_users_and_items(log: Log) -> None:
    early = log.before(20)
    assert (len(early), early.user_ids, early.item_ids) == (3, log.user_ids, log.item_ids)
    assert early.events_of(0).tolist() == [0]
    assert len(log.before(10)) == 0
    assert len(log.before(21)) == 5


def test_negative_counts(log: Log) -> None:
    users, items = log.negative_counts()
    assert users.tolist() == [1, 2]
    assert items.tolist() == [3, 0, 0]


def test_a_log_without_events() -> None:
    empty = Log.from_tables(EVENTS.empty_table(), pa.table({"item_id": ["x"]}))
    assert (len(empty), empty.n_users, empty.n_items) == (0, 0, 1)
    assert all(len(one) == n for one, n in zip(empty.negative_counts(), (0, 1), strict=True))


def test_types(log: Log) -> None:
    kinds = [getattr(log, name).dtype for name in ("user", "item", "timestamp", "feedback", "user_events")]
    assert kinds == [np.int32, np.int32, np.int64, np.int8, np.int64]
