"""A log into an engine: Parquet tables of one's own straight from the file, all others through memory."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from conrec.config import DataConfig, EventColumns
from conrec.errors import DataError
from conrec.logs.conversion import CONVERTED, Part, check_columns, convert
from conrec.logs.counts import Counts
from conrec.logs.engines.base import Engine
from conrec.logs.files import Raw, TextFormat, require_columns
from conrec.logs.relations.cleaning import clean
from conrec.logs.sources import Loaded, load
from conrec.logs.sources.base import hash_files
from conrec.logs.sources.table import event_columns, files, parquet_parts, read_item_file
from conrec.logs.validation import needed_columns
from conrec.protocol import DAY

__all__ = ["Opened", "open_log"]

_LOOK = 100_000
"""Rows that are looked at to say what is wrong with a file of which most rows are refused."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A log whose clean events lie in an engine, as ``clean_events``.

    Attributes:
        name: of the source.
        items: schema ITEMS, sorted by id.
        counts: rows read, kept and refused by reason, per file.
        hashes: SHA-256 of each file that was read, by its name.
    """

    name: str
    items: pa.Table
    counts: Counts
    hashes: dict[str, str]


def open_log(engine: Engine, config: DataConfig, loaded: Loaded | None = None) -> Opened:
    """Make ``clean_events`` (position, user_id, item_id, timestamp, feedback) of the log that is configured.

    The events of a ``table`` source in Parquet are read, converted and cleaned by the engine itself, so that they need
    not fit in memory; every other source, and a sample of users, is loaded first.

    Args:
        engine: that gets it.
        config: data.
        loaded: the log, where it is in memory already.

    Raises:
        ConfigError: there is no such source, or its settings do not fit.
        DataError: a file cannot be used as it is.
    """
    if loaded is None:
        if config.source == "table" and config.events and config.items and config.sample_users is None:
            paths = parquet_parts(config.events.expanduser())
            if paths:
                return _parquet(engine, paths, config)
        loaded = load(config)
    position = pa.array(np.arange(loaded.events.num_rows, dtype=np.int64))
    engine.table("clean_events", loaded.events.append_column("position", position))
    return Opened(loaded.name, loaded.items.sort_by("item_id"), loaded.counts, loaded.hashes)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of several files as one; `conrec.logs.refusals.Places`."""

    path: Path
    files: tuple[Path, ...]

    def _found(self, row: int) -> tuple[Path, int]:
        for file in self.files:
            rows = pq.read_metadata(file).num_rows
            if row < rows:
                return file, row + 1
            row -= rows
        raise IndexError(row)

    def at(self, row: int) -> str:
        """ "row 12", of which file where there are several."""
        file, number = self._found(row)
        return f"row {number}" if len(self.files) == 1 else f"{file.name}, row {number}"

    def place(self, row: int, column: str = "") -> str:
        """File, row, and column, for an error."""
        file, number = self._found(row)
        return f"{file}, row {number}" + (f", column {column!r}" if column else "")


def _parquet(engine: Engine, paths: tuple[Path, ...], config: DataConfig) -> Opened:
    assert config.events is not None
    assert config.items is not None
    items, item_counts = read_item_file(config.items.expanduser(), config)
    columns = event_columns(paths[0], config)
    needed = needed_columns(columns)
    for path in paths:
        require_columns(path, TextFormat(), needed)
    source = _Rows(config.events.expanduser(), paths)
    latest = int(time.time()) + DAY
    first = Raw(paths[0], _head(paths[0], needed), lambda row: row + 1, "row")
    if not first.table.num_rows:
        raise DataError("has no rows", where=str(paths[0]), expected="at least one row")
    convert(Part(first.table, 0, first), columns, config, latest)  # a wrong type is said here, not by a worker
    engine.read_parts("converted", paths, needed, partial(_converted, paths[0], columns, config, latest), CONVERTED)
    if engine.number("SELECT 2 * count(refused) - count(*) AS n FROM converted") > 0:
        check_columns(first, columns, config, latest)
    engine.table("catalogue", items.select(["item_id"]))
    known = items["item_id"][0].as_py() if items.num_rows else ""
    counts = clean(engine, config, source, known).counts(config.max_refused)
    engine.drop("converted", "catalogue")
    return Opened("table", items.sort_by("item_id"), Counts(counts, item_counts), hash_files(files(config)))


def _head(path: Path, columns: list[str]) -> pa.Table:
    with pq.ParquetFile(path) as file:
        batch = next(file.iter_batches(_LOOK, columns=columns), None)
        return file.schema_arrow.empty_table().select(columns) if batch is None else pa.Table.from_batches([batch])


def _converted(
    path: Path, columns: EventColumns, config: DataConfig, latest: int, rows: pa.Table, first: int
) -> pa.Table:
    whole = Raw(path, rows, lambda row: row + 1, "row")
    return convert(Part(rows, first, whole), columns, config, latest, first)
