"""Tables of any length out, block by block: the rows of a file with the columns that were added to them."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from conrec.artefacts import saying_disk_full
from conrec.filtering.bulk.tables import SEPARATORS, Block, Row, inferred

__all__ = ["table_writer"]


@contextmanager
def table_writer(
    path: Path, suffix: str, schema: pa.Schema | None, more: pa.Schema
) -> Iterator[Callable[[Block, Mapping[str, pa.Array]], None]]:
    """Write blocks with added columns into ``path``.

    Args:
        path: a temporary name.
        suffix: the format, one of `conrec.filtering.bulk.tables.SUFFIXES`.
        schema: columns of the output without the added ones; None only for JSON lines.
        more: the added columns.

    Yields:
        A function of a block and the columns to add to it.

    Raises:
        OSError: the disk is full, among others.
    """
    if suffix == ".parquet":
        whole = schema or pa.schema([])
        for field in more:
            whole = whole.append(field)
        with saying_disk_full(path), pq.ParquetWriter(path, whole, compression="zstd") as writer:

            def write_parquet(block: Block, added: Mapping[str, pa.Array]) -> None:
                table = block.columns if block.columns is not None else _typed(block.to_rows(), schema)
                for name, column in added.items():
                    table = table.append_column(name, column)
                writer.write_table(table)

            yield write_parquet
        return
    with path.open("w", encoding="utf-8", newline="") as handle:
        if suffix in SEPARATORS:
            yield _csv_writer(handle, SEPARATORS[suffix], list(schema.names) if schema is not None else [])
        else:

            def write_json(block: Block, added: Mapping[str, pa.Array]) -> None:
                for row in _with_added(block, added):
                    handle.write(_json(row) + "\n")

            yield write_json


def _csv_writer(
    handle: TextIO, separator: str, columns: Sequence[str]
) -> Callable[[Block, Mapping[str, pa.Array]], None]:
    writer = csv.writer(handle, delimiter=separator, lineterminator="\n")
    header_is_out: list[bool] = []

    def write(block: Block, added: Mapping[str, pa.Array]) -> None:
        names = [*columns, *added]
        if not header_is_out:
            header_is_out.append(True)
            writer.writerow(names)
        writer.writerows([_cell(row.get(name)) for name in names] for row in _with_added(block, added))

    return write


def _with_added(block: Block, added: Mapping[str, pa.Array]) -> Iterator[Row]:
    """The rows of a block with the added columns; numbers with the six decimals that they have."""
    columns = {
        name: [round(one, 6) if isinstance(one, float) else one for one in column.to_pylist()]
        for name, column in added.items()
    }
    for position, row in enumerate(block.to_rows()):
        yield {**row, **{name: column[position] for name, column in columns.items()}}


def _cell(value: Any) -> Any:
    """A value as CSV has it: null is empty, a list or an object is JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return _json(value) if isinstance(value, dict | list) else value


def _json(value: Any) -> str:
    """JSON that every reader takes: no NaN, no lone surrogates, dates and the like as text."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
        text.encode()
    except ValueError:
        text = json.dumps(_finite(value), default=str)
    return text


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _typed(rows: list[Row], schema: pa.Schema | None) -> pa.Table:
    """Dictionaries as columns of the given types."""
    if schema is None:
        return inferred(rows)
    return pa.table({field.name: pa.array([row.get(field.name) for row in rows], field.type) for field in schema})
