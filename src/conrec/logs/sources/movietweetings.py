"""MovieTweetings: films rated in tweets, from a folder or from its public repository."""

from __future__ import annotations

from pathlib import Path

from conrec.config import DataConfig, EventColumns, FeedbackRule, ItemColumns
from conrec.errors import DataError
from conrec.logs.catalogue import clean_items
from conrec.logs.counts import Counts
from conrec.logs.fetch import cache_folder, fetch_first, from_url
from conrec.logs.files import TextFormat, read_raw
from conrec.logs.sources.base import Description, Loaded, Source, files_there, find_files, hash_files, rule_or
from conrec.logs.validation import clean_events

__all__ = ["SOURCE", "fetch", "files", "load"]

NAME = "movietweetings"
RULE = FeedbackRule(negative_at_most=5, positive_at_least=8)
FILES = ("ratings.dat", "movies.dat")
# One commit, so that everybody's files are the same; the snapshot itself never changed since.
SNAPSHOT = (
    "https://raw.githubusercontent.com/sidooms/MovieTweetings/4d8280a3f1ea83e3e23f13d1710d19f43564274f/snapshots/100K"
)
ORIGINS = (from_url({name: f"{SNAPSHOT}/{name}" for name in FILES}),)


def fetch(config: DataConfig) -> Path:
    """Bring the snapshot of 100,000 ratings into the cache; the folder that holds it."""
    return fetch_first(
        NAME,
        cache_folder(config.cache) / NAME,
        ORIGINS,
        "Bring ratings.dat and movies.dat of the GitHub repository sidooms/MovieTweetings to this machine "
        "in a folder, and set data.folder to it.",
    )


def files(config: DataConfig) -> list[Path]:
    """The files that `load` would read; empty before they are fetched."""
    return files_there(config.folder or cache_folder(config.cache) / NAME, (FILES,))


def load(config: DataConfig) -> Loaded:
    """Ratings from 0 to 10 as feedback (negative up to 5, positive from 8) and films with their genres.

    Raises:
        DataError: the files are not in ``config.folder``, cannot be fetched, or are damaged.
    """
    folder = config.folder or fetch(config)
    found = find_files(folder, (FILES,))
    if found is None:
        raise DataError("this folder lacks one of the files", where=str(folder), expected=" and ".join(FILES))
    columns = ("user_id", "item_id", "rating", "timestamp")
    raw_events = read_raw(found[0], TextFormat("::", columns), columns)
    header = ("item_id", "title", "category")
    raw_items = read_raw(found[1], TextFormat("::", header), header)
    own = config.model_copy(
        update={"feedback": rule_or(config, RULE), "category_separator": "|", "timestamp_unit": "s"}
    )
    items, item_counts = clean_items(raw_items, ItemColumns(category="category"), own)
    events, event_counts = clean_events(raw_events, EventColumns(rating="rating"), own, items)
    hashes = hash_files(found)
    return Loaded(NAME, events, items, Counts(event_counts, item_counts), hashes)


SOURCE = Source(
    Description(
        NAME,
        "films rated in tweets from 2013 on, with titles, years and genres",
        "100,000 ratings (the snapshot that is fetched); any other state of its two files from a folder",
        "negative: 0 to 5 of 10; positive: 8 to 10; neutral: 6 and 7",
        "MIT",
        "github.com/sidooms/MovieTweetings, snapshots/100K",
        "validation_cut = 0.7, test_cut = 0.8, horizon_days = 7",
    ),
    load,
    fetch,
    files,
    RULE,
)
