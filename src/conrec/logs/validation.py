"""From raw columns in memory to clean events; each row is kept or refused for one reason, and counted.

A mistake in the structure of a file (a missing column, another unit of time, one item under two titles) is
an error that names its place. A mistake in single rows is counted and the row refused, unless more rows are
refused than `DataConfig.max_refused` allows: then the most frequent reason is the error.
"""

from __future__ import annotations

import time

import pyarrow as pa
import pyarrow.compute as pc

from conrec.errors import ConfigError
from conrec.logs.conversion import Part, check_columns, convert
from conrec.logs.counts import FileCounts
from conrec.logs.engines import DuckDb
from conrec.logs.files import Raw
from conrec.logs.relations.cleaning import clean
from conrec.logs.schema import EVENTS
from conrec.protocol import DAY
from conrec.settings.data import DataConfig, EventColumns

__all__ = ["clean_events", "convert_events", "feedback_column", "feedback_names", "needed_columns"]

PART = 1_000_000
"""Rows that are converted at once; what is in between takes memory for these alone."""


def feedback_names(columns: EventColumns) -> list[str]:
    """The columns among which `feedback_column` chooses: those that are given, else all three of its own names."""
    given = [name for name in (columns.rating, columns.event, columns.feedback) if name is not None]
    return given or ["rating", "event", "feedback"]


def needed_columns(columns: EventColumns) -> list[str]:
    """The file's columns that a mapping names, each once."""
    values = (columns.rating, columns.event, columns.feedback, columns.reason)
    named = [columns.user_id, columns.item_id, columns.timestamp, *(one for one in values if one is not None)]
    return list(dict.fromkeys(named))


def feedback_column(columns: EventColumns, present: list[str]) -> EventColumns:
    """The mapping with exactly one of rating, event and feedback; where none is given, the file's own column
    of one of these names is taken.

    Raises:
        ConfigError: none or several of them.
    """
    kinds = ("rating", "event", "feedback")
    given: list[str] = [name for name in kinds if getattr(columns, name) is not None]
    if not given:
        found: list[str] = [name for name in kinds if name in present]
        columns = columns.model_copy(update={name: name for name in found})
        given = found
    if len(given) != 1:
        raise ConfigError(
            f"{' and '.join(given) or 'none of rating, event and feedback'} {'are' if given else 'is'} given",
            where="data.columns",
            expected="exactly one of rating, event and feedback",
            mend=f"Say which column tells likes from dislikes; the file has {', '.join(map(repr, present))}.",
        )
    return columns


def clean_events(
    raw: Raw, columns: EventColumns, config: DataConfig, items: pa.Table, now: int | None = None
) -> tuple[pa.Table, FileCounts]:
    """Events of schema EVENTS in the order of the file, and the counts.

    Args:
        raw: the columns that ``columns`` names.
        columns: exactly one of rating, event and feedback is given.
        config: the rule from rating, event name or reason to feedback, the unit and zone of time, and the rules of
            `conrec.logs.relations.cleaning`.
        items: clean items; an event of any other item is refused.
        now: seconds UTC; events later than a day after it are refused. None: the clock's.

    Raises:
        DataError: a column cannot be read at all, or too many rows are refused.
        ConfigError: the rule has no thresholds or no event names, or there is no such time zone.
    """
    with DuckDb() as engine:
        engine.table("converted", convert_events(raw, columns, config, now))
        engine.table("catalogue", items.select(["item_id"]))
        first_item = items["item_id"][0].as_py() if items.num_rows else ""
        counts = clean(engine, config, raw, first_item).counts(config.max_refused)
        engine.drop("converted", "catalogue")
        events = engine.read("SELECT user_id, item_id, timestamp, feedback FROM clean_events ORDER BY position")
    return events.cast(EVENTS), counts


def convert_events(raw: Raw, columns: EventColumns, config: DataConfig, now: int | None = None) -> pa.Table:
    """All rows of a file as `conrec.logs.conversion.convert` gives them; arguments as for `clean_events`.

    Raises:
        DataError: a column cannot be read at all, or most of its times are in another unit.
        ConfigError: as for `clean_events`.
    """
    latest = (int(time.time()) if now is None else now) + DAY
    rows = raw.table.num_rows
    parts = [
        convert(Part(raw.table.slice(first, PART), first, raw), columns, config, latest, first)
        for first in range(0, rows, PART)
    ]
    converted = pa.concat_tables(parts)
    if 2 * pc.count(converted["refused"]).as_py() > rows:
        check_columns(raw, columns, config, latest)
    return converted
