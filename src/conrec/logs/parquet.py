"""Parquet files in chunks, so that no engine holds a whole one, each row with its place; damage is an error of ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from conrec.errors import DataError

__all__ = ["Chunk", "Group", "groups_of", "no_parquet", "open_parquet", "parquet_parts", "read_group"]

_ROWS = 1_000_000


@dataclass(frozen=True, slots=True)
class Group:
    """A row group of one of several files.

    Attributes:
        path: the file.
        group: its number in the file.
        row: of its first row in the file, from 0.
        first: position of that row over all files.
    """

    path: Path
    group: int
    row: int
    first: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of a file.

    Attributes:
        path: the file.
        row: of the first one in the file, from 0.
        first: its position over all files.
        table: the columns.
    """

    path: Path
    row: int
    first: int
    table: pa.Table


def parquet_parts(path: Path) -> tuple[Path, ...]:
    """The files of a folder of Parquet files, as engines write them, by name; a single Parquet file; else nothing.

    Names that begin with a dot or an underscore are not data.
    """
    if path.is_dir():
        return tuple(sorted(one for one in path.glob("*.parquet") if one.name[0] not in "._"))
    return (path,) if path.is_file() and path.suffix.lower() in (".parquet", ".pq") else ()


def groups_of(paths: Sequence[Path]) -> list[Group]:
    """All row groups of some files, in order.

    Raises:
        DataError: a file cannot be read.
    """
    groups: list[Group] = []
    first = 0
    for path in paths:
        row = 0
        metadata = open_parquet(path).metadata
        for group in range(metadata.num_row_groups):
            groups.append(Group(path, group, row, first))
            row += metadata.row_group(group).num_rows
            first += metadata.row_group(group).num_rows
    return groups


def read_group(group: Group, columns: Sequence[str], most: int = _ROWS) -> Iterator[Chunk]:
    """The rows of a row group, at most ``most`` at a time.

    Raises:
        DataError: the file cannot be read.
    """
    row, first = group.row, group.first
    file = open_parquet(group.path)
    batches = file.iter_batches(most, row_groups=[group.group], columns=list(columns))
    while True:
        try:
            batch = next(batches, None)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise no_parquet(group.path, error) from None
        if batch is None:
            return
        yield Chunk(group.path, row, first, pa.Table.from_batches([batch]).select(list(columns)))
        row, first = row + batch.num_rows, first + batch.num_rows


def open_parquet(path: Path) -> pq.ParquetFile:
    """An open file.

    Raises:
        DataError: it cannot be read as Parquet.
    """
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise no_parquet(path, error) from None


def no_parquet(path: Path, error: Exception) -> DataError:
    """The error for a file that Arrow cannot read."""
    said = " ".join(str(error).split())[:300]
    return DataError(f"cannot be read as Parquet ({said})", where=str(path))
