"""From a column as the file has it to ids and numbers, with a mask of the values that could be read.

What is called ``read_…`` looks at each value on its own and may be given a part of a file; what is called ``…_of`` also
raises where not one value of the whole column can be read.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conrec.arrays import Array
from conrec.errors import DataError

__all__ = [
    "Rows",
    "column_of",
    "ids_of",
    "is_text",
    "mask_of",
    "numbers_of",
    "read_ids",
    "read_numbers",
    "shown",
    "shown_at",
    "strings_of",
]

_NUMBER = r"^\s*-?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"
_EXACT = 2.0**53  # from here on a float is no longer one whole number
_SHOWN = 300


@runtime_checkable
class Rows(Protocol):
    """Columns of a file or of a part of it; `conrec.logs.files.Raw` is one."""

    @property
    def table(self) -> pa.Table: ...

    def place(self, row: int, column: str = "") -> str: ...


def strings_of(rows: Rows, column: str) -> pa.Array:
    """A column as text; null stays null. Whole numbers lose their type only, also where they are floats: pandas turns
    whole ids into floats where one is missing.

    Raises:
        DataError: the column holds lists, truth values or bytes.
    """
    values = column_of(rows, column)
    kind = values.type
    if pa.types.is_floating(kind):
        values = pc.if_else(pc.is_finite(values), values, None)
        whole = pc.and_(pc.equal(pc.floor(values), values), pc.less(pc.abs(values), _EXACT))
        digits = pc.if_else(whole, values, 0.0).cast(pa.int64()).cast(pa.string())
        return pc.if_else(whole, digits, values.cast(pa.string()))
    whole_decimal = pa.types.is_decimal(kind) and kind.scale == 0
    if not (pa.types.is_integer(kind) or pa.types.is_null(kind) or whole_decimal or is_text(kind)):
        raise DataError(
            f"holds values of type {str(kind)[:80]}", where=rows.place(0, column), expected="text or whole numbers"
        )
    return values.cast(pa.string())


def read_ids(rows: Rows, column: str) -> tuple[pa.Array, Array, Array]:
    """Ids as text without white space around them; which are there, and which lost white space: bool [rows] each.

    " 7" and "7" are one id, in every format of file. Null and blank are not there.
    """
    given = strings_of(rows, column)
    values = pc.utf8_trim_whitespace(given)
    there = mask_of(pc.not_equal(values, ""))
    return pc.fill_null(values, ""), there, there & mask_of(pc.not_equal(values, given))


def ids_of(rows: Rows, column: str) -> tuple[pa.Array, Array]:
    """Ids as `read_ids` reads them, and a mask of those that are there.

    Raises:
        DataError: every value is empty.
    """
    values, there, _ = read_ids(rows, column)
    if not there.any():
        raise DataError("every value is empty", where=rows.place(0, column), expected="an id in each row")
    return values, there


def read_numbers(rows: Rows, column: str) -> tuple[Array, Array]:
    """Finite numbers, float64 [rows], and a mask of those that are there."""
    values = column_of(rows, column)
    if is_text(values.type):
        good = pc.fill_null(pc.match_substring_regex(values, _NUMBER), False)
        text = pc.utf8_trim_whitespace(pc.if_else(good, values, "0"))
        number, there = np.asarray(text.cast(pa.float64())), np.asarray(good)
    elif pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_decimal(values.type):
        number = np.asarray(pc.fill_null(values.cast(pa.float64(), safe=False), np.nan))
        there = np.ones(len(number), dtype=bool)
    else:
        number, there = np.zeros(len(values)), np.zeros(len(values), dtype=bool)
    there = there & np.isfinite(number)
    return np.where(there, number, 0.0), there


def numbers_of(rows: Rows, column: str, what: str) -> tuple[Array, Array]:
    """Numbers as `read_numbers` reads them.

    Raises:
        DataError: not one value is a number.
    """
    number, there = read_numbers(rows, column)
    if not there.any():
        raise DataError(
            f"not one of {len(number)} values is a number; the first is {shown_at(rows, column)}",
            where=rows.place(0, column),
            expected=what,
        )
    return number, there


def column_of(rows: Rows, column: str) -> pa.Array:
    """One array without dictionaries or views.

    Raises:
        DataError: it holds text that is not UTF-8.
    """
    values = rows.table[column]
    if isinstance(values.type, pa.DictionaryType):
        values = values.cast(values.type.value_type)
    values = values.combine_chunks()
    if isinstance(values, pa.ChunkedArray):  # what combine_chunks gives for no chunks, or for very long text
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    if pa.types.is_float16(values.type):
        return values.cast(pa.float32())
    if not is_text(values.type):
        return values
    values = values.cast(pa.string())
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        row = next(row for row, value in enumerate(values.cast(pa.binary())) if not _decodes(value.as_py()))
        raise DataError("holds bytes that are not UTF-8", where=rows.place(row, column), expected="text") from None
    return values


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def mask_of(values: pa.Array) -> Array:
    """A truth value of each row, false for null, bool [rows]."""
    return np.asarray(pc.fill_null(values, False))


def shown(value: object) -> str:
    """A value for an error or an example; what fills pages is cut.

    >>> shown("soon")
    "'soon'"
    """
    if isinstance(value, str | bytes) and len(value) > _SHOWN:
        return f"{value[:_SHOWN]!r}… ({len(value):,} in length)"
    text = repr(value)
    return text if len(text) <= 2 * _SHOWN else f"{text[:_SHOWN]}…"


def shown_at(rows: Rows, column: str, row: int = 0) -> str:
    """A value of a column for an error or an example; "nothing" where there is no such row."""
    values = rows.table[column]
    if row >= len(values):
        return "nothing"
    cell = values[row]
    cell = cell.value if isinstance(cell, pa.DictionaryScalar) else cell
    try:
        return shown(None if cell is None else cell.as_py())
    except (ValueError, OverflowError):  # a time that is beyond Python's, finer, or of a zone that nobody knows
        return f"{cell.value} of type {cell.type}"


def _decodes(value: bytes | None) -> bool:
    try:
        (value or b"").decode()
    except UnicodeDecodeError:
        return False
    return True
