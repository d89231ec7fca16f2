"""Steam reviews: games that players recommend or do not, as the three files of "Game Recommendations on Steam".

Format: kaggle.com/datasets/antonkozyriev/game-recommendations-on-steam. ``recommendations.csv``
(app_id,helpful,funny,date,is_recommended,hours,user_id,review_id; dates as 2022-12-12, True or False), ``games.csv``
(app_id,title,date_release,…) and ``games_metadata.json`` (one object a line: app_id, description, tags), without which
games have a title only. This is the one format that is read: the older files of UCSD, Python literals a line
(``australian_user_reviews.json.gz``), are not, as the dates in them leave out the year of the last reviews.

Rule: ``true`` (recommended) +1, ``false`` -1; there is no neutral. data.feedback.events changes the meaning.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from conrec.config import DataConfig, EventColumns, FeedbackRule, ItemColumns
from conrec.logs.catalogue import clean_items
from conrec.logs.columns import strings_of
from conrec.logs.counts import Counts
from conrec.logs.files import Raw, TextFormat, read_raw
from conrec.logs.sources.base import (
    Description,
    Loaded,
    Source,
    files_there,
    hash_files,
    own_folder,
    require_files,
    rule_or,
)
from conrec.logs.validation import clean_events

__all__ = ["SOURCE", "files", "load"]

NAME = "steam"
RULE = FeedbackRule(events={"true": 1, "false": -1})
FILES = (("recommendations.csv", "games.csv", "games_metadata.json"), ("recommendations.csv", "games.csv"))
METADATA = pa.schema([("app_id", pa.int64()), ("description", pa.string()), ("tags", pa.list_(pa.string()))])


def files(config: DataConfig) -> list[Path]:
    """The files that `load` would read; empty where one is missing."""
    return files_there(config.folder, FILES)


def load(config: DataConfig) -> Loaded:
    """Recommendations as feedback, and games with their tags and descriptions.

    Raises:
        ConfigError: no folder is configured.
        DataError: a file is missing or damaged.
    """
    found = require_files(own_folder(config, NAME, " and ".join(FILES[0])), FILES)
    own = config.model_copy(update={"feedback": rule_or(config, RULE), "timestamp_unit": "iso"})
    columns = ItemColumns(item_id="app_id", category="tags", description="description")
    items, item_counts = clean_items(_games(found[1], found[2] if len(found) > 2 else None), columns, own)
    raw = read_raw(found[0], TextFormat(), ("user_id", "app_id", "date", "is_recommended"))
    table = pa.table(
        {
            "user_id": raw.table["user_id"],
            "item_id": raw.table["app_id"],
            "timestamp": raw.table["date"],
            "event": pc.utf8_lower(pc.utf8_trim_whitespace(raw.table["is_recommended"])),
        }
    )
    events, event_counts = clean_events(raw.with_table(table), EventColumns(event="event"), own, items)
    return Loaded(NAME, events, items, Counts(event_counts, item_counts), hash_files(found))


def _games(games: Path, metadata: Path | None) -> Raw:
    """app_id, title, tags and description of each game of games.csv; of several rows of metadata the first counts."""
    raw = read_raw(games, TextFormat(), ("app_id", "title"))
    tags: pa.ChunkedArray | pa.Array = pa.nulls(raw.table.num_rows, pa.list_(pa.string()))
    description: pa.ChunkedArray | pa.Array = pa.nulls(raw.table.num_rows, pa.string())
    if metadata is not None:
        more = read_raw(metadata, TextFormat(), METADATA.names, schema=METADATA)
        at = pc.index_in(strings_of(raw, "app_id"), value_set=strings_of(more, "app_id"))
        tags, description = (more.table[name].take(at) for name in ("tags", "description"))
    return raw.with_table(
        raw.table.select(["app_id", "title"]).append_column("tags", tags).append_column("description", description)
    )


SOURCE = Source(
    Description(
        NAME,
        "games on Steam that players recommend or not, 2010 to 2022, with titles, tags and descriptions",
        "41,154,794 reviews, 13.8 million users, 50,872 games",
        "negative: not recommended; positive: recommended",
        "CC0 (as its publisher on Kaggle states)",
        "kaggle.com/datasets/antonkozyriev/game-recommendations-on-steam, into a folder of yours (data.folder)",
        "validation_cut = 0.7, test_cut = 0.8, horizon_days = 7 (times are known by day)",
    ),
    load,
    None,
    files,
    RULE,
)
