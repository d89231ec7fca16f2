"""The log that histories are read from: the run's own, and newer events where there are any."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from conrec.arrays import Array
from conrec.artefacts import read_parquet
from conrec.config import DataConfig
from conrec.items.growing.growth import own_catalogue
from conrec.logs.log import Log
from conrec.logs.schema import EVENTS, ITEMS
from conrec.logs.sources import SOURCES
from conrec.logs.sources.base import rule_or
from conrec.logs.sources.table import event_columns, read_events

__all__ = ["Histories", "read_histories"]


@dataclass(frozen=True, slots=True)
class Histories:
    """A log over the run's catalogue.

    Attributes:
        log: all events; items in the order of the catalogue.
        lines: for people, how many of the newer rows were kept and refused, and why; empty without a file.
    """

    log: Log
    lines: tuple[str, ...] = ()


def read_histories(
    run_folder: Path, events: Path | None, config: DataConfig, items_file: Path | None = None
) -> Histories:
    """The run's events, and those of a newer file.

    A file may hold new events alone or a whole export: an event of the file takes the place of the run's event of
    the same user, item and second, and everything else is added. Events of items that the catalogue does not have are
    refused and counted: the model has no name for them (`conrec items append` gives them one). Ratings mean what they
    mean in the run: by the rule of its configuration, or by its source's own.

    Args:
        run_folder: a run with ``data/events.parquet`` and ``data/items.parquet``.
        events: newer events in any format of a `table` source; None for the run's own alone.
        config: columns, rule to feedback, unit of time and separator of that file.
        items_file: the catalogue; None: the run's own, ``data/items.parquet``.

    Raises:
        ArtefactError: a file of the run is missing or damaged.
        ConfigError: the mapping or the rule to feedback does not fit the file.
        DataError: the file cannot be used as it is.
    """
    items = read_parquet(items_file or own_catalogue(run_folder).items, ITEMS)
    old = read_parquet(run_folder / "data" / "events.parquet", EVENTS)
    if events is None:
        return Histories(Log.from_tables(old, items))
    own = SOURCES[config.source].rule if config.source in SOURCES else None
    ruled = own is not None and own.negative_at_most is not None and event_columns(events, config).rating is not None
    if own is not None:
        config = config.model_copy(update={"feedback": rule_or(config, own)})
    new, counts = read_events(events, config, items)
    known = _known(old, new)
    lines = counts.lines()
    if ruled:
        rule = config.feedback
        lines.append(
            f"  its ratings are read as those of {config.source}: negative up to {rule.negative_at_most:g}, positive "
            f"from {rule.positive_at_least:g} (data.feedback.negative_at_most and positive_at_least)"
        )
    if known.any():
        lines.append(f"  noted {int(known.sum()):,}: event of the run's log that is in this file again")
    whole = pa.concat_tables([old.filter(pa.array(~known)), new.select(EVENTS.names).cast(EVENTS)])
    return Histories(Log.from_tables(whole, items), tuple(lines))


def _known(old: pa.Table, new: pa.Table) -> Array:
    """Which events of ``old`` have user, item and second in common with one of ``new``, bool [old]."""
    both = pa.concat_tables([old.select(EVENTS.names[:3]), new.select(EVENTS.names[:3])])
    key = np.zeros(both.num_rows, dtype=np.int64)
    for name in EVENTS.names[:3]:
        # Numbered anew after each column, so that the products below never exceed the square of the rows.
        encoded = both[name].combine_chunks().dictionary_encode()
        mixed = key * len(encoded.dictionary) + encoded.indices.to_numpy().astype(np.int64)
        key = np.unique(mixed, return_inverse=True)[1]
    return np.isin(key[: old.num_rows], key[old.num_rows :])
