"""Tables of any length in and out, block by block: Parquet, CSV, TSV and JSON lines, the format by suffix.

Text formats are carried through as they are: a CSV value stays the text it was, a JSON object keeps its keys, their
order and its own types.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from conrec.errors import DataError, did_you_mean

__all__ = ["SUFFIXES", "Block", "open_table", "suffix_of", "table_writer"]

SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson")
_SEPARATOR = {".csv": ",", ".tsv": "\t"}
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
    """A checked file, ready to be read from its start as often as wanted.

    Attributes:
        path: the file.
        schema: columns and types, where the file states them (Parquet) or all are text (CSV, TSV); None for JSON lines.
    """

    path: Path
    schema: pa.Schema | None

    def blocks(self, size: int) -> Iterator[Block]:
        """Blocks of at most ``size`` rows, in order.

        Raises:
            DataError: a row that cannot be read, by file and row.
        """
        read = {".parquet": _parquet_blocks, ".jsonl": _json_blocks, ".ndjson": _json_blocks}
        return read.get(suffix_of(self.path), _csv_blocks)(self.path, size)

    def full_schema(self, size: int) -> pa.Schema:
        """Columns and types of the whole file; reads JSON lines once from start to end.

        Raises:
            DataError: a key of JSON lines whose types cannot be one column.
        """
        if self.schema is not None:
            return self.schema
        schema = pa.schema([])
        for block in self.blocks(size):
            try:
                schema = pa.unify_schemas([schema, _inferred(block.to_rows()).schema], promote_options="permissive")
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
    """Check that a file is there, not empty, of a known format and, where it states columns, has the required ones.

    Raises:
        DataError: it is not.
    """
    suffix = suffix_of(path)
    if not path.is_file():
        raise DataError("this file does not exist", where=str(path))
    if path.stat().st_size == 0:
        raise DataError("this file is empty", where=str(path), expected=f"the columns {', '.join(required)}")
    schema: pa.Schema | None = None
    if suffix == ".parquet":
        try:
            schema = pq.read_schema(path)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"cannot be read as Parquet ({error})", where=str(path)) from None
    elif suffix in _SEPARATOR:
        with _text(path) as handle:
            header = next(_csv_lines(path, handle), (0, []))[1]
        schema = pa.schema([(name, pa.string()) for name in header])
    if schema is not None:
        repeated = [name for name in schema.names if schema.names.count(name) > 1]
        if repeated:
            raise DataError(f"has the column {repeated[0]!r} twice", where=str(path))
        for name in required:
            if name not in schema.names:
                raise DataError(
                    f"has no column {name!r}", where=str(path), mend=f"Its columns: {', '.join(schema.names)}."
                )
    return OpenTable(path, schema)


@contextmanager
def table_writer(
    path: Path, suffix: str, schema: pa.Schema | None
) -> Iterator[Callable[[Block, Mapping[str, pa.Array]], None]]:
    """Write blocks with added columns into ``path``.

    Args:
        path: a temporary name.
        suffix: the format, one of `SUFFIXES`.
        schema: columns of the output without the added ones; None only for JSON lines.

    Yields:
        A function of a block and the columns to add to it.
    """
    if suffix == ".parquet":
        writers: list[pq.ParquetWriter] = []

        def write_parquet(block: Block, added: Mapping[str, pa.Array]) -> None:
            table = block.columns if block.columns is not None else _typed(block.to_rows(), schema)
            for name, column in added.items():
                table = table.append_column(name, column)
            if not writers:
                writers.append(pq.ParquetWriter(path, table.schema, compression="zstd"))
            writers[0].write_table(table)

        try:
            yield write_parquet
        finally:
            for writer in writers:
                writer.close()
        return
    with path.open("w", encoding="utf-8", newline="") as handle:
        if suffix in _SEPARATOR:
            yield _csv_writer(handle, _SEPARATOR[suffix], list(schema.names) if schema is not None else [])
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


def _parquet_blocks(path: Path, size: int) -> Iterator[Block]:
    row = 1
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=size):
                yield Block(row, pa.Table.from_batches([batch]), [])
                row += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"cannot be read as Parquet ({error})", where=f"{path}, from row {row}") from None


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
    reader = csv.reader(handle, delimiter=_SEPARATOR[suffix_of(path)], strict=True)
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
    return path.open(encoding="utf-8-sig", newline="" if suffix_of(path) in _SEPARATOR else None)


def _inferred(rows: list[Row]) -> pa.Table:
    """Dictionaries as columns, over all their keys in order of first appearance."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return pa.table({key: pa.array([row.get(key) for row in rows]) for key in keys})


def _typed(rows: list[Row], schema: pa.Schema | None) -> pa.Table:
    """Dictionaries as columns of the given types."""
    if schema is None:
        return _inferred(rows)
    return pa.table({field.name: pa.array([row.get(field.name) for row in rows], field.type) for field in schema})
