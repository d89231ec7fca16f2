"""Yambda: what people listened to, liked and disliked on Yandex Music, with likes and dislikes that were taken back.

Format: README of huggingface.co/datasets/yandex/yambda (A. Ploshkin et al., arXiv:2505.22238), the flat layout. One
folder holds ``dislikes``, ``likes``, ``undislikes``, ``unlikes`` and ``listens`` as Parquet (uid, item_id, timestamp,
is_organic; ``listens`` also played_ratio_pct), or ``multi_event.parquet`` (the same with event_type). Where single
files are there they are read and multi_event is not, which holds the same events; of the single files ``dislikes`` has
to be there. Without ``listens`` only what people said themselves is read, a fiftieth of the rows. The sequential
layout, one row a user, is not read.

Times are seconds from a start that is not published, rounded to 5 seconds ("delta times, binned into 5s units": 0 to 26
million are the 301 days of the paper). Here that start is `START`, so differences are true and dates are made up.

Rule: ``dislike`` -1, ``like`` +1, ``undislike`` and ``unlike`` take these back; a listen is ``long_listen``, +1, where
more than half of the track was played (the README's "listened"), else ``listen``, 0. data.feedback.events changes the
meaning of these names.

There are no titles: an item's categories are the artists and albums of ``artist_item_mapping.parquet`` and
``album_item_mapping.parquet`` where these lie in the folder, else its text is its ID.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conrec.config import DataConfig, EventColumns, FeedbackRule, ItemColumns
from conrec.errors import DataError
from conrec.logs.catalogue import clean_items
from conrec.logs.counts import Counts
from conrec.logs.fetch import cache_folder, fetch_first, from_url
from conrec.logs.files import Raw, TextFormat, column_names, read_raw
from conrec.logs.sources.base import Description, Loaded, Source, hash_files, rule_or
from conrec.logs.sources.rows import items_of_events, join_files
from conrec.logs.validation import clean_events

__all__ = ["SOURCE", "START", "fetch", "files", "load"]

NAME = "yambda"
START = 1_704_067_200
"""2024-01-01 UTC, for the start of time that is not published."""
RULE = FeedbackRule(
    events={
        "dislike": -1, "like": 1, "undislike": "undo dislike", "unlike": "undo like", "long_listen": 1, "listen": 0,
    }
)  # fmt: skip
HALF = 50
"""Percentage of a track above which it was listened to."""
SINGLE = ("listens", "likes", "dislikes", "unlikes", "undislikes")
"""In this order, so that of the events of one moment that which takes back comes after what it takes back."""
MAPPINGS = ("artist", "album")
SHA256 = {
    "listens": "eed9cbd094af1e189507d2f8132a0dc9653b90e65480125c7cdccd601e0592d1",
    "likes": "694087077dbacfcc1d22a5ca85cc6bd8ab182361933406e60500624c6a422bc4",
    "dislikes": "64f240a6d62b8acdfa6efae660a54d10ebc64f9f2f0aeeef8e6bb0dbe7dc2802",
    "unlikes": "532213992934de765874691ac145324078e61987df26c88e1d671d23f8853180",
    "undislikes": "8cdbcf6e7e79491d560637057ba8ac078dd1610a3fab15442b6f12e45069ef85",
}
"""Of flat/50m, as others state them who verified their copies."""
ORIGINS = (
    from_url(
        {
            f"{name}.parquet": f"https://huggingface.co/datasets/yandex/yambda/resolve/main/flat/50m/{name}.parquet"
            for name in SINGLE
        },
        checksums={f"{name}.parquet": f"sha256:{digest}" for name, digest in SHA256.items()},
    ),
)


def fetch(config: DataConfig) -> Path:
    """Bring the single files of flat/50m into the cache; the folder that holds them."""
    return fetch_first(
        NAME,
        cache_folder(config.cache) / NAME,
        ORIGINS,
        "Bring the files of flat/50m, flat/500m or flat/5b of huggingface.co/datasets/yandex/yambda to this machine in "
        "a folder, and set data.folder to it.",
    )


def files(config: DataConfig) -> list[Path]:
    """The files that `load` would read, events first; empty before they are fetched or where they are missing."""
    events, mappings = _found(config.folder.expanduser() if config.folder else cache_folder(config.cache) / NAME)
    return [*events, *mappings] if events else []


def load(config: DataConfig) -> Loaded:
    """Listens, likes and dislikes as feedback, and tracks with their artists and albums.

    Raises:
        DataError: the files are not in ``config.folder``, cannot be fetched, or are damaged.
    """
    folder = config.folder.expanduser() if config.folder else fetch(config)
    if not folder.is_dir():
        raise DataError("this folder does not exist", where=f"data.folder = {folder}")
    events, mappings = _found(folder)
    if not events:
        raise DataError(
            "this folder holds no events",
            where=str(folder),
            expected="dislikes.parquet beside likes, unlikes, undislikes and listens, or multi_event.parquet",
        )
    raw = join_files([_events(path) for path in events])
    own = config.model_copy(update={"feedback": rule_or(config, RULE), "timestamp_unit": "s"})
    listed = items_of_events(raw, "item_id")
    table = pa.table(
        {
            "item_id": listed.table["item_id"],
            "title": pa.nulls(listed.table.num_rows, pa.string()),
            "category": _categories(listed.table["item_id"].combine_chunks(), mappings),
        }
    )
    items, item_counts = clean_items(listed.with_table(table), ItemColumns(category="category"), own)
    kept, event_counts = clean_events(raw, EventColumns(event="event"), own, items)
    return Loaded(NAME, kept, items, Counts(event_counts, item_counts), hash_files([*events, *mappings]))


def _found(folder: Path) -> tuple[list[Path], list[Path]]:
    """Files of events, and of artists and albums."""
    single = [path for name in SINGLE if (path := folder / f"{name}.parquet").is_file()]
    if folder / "dislikes.parquet" not in single:
        single = [path for path in (folder / "multi_event.parquet",) if path.is_file()]
    return single, [path for name in MAPPINGS if (path := folder / f"{name}_item_mapping.parquet").is_file()]


def _events(path: Path) -> Raw:
    """user_id, item_id, timestamp and the name of the event of each row, all of one type in every file."""
    one = path.stem.removesuffix("s")
    unified = path.stem == "multi_event"
    played = "played_ratio_pct" in column_names(path, TextFormat())
    needed = ["uid", "item_id", "timestamp", *(["event_type"] * unified), *(["played_ratio_pct"] * (unified or played))]
    raw = read_raw(path, TextFormat(), needed)
    for column in ("uid", "item_id", "timestamp"):
        kind = raw.table[column].type
        if not pa.types.is_integer(kind):
            mend = "Take the flat layout; the sequential one, with one row a user, is not read."
            raise DataError(f"holds values of type {kind}", where=raw.place(0, column), expected="integers", mend=mend)
    rows = raw.table.num_rows
    event = raw.table["event_type"].cast(pa.string()) if unified else pa.repeat(pa.scalar(one), rows)
    if played:
        long = pc.and_(pc.equal(event, "listen"), pc.fill_null(pc.greater(raw.table["played_ratio_pct"], HALF), False))
        event = pc.if_else(long, "long_listen", event)
    seconds = pc.add(raw.table["timestamp"].cast(pa.int64()), START)
    ids = {name: raw.table[column].cast(pa.int64()) for name, column in (("user_id", "uid"), ("item_id", "item_id"))}
    return raw.with_table(pa.table({**ids, "timestamp": seconds, "event": event}))


def _categories(items: pa.Array, mappings: list[Path]) -> pa.Array:
    """The artists and albums of each item as "artist 12", list of text [items]; empty lists without mappings."""
    owners, names = [np.empty(0, dtype=np.int64)], [pa.array([], pa.string())]
    for path in mappings:
        kind = path.name.partition("_")[0]
        table = read_raw(path, TextFormat(), ("item_id", f"{kind}_id")).table
        at = pc.index_in(table["item_id"].cast(pa.int64()), value_set=items)
        table = table.append_column("at", at).filter(pc.is_valid(at))
        owners.append(np.asarray(table["at"], dtype=np.int64))
        name = pc.binary_join_element_wise(kind, table[f"{kind}_id"].cast(pa.string()), " ")
        names.append(name.combine_chunks())
    owner = np.concatenate(owners)
    offsets = np.zeros(len(items) + 1, dtype=np.int32)
    np.cumsum(np.bincount(owner, minlength=len(items)), out=offsets[1:])
    ordered = pa.concat_arrays(names).take(pa.array(np.argsort(owner, kind="stable")))
    return pa.ListArray.from_arrays(pa.array(offsets), ordered)


SOURCE = Source(
    Description(
        NAME,
        "music on Yandex Music over 301 days: listens, likes and dislikes, also those taken back; artists and albums, "
        "no titles",
        "50m: 47,500,000 events, 10,000 users, 934,057 tracks (fetched); 500m and 5b from a folder",
        "negative: dislike; positive: like, or more than half of a track played; neutral: any other listen; undislike "
        "and unlike take back",
        "Apache 2.0, for research (Yandex)",
        "huggingface.co/datasets/yandex/yambda, flat/50m",
        "validation_cut = 0.7, test_cut = 0.8, horizon_days = 7; smaller: data.sample_users, or no listens.parquet",
    ),
    load,
    fetch,
    files,
    RULE,
)
