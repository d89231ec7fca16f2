"""A log into an engine: Parquet tables of one's own straight from the files, all others through memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from conrec.config import DataConfig
from conrec.logs.counts import Counts
from conrec.logs.engines.base import Engine
from conrec.logs.sources import Loaded, load
from conrec.logs.sources.base import hash_files
from conrec.logs.sources.engine_table import clean_parquet
from conrec.logs.sources.table import event_columns, files, named_files, parquet_events, read_item_file

__all__ = ["Opened", "open_log"]


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
    paths = parquet_events(config) if config.source == "table" and config.sample_users is None else ()
    if loaded is None and paths:
        _, items_path = named_files(config)
        items, item_counts = read_item_file(items_path, config)
        counts = clean_parquet(engine, paths, event_columns(paths[0], config), config, items)
        return Opened("table", items.sort_by("item_id"), Counts(counts, item_counts), hash_files(files(config)))
    loaded = load(config) if loaded is None else loaded
    position = pa.array(np.arange(loaded.events.num_rows, dtype=np.int64))
    engine.table("clean_events", loaded.events.append_column("position", position))
    return Opened(loaded.name, loaded.items.sort_by("item_id"), loaded.counts, loaded.hashes)
