"""The title by which an item is shown and learned: its own, or its ID where it has none."""

from __future__ import annotations

import pyarrow as pa

__all__ = ["titles_of"]


def titles_of(items: pa.Table) -> list[str]:
    """Title of each item without blanks around it; the item's ID where nothing is left.

    Args:
        items: with the columns title and item_id (`conrec.logs.schema.ITEMS`).

    >>> titles_of(pa.table({"item_id": ["1", "2", "3"], "title": [" Heat ", "  ", None]}))
    ['Heat', '2', '3']
    """
    pairs = zip(items["title"].to_pylist(), items["item_id"].to_pylist(), strict=True)
    return [(title or "").strip() or item_id for title, item_id in pairs]
