"""Board games rated from 0 to 10, and Ciao's product reviews: two tables of ratings as Parquet, read from a folder.

Board games: ``ratings.parquet`` (user_id, item_id, rating, timestamp in seconds, known by month only) and
``games.parquet`` (item_id, title, categories separated by "|", description). Rule: up to 5 of 10 negative, from 8
positive.

Ciao (J. Tang, H. Gao, H. Liu: mTrust, WSDM 2012): ``ratings.parquet`` (user_id, item_id, category_id, rating,
timestamp in seconds, known by day). There are no titles: an item's text is the number of its category. Rule: up to 2 of
5 negative, from 4 positive.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from conrec.config import DataConfig, EventColumns, FeedbackRule, ItemColumns
from conrec.logs.catalogue import clean_items
from conrec.logs.counts import Counts
from conrec.logs.files import TextFormat, read_raw
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
from conrec.logs.sources.rows import items_of_events
from conrec.logs.validation import clean_events

__all__ = ["BOARD_GAMES", "CIAO", "load_board_games", "load_ciao"]

GAMES_RULE = FeedbackRule(negative_at_most=5, positive_at_least=8)
GAMES_FILES = (("ratings.parquet", "games.parquet"),)
CIAO_RULE = FeedbackRule(negative_at_most=2, positive_at_least=4)
CIAO_FILES = (("ratings.parquet",),)
COLUMNS = ("user_id", "item_id", "rating", "timestamp")


def load_board_games(config: DataConfig) -> Loaded:
    """Ratings as feedback, and games with their categories and descriptions.

    Raises:
        ConfigError: no folder is configured.
        DataError: a file is missing or damaged.
    """
    found = require_files(own_folder(config, "board-games", " and ".join(GAMES_FILES[0])), GAMES_FILES)
    own = config.model_copy(
        update={"feedback": rule_or(config, GAMES_RULE), "category_separator": "|", "timestamp_unit": "s"}
    )
    columns = ItemColumns(category="categories", description="description")
    raw_items = read_raw(found[1], TextFormat(), ("item_id", "title", "categories", "description"))
    items, item_counts = clean_items(raw_items, columns, own)
    raw = read_raw(found[0], TextFormat(), COLUMNS)
    events, event_counts = clean_events(raw, EventColumns(rating="rating"), own, items)
    return Loaded("board-games", events, items, Counts(event_counts, item_counts), hash_files(found))


def load_ciao(config: DataConfig) -> Loaded:
    """Ratings as feedback, and products with the number of their category.

    Raises:
        ConfigError: no folder is configured.
        DataError: the file is missing or damaged.
    """
    found = require_files(own_folder(config, "ciao", CIAO_FILES[0][0]), CIAO_FILES)
    own = config.model_copy(update={"feedback": rule_or(config, CIAO_RULE), "timestamp_unit": "s"})
    raw = read_raw(found[0], TextFormat(), (*COLUMNS, "category_id"))
    listed = items_of_events(raw, "item_id", ("category_id",))
    category = pc.binary_join_element_wise("category", listed.table["category_id"].cast(pa.string()), " ")
    table = pa.table(
        {
            "item_id": listed.table["item_id"],
            "title": pa.nulls(listed.table.num_rows, pa.string()),
            "category": category,
        }
    )
    items, item_counts = clean_items(listed.with_table(table), ItemColumns(category="category"), own)
    events, event_counts = clean_events(raw, EventColumns(rating="rating"), own, items)
    return Loaded("ciao", events, items, Counts(event_counts, item_counts), hash_files(found))


def _board_game_files(config: DataConfig) -> list[Path]:
    return files_there(config.folder, GAMES_FILES)


def _ciao_files(config: DataConfig) -> list[Path]:
    return files_there(config.folder, CIAO_FILES)


BOARD_GAMES = Source(
    Description(
        "board-games",
        "board games rated from 0 to 10, 2001 to 2022, with titles, categories and descriptions",
        "1,452,629 ratings, 43,660 users, 901 games",
        "negative: up to 5 of 10; positive: from 8; neutral: between",
        "none stated: for yourself only",
        "a folder of yours with ratings.parquet and games.parquet (data.folder)",
        "validation_cut = 0.75, test_cut = 0.85, horizon_days = 31 (times are known by month only)",
    ),
    load_board_games,
    None,
    _board_game_files,
    GAMES_RULE,
)
CIAO = Source(
    Description(
        "ciao",
        "product reviews on Ciao, 2000 to 2011, without titles",
        "284,052 ratings, 7,375 users, 105,096 products",
        "negative: 1 or 2 of 5; positive: 4 or 5; neutral: 3",
        "none stated: for yourself only",
        "a folder of yours with ratings.parquet (data.folder)",
        "validation_cut = 0.7, test_cut = 0.8, horizon_days = 7 (times are known by day)",
    ),
    load_ciao,
    None,
    _ciao_files,
    CIAO_RULE,
)
