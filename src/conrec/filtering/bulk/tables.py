"""Tables of any length in, block by block: Parquet (files, folders of parts), CSV, TSV and JSON lines, by suffix.

Text formats are carried through as they are: a CSV value stays the text it was, a JSON object keeps its keys, their
order and its own types.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from conrec.errors import DataError, did_you_mean
from conrec.logs.parquet import open_parquet, parquet_parts

__all__ = ["SEPARATORS", "SUFFIXES", "Block", "OpenTable", "Row", "inferred", "open_table", "suffix_of"]

SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson")
SEPARATORS = {".csv": ",", ".tsv": "\t"}
TEXT_BLOCK, PARQUET_BLOCK = 65_536, 262_144
"""Rows of a block; those of text formats are dictionaries, which take a hundred times as much memory."""
BLOCK_BYTES = 1 << 28
"""Blocks of Parquet are shorter where rows are so wide that they would be larger than this."""
Row = dict[str, Any]
csv.field_size_limit(1 << 27)


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows of a table, as columns or as dictionaries, whichever its file gave.

    Attributes:
        first_row: number of its first row, from 1, a header not counted.
        columns: the rows as an Arrow table, or None.
        rows: the rows as dictionaries; empty where there are columns.
    """

    first_row: int
    columns: pa.Table | None
    rows: list[Row]

    def __len__(self) -> int:
        return len(self.rows) if self.columns is None else int(self.columns.num_rows)

    def to_rows(self) -> list[Row]:
        """The rows as dictionaries."""
        if self.columns is None:
            return self.rows
        rows: list[Row] = self.columns.to_pylist()
        return rows


@dataclass(frozen=True, slots=True)
class OpenTable:
    """A checked file, or a folder of Parquet files, ready to be read from its start as often as wanted.

    Attributes:
        path: the file or folder.
        schema: columns and types, where the file states them (Parquet) or all are text (CSV, TSV); None for JSON lines.
        parts: the Parquet files, in order; empty for the other formats.
        rows: how many there are, where the file states it; 0 where it does not.
    """

    path: Path
    schema: pa.Schema | None
    parts: tuple[Path, ...] = ()
    rows: int = 0

    def blocks(self, size: int | None = None) -> Iterator[Block]:
        """Blocks of at most ``size`` rows (None: as many as are fast and fit in little memory), in order.

        Raises:
            DataError: a row that cannot be read, by file and row.
        """
        if self.parts:
            return _parquet_blocks(self.parts, size or PARQUET_BLOCK)
        read = _csv_blocks if suffix_of(self.path) in SEPARATORS else _json_blocks
        return read(self.path, size or TEXT_BLOCK)

    def full_schema(self, size: int | None = None) -> pa.Schema:
        """Columns and types of the whole file; reads JSON lines once from start to end.

        Raises:
            DataError: a key of JSON lines whose types cannot be one column.
        """
        if self.schema is not None:
            return self.schema
        schema = pa.schema([])
        for block in self.blocks(size):
            try:
                schema = pa.unify_schemas([schema, inferred(block.to_rows()).schema], promote_options="permissive")
            except (pa.ArrowException, TypeError) as error:
                last = block.first_row + len(block) - 1
                raise DataError(
                    f"a key has values of different types ({error})",
                    where=f"{self.path}, rows {block.first_row} to {last}",
                    expected="one type for each column of the output",
                    mend="Write the output as .jsonl, which keeps them as they are.",
                ) from None
        return schema


