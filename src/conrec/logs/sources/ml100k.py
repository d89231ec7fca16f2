"""MovieLens-100K, from GroupLens's own site or, where that is out of reach, from the wheel of recbole 1.2.1.

Both hold the same 100,000 ratings in the same order. The wheel keeps titles and years apart and has lost
the rest of some titles; both are brought to the form "Toy Story (1995)".
"""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from conrec.config import DataConfig, EventColumns, FeedbackRule, ItemColumns
from conrec.errors import DataError
from conrec.logs.catalogue import clean_items
from conrec.logs.counts import Counts
from conrec.logs.fetch import cache_folder, fetch_first, from_wheel, from_zip
from conrec.logs.files import Raw, TextFormat, read_raw
from conrec.logs.sources.base import Description, Loaded, Source, files_there, find_files, hash_files, rule_or
from conrec.logs.validation import clean_events

__all__ = ["GENRES", "SOURCE", "fetch", "files", "load"]

NAME = "ml-100k"
GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
"""Order of the flags in u.item."""
RULE = FeedbackRule(negative_at_most=2, positive_at_least=4)
FILES = (("u.data", "u.item"), ("ml-100k.inter", "ml-100k.item"))
ORIGINS = (
    from_zip(
        "https://files.grouplens.org/datasets/movielens/ml-100k.zip",
        {"ml-100k/u.data": "u.data", "ml-100k/u.item": "u.item"},
        "md5:0e33842e24a9c977be4e0107933c0723",  # as GroupLens publishes it
    ),
    from_wheel(
        "recbole",
        "1.2.1",
        "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
        {f"recbole/dataset_example/ml-100k/{name}": name for name in ("ml-100k.inter", "ml-100k.item")},
    ),
)


def fetch(config: DataConfig) -> Path:
    """Bring the files into the cache; the folder that holds them."""
    return fetch_first(
        NAME,
        cache_folder(config.cache) / NAME,
        ORIGINS,
        "Bring u.data and u.item of MovieLens-100K (or recbole's ml-100k.inter and ml-100k.item) to this machine "
        "in a folder, and set data.folder to it.",
    )


def files(config: DataConfig) -> list[Path]:
    """The files that `load` would read; empty before they are fetched."""
    return files_there(config.folder or cache_folder(config.cache) / NAME, FILES)


def load(config: DataConfig) -> Loaded:
    """Ratings as feedback (negative up to 2 stars, positive from 4) and films with their genres.

    Raises:
        DataError: the files are not in ``config.folder``, cannot be fetched, or are damaged.
    """
    folder = config.folder or fetch(config)
    found = find_files(folder, FILES)
    if found is None:
        raise DataError(
            "this folder has neither of the two pairs of files",
            where=str(folder),
            expected=" or ".join(" and ".join(pair) for pair in FILES),
        )
    events_path, items_path = found
    raw_events, raw_items = (
        _read_grouplens(events_path, items_path)
        if events_path.name == "u.data"
        else _read_recbole(events_path, items_path)
    )
    items, item_counts = clean_items(raw_items, ItemColumns(category="category"), config)
    rule = config.model_copy(update={"feedback": rule_or(config, RULE), "timestamp_unit": "s"})
    events, event_counts = clean_events(raw_events, EventColumns(rating="rating"), rule, items)
    hashes = hash_files(found)
    return Loaded(NAME, events, items, Counts(event_counts, item_counts), hashes)


def _read_grouplens(events: Path, items: Path) -> tuple[Raw, Raw]:
    """u.data: tabs, no header. u.item: pipes, latin-1, no header, one flag a genre."""
    columns = ("user_id", "item_id", "rating", "timestamp")
    raw_events = read_raw(events, TextFormat("\t", columns, quoting=False), columns)
    flags = tuple(f"flag_{genre}" for genre in GENRES)
    header = ("item_id", "title", "release", "video", "url", *flags)
    raw = read_raw(items, TextFormat("|", header, "latin-1", quoting=False), ("item_id", "title", *flags))
    marks = [pc.equal(raw.table[flag], "1").to_pylist() for flag in flags]
    genres = [
        [genre for genre, mark in zip(GENRES, row, strict=True) if mark and genre != "unknown"]
        for row in zip(*marks, strict=True)
    ]
    return raw_events, _with_items(raw, raw.table["title"].to_pylist(), genres)


def _read_recbole(events: Path, items: Path) -> tuple[Raw, Raw]:
    """Tabs and a header of name:type; genres separated by spaces."""
    text = TextFormat("\t", quoting=False)
    names = {"user_id:token": "user_id", "item_id:token": "item_id", "rating:float": "rating"}
    names["timestamp:float"] = "timestamp"
    raw_events = read_raw(events, text, tuple(names))
    raw_events = raw_events.with_table(raw_events.table.rename_columns([names[one] for one in names]))
    raw = read_raw(items, text, ("item_id:token", "movie_title:token_seq", "release_year:token", "class:token_seq"))
    ids, titles, years, classes = (raw.table[column] for column in raw.table.column_names)
    genres = [[one for one in row.split(" ") if one != "unknown"] for row in classes.to_pylist()]
    named = [_title(title, year) for title, year in zip(titles.to_pylist(), years.to_pylist(), strict=True)]
    return raw_events, _with_items(raw.with_table(pa.table({"item_id": ids})), named, genres)


def _title(title: str, year: str) -> str:
    """Title with its year; the one film without a name is "unknown" in the original."""
    title = title.replace("unkonwn", "unknown")
    return f"{title} ({year})" if re.fullmatch(r"\d{4}", year) else title


def _with_items(raw: Raw, titles: list[str], genres: list[list[str]]) -> Raw:
    return raw.with_table(
        pa.table(
            {
                "item_id": raw.table["item_id"],
                "title": pa.array(titles, pa.string()),
                "category": pa.array(genres, pa.list_(pa.string())),
            }
        )
    )


SOURCE = Source(
    Description(
        NAME,
        "films rated on MovieLens, September 1997 to April 1998, with titles, years and genres",
        "100,000 ratings, 943 users, 1,682 films; 5 MB to fetch",
        "negative: 1 or 2 stars; positive: 4 or 5; neutral: 3",
        "free for research, not to be redistributed (GroupLens)",
        "files.grouplens.org, else the package recbole 1.2.1",
        "validation_cut = 0.7, test_cut = 0.8, horizon_days = 7",
    ),
    load,
    fetch,
    files,
    RULE,
)
