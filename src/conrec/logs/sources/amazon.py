"""Amazon Reviews 2023: one category's ratings, and its products with categories, descriptions and image addresses.

Format: amazon-reviews-2023.github.io (Y. Hou et al., arXiv:2403.03952). A folder holds one category: the products
``meta_CATEGORY.jsonl`` (parent_asin, title, main_category, categories, description, features, images of {hi_res, large,
thumb, variant}) and either the reviews ``CATEGORY.jsonl`` (rating from 1 to 5, parent_asin, user_id, timestamp in
milliseconds, and text that is not read) or the ratings alone, of the 0-core or the 5-core, ``CATEGORY.csv``
(user_id,parent_asin,rating,timestamp). Each may have .gz behind its name; of several the first in this order is read.

Rule: 1 and 2 stars negative, 4 and 5 positive, 3 neutral. An item is a parent_asin: colours and sizes are one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from conrec.config import DataConfig, EventColumns, FeedbackRule, ItemColumns
from conrec.errors import DataError
from conrec.logs.catalogue import clean_items
from conrec.logs.counts import Counts
from conrec.logs.files import Raw, TextFormat, read_raw
from conrec.logs.sources.base import Description, Loaded, Source, hash_files, own_folder, rule_or
from conrec.logs.validation import clean_events

__all__ = ["SOURCE", "files", "image_of", "load"]

NAME = "amazon-2023"
RULE = FeedbackRule(negative_at_most=2, positive_at_least=4)
HOLDS = "meta_CATEGORY.jsonl and CATEGORY.jsonl or CATEGORY.csv of one category"
REVIEWS = pa.schema(
    [("user_id", pa.string()), ("parent_asin", pa.string()), ("rating", pa.float64()), ("timestamp", pa.int64())]
)
TEXTS = pa.list_(pa.string())
PICTURE = pa.struct([(name, pa.string()) for name in ("hi_res", "large", "thumb", "variant")])
META = pa.schema(
    [
        ("parent_asin", pa.string()),
        ("title", pa.string()),
        ("main_category", pa.string()),
        ("categories", TEXTS),
        ("description", TEXTS),
        ("features", TEXTS),
        ("images", pa.list_(PICTURE)),
    ]
)


def files(config: DataConfig) -> list[Path]:
    """The files that `load` would read, events first; empty where the folder does not hold one category."""
    if config.folder is None or not config.folder.expanduser().is_dir():
        return []
    found = _found(config.folder.expanduser())
    return list(found[0]) if len(found) == 1 else []


def load(config: DataConfig) -> Loaded:
    """Ratings as feedback, and products.

    Raises:
        ConfigError: no folder is configured.
        DataError: the folder does not hold one category, or a file is damaged.
    """
    folder = own_folder(config, NAME, HOLDS)
    if not folder.is_dir():
        raise DataError("this folder does not exist", where=f"data.folder = {folder}")
    found = _found(folder)
    if len(found) != 1:
        listed = " and ".join(meta.name for _, meta in found)
        raise DataError(
            f"this folder holds several categories ({listed})" if found else "this folder holds no category",
            where=str(folder),
            expected=HOLDS,
            mend="Give each category a folder of its own." if found else "",
        )
    events, meta = found[0]
    own = config.model_copy(update={"feedback": rule_or(config, RULE), "timestamp_unit": "ms"})
    columns = ItemColumns(category="category", description="description", image="image")
    items, item_counts = clean_items(_products(meta), columns, own)
    raw = read_raw(events, TextFormat(), REVIEWS.names, schema=REVIEWS)
    kept, event_counts = clean_events(raw, EventColumns(item_id="parent_asin", rating="rating"), own, items)
    return Loaded(NAME, kept, items, Counts(event_counts, item_counts), hash_files(found[0]))


def image_of(pictures: list[dict[str, Any]] | None) -> str | None:
    """Address of a product's picture: of the variant MAIN, else the first; the largest size that it has.

    >>> image_of([{"large": "b", "variant": "PT01"}, {"hi_res": None, "large": "a", "variant": "MAIN"}])
    'a'
    """
    there = [one for one in pictures or () if isinstance(one, dict)]
    for one in sorted(there, key=lambda picture: picture.get("variant") != "MAIN"):
        for size in ("hi_res", "large", "thumb"):
            if isinstance(one.get(size), str):
                return str(one[size])
    return None


def _found(folder: Path) -> list[tuple[Path, Path]]:
    """Events and products of each category that is whole."""
    found: dict[str, tuple[Path, Path]] = {}
    for meta in sorted([*folder.glob("meta_*.jsonl"), *folder.glob("meta_*.jsonl.gz")]):
        category = meta.name.removeprefix("meta_").partition(".jsonl")[0]
        names = (f"{category}{ending}" for ending in (".jsonl", ".jsonl.gz", ".csv", ".csv.gz"))
        events = next((path for name in names if (path := folder / name).is_file()), None)
        if events is not None:
            found.setdefault(category, (events, meta))
    return list(found.values())


def _products(path: Path) -> Raw:
    """item_id, title, categories, description with features, and image address of each product."""
    raw = read_raw(path, TextFormat(), META.names, schema=META)
    rows = raw.table.select(["main_category", "categories", "description", "features", "images"]).to_pylist()
    table = pa.table(
        {
            "item_id": raw.table["parent_asin"],
            "title": raw.table["title"],
            "category": pa.array([row["categories"] or [row["main_category"] or ""] for row in rows], TEXTS),
            "description": pa.array(
                [" ".join([*_texts(row["description"]), *_texts(row["features"])]) for row in rows], pa.string()
            ),
            "image": pa.array([image_of(row["images"]) for row in rows], pa.string()),
        }
    )
    return raw.with_table(table)


def _texts(values: list[str | None] | None) -> list[str]:
    return [one for one in values or () if one]


SOURCE = Source(
    Description(
        NAME,
        "product reviews on Amazon, 1996 to September 2023, one of 33 categories, with titles, descriptions and images",
        "All_Beauty: 701,500 reviews, 632,000 users, 112,600 products; all: 571 million reviews",
        "negative: 1 or 2 stars; positive: 4 or 5; neutral: 3",
        "none stated; for research (McAuley Lab)",
        "amazon-reviews-2023.github.io, into a folder of yours (data.folder), one category each",
        "validation_cut = 0.7, test_cut = 0.8, horizon_days = 7; for images encoder.image.addresses = true",
    ),
    load,
    None,
    files,
    RULE,
)
