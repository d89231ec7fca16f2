"""From a column as the file has it to ids, seconds and numbers, with a mask of the values that could be read."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conrec.arrays import Array
from conrec.errors import DataError
from conrec.logs.files import Raw

__all__ = [
    "EARLIEST",
    "UNITS",
    "ids_of",
    "likely_unit",
    "numbers_of",
    "other_unit",
    "seconds_of",
    "strings_of",
]

EARLIEST = 631_152_000
"""1990-01-01 UTC; nothing that a recommender logged is older."""
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
"""Parts of a second in each unit of a timestamp."""
_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_INTEGER = r"^\s*-?([1-8]\d{18}|\d{1,18})(\.0*)?\s*$"  # what int64 holds
_NUMBER = r"^\s*-?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"


def strings_of(raw: Raw, column: str) -> pa.Array:
    """A column as text; null stays null. Integers, and floats that are all whole, lose their type only.

    Raises:
        DataError: the column holds lists, truth values or bytes.
    """
    values = _plain(raw, column)
    kind = values.type
    if pa.types.is_floating(kind):
        values = _null_for_nan(values)
        filled = pc.fill_null(values, 0.0)
        if pc.all(pc.equal(pc.floor(filled), filled)).as_py() and pc.all(pc.less(pc.abs(filled), 2.0**53)).as_py():
            values = values.cast(pa.int64())  # pandas turns whole ids into floats where one is missing
    elif not (pa.types.is_integer(kind) or pa.types.is_null(kind) or _is_text(kind)):
        raise DataError(f"holds values of type {kind}", where=raw.place(0, column), expected="text or whole numbers")
    return values.cast(pa.string())


def ids_of(raw: Raw, column: str) -> tuple[pa.Array, Array]:
    """Ids as text without white space around them, and a mask of those that are there: bool [rows].

    " 7" and "7" are one id, in every format of file. The mask is False for null and blank.
    """
    values = pc.utf8_trim_whitespace(strings_of(raw, column))
    there = _mask(pc.not_equal(values, ""))
    if not there.any():
        raise DataError("every value is empty", where=raw.place(0, column), expected="an id in each row")
    return pc.fill_null(values, ""), there


def numbers_of(raw: Raw, column: str, what: str) -> tuple[Array, Array]:
    """Finite numbers, float64 [rows], and a mask of those that are there.

    Raises:
        DataError: not one value is a number.
    """
    values = _plain(raw, column)
    if _is_text(values.type):
        good = pc.fill_null(pc.match_substring_regex(values, _NUMBER), False)
        text = pc.utf8_trim_whitespace(pc.if_else(good, values, "0"))
        number, there = np.asarray(text.cast(pa.float64())), np.asarray(good)
    elif pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_decimal(values.type):
        number = np.asarray(pc.fill_null(values.cast(pa.float64(), safe=False), np.nan))
        there = np.ones(len(number), dtype=bool)
    else:
        number, there = np.zeros(len(values)), np.zeros(len(values), dtype=bool)
    there = there & np.isfinite(number)
    if not there.any():
        raise DataError(
            f"not one of {len(values)} values is a number; the first is {_first(values)}",
            where=raw.place(0, column),
            expected=what,
        )
    return np.where(there, number, 0.0), there


def seconds_of(raw: Raw, column: str, unit: str, latest: int) -> tuple[Array, Array]:
    """Seconds since 1970 UTC, int64 [rows], and a mask of the values that could be read.

    Columns of Arrow's timestamp and date types are converted (without a zone: UTC). Text and numbers are
    read in ``unit`` ("s", "ms", "us", "ns", or "iso" for ISO 8601 text); fractions of a second are refused
    in "s" and cut off in the others.

    Raises:
        DataError: not one value can be read, or most are evidently in another unit.
    """
    values = _plain(raw, column)
    kind = values.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        whole = values.cast(pa.timestamp("s", getattr(kind, "tz", None)), safe=False).cast(pa.int64())
        return np.asarray(pc.fill_null(whole, 0)), _mask(pc.is_valid(whole))
    if unit == "iso":
        return _from_iso(raw, column, values)
    if _is_text(kind):
        good = pc.fill_null(pc.match_substring_regex(values, _INTEGER), False)
        digits = pc.replace_substring_regex(pc.utf8_trim_whitespace(pc.if_else(good, values, "0")), r"\.0*$", "")
        number, there = np.asarray(digits.cast(pa.int64())), np.asarray(good)
    elif pa.types.is_integer(kind):
        there = _mask(pc.is_valid(values))
        number = np.asarray(pc.fill_null(values, 0).cast(pa.int64(), safe=False))
    elif pa.types.is_floating(kind):
        real = np.asarray(pc.fill_null(values, np.nan).cast(pa.float64()))
        there = np.isfinite(real) & (np.floor(real) == real) & (np.abs(real) < 2.0**62)
        number = np.where(there, real, 0.0).astype(np.int64)
    else:
        number, there = np.zeros(len(values), dtype=np.int64), np.zeros(len(values), dtype=bool)
    if not there.any():
        raise _unreadable(raw, column, values)
    seconds = number // UNITS[unit]
    _check_unit(raw, column, number, there, unit, latest)
    return seconds, there


def likely_unit(raw: Raw, column: str, seconds: int, unit: str, latest: int) -> str:
    """What a single timestamp outside the years of a log looks like in another unit; "" for nothing.

    Args:
        raw: the file.
        column: of the timestamps; typed ones have no unit to mistake.
        seconds: as `seconds_of` read it in ``unit``.
        unit: "s", "ms", "us", "ns" or "iso".
        latest: seconds UTC after which nothing can have happened.
    """
    if unit not in UNITS or pa.types.is_temporal(raw.table[column].type):
        return ""
    found = other_unit(seconds * UNITS[unit], unit, latest)
    return f"in {found[0]} it is {found[1]}" if found else ""


def other_unit(number: int, unit: str, latest: int) -> tuple[str, str] | None:
    """The name of another unit in which a number is within the years of a log, and its date there; None for none."""
    for other, parts in UNITS.items():
        if other != unit and EARLIEST <= number // parts <= latest:
            return _NAMES[other], f"{datetime.fromtimestamp(number // parts, UTC):%Y-%m-%d}"
    return None


def _from_iso(raw: Raw, column: str, values: pa.Array) -> tuple[Array, Array]:
    """ISO 8601 text; without an offset it is UTC."""
    seconds, there = np.zeros(len(values), dtype=np.int64), np.zeros(len(values), dtype=bool)
    for row, value in enumerate(values.cast(pa.string()).to_pylist()):
        try:
            moment = datetime.fromisoformat((value or "").strip())
        except ValueError:
            continue
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        seconds[row], there[row] = int(np.floor(moment.timestamp())), True
    if not there.any():
        raise DataError(
            f"not one of {len(values)} values is ISO 8601; the first is {_first(values)}",
            where=raw.place(0, column),
            expected="such as 2013-10-16T17:49:04Z",
            mend="Set data.timestamp_unit to the unit of the numbers, or write the times in ISO 8601.",
        )
    return seconds, there


def _check_unit(raw: Raw, column: str, number: Array, there: Array, unit: str, latest: int) -> None:
    """Raise where most values lie outside the years of a log in ``unit`` and inside them in another unit."""

    def inside(other: str) -> Array:
        return there & (number // UNITS[other] >= EARLIEST) & (number // UNITS[other] <= latest)

    if 2 * int(inside(unit).sum()) >= int(there.sum()):
        return
    for other, parts in UNITS.items():
        fits = inside(other)
        if 2 * int(fits.sum()) > int(there.sum()):
            row = int(np.flatnonzero(fits)[0])
            moment = datetime.fromtimestamp(int(number[row]) // parts, UTC)
            raise DataError(
                f"{number[row]} is in {_NAMES[other]} ({moment:%Y-%m-%d})",
                where=raw.place(row, column),
                expected=f"whole {_NAMES[unit]} since 1970-01-01 UTC",
                mend=f'Set data.timestamp_unit = "{other}".',
            )


def _unreadable(raw: Raw, column: str, values: pa.Array) -> DataError:
    """No value is a whole number: say what the first one is."""
    first = _first(values)
    mend = "Round them, or set data.timestamp_unit."
    if _is_text(values.type):
        text = next((one for one in values.to_pylist() if one), "").strip()
        try:
            datetime.fromisoformat(text)
            mend = 'These are dates as text: set data.timestamp_unit = "iso".'
        except ValueError:
            pass
    return DataError(
        f"not one of {len(values)} values is a whole number; the first is {first}",
        where=raw.place(0, column),
        expected="whole seconds since 1970-01-01 UTC",
        mend=mend,
    )


def _plain(raw: Raw, column: str) -> pa.Array:
    """One array without dictionaries or views."""
    values = raw.table[column]
    if isinstance(values.type, pa.DictionaryType):
        values = values.cast(values.type.value_type)
    values = values.combine_chunks()
    if isinstance(values, pa.ChunkedArray):  # what combine_chunks gives for no chunks, or for very long text
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    return values.cast(pa.string()) if _is_text(values.type) else values


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _null_for_nan(values: pa.Array) -> pa.Array:
    return pc.if_else(pc.is_finite(values), values, None)


def _mask(values: pa.Array) -> Array:
    return np.asarray(pc.fill_null(values, False))


def _first(values: pa.Array) -> str:
    return repr(values[0].as_py()) if len(values) else "nothing"
