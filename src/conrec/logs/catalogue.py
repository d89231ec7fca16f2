"""From raw columns to clean items: titles, categories and the text that encoders read."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conrec.arrays import Array
from conrec.config import DataConfig, ItemColumns
from conrec.errors import DataError
from conrec.logs.columns import ids_of, strings_of
from conrec.logs.counts import FileCounts
from conrec.logs.files import Raw
from conrec.logs.refusals import Refusals
from conrec.logs.schema import ITEMS

__all__ = ["clean_items", "has_letters", "item_text"]


def has_letters(title: str) -> bool:
    """Whether a title has a letter or a digit of any script; emoji and punctuation are neither."""
    return any(char.isalnum() for char in title)


def item_text(item_id: str, title: str, categories: Sequence[str], description: str = "") -> str:
    """The text of an item: title, categories and description, each as a sentence.

    >>> item_text("1", "Toy Story (1995)", ["Animation", "Children's", "Comedy"])
    "Toy Story (1995). Animation, Children's, Comedy."

    A title without letters is left out; where nothing is left, the text is the item's id.
    """
    parts = [title if has_letters(title) else "", ", ".join(categories), description]
    sentences = [part if part.endswith((".", "!", "?", "…")) else f"{part}." for part in parts if part]
    return " ".join(sentences) or item_id


def clean_items(
    raw: Raw, columns: ItemColumns, config: DataConfig, known: Collection[str] | None = None
) -> tuple[pa.Table, FileCounts]:
    """Items of schema ITEMS in the order of the file, and the counts.

    Args:
        raw: the columns that ``columns`` names; a category column is text or lists of text.
        columns: which column is what.
        config: for the separator of categories and the share of rows that may be refused.
        known: item IDs of a catalogue that the file is to add to. These, items of which the file says nothing but
            their ID, and whatever it says of an item after its first row are refused. None: the file is the catalogue.

    Raises:
        DataError: an item of a whole catalogue is listed twice with different content, a column cannot be read,
            no row of a file that adds to a catalogue can be used, or too many rows are refused.
    """
    refusals = Refusals(raw)
    title = _texts(raw, columns.title)
    ids, there = ids_of(raw, columns.item_id)
    refusals.refuse(~there, "empty item id", lambda row: f"title {title[row]!r}")
    category = _categories(raw, columns.category, config.category_separator)
    text, description = (_texts(raw, one) for one in (columns.text, columns.description))
    image = _images(raw, columns.image)
    names = ids.to_pylist()
    rows: list[dict[str, Any]] = [
        {
            "item_id": names[row],
            "title": title[row],
            "text": text[row] or item_text(names[row], title[row], category[row], description[row]),
            "category": category[row],
            "image": image[row] or None,
        }
        for row in range(raw.table.num_rows)
    ]
    if known is None:
        _merge(raw, rows, refusals)
    else:
        says = [bool(text[row] or description[row] or category[row] or image[row]) for row in range(len(rows))]
        _refuse_what_is_not_new(rows, np.asarray(says, dtype=bool), known, refusals)
    refusals.note(
        np.asarray([not has_letters(one) for one in title], dtype=bool),
        "title without letters",
        lambda row: f"title {title[row]!r}, its text is {rows[row]['text']!r}",
    )
    counts = refusals.counts(config.max_refused, may_be_empty=known is not None)
    kept = [rows[int(row)] for row in np.flatnonzero(refusals.kept)]
    return pa.Table.from_pylist(kept, schema=ITEMS), counts


def _refuse_what_is_not_new(
    rows: list[dict[str, Any]], says: Array, known: Collection[str], refusals: Refusals
) -> None:
    """Refuse items that are known, were named before in the file, or of which it says nothing.

    Args:
        rows: of the file.
        says: bool [rows], whether there is anything about the item beside its ID and title.
        known: item IDs that are there already.
        refusals: where they are counted.

    Raises:
        DataError: nothing is left, and none is known. (An export of items that are all known is in order.)
    """
    there, first = set(known), np.zeros(len(rows), dtype=bool)
    names = [row["item_id"] for row in rows]
    old = np.asarray([name in there for name in names], dtype=bool)
    refusals.refuse(old, "known already", lambda row: f"item {names[row]!r}", asked=True)
    titled = np.asarray([has_letters(row["title"]) for row in rows], dtype=bool)
    refusals.refuse(~(titled | says), "nothing said of the item", lambda row: f"item {names[row]!r}, no title, no text")
    first[list({names[row]: row for row in np.flatnonzero(refusals.kept)[::-1].tolist()}.values())] = True
    refusals.refuse(~first, "item listed before in the file", lambda row: f"item {names[row]!r}", asked=True)
    if not old.any():
        refusals.counts_or("no item of the file is new")


def _merge(raw: Raw, rows: list[dict[str, Any]], refusals: Refusals) -> None:
    """Refuse items that are listed again with equal content; raise where the content differs."""
    first: dict[str, int] = {}
    again = np.zeros(len(rows), dtype=bool)
    for row in np.flatnonzero(refusals.kept).tolist():
        name = rows[row]["item_id"]
        if name not in first:
            first[name] = row
            continue
        again[row] = True
        other = first[name]
        differing = [key for key in ("title", "category", "text", "image") if rows[row][key] != rows[other][key]]
        if differing:
            key = differing[0]
            raise DataError(
                f"the item {name!r} is listed twice and its two rows disagree: {raw.at(other)} has the {key} "
                f"{_short(rows[other][key])}, {raw.at(row)} has {_short(rows[row][key])}",
                where=raw.place(row),
                expected="one row an item",
                mend="Delete one of the two rows.",
            )
    refusals.refuse(again, "item listed twice with equal content", lambda row: f"item {rows[row]['item_id']!r}")


def _texts(raw: Raw, column: str | None) -> list[str]:
    """Text with runs of white space as one space; empty where there is none."""
    if column is None:
        return [""] * raw.table.num_rows
    return [re.sub(r"\s+", " ", one or "").strip() for one in strings_of(raw, column).to_pylist()]


def _images(raw: Raw, column: str | None) -> list[str]:
    """Paths and addresses as they are, bytes of image files as data URIs; empty where there is none."""
    if column is None:
        return [""] * raw.table.num_rows
    kind = raw.table[column].type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)):
        return [(one or "").strip() for one in strings_of(raw, column).to_pylist()]
    files = raw.table[column].to_pylist()
    return [f"data:application/octet-stream;base64,{b64encode(one).decode()}" if one else "" for one in files]


def _short(value: object) -> str:
    """A value in an error; an image's bytes would fill pages."""
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}…"


def _categories(raw: Raw, column: str | None, separator: str) -> list[list[str]]:
    """Distinct categories of each item in their order."""
    if column is None:
        return [[] for _ in range(raw.table.num_rows)]
    values = raw.table[column]
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        found = [[str(one) for one in row or () if one is not None] for row in values.to_pylist()]
    else:
        found = [one.split(separator) for one in pc.fill_null(strings_of(raw, column), "").to_pylist()]
    return [list(dict.fromkeys(one.strip() for one in row if one.strip())) for row in found]
