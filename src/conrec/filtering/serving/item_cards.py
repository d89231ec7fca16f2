"""What a person needs to recognise an item: title, categories, picture."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from conrec.config import ImageConfig
from conrec.filtering.catalogue import FilterCatalogue
from conrec.filtering.serving.lookups import Lookups
from conrec.filtering.serving.pictures import Picture, is_there, read_picture

__all__ = ["ItemCard", "ItemCards"]

WORDS = 12
"""Words of a search for titles that count."""


@dataclass(frozen=True, slots=True)
class ItemCard:
    """An item as it is shown.

    Attributes:
        item_id: its ID.
        title: None where it has none.
        categories: in their order.
        picture: whether `ItemCards.picture` may have one.
    """

    item_id: str
    title: str | None
    categories: tuple[str, ...]
    picture: bool


class ItemCards:
    """Items as people know them, from `FilterCatalogue.details`.

    Args:
        run_folder: the run, whose settings say where relative paths of pictures begin.
        lookups: who searches for titles.
    """

    def __init__(self, run_folder: Path, lookups: Lookups) -> None:
        self._lookups = lookups
        self._folder = _picture_folder(run_folder)

    @staticmethod
    def are_there(catalogue: FilterCatalogue) -> bool:
        """Whether there is an item table."""
        return catalogue.items_file is not None and catalogue.items_file.is_file()

    def of(self, catalogue: FilterCatalogue, item_ids: Sequence[str]) -> list[ItemCard]:
        """Cards of the items that the catalogue knows, in the order given, each once.

        Raises:
            ArtefactError: the item table is damaged.
        """
        details, cards = catalogue.details, []
        distinct = list(dict.fromkeys(item_ids))
        for item_id, row in zip(distinct, catalogue.indices(distinct).tolist(), strict=True):
            if row >= 0:
                title = details.titles[row]
                there = is_there(details.images[row], self._folder)
                cards.append(ItemCard(item_id, None if title == item_id else title, details.categories[row], there))
        return cards

    def titled(self, catalogue: FilterCatalogue, query: str, limit: int) -> list[ItemCard]:
        """Items whose title has all words of ``query``, and the item with just this ID; shortest title first.

        Raises:
            ArtefactError: the item table is damaged.
            LookupTimeoutError: it is too large.
        """
        words = query.split()[:WORDS]
        if not words or catalogue.items_file is None or not catalogue.items_file.is_file():
            return []
        rows = self._lookups.rows(
            catalogue.items_file,
            "SELECT item_id FROM read_parquet($file) WHERE item_id = $query"
            " OR len(list_filter($words, lambda word: NOT contains(lower(coalesce(title, '')), lower(word)))) = 0"
            " ORDER BY item_id <> $query, length(title), title, item_id LIMIT $limit",
            query=query.strip(),
            words=words,
            limit=limit,
        )
        return self.of(catalogue, [row[0] for row in rows])

    def picture(self, catalogue: FilterCatalogue, item_id: str) -> Picture | None:
        """The picture that the item table names for an item, None where it cannot be shown.

        Raises:
            ArtefactError: the item table is damaged.
        """
        row = int(catalogue.indices([item_id])[0])
        return None if row < 0 else read_picture(catalogue.details.images[row], self._folder)


def _picture_folder(run_folder: Path) -> Path | None:
    """Where relative paths of images begin, as the encoder of the run read them."""
    try:
        written = tomllib.loads((run_folder / "config.toml").read_text(encoding="utf-8"))
        return Path(written["encoder"]["image"]["folder"])
    except (OSError, ValueError, KeyError, TypeError):  # nothing of a page is worth a service that does not start
        return ImageConfig().folder