def suffix_of(path: Path) -> str:
    """The suffix that gives a file's format.

    Raises:
        DataError: it is none of `SUFFIXES`.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(
            f"has the suffix {path.suffix!r}" if path.suffix else "has no suffix",
            where=str(path),
            expected=", ".join(SUFFIXES),
            mend=did_you_mean(suffix, SUFFIXES) if suffix else "The suffix says the format.",
        )
    return suffix


def open_table(path: Path, required: Sequence[str]) -> OpenTable:
    """Check that a table is there, not empty, of a known format and, where it states columns, has the required ones.

    Args:
        path: a file, or a folder of Parquet files, as engines write them.
        required: names of columns.

    Raises:
        DataError: it is not, or the parts of a folder have different columns.
    """
    if path.is_dir():
        parts = parquet_parts(path)
        if not parts:
            raise DataError("this folder has no Parquet files", where=str(path), expected="files named *.parquet in it")
        return _open_parts(path, parts, required)
    suffix = suffix_of(path)
    if not path.is_file():
        raise DataError("this file does not exist", where=str(path))
    if path.stat().st_size == 0:
        raise DataError("this file is empty", where=str(path), expected=f"the columns {', '.join(required)}")
    if suffix == ".parquet":
        return _open_parts(path, (path,), required)
    schema: pa.Schema | None = None
    if suffix in SEPARATORS:
        with _text(path) as handle:
            _, header = next(_csv_lines(path, handle), (0, []))
        schema = pa.schema([(name, pa.string()) for name in header])
        _check_columns(path, schema, required)
    return OpenTable(path, schema)


def _open_parts(path: Path, parts: tuple[Path, ...], required: Sequence[str]) -> OpenTable:
    """A table of Parquet files, each of which can be opened and has the columns of the first."""
    schema: pa.Schema | None = None
    rows = 0
    for part in parts:
        with open_parquet(part) as file:
            own = file.schema_arrow
            rows += file.metadata.num_rows
        if schema is None:
            _check_columns(part, own, required)
            schema = own
        elif not own.equals(schema):
            raise DataError(
                f"has the columns {_described(own)}",
                where=str(part),
                expected=f"those of {parts[0].name}: {_described(schema)}",
                mend="All parts of a folder are one table.",
            )
    return OpenTable(path, schema, parts, rows)


def _described(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


def _check_columns(path: Path, schema: pa.Schema, required: Sequence[str]) -> None:
    repeated = [name for name in schema.names if schema.names.count(name) > 1]
    if repeated:
        raise DataError(f"has the column {repeated[0]!r} twice", where=str(path))
    for name in required:
        if name not in schema.names:
            raise DataError(f"has no column {name!r}", where=str(path), mend=f"Its columns: {', '.join(schema.names)}.")


def _parquet_blocks(parts: Sequence[Path], size: int) -> Iterator[Block]:
    row = 1
    for path in parts:
        here = 1
        try:
            with open_parquet(path) as file:
                for batch in file.iter_batches(batch_size=_rows_of_a_block(file.metadata, size)):
                    yield Block(row, pa.Table.from_batches([batch]), [])
                    row, here = row + batch.num_rows, here + batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"cannot be read as Parquet ({error})", where=f"{path}, from row {here}") from None


def _rows_of_a_block(metadata: pq.FileMetaData, size: int) -> int:
    """At most ``size``, and so few that a block of this file's widest row group stays within `BLOCK_BYTES`."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    widest = max((group.total_byte_size / group.num_rows for group in groups if group.num_rows), default=1.0)
    return max(1, min(size, int(BLOCK_BYTES / max(widest, 1.0))))


def _csv_blocks(path: Path, size: int) -> Iterator[Block]:
    with _text(path) as handle:
        lines = _csv_lines(path, handle)
        _, header = next(lines)
        rows: list[Row] = []
        first = 1
        for line, values in lines:
            if len(values) != len(header):
                raise DataError(
                    f"has {len(values)} values",
                    where=f"{path}, line {line}",
                    expected=f"{len(header)}, as the header has columns",
                )
            rows.append(dict(zip(header, values, strict=True)))
            if len(rows) == size:
                yield Block(first, None, rows)
                first, rows = first + size, []
        if rows:
            yield Block(first, None, rows)


def _csv_lines(path: Path, handle: TextIO) -> Iterator[tuple[int, list[str]]]:
    """Line number and values of each line that is not blank, the header included."""
    reader = csv.reader(handle, delimiter=SEPARATORS[suffix_of(path)], strict=True)
    try:
        for values in reader:
            if values:
                yield reader.line_num, values
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read as CSV ({error})", where=f"{path}, near line {reader.line_num + 1}") from None


def _json_blocks(path: Path, size: int) -> Iterator[Block]:
    rows: list[Row] = []
    first = 1
    number = 0
    with _text(path) as handle:
        try:
            for number, line in enumerate(handle, start=1):
                if line.isspace():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise DataError(f"is {line.strip()[:40]!r}", where=f"{path}, line {number}", expected="an object")
                rows.append(row)
                if len(rows) == size:
                    yield Block(first, None, rows)
                    first, rows = first + size, []
        except (ValueError, RecursionError) as error:
            raise DataError(f"is not JSON ({error})", where=f"{path}, line {max(number, 1)}") from None
    if rows:
        yield Block(first, None, rows)


def _text(path: Path) -> TextIO:
    """A text file as UTF-8, with or without a byte order mark."""
    return path.open(encoding="utf-8-sig", newline="" if suffix_of(path) in SEPARATORS else None)


def inferred(rows: list[Row]) -> pa.Table:
    """Dictionaries as columns, over all their keys in order of first appearance."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return pa.table({key: pa.array([row.get(key) for row in rows]) for key in keys})
