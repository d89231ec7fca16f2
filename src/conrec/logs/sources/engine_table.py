"""A table in Parquet straight from its files into an engine: converted a chunk at a time, cleaned by queries."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa

from conrec.errors import DataError
from conrec.logs.conversion import CONVERTED, Part, check_columns, convert
from conrec.logs.counts import FileCounts
from conrec.logs.engines.base import Engine
from conrec.logs.files import Raw, TextFormat, require_columns
from conrec.logs.parquet import Chunk, Group, groups_of, read_group
from conrec.logs.relations.cleaning import clean
from conrec.logs.validation import needed_columns
from conrec.protocol import DAY
from conrec.settings.data import DataConfig, EventColumns

__all__ = ["clean_parquet"]

_LOOK = 100_000
"""Rows that are looked at to say what is wrong with files of which most rows are refused."""


def clean_parquet(
    engine: Engine, paths: tuple[Path, ...], columns: EventColumns, config: DataConfig, items: pa.Table
) -> FileCounts:
    """Make ``clean_events`` (position, user_id, item_id, timestamp, feedback) of Parquet files, and count their rows.

    Args:
        engine: that gets it.
        paths: the files, in order.
        columns: exactly one of rating, event and feedback is given.
        config: the rules.
        items: clean items; an event of any other item is refused.

    Raises:
        ConfigError: the rule from rating or event to feedback is incomplete.
        DataError: a file cannot be used as it is, or too many rows are refused.
    """
    needed = needed_columns(columns)
    for path in paths:
        require_columns(path, TextFormat(), needed)
    groups = groups_of(paths)
    head = next((chunk for group in groups for chunk in read_group(group, needed, _LOOK) if chunk.table.num_rows), None)
    folder = paths[0] if len(paths) == 1 else paths[0].parent
    if head is None:
        raise DataError("has no rows", where=str(folder), expected="a header and at least one row")
    latest = int(time.time()) + DAY
    convert_chunk(columns, config, latest, head)  # a column of a wrong type is said before anything else is read
    engine.read_parts("converted", paths, needed, partial(convert_chunk, columns, config, latest), CONVERTED)
    if engine.number("SELECT 2 * count(refused) - count(*) AS n FROM converted") > 0:
        check_columns(_raw(head), columns, config, latest)
    engine.table("catalogue", items.select(["item_id"]))
    known = items["item_id"][0].as_py() if items.num_rows else ""
    counts = clean(engine, config, _Files(folder, tuple(groups), len(paths) > 1), known).counts(config.max_refused)
    engine.drop("converted", "catalogue")
    return counts


def convert_chunk(columns: EventColumns, config: DataConfig, latest: int, chunk: Chunk) -> pa.Table:
    """Rows of a file as `conrec.logs.conversion.convert` gives them."""
    part = Part(chunk.table, chunk.row, _raw(chunk))
    return convert(part, columns, config, latest, chunk.first)


def _raw(chunk: Chunk) -> Raw:
    return Raw(chunk.path, chunk.table, lambda row: row + 1, "row")


@dataclass(frozen=True, slots=True)
class _Files:
    """Rows of one or several files by their positions; `conrec.logs.refusals.Places`."""

    path: Path
    groups: tuple[Group, ...]
    several: bool

    def _found(self, position: int) -> tuple[Path, int]:
        group = next(one for one in reversed(self.groups) if one.first <= position)
        return group.path, group.row + position - group.first + 1

    def at(self, row: int) -> str:
        """ "row 12", of which file where there are several."""
        path, number = self._found(row)
        return f"{path.name}, row {number}" if self.several else f"row {number}"

    def place(self, row: int, column: str = "") -> str:
        """File, row, and column, for an error."""
        path, number = self._found(row)
        return f"{path}, row {number}" + (f", column {column!r}" if column else "")
