"""One JSON object a line: Arrow's reader where it can, Python's where types are mixed or a line is broken."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
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
        DataError: a line is not a JSON object.
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
        if table.num_rows == len(lines):
            return pa.table({name: table[name] for name in columns}), lines
    except (pa.ArrowException, KeyError, OSError):
        pass
    rows = [row for _, row in _objects(path)]
    return pa.table({name: _column([row.get(name) for row in rows]) for name in columns}), lines


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
            except ValueError as error:
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
