"""One JSON object a line: Arrow's reader where it can, Python's where types are mixed or a line is broken."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pajson

from conrec.arrays import Array
from conrec.errors import DataError
from conrec.logs.streams import opened

__all__ = ["json_columns", "read_json_lines"]


def json_columns(path: Path, wanted: Sequence[str] = ()) -> list[str]:
    """Keys of the objects in order of their first occurrence.

    The first thousand lines are read, and more for as long as one of the keys ``wanted`` has not occurred.

    Raises:
        DataError: a line that was read is not a JSON object.
    """
    keys: dict[str, None] = {}
    for index, (_, row) in enumerate(_objects(path)):
        keys.update(dict.fromkeys(row))
        if index >= 1000 and all(name in keys for name in wanted):
            break
    return list(keys)


def read_json_lines(path: Path, columns: Sequence[str], schema: pa.Schema | None = None) -> tuple[pa.Table, Array]:
    """The given keys of each object, null where an object lacks one; and the line of each row, int64 [rows].

    Strings stay strings, those that look like dates too. Where ``schema`` gives the types of the columns and the lines
    fit it, nothing else is read.

    Raises:
        DataError: a line is not a JSON object, or holds what is no text.
    """
    with opened(path) as handle:
        lines = np.asarray([number for number, line in enumerate(handle, start=1) if line.strip()], dtype=np.int64)
    try:
        if schema is not None:
            only = pajson.ParseOptions(
                newlines_in_values=False, explicit_schema=schema, unexpected_field_behavior="ignore"
            )
            table = pajson.read_json(path, parse_options=only)
            if table.num_rows == len(lines):
                return table.select(list(columns)), lines
    except (pa.ArrowException, KeyError, OSError):
        pass
    try:
        table = pajson.read_json(path, parse_options=pajson.ParseOptions(newlines_in_values=False))
        dates = {one.name: text for one in table.schema if (text := _without_dates(one.type)) != one.type}
        if dates:
            table = pajson.read_json(
                path,
                parse_options=pajson.ParseOptions(
                    newlines_in_values=False, explicit_schema=pa.schema(list(dates.items()))
                ),
            )
        chosen = pa.table({name: table[name] for name in columns})
        if table.num_rows == len(lines) and not any(_may_be_rounded(column) for column in chosen.columns):
            return chosen, lines
    except (pa.ArrowException, KeyError, OSError, RecursionError):
        pass
    rows = [row for _, row in _objects(path)]
    found = {}
    for name in columns:
        values = [row.get(name) for row in rows]
        try:
            found[name] = _column(values)
        except UnicodeEncodeError:
            wrong = next(index for index, value in enumerate(values) if not _encodes(value))
            raise DataError(
                "holds half of a surrogate pair, which is no character",
                where=f"{path}, line {lines[wrong]}, column {name!r}",
                expected="text that can be written in UTF-8",
            ) from None
    return pa.table(found), lines


def _may_be_rounded(column: pa.ChunkedArray) -> bool:
    """Whether Arrow's reader may have taken long whole numbers for floats, in which neighbours are one number."""
    return pa.types.is_floating(column.type) and bool(pc.any(pc.greater_equal(pc.abs(column), 2.0**53)).as_py())


def _encodes(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _without_dates(kind: pa.DataType) -> pa.DataType:
    """The type with text where Arrow's reader took text for a time."""
    if pa.types.is_temporal(kind):
        return pa.string()
    return pa.list_(_without_dates(kind.value_type)) if pa.types.is_list(kind) else kind


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, object) of each line that is not blank."""
    with opened(path) as handle:
        for number, line in enumerate(handle, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:
                raise DataError(
                    f"is not JSON ({error})",
                    where=f"{path}, line {number}",
                    expected="one JSON object a line",
                ) from None
            if not isinstance(row, dict):
                raise DataError(
                    f"holds {type(row).__name__}, not an object",
                    where=f"{path}, line {number}",
                    expected="one JSON object a line",
                )
            yield number, row


def _column(values: list[Any]) -> pa.Array:
    """Values of one key; mixed scalars become text."""
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        return pa.array(
            [one if one is None or isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in values],
            pa.string(),
        )
