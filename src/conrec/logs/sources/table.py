"""Anybody's own log: an events file and an items file with a column mapping and a rule to feedback."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pyarrow as pa

from conrec.config import DataConfig, EventColumns, ItemColumns
from conrec.errors import ConfigError
from conrec.logs.catalogue import clean_items
from conrec.logs.counts import Counts, FileCounts
from conrec.logs.engines import DuckDb
from conrec.logs.files import TextFormat, column_names, read_raw
from conrec.logs.parquet import parquet_parts
from conrec.logs.schema import EVENTS
from conrec.logs.sources.base import Description, Loaded, Source, hash_files
from conrec.logs.sources.engine_table import clean_parquet
from conrec.logs.validation import clean_events, feedback_column, feedback_names, needed_columns

__all__ = [
    "SOURCE",
    "event_columns",
    "files",
    "load",
    "named_files",
    "own_item_columns",
    "parquet_events",
    "read_events",
    "read_item_file",
]


def load(config: DataConfig) -> Loaded:
    """The events and items that the configuration names.

    Raises:
        ConfigError: a file is not named, or the mapping or the rule to feedback is incomplete.
        DataError: a file cannot be used as it is.
    """
    events_path, items_path = named_files(config)
    items, item_counts = read_item_file(items_path, config)
    events, event_counts = read_events(events_path, config, items)
    return Loaded("table", events, items, Counts(event_counts, item_counts), hash_files(files(config)))


def named_files(config: DataConfig) -> tuple[Path, Path]:
    """The paths of events and items.

    Raises:
        ConfigError: one is not named.
    """
    return _path(config.events, "data.events"), _path(config.items, "data.items")


def read_item_file(path: Path, config: DataConfig, known: Collection[str] | None = None) -> tuple[pa.Table, FileCounts]:
    """The items of a file, schema ITEMS, as ``config`` maps its columns, and their counts.

    Args:
        path: the file.
        config: columns, separators.
        known: item IDs of a catalogue that the file adds to, see `conrec.logs.catalogue.clean_items`.

    Raises:
        DataError: the file cannot be used as it is.
    """
    text = _items_text(config)
    chosen = config.item_columns
    optional = (chosen.text, chosen.category, chosen.description, chosen.image)
    wanted = [chosen.item_id, chosen.title, *(one for one in optional if one is not None)]
    return clean_items(read_raw(path, text, wanted, "data.item_columns"), chosen, config, known)


def own_item_columns(path: Path, config: DataConfig) -> ItemColumns:
    """The mapping of a file of items in which a column that is not mapped is taken where it has our name.

    Raises:
        DataError: the file cannot be used as it is.
    """
    names = ("text", "category", "description", "image")
    free = [name for name in names if getattr(config.item_columns, name) is None]
    there = column_names(path, _items_text(config), free)
    return config.item_columns.model_copy(update={name: name for name in free if name in there})


def read_events(path: Path, config: DataConfig, items: pa.Table) -> tuple[pa.Table, FileCounts]:
    """The events of a file, as ``config`` maps its columns, and their counts.

    Args:
        path: the file, or a folder of Parquet files.
        config: columns, rule to feedback, unit of time, separator.
        items: clean items, schema ITEMS; an event of any other item is refused.

    Raises:
        ConfigError: the mapping or the rule to feedback is incomplete.
        DataError: the file cannot be used as it is.
    """
    paths = parquet_parts(path)
    if paths:
        with DuckDb() as engine:
            counts = clean_parquet(engine, paths, event_columns(paths[0], config), config, items)
            return engine.read(_IN_ORDER).cast(EVENTS), counts
    columns = event_columns(path, config)
    raw = read_raw(path, _text(config, config.separator, config.header), needed_columns(columns))
    return clean_events(raw, columns, config, items)


_IN_ORDER = "SELECT user_id, item_id, timestamp, feedback FROM clean_events ORDER BY position"


def event_columns(path: Path, config: DataConfig) -> EventColumns:
    """The mapping of a file of events, with exactly one of rating, event and feedback.

    Raises:
        ConfigError: the mapping is incomplete, and the file has none or several columns of these names.
        DataError: the file cannot be used as it is.
    """
    text = _text(config, config.separator, config.header)
    return feedback_column(config.columns, column_names(path, text, feedback_names(config.columns)))


def parquet_events(config: DataConfig) -> tuple[Path, ...]:
    """The files of the events where they are Parquet; nothing where they are not, or not named, or not there."""
    return () if config.events is None else parquet_parts(config.events.expanduser())


def files(config: DataConfig) -> list[Path]:
    """The files that `load` would read, events first; those that are not named or missing are left out."""
    named = [path.expanduser() for path in (config.events, config.items) if path is not None]
    return [one for path in named for one in (parquet_parts(path) if path.is_dir() else (path,)) if one.is_file()]


def _path(path: Path | None, key: str) -> Path:
    if path is None:
        raise ConfigError("a table source needs this file", where=key, expected="a path")
    return path.expanduser()


def _items_text(config: DataConfig) -> TextFormat:
    return _text(config, config.items_separator or config.separator, config.items_header)


def _text(config: DataConfig, separator: str | None, header: list[str] | None) -> TextFormat:
    return TextFormat(separator, tuple(header) if header else None, config.encoding, config.quoting)


SOURCE = Source(
    Description(
        "table",
        "your own log: events and items as Parquet, CSV, TSV, JSON lines or text with any separator",
        "yours",
        "data.feedback: thresholds for ratings, a table of event names, or a column that holds -1, 0, 1",
        "yours",
        "data.events and data.items",
        "horizon_days = 7; 31 where times are known by month only",
    ),
    load,
    None,
    files,
)
