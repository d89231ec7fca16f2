"""From a column of times to whole seconds UTC: typed, in any unit since 1970, as ISO 8601 text, in any time zone.

A local time (text without an offset, a typed timestamp without a zone) is of the zone ``zone``. Where its clock is
changed, a local time that comes twice is read as the first, and one that is skipped with the offset that held before
the change, so that 02:30 on a clock that goes from 02:00 to 03:00 is 03:30.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conrec.arrays import Array
from conrec.errors import ConfigError, DataError
from conrec.logs.columns import Rows, column_of, is_text, mask_of, shown_at
from conrec.protocol import DAY

__all__ = ["EARLIEST", "SKIPPED", "TWICE", "UNITS", "Times", "likely_unit", "other_unit", "read_seconds", "seconds_of"]

EARLIEST = 631_152_000
"""1990-01-01 UTC; nothing that a recommender logged is older."""
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
"""Parts of a second in each unit of a timestamp."""
SKIPPED = "local time that the clock skips, read with the offset before the change"
TWICE = "local time that the clock shows twice, read as the first"
_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_INTEGER = r"^\s*-?([1-8]\d{18}|\d{1,18})(\.0*)?\s*$"  # what int64 holds
# What Arrow parses as Python does; the rest (29 February, weeks, other ways to write an offset) is left to Python.
_DAY = (
    r"(?:19|20)\d\d-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)"
    r"|02-(?:0[1-9]|1\d|2[0-8]))"
)
_CLOCK = r"[T ](?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d+)?"
_LOCAL = rf"^{_DAY}(?:{_CLOCK})?$"
_ZONED = rf"^{_DAY}{_CLOCK}(?:Z|[+-](?:0\d|1[0-3]):[0-5]\d)$"


@dataclass(frozen=True, slots=True)
class Times:
    """What became of a column of times.

    Attributes:
        seconds: int64 [rows], UTC; 0 where there is none.
        there: bool [rows], whether the value could be read.
        remarks: by what there is to say of them, the rows: bool [rows].
    """

    seconds: Array
    there: Array
    remarks: dict[str, Array] = field(default_factory=dict)


def read_seconds(rows: Rows, column: str, unit: str, latest: int, zone: str = "UTC") -> Times:
    """Seconds since 1970 UTC of each value on its own.

    Columns of Arrow's timestamp and date types are converted. Text and numbers, decimals among them, are read in
    ``unit``: "s", "ms", "us", "ns", "iso" for ISO 8601 text, or "auto". Fractions of a second are refused in "s" and
    cut off in the others.

    Args:
        rows: that have the column.
        column: of the times.
        unit: "auto" takes a whole number in the only unit in which it lies between 1990 and ``latest``, and other text
            as ISO 8601; a number that lies there in no unit comes back as it is.
        latest: seconds UTC after which nothing can have happened.
        zone: IANA name of the zone of local times.

    Raises:
        ConfigError: there is no such zone.
    """
    if zone != "UTC":
        _zone(zone)  # a wrong name is said even where no local time would be met
    values = column_of(rows, column)
    kind = values.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        whole = values.cast(pa.timestamp("s", getattr(kind, "tz", None)), safe=False).cast(pa.int64())
        found = Times(np.asarray(pc.fill_null(whole, 0)), mask_of(pc.is_valid(whole)))
        return found if getattr(kind, "tz", None) else _from_local(found, found.there, zone, latest)
    if unit == "iso":
        return _from_iso(values.cast(pa.string()), zone, latest) if is_text(kind) else _none(len(values))
    number, there = _whole_numbers(values)
    if unit != "auto":
        return Times(number // UNITS[unit], there)
    seconds, remarks = number.copy(), {}
    for one, parts in UNITS.items():
        inside = _inside(number, there, one, latest)
        seconds[inside] = number[inside] // parts
        if one != "s" and inside.any():
            remarks[f"timestamp in {_NAMES[one]}"] = inside
    if not is_text(kind) or there.all():
        return Times(seconds, there, remarks)
    text = _from_iso(pc.if_else(pa.array(there), None, values), zone, latest)
    return Times(np.where(there, seconds, text.seconds), there | text.there, {**remarks, **text.remarks})


def seconds_of(rows: Rows, column: str, unit: str, latest: int, zone: str = "UTC") -> tuple[Array, Array]:
    """Seconds as `read_seconds` reads them, int64 [rows], and a mask of the values that could be read.

    Raises:
        DataError: not one value can be read, or most are evidently in another unit.
        ConfigError: there is no such zone.
    """
    found = read_seconds(rows, column, unit, latest, zone)
    if not found.there.any():
        raise _unreadable(rows, column, unit)
    values = column_of(rows, column)
    if unit in UNITS and not pa.types.is_temporal(values.type):
        _check_unit(rows, column, _whole_numbers(values)[0], found.there, unit, latest)
    return found.seconds, found.there


def likely_unit(rows: Rows, column: str, seconds: int, unit: str, latest: int) -> str:
    """What a single timestamp outside the years of a log looks like in another unit; "" for nothing.

    Args:
        rows: that have the column.
        column: of the timestamps; typed ones have no unit to mistake.
        seconds: as `read_seconds` read it in ``unit``.
        unit: "s", "ms", "us", "ns", "iso" or "auto".
        latest: seconds UTC after which nothing can have happened.
    """
    if unit not in UNITS or pa.types.is_temporal(rows.table[column].type):
        return ""
    found = other_unit(seconds * UNITS[unit], unit, latest)
    return f"in {found[0]} it is {found[1]}" if found else ""


def other_unit(number: int, unit: str, latest: int) -> tuple[str, str] | None:
    """The name of another unit in which a number is within the years of a log, and its date there; None for none."""
    for other, parts in UNITS.items():
        if other != unit and EARLIEST <= number // parts <= latest:
            return _NAMES[other], f"{datetime.fromtimestamp(number // parts, UTC):%Y-%m-%d}"
    return None


def _none(rows: int) -> Times:
    return Times(np.zeros(rows, dtype=np.int64), np.zeros(rows, dtype=bool))


def _whole_numbers(values: pa.Array) -> tuple[Array, Array]:
    """Whole numbers, int64 [rows], and a mask of the values that are one."""
    if pa.types.is_decimal(values.type):
        values = values.cast(pa.string())
    if is_text(values.type):
        good = pc.fill_null(pc.match_substring_regex(values, _INTEGER), False)
        digits = pc.replace_substring_regex(pc.utf8_trim_whitespace(pc.if_else(good, values, "0")), r"\.0*$", "")
        return np.asarray(digits.cast(pa.int64())), np.asarray(good)
    if pa.types.is_integer(values.type):
        return np.asarray(pc.fill_null(values, 0).cast(pa.int64(), safe=False)), mask_of(pc.is_valid(values))
    if pa.types.is_floating(values.type):
        real = np.asarray(pc.fill_null(values.cast(pa.float64()), np.nan))
        there = np.isfinite(real) & (np.floor(real) == real) & (np.abs(real) < 2.0**62)
        return np.where(there, real, 0.0).astype(np.int64), there
    none = _none(len(values))
    return none.seconds, none.there


def _from_iso(values: pa.Array, zone: str, latest: int) -> Times:
    """ISO 8601 text; fractions of a second are cut off."""
    text = pc.utf8_trim_whitespace(values)
    zoned = mask_of(pc.match_substring_regex(text, _ZONED))
    local = mask_of(pc.match_substring_regex(text, _LOCAL)) if not zoned.all() else ~zoned
    seconds = np.zeros(len(text), dtype=np.int64)
    for rows, offset in ((zoned, "UTC"), (local, None)):
        if rows.any():
            whole = pc.replace_substring_regex(text.filter(pa.array(rows)), r"\.\d+", "")
            seconds[rows] = np.asarray(whole.cast(pa.timestamp("s", offset)).cast(pa.int64()))
    there = zoned | local
    rest = np.flatnonzero(~there & mask_of(pc.is_valid(text)))
    if len(rest):
        seen = text.take(pa.array(rest)).dictionary_encode()
        read = [_python_iso(one) for one in seen.dictionary.to_pylist()]
        of_row = seen.indices.to_numpy(zero_copy_only=False)
        seconds[rest] = np.asarray([one for one, _ in read], dtype=np.int64)[of_row]
        kind = np.asarray([code for _, code in read], dtype=np.int8)[of_row]  # 0 not read, 1 zoned, 2 local
        there[rest], local[rest] = kind > 0, kind == 2
    return _from_local(Times(seconds, there), local, zone, latest)


def _python_iso(text: str) -> tuple[int, int]:
    """(seconds, 0 not read, 1 with an offset, 2 without one) of one text."""
    try:
        moment = datetime.fromisoformat(text)
        given = moment.tzinfo is not None
        seconds = (moment if given else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return 0, 0
    return int(np.floor(seconds)), 1 if given else 2


def _from_local(found: Times, local: Array, zone: str, latest: int) -> Times:
    """Local times of ``zone`` as UTC in the rows of the mask ``local``."""
    if zone == "UTC" or not local.any():
        return found
    place = _zone(zone)
    near = local & (found.seconds >= EARLIEST - 2 * DAY) & (found.seconds <= latest + 2 * DAY)
    rows = np.flatnonzero(near)
    clock = pa.array(found.seconds[rows]).cast(pa.timestamp("s"))
    try:
        first, last = (
            np.asarray(pc.assume_timezone(clock, zone, ambiguous=one, nonexistent=one).cast(pa.int64()))
            for one in ("earliest", "latest")
        )
    except pa.ArrowException as error:
        raise ConfigError(f"the zone {zone!r} cannot be used ({error})", where="data.timezone") from None
    seconds = found.seconds.copy()
    seconds[rows] = first
    odd = rows[first != last]
    if not len(odd):
        return Times(seconds, found.there, found.remarks)
    shown, of_row = np.unique(found.seconds[odd], return_inverse=True)
    read = [int(datetime.fromtimestamp(int(one), UTC).replace(tzinfo=place).timestamp()) for one in shown]
    again = [datetime.fromtimestamp(one, place).replace(tzinfo=UTC).timestamp() for one in read]
    seconds[odd] = np.asarray(read, dtype=np.int64)[of_row]
    twice = np.zeros(len(seconds), dtype=bool)
    twice[odd] = (np.asarray(again) == shown)[of_row]  # a time that is there comes back as it was
    skipped = np.zeros(len(seconds), dtype=bool)
    skipped[odd] = ~twice[odd]
    return Times(seconds, found.there, {**found.remarks, SKIPPED: skipped, TWICE: twice})


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ConfigError(
            f"there is no time zone {name!r} on this machine",
            where="data.timezone",
            expected="an IANA name such as 'Europe/Berlin'",
            mend="Where the system has no time zones at all, pip install tzdata brings them.",
        ) from None


def _inside(number: Array, there: Array, unit: str, latest: int) -> Array:
    """Which numbers lie in the years of a log in ``unit``."""
    seconds = number // UNITS[unit]
    return there & (seconds >= EARLIEST) & (seconds <= latest)


def _check_unit(rows: Rows, column: str, number: Array, there: Array, unit: str, latest: int) -> None:
    """Raise where most values lie outside the years of a log in ``unit`` and inside them in another unit."""
    if 2 * int(_inside(number, there, unit, latest).sum()) >= int(there.sum()):
        return
    for other, parts in UNITS.items():
        fits = _inside(number, there, other, latest)
        if 2 * int(fits.sum()) > int(there.sum()):
            row = int(np.flatnonzero(fits)[0])
            moment = datetime.fromtimestamp(int(number[row]) // parts, UTC)
            raise DataError(
                f"{number[row]} is in {_NAMES[other]} ({moment:%Y-%m-%d})",
                where=rows.place(row, column),
                expected=f"whole {_NAMES[unit]} since 1970-01-01 UTC",
                mend=f'Set data.timestamp_unit = "{other}", or "auto" where units are mixed.',
            )


def _unreadable(rows: Rows, column: str, unit: str) -> DataError:
    """No value can be read: say what the first one is."""
    values = rows.table[column]
    first = shown_at(rows, column)
    if unit == "iso":
        return DataError(
            f"not one of {len(values)} values is ISO 8601; the first is {first}",
            where=rows.place(0, column),
            expected="such as 2013-10-16T17:49:04Z",
            mend="Set data.timestamp_unit to the unit of the numbers, or write the times in ISO 8601.",
        )
    mend = "Round them, or set data.timestamp_unit."
    if unit != "auto" and is_text(column_of(rows, column).type):
        text = next((one for one in values.to_pylist() if one), "").strip()
        if _python_iso(text)[1]:
            mend = 'These are dates as text: set data.timestamp_unit = "iso".'
    return DataError(
        f"not one of {len(values)} values is a whole number{' or ISO 8601' if unit == 'auto' else ''}; "
        f"the first is {first}",
        where=rows.place(0, column),
        expected="whole seconds since 1970-01-01 UTC",
        mend=mend,
    )
