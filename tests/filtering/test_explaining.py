"""Why a candidate is near: the user's past dislikes nearest to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conrec.artefacts import write_parquet
from conrec.errors import ArtefactError
from conrec.filtering.explaining import LogTooLargeError, PastDislikes
from conrec.filtering.filter import NegativeFilter
from conrec.logs.schema import EVENTS

Build = Callable[[float | None], Path]
LOG = [
    ("ann", "i1", 5, -1),
    ("ann", "i3", 6, -1),
    ("ann", "i1", 9, -1),
    ("ann", "i0", 7, 1),
    ("ann", "not in the catalogue", 8, -1),
    ("bob", "i0", 1, -1),
]


def write_log(run: Path) -> None:
    columns = list(zip(*LOG, strict=True))
    table = pa.table(dict(zip(EVENTS.names, columns, strict=True)), schema=EVENTS)
    write_parquet(run / "data" / "events.parquet", table)


def test_nearest_past_dislikes_come_first(circle_run: Build) -> None:
    run = circle_run(0.5)
    write_log(run)
    said = NegativeFilter.load(run, "conrec").explain("ann", ["i0", "i4", "unknown"], count=2)
    assert [(one.item_id, one.timestamp) for one in said[0].past_dislikes] == [("i1", 9), ("i3", 6)]
    assert said[0].past_dislikes[0].similarity == pytest.approx(0.98481, abs=1e-4)
    assert [one.item_id for one in said[1].past_dislikes] == ["i3", "i1"]
    assert said[2].past_dislikes == ()
    assert [one.dropped for one in said] == [True, False, False]
    assert said[0].nearest_item == "i0"
    only_one = NegativeFilter.load(run, "conrec").explain("ann", ["i0"], count=1)
    assert [one.item_id for one in only_one[0].past_dislikes] == ["i1"]


def test_of_the_past_only_dislikes_count_each_once(circle_run: Build) -> None:
    run = circle_run(0.5)
    write_log(run)
    past = PastDislikes(run)
    assert past.of("ann") == {"i1": 9, "i3": 6, "not in the catalogue": 8}
    assert past.of("nobody") == {}
    assert past.of("\ud800") == {}


def test_without_a_log_there_are_no_past_dislikes(circle_run: Build) -> None:
    assert NegativeFilter.load(circle_run(0.5), "conrec").explain("ann", ["i0"])[0].past_dislikes == ()


def test_a_damaged_log_is_said(circle_run: Build) -> None:
    run = circle_run(0.5)
    write_log(run)
    (run / "data" / "events.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(ArtefactError, match=r"events\.parquet"):
        NegativeFilter.load(run, "conrec").explain("ann", ["i0"])


def test_a_log_that_takes_too_long_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    rows = {"user_id": ["ann"] * 3, "item_id": ["a", "b", "a"], "timestamp": [3, 2, 5], "feedback": [-1, -1, -1]}
    pq.write_table(pa.table(rows), folder / "events.parquet")
    past = PastDislikes(tmp_path)
    assert past.of("ann") == past.of("ann", 60.0) == {"a": 5, "b": 2}
    with pytest.raises(LogTooLargeError, match="was not read through in 0 seconds"):
        past.of("ann", 0.0)
    with pytest.raises(LogTooLargeError):
        past.of("nobody", 0.0)
