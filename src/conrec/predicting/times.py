"""Times of questions: in words, in files, and within the years that a log can have."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conrec.arrays import Array
from conrec.errors import ConfigError, DataError
from conrec.logs.files import Raw
from conrec.logs.times import other_unit, seconds_of
from conrec.predicting.files import own_hints
from conrec.protocol import DAY

__all__ = ["far_ahead", "latest", "moment", "times_of"]

AHEAD = 3660 * DAY
"""How far after now a time is still taken for one in seconds."""
SECONDS = "seconds since 1970 UTC, or ISO 8601 such as 1998-04-23"


def latest() -> int:
    """The last second that may be asked for."""
    return int(time.time()) + AHEAD


def far_ahead(seconds: int) -> str:
    """What is wrong with a time that lies too far ahead, "" where nothing is."""
    if seconds <= latest():
        return ""
    unit = other_unit(seconds, "s", latest())
    return "is more than ten years ahead" + (f": this looks like {unit[0]} ({unit[1]})" if unit else "")


def moment(text: str) -> int:
    """Seconds since 1970 UTC from digits or ISO 8601; without an offset it is UTC.

    >>> moment("1998-04-23"), moment("893286639"), moment("1998-04-23T02:00:00+02:00")
    (893289600, 893286639, 893289600)

    Raises:
        ConfigError: it is neither, or lies more than ten years ahead.
    """
    if text.strip().isdecimal():
        seconds = int(text)
    else:
        try:
            found = datetime.fromisoformat(text.strip())
        except ValueError:
            raise ConfigError(f"{text!r} is no time", where="--at", expected=SECONDS) from None
        found = found if found.tzinfo else found.replace(tzinfo=UTC)
        seconds = int(np.floor(found.timestamp()))
    wrong = far_ahead(seconds)
    if wrong:
        raise ConfigError(f"{text.strip()} {wrong}", where="--at", expected=SECONDS)
    return seconds


def times_of(raw: Raw, column: str) -> tuple[Array, Array]:
    """Seconds since 1970 UTC, int64 [rows], and a mask of those that could be read.

    Numbers and digits are seconds, other text is ISO 8601 (UTC where it has no offset), dates are dates.

    Raises:
        DataError: not one can be read, or most are in another unit.
    """
    with own_hints("Write the times as whole seconds since 1970 UTC, or in ISO 8601 such as 1998-04-23T00:10:39Z."):
        kind = raw.table[column].type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
            return seconds_of(raw, column, "s", latest())
        text = raw.table[column].cast(pa.string())
        digits = np.asarray(pc.fill_null(pc.match_substring_regex(text, r"^\s*\d+\s*$"), False))
        if digits.all():
            return seconds_of(raw, column, "s", latest())
        times, readable = np.zeros(len(text), dtype=np.int64), np.zeros(len(text), dtype=bool)
        for unit, rows in (("s", digits), ("iso", ~digits)):
            try:
                found, there = seconds_of(raw, column, unit, latest()) if rows.any() else (times, readable)
            except DataError:
                if not digits.any() or unit == "s":
                    raise
                continue
            times, readable = np.where(rows, found, times), np.where(rows, there, readable)
        return times, readable
