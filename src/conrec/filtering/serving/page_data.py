"""What the page for people shows, beside what every client may ask: users, histories, candidates, titles, pictures."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from conrec.filtering.filter import NegativeFilter
from conrec.filtering.serving.item_cards import ItemCard, ItemCards
from conrec.filtering.serving.lookups import Lookups
from conrec.filtering.serving.pictures import Picture
from conrec.filtering.serving.run_log import CandidateList, History, LoggedUser, Rated, RunLog

__all__ = ["PageData"]

SCANNED = 200_000
"""Users of a store that are looked at for a part of an ID where there is no log to search."""


class PageData:
    """The run's data, or as much of it as is there: a service may have the filter alone.

    Args:
        run_folder: the run.
    """

    def __init__(self, run_folder: Path) -> None:
        self._lookups = Lookups()
        self.log = RunLog(run_folder / "data", self._lookups)
        self.cards = ItemCards(run_folder, self._lookups)

    def close(self) -> None:
        """Let go of the files."""
        self._lookups.close()

    def users(self, negative_filter: NegativeFilter, query: str, limit: int) -> list[LoggedUser]:
        """Users with ``query`` in their ID: of the log, or of the store where there is no log.

        Raises:
            ArtefactError: the log is damaged.
            LookupTimeoutError: it is too large.
            StoreUnavailableError: there is no log, and the store cannot be asked.
        """
        if self.log.has_events:
            return self.log.users(query, limit)
        wanted = query.lower()
        found = [query] if query and negative_filter.store.get(query) is not None else []
        others = (one for one in islice(negative_filter.store.user_ids(), SCANNED) if wanted in one.lower())
        found += islice((one for one in others if one != query), limit - len(found))
        return [LoggedUser(one, None, None) for one in found]

    def random_user(self, negative_filter: NegativeFilter) -> LoggedUser | None:
        """A user drawn by his events, or from the store where there is no log; errors as for `users`."""
        if self.log.has_events:
            return self.log.random_user(random.random())
        some = list(islice(negative_filter.store.user_ids(), 10_000))
        return LoggedUser(random.choice(some), None, None) if some else None

    def history(self, user_id: str, limit: int) -> History:
        """Likes and dislikes of a user, newest first; nothing where there is no log."""
        return self.log.history(user_id, limit) if self.log.has_events else History(False, (), (), 0, 0)

    def candidates(self, negative_filter: NegativeFilter, user_id: str, source: str, limit: int) -> CandidateList:
        """Items to judge for a user.

        Args:
            negative_filter: for its catalogue, where there is no log.
            user_id: the user.
            source: "anchor", "popular" or "any"; an anchor is only taken where the user has one.
            limit: so many popular ones.
        """
        if source != "popular" and self.log.has_anchors:
            stored = self.log.anchor_candidates(user_id)
            if stored is not None:
                return stored
        if self.log.has_events:
            return self.log.popular_candidates(user_id, limit)
        items = negative_filter.catalogue.item_ids
        some = np.unique(np.linspace(0, len(items) - 1, min(limit, len(items))).astype(np.int64)).tolist()
        return CandidateList("catalogue", tuple(items[one] for one in some))

    def items(self, negative_filter: NegativeFilter, item_ids: Sequence[str]) -> list[ItemCard]:
        """What is known of some items; those that the catalogue does not know are left out."""
        return self.cards.of(negative_filter.catalogue, item_ids)

    def rated(self, user_id: str, item_ids: Sequence[str]) -> dict[str, Rated]:
        """What a user said of some items, at last."""
        return self.log.rated(user_id, list(item_ids)) if self.log.has_events and item_ids else {}

    def titled(self, negative_filter: NegativeFilter, query: str, limit: int) -> list[ItemCard]:
        """Items with all words of ``query`` in their title."""
        return self.cards.titled(negative_filter.catalogue, query, limit)

    def picture(self, negative_filter: NegativeFilter, item_id: str) -> Picture | None:
        """An item's picture, None where there is none to show."""
        return self.cards.picture(negative_filter.catalogue, item_id)
