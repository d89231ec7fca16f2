"""MovieLens after the first: 1M with its "::" files, and the editions as CSV (20M, 25M, 32M, latest, latest-small).

Formats: README of each edition at files.grouplens.org/datasets/movielens. 1M: ``ratings.dat``
(UserID::MovieID::Rating::Timestamp, whole stars) and ``movies.dat`` (MovieID::Title::Genres, latin-1). The others:
``ratings.csv`` (userId,movieId,rating,timestamp, half stars from 0.5) and ``movies.csv`` (movieId,title,genres, UTF-8).
Genres are separated by "|", times are seconds since 1970 UTC.

Rule: up to 2 stars negative, from 4 positive, what lies between neutral.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow.compute as pc

from conrec.config import DataConfig, EventColumns, FeedbackRule, ItemColumns
from conrec.logs.catalogue import clean_items
from conrec.logs.counts import Counts
from conrec.logs.fetch import cache_folder, fetch_first, from_zip
from conrec.logs.files import Raw, TextFormat, read_raw
from conrec.logs.sources.base import Description, Loaded, Source, files_there, hash_files, require_files, rule_or
from conrec.logs.validation import clean_events

__all__ = ["EDITIONS", "SOURCES", "Edition", "fetch", "files", "load"]

RULE = FeedbackRule(negative_at_most=2, positive_at_least=4)
NO_GENRE = "(no genres listed)"


@dataclass(frozen=True, slots=True)
class Edition:
    """One MovieLens.

    Attributes:
        name: of the source, and of its archive and the folder in it.
        what: in words.
        size: in words.
        md5: of its archive as GroupLens publishes it beside it; "" for the editions that change.
        files: ratings and films.
    """

    name: str
    what: str
    size: str
    md5: str
    files: tuple[str, str] = ("ratings.csv", "movies.csv")


EDITIONS = (
    Edition(
        "ml-1m",
        "films rated on MovieLens, 2000 to 2003, whole stars",
        "1,000,209 ratings, 6,040 users, 3,883 films; 6 MB to fetch",
        "c4d9eecfca2ab87c1945afe126590906",
        ("ratings.dat", "movies.dat"),
    ),
    Edition(
        "ml-20m",
        "films rated on MovieLens, 1995 to March 2015, half stars",
        "20,000,263 ratings, 138,493 users, 27,278 films; 199 MB to fetch",
        "cd245b17a1ae2cc31bb14903e1204af3",
    ),
    Edition(
        "ml-25m",
        "films rated on MovieLens, 1995 to November 2019, half stars",
        "25,000,095 ratings, 162,541 users, 62,423 films; 262 MB to fetch",
        "6b51fb2759a8657d3bfcbfc42b592ada",
    ),
    Edition(
        "ml-32m",
        "films rated on MovieLens, 1995 to October 2023, half stars",
        "32,000,204 ratings, 200,948 users, 87,585 films; 239 MB to fetch",
        "d472be332d4daa821edc399621853b57",
    ),
    Edition(
        "ml-latest",
        "films rated on MovieLens, 1995 on, half stars; GroupLens replaces it from time to time",
        "about 34 million ratings, 331,000 users, 87,000 films; 350 MB to fetch",
        "",
    ),
    Edition(
        "ml-latest-small",
        "films rated on MovieLens, 1995 on, half stars; GroupLens replaces it from time to time",
        "about 100,000 ratings, 610 users, 9,700 films; 1 MB to fetch",
        "",
    ),
)


def fetch(edition: Edition, config: DataConfig) -> Path:
    """Bring the files into the cache; the folder that holds them."""
    origin = from_zip(
        f"https://files.grouplens.org/datasets/movielens/{edition.name}.zip",
        {f"{edition.name}/{name}": name for name in edition.files},
        f"md5:{edition.md5}" if edition.md5 else "",
    )
    ratings, films = edition.files
    return fetch_first(
        edition.name,
        cache_folder(config.cache) / edition.name,
        (origin,),
        f"Bring {ratings} and {films} of {edition.name}.zip (grouplens.org/datasets/movielens) to this machine in a "
        "folder, and set data.folder to it.",
    )


def files(edition: Edition, config: DataConfig) -> list[Path]:
    """The files that `load` would read; empty before they are fetched."""
    return files_there(config.folder or cache_folder(config.cache) / edition.name, (edition.files,))


def load(edition: Edition, config: DataConfig) -> Loaded:
    """Ratings as feedback (negative up to 2 stars, positive from 4) and films with their genres.

    Raises:
        DataError: the files are not in ``config.folder``, cannot be fetched, or are damaged.
    """
    folder = config.folder.expanduser() if config.folder else fetch(edition, config)
    found = require_files(folder, (edition.files,))
    if edition.files[0].endswith(".dat"):
        columns = EventColumns(rating="rating")
        item_columns = ItemColumns(category="category")
        events = TextFormat("::", ("user_id", "item_id", "rating", "timestamp"))
        items = TextFormat("::", ("item_id", "title", "category"), "latin-1")
    else:
        columns = EventColumns(user_id="userId", item_id="movieId", rating="rating")
        item_columns = ItemColumns(item_id="movieId", category="genres")
        events = items = TextFormat(",")
    names = (columns.user_id, columns.item_id, "rating", columns.timestamp)
    category = str(item_columns.category)
    raw_items = read_raw(found[1], items, (item_columns.item_id, item_columns.title, category))
    own = config.model_copy(
        update={"feedback": rule_or(config, RULE), "category_separator": "|", "timestamp_unit": "s"}
    )
    clean, item_counts = clean_items(_without_no_genre(raw_items, category), item_columns, own)
    kept, event_counts = clean_events(read_raw(found[0], events, names), columns, own, clean)
    return Loaded(edition.name, kept, clean, Counts(event_counts, item_counts), hash_files(found))


def _without_no_genre(raw: Raw, column: str) -> Raw:
    """The films with nothing where the genres say that there are none."""
    values = raw.table[column]
    genres = pc.if_else(pc.equal(values, NO_GENRE), "", values)
    return raw.with_table(raw.table.set_column(raw.table.column_names.index(column), column, genres))


def _source(edition: Edition) -> Source:
    return Source(
        Description(
            edition.name,
            edition.what + ", with titles, years and genres",
            edition.size,
            "negative: up to 2 stars; positive: from 4; neutral: between",
            "free for research; not for commercial use without permission (GroupLens)",
            "files.grouplens.org" + ("" if edition.md5 else ", without a checksum, as it changes"),
            "validation_cut = 0.7, test_cut = 0.8, horizon_days = 7",
        ),
        partial(load, edition),
        partial(fetch, edition),
        partial(files, edition),
        RULE,
    )


SOURCES = tuple(_source(edition) for edition in EDITIONS)
