"""KuaiRand: short videos shown on Kuaishou, with a button for hate; exposures come along (1K, 27K and Pure).

Format: README of github.com/chongminggao/KuaiRand (C. Gao et al., CIKM 2022, arXiv:2208.08696). In one folder, or in
``data`` below it: ``log_standard_*.csv`` and ``log_random_*.csv`` (user_id, video_id, …, time_ms in milliseconds;
is_hate, is_like, long_view as 0 or 1; and others) and one ``video_features_basic_*.csv`` (video_id, author_id,
video_type, …, tag as "12,65"). There are no titles: an item's text is its tags, its type and its author.

Every log file that lies there is read: rows of ``log_random_*`` (videos put into the feed at random) are exposures like
those of ``log_standard_*``, in the same users' histories. A folder without the random files is a log without them.

Rule, by the first of these that is 1: ``hate`` (is_hate) -1, ``like`` (is_like) +1, ``long_view`` +1; any other row is
``exposure``, 0. data.feedback.events changes the meaning of these four names.

Everything is read into memory: Pure (2.6 million rows) fits anywhere, 27K (323 million rows) has to be cut first.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from conrec.config import DataConfig, EventColumns, FeedbackRule, ItemColumns
from conrec.errors import DataError
from conrec.logs.catalogue import clean_items
from conrec.logs.counts import Counts
from conrec.logs.fetch import cache_folder, fetch_first, from_tar
from conrec.logs.files import Raw, TextFormat, read_raw
from conrec.logs.sources.base import Description, Loaded, Source, hash_files, rule_or
from conrec.logs.sources.rows import join_files
from conrec.logs.validation import clean_events

__all__ = ["SOURCE", "fetch", "files", "load"]

NAME = "kuairand"
RULE = FeedbackRule(events={"hate": -1, "like": 1, "long_view": 1, "exposure": 0})
FLAGS = (("is_hate", "hate"), ("is_like", "like"), ("long_view", "long_view"))
"""Columns in the order in which they decide, and the names of their events."""
LOGS = ("log_random_*.csv", "log_standard_*.csv")
VIDEOS = "video_features_basic_*.csv"
PURE = (
    "log_random_4_22_to_5_08_pure.csv",
    "log_standard_4_08_to_4_21_pure.csv",
    "log_standard_4_22_to_5_08_pure.csv",
    "video_features_basic_pure.csv",
)
ORIGINS = (
    from_tar(
        "https://zenodo.org/records/10439422/files/KuaiRand-Pure.tar.gz",
        {f"KuaiRand-Pure/data/{name}": name for name in PURE},
        "md5:0820331067a3784d9691136f772b35a7",  # as Zenodo states it
    ),
)


def fetch(config: DataConfig) -> Path:
    """Bring KuaiRand-Pure into the cache; the folder that holds it."""
    return fetch_first(
        NAME,
        cache_folder(config.cache) / NAME,
        ORIGINS,
        "Bring the log files and video_features_basic_*.csv of KuaiRand (zenodo.org/records/10439422) to this machine "
        "in a folder, and set data.folder to it.",
    )


def files(config: DataConfig) -> list[Path]:
    """The files that `load` would read, logs first; empty where logs or videos are missing."""
    folder = config.folder.expanduser() if config.folder else cache_folder(config.cache) / NAME
    return _found(folder) or []


def load(config: DataConfig) -> Loaded:
    """Exposures with their feedback, and videos with their tags.

    Raises:
        DataError: the files are not in ``config.folder``, cannot be fetched, or are damaged.
    """
    folder = config.folder.expanduser() if config.folder else fetch(config)
    if not folder.is_dir():
        raise DataError("this folder does not exist", where=f"data.folder = {folder}")
    found = _found(folder)
    if found is None:
        raise DataError(
            "this folder lacks logs or videos",
            where=str(folder),
            expected=f"{' or '.join(LOGS)}, and one {VIDEOS}, in it or in data below it",
        )
    *logs, videos = found
    own = config.model_copy(
        update={"feedback": rule_or(config, RULE), "timestamp_unit": "ms", "category_separator": ","}
    )
    items, item_counts = clean_items(_videos(videos), ItemColumns(text="text", category="category"), own)
    raw = join_files([_events(path) for path in logs])
    events, event_counts = clean_events(raw, EventColumns(event="event"), own, items)
    return Loaded(NAME, events, items, Counts(event_counts, item_counts), hash_files(found))


def _found(folder: Path) -> list[Path] | None:
    """The logs in the order of their names, then the videos."""
    for place in (folder, folder / "data"):
        logs = [path for name in LOGS for ending in ("", ".gz") for path in place.glob(name + ending)]
        videos = [path for ending in ("", ".gz") for path in place.glob(VIDEOS + ending)]
        if logs and len(videos) == 1:
            return [*sorted(logs), *videos]
    return None


def _events(path: Path) -> Raw:
    """user_id, item_id, timestamp and the name of the event of each row."""
    flags = tuple(column for column, _ in FLAGS)
    raw = read_raw(path, TextFormat(","), ("user_id", "video_id", "time_ms", *flags))
    event = pa.scalar("exposure")
    for column, name in reversed(FLAGS):
        value = pc.utf8_trim_whitespace(raw.table[column])
        event = pc.if_else(pc.equal(value, "1"), name, event)
    for column in flags:  # what is neither 0 nor 1 is a name that no rule lists, and shows what it is
        value = pc.utf8_trim_whitespace(raw.table[column])
        strange = pc.binary_join_element_wise(column, value, " = ")
        event = pc.if_else(pc.is_in(value, value_set=pa.array(["0", "1"])), event, strange)
    table = pa.table(
        {
            "user_id": raw.table["user_id"],
            "item_id": raw.table["video_id"],
            "timestamp": raw.table["time_ms"],
            "event": event,
        }
    )
    return raw.with_table(table)


def _videos(path: Path) -> Raw:
    """item_id, no title, the tags as categories, and all that is known as text."""
    raw = read_raw(path, TextFormat(","), ("video_id", "author_id", "video_type", "tag"))
    tags = pc.replace_substring_regex(raw.table["tag"], r"\s+", "")
    spaced = pc.replace_substring(tags, ",", ", ")
    parts = [
        pc.if_else(pc.equal(value, ""), None, pc.binary_join_element_wise(name, value, " "))
        for name, value in (("Tags", spaced), ("Type", raw.table["video_type"]), ("Author", raw.table["author_id"]))
    ]
    text = pc.binary_join_element_wise(*parts, ". ", null_handling="skip")
    tagged = pc.binary_join_element_wise("tag ", pc.replace_substring(tags, ",", ",tag "), "")
    table = pa.table(
        {
            "item_id": raw.table["video_id"],
            "title": pa.nulls(raw.table.num_rows, pa.string()),
            "text": pc.if_else(pc.equal(text, ""), "", pc.binary_join_element_wise(text, ".", "")),
            "category": pc.if_else(pc.equal(tags, ""), "", tagged),
        }
    )
    return raw.with_table(table)


SOURCE = Source(
    Description(
        NAME,
        "short videos shown on Kuaishou, April and May 2022, with all exposures; tags, no titles",
        "Pure: 2,622,668 exposures, 27,285 users, 7,583 videos, 47 MB to fetch; 1K and 27K from a folder",
        "negative: is_hate; positive: is_like or long_view; neutral: every other exposure",
        "CC BY-SA 4.0",
        "zenodo.org/records/10439422 (KuaiRand-Pure)",
        "validation_cut = 0.7, test_cut = 0.8, horizon_days = 7",
    ),
    load,
    fetch,
    files,
    RULE,
)
