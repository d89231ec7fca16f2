"""Times: mixed units, ISO 8601 as Python reads it, zones and clock changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conrec.errors import ConfigError, DataError
from conrec.logs.files import Raw
from conrec.logs.times import SKIPPED, TWICE, Times, read_seconds, seconds_of

LATEST = 1_800_000_000
T = 1_600_000_000


def raw_of(values: Any) -> Raw:
    return Raw(Path("log.csv"), pa.table({"ts": values}), lambda row: row + 2, "line")


def read(values: Any, unit: str, zone: str = "UTC") -> Times:
    return read_seconds(raw_of(values), "ts", unit, LATEST, zone)


def test_auto_takes_the_only_unit_in_which_a_value_lies_in_the_years_of_a_log() -> None:
    numbers = [T, T * 1000 + 7, T * 10**6 + 7, T * 10**9 + 7]
    for values in (numbers, [str(one) for one in numbers], pa.array(numbers, pa.uint64())):
        found = read(values, "auto")
        assert found.seconds.tolist() == [T] * 4
        assert {remark: rows.tolist().index(True) for remark, rows in found.remarks.items()} == {
            "timestamp in milliseconds": 1,
            "timestamp in microseconds": 2,
            "timestamp in nanoseconds": 3,
        }
    found = read([str(T), "2020-09-13T12:26:40Z", "soon", None, "5", "2020-09-13 14:26:40"], "auto", "Europe/Berlin")
    assert found.there.tolist() == [True, True, False, False, True, True]
    assert found.seconds[[0, 1, 4, 5]].tolist() == [T, T, 5, T]


@given(st.integers(-(2**62), 2**62))
def test_no_number_lies_in_the_years_of_a_log_in_two_units(number: int) -> None:
    inside = [unit for unit in (1, 10**3, 10**6, 10**9) if 631_152_000 <= number // unit <= LATEST]
    assert len(inside) <= 1
    assert read([number], "auto").seconds.tolist() == [number // inside[0] if inside else number]


def test_auto_where_nothing_can_be_read() -> None:
    with pytest.raises(DataError, match=r"not one of 2 values is a whole number or ISO 8601; the first is 'soon'"):
        seconds_of(raw_of(["soon", ""]), "ts", "auto", LATEST)


TEXTS = st.one_of(
    st.datetimes(datetime(1985, 1, 1), datetime(2030, 1, 1)).map(str),
    st.datetimes(datetime(1985, 1, 1), datetime(2030, 1, 1)).map(lambda one: one.isoformat()[:19] + "Z"),
    st.datetimes(datetime(1985, 1, 1), datetime(2030, 1, 1)).map(lambda one: f"{one:%Y-%m-%dT%H:%M:%S}.5-03:30"),
    st.dates().map(str),
    st.from_regex(r"\A(19|20)\d\d-[01]\d-[0-3]\d([T ][0-2]\d:[0-6]\d:[0-6]\d(\.\d{1,9})?(Z|[+-][01]\d:?[0-6]\d)?)?\Z"),
    st.sampled_from(["2020-02-29", "2021-02-29", "2020-W01-1", "20200101", "2020-01-01T05", "2020-01-01T05:00+01",
                     "2020-01-01T05:00:00,5", "2020-01-01T24:00:00", "2020-01-01T05:00:60", " 2020-01-01 ", ""]),
    st.text(max_size=5),
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=8), st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns"]))
def test_iso_is_what_python_reads(texts: list[str], zone: str) -> None:
    found = read(texts, "iso", zone)
    for row, text in enumerate(texts):
        try:
            moment = datetime.fromisoformat(text.strip())
            moment = moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(zone))
            expected = int(np.floor((moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(seconds=1)))
        except (ValueError, OverflowError):
            assert not found.there[row]
            continue
        assert found.there[row]
        if 631_152_000 <= expected < LATEST:  # others are refused by whoever reads them
            assert found.seconds[row] == expected


@settings(deadline=None)
@given(
    st.datetimes(datetime(1990, 1, 2), datetime(2026, 1, 1)).map(lambda one: one.replace(microsecond=0)),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/St_Johns", "Asia/Kolkata"]),
)
def test_typed_and_written_local_times_are_one(moment: datetime, zone: str) -> None:
    expected = int(moment.replace(tzinfo=ZoneInfo(zone)).timestamp())
    assert read([moment], "s", zone).seconds.tolist() == [expected]
    assert read([str(moment)], "iso", zone).seconds.tolist() == [expected]


def test_a_zone_of_its_own_and_an_offset_win() -> None:
    typed = pa.array([T]).cast(pa.timestamp("s")).cast(pa.timestamp("us", "Asia/Tokyo"))
    assert read(typed, "s", "Europe/Berlin").seconds.tolist() == [T]
    assert read(["2020-09-13T12:26:40+00:00"], "iso", "Europe/Berlin").seconds.tolist() == [T]
    assert read([str(T)], "s", "Europe/Berlin").seconds.tolist() == [T]


def test_what_a_clock_change_skips_or_shows_twice() -> None:
    texts = ["2021-03-28 01:59:59", "2021-03-28 02:30:00", "2021-03-28 03:30:00", "2021-10-31 02:30:00"]
    for values, unit in ((texts, "iso"), ([datetime.fromisoformat(one) for one in texts], "s")):
        found = read(values, unit, "Europe/Berlin")
        shown = [str(datetime.fromtimestamp(one, UTC))[:19] for one in found.seconds]
        assert shown == ["2021-03-28 00:59:59", "2021-03-28 01:30:00", "2021-03-28 01:30:00", "2021-10-31 00:30:00"]
        assert found.remarks[SKIPPED].tolist() == [False, True, False, False]
        assert found.remarks[TWICE].tolist() == [False, False, False, True]


def test_dates_are_midnight_of_the_zone() -> None:
    day = pa.array([datetime(2021, 7, 1)]).cast(pa.date32())
    assert read(day, "s", "Europe/Berlin").seconds.tolist() == [int(datetime(2021, 6, 30, 22, tzinfo=UTC).timestamp())]


def test_a_zone_that_is_none() -> None:
    with pytest.raises(ConfigError, match=r"data\.timezone: there is no time zone 'Europe/Berlim' on this machine"):
        read([datetime(2021, 7, 1)], "s", "Europe/Berlim")


@pytest.mark.parametrize("values", [[T], [str(T)], pa.array([T]).cast(pa.timestamp("s", "UTC"))])
def test_a_zone_that_is_none_is_said_where_no_time_is_local(values: Any) -> None:
    with pytest.raises(ConfigError, match=r"data\.timezone: there is no time zone 'Mars/X' on this machine"):
        read(values, "s", "Mars/X")


@pytest.mark.parametrize("kind", [pa.decimal128(20, 0), pa.decimal256(60, 0), pa.decimal128(38, 12)])
def test_whole_decimals_are_numbers(kind: pa.DataType) -> None:
    numbers = [T * 1000 + 7, None, -5, 0]
    values = pa.array([None if one is None else Decimal(one) for one in numbers], kind)
    found = read(values, "ms")
    assert found.there.tolist()[:3] == [True, False, True]
    assert found.seconds.tolist() == [T, 0, -1, 0]
    assert read(values, "auto").seconds.tolist()[0] == T


def test_decimals_that_no_machine_word_holds_or_that_are_not_whole_are_refused() -> None:
    parts = pa.array([Decimal("1600000000.5"), Decimal(T), Decimal(10) ** 20], pa.decimal128(38, 2))
    assert read(parts, "s").there.tolist() == [False, True, False]
    seconds, there = seconds_of(raw_of(parts), "ts", "s", LATEST)
    assert (seconds.tolist(), there.tolist()) == ([0, T, 0], [False, True, False])
