"""IDs, titles and texts of what is simulated: an item's words tell its category and its style, and no more."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from conrec.arrays import Array
from conrec.logs.catalogue import item_text
from conrec.logs.simulation.world import STYLE_DIM, World

__all__ = ["category_names", "item_ids", "item_table", "user_ids"]

FIELDS = (
    "kitchen", "garden", "office", "travel", "sports", "music", "pet", "baby",
    "car", "camping", "bathroom", "bedroom", "beauty", "craft", "game", "photo",
)  # fmt: skip
KINDS = (
    "lamps", "bags", "towels", "knives", "chairs", "clocks", "shoes", "bottles",
    "covers", "brushes", "boxes", "mats", "hooks", "gloves", "racks", "speakers",
)  # fmt: skip
STYLES = (
    ("plain", "ornate"), ("pale", "dark"), ("light", "heavy"), ("tiny", "huge"),
    ("soft", "hard"), ("cheap", "luxury"), ("retro", "modern"), ("quiet", "loud"),
)  # fmt: skip
"""Words for the two ends of each of the `STYLE_DIM` directions of style."""
MAKERS = ("Alder", "Birch", "Cedar", "Dogwood", "Elm", "Fir", "Ginkgo", "Hazel", "Ivy", "Juniper", "Larch", "Maple")


def user_ids(n: int) -> pa.Array:
    """The ID of each user; the number in it is his index."""
    return _ids("u", n)


def item_ids(n: int) -> pa.Array:
    """The ID of each item; the number in it is its index."""
    return _ids("i", n)


def category_names(n: int) -> list[str]:
    """Distinct names, for instance "kitchen lamps"."""
    plain = len(FIELDS) * len(KINDS)
    names = []
    for number in range(n):
        turn, place = divmod(number, plain)
        # Along the diagonals, so that a few categories are of many fields and kinds.
        field, kind = place % len(FIELDS), (place + place // len(FIELDS)) % len(KINDS)
        names.append(f"{FIELDS[field]} {KINDS[kind]}" + (f" {turn + 1}" if turn else ""))
    return names


def item_table(world: World) -> pa.Table:
    """Items: item_id, title, category (list of one) and text."""
    ids = item_ids(world.config.items).to_pylist()
    names = category_names(world.config.categories)
    words = _style_words(world.catalogue.style)
    titles = [
        f"{MAKERS[number % len(MAKERS)]} {first} {second} {names[category]} {number}"
        for number, (category, (first, second)) in enumerate(zip(world.catalogue.category.tolist(), words, strict=True))
    ]
    category = [[names[one]] for one in world.catalogue.category.tolist()]
    text = [item_text(*one) for one in zip(ids, titles, category, strict=True)]
    return pa.table(
        {
            "item_id": pa.array(ids, pa.string()),
            "title": pa.array(titles, pa.string()),
            "category": pa.array(category, pa.list_(pa.string())),
            "text": pa.array(text, pa.string()),
        }
    )


def _ids(letter: str, n: int) -> pa.Array:
    width = len(str(max(n - 1, 0)))
    return pa.array([f"{letter}{number:0{width}d}" for number in range(n)], pa.string())


def _style_words(style: Array) -> list[tuple[str, str]]:
    """For each item the words of its two most marked directions of style."""
    order = np.argsort(-np.abs(style), axis=1, kind="stable")[:, :2]
    ends = (np.take_along_axis(style, order, axis=1) > 0).astype(int)
    assert len(STYLES) == STYLE_DIM
    return [
        (STYLES[one][end], STYLES[two][other])
        for (one, two), (end, other) in zip(order.tolist(), ends.tolist(), strict=True)
    ]
