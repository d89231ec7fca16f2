"""A threshold for each item category, each with the guarantee.

The rate of a category is over users who liked something of it, and over their liked candidates of it alone. An item
of several categories takes the highest of their thresholds: then each category loses no more than its own threshold
would drop, and its guarantee stays. What cannot be shown to stay within the bound is not dropped: falling back to a
threshold for all categories would promise nothing of this one. But most catalogues have many small categories, and
an item of one of them would never be dropped; so the small ones share a threshold, with the guarantee for all of
them together. Which are small is read off the training period, so that the choice does not depend on the users that
are calibrated on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import inf

import numpy as np
from jaxtyping import Float32, Int, Int64

from conrec.arrays import Array, Ragged
from conrec.filtering.calibrating.control import Liked, Rule, smallest_threshold
from conrec.logs.log import Log
from conrec.protocol import POSITIVE

__all__ = ["WITHOUT", "Segments", "item_thresholds", "segments_of"]

WITHOUT = ""
"""Stands for the items without any category, as if it were one."""


def item_thresholds(
    by_category: Mapping[str, float | None], categories: Sequence[Sequence[str]]
) -> Float32[Array, " items"]:
    """The threshold of each item: the highest of its categories; +inf where one of them has none, or is unknown.

    Args:
        by_category: threshold of each category, None for those that lose nothing.
        categories: of each item; an item without any belongs to `WITHOUT`.
    """
    known = {name: inf if value is None else value for name, value in by_category.items()}
    rows = [row or (WITHOUT,) for row in categories]
    if not rows:
        return np.empty(0, dtype=np.float32)
    values = np.asarray([known.get(name, inf) for name in chain.from_iterable(rows)], dtype=np.float32)
    begins = np.cumsum([0, *(len(row) for row in rows[:-1])])
    highest: Array = np.maximum.reduceat(values, begins)
    return highest


@dataclass(frozen=True, slots=True)
class Segments:
    """The segments of a catalogue.

    Attributes:
        names: the categories, sorted; `WITHOUT` among them where an item has none.
        groups: categories of each item, as indices into ``names``.
        pooled: bool [categories], which share one threshold.
    """

    names: tuple[str, ...]
    groups: Ragged
    pooled: Array

    def of_items(self, by_category: Mapping[str, float | None]) -> Float32[Array, " items"]:
        """`item_thresholds` of the catalogue's own items.

        Args:
            by_category: threshold of each of ``names``.
        """
        if not len(self.groups):
            return np.empty(0, dtype=np.float32)
        found = [by_category[name] for name in self.names]
        values = np.asarray([inf if value is None else value for value in found], dtype=np.float32)
        highest: Array = np.maximum.reduceat(values[self.groups.values], self.groups.offsets[:-1])
        return highest

    def thresholds(
        self,
        similarity: Float32[Array, " pairs"],
        users: Int[Array, " pairs"],
        items: Int[Array, " pairs"],
        rule: Rule,
    ) -> dict[str, float | None]:
        """The smallest threshold of each category that meets the rule, None where there is none.

        Args:
            similarity: of liked candidates.
            users: whose they are.
            items: which they are.
            rule: what is to hold in each segment.
        """
        found: dict[str, float | None] = dict.fromkeys(self.names)
        for segment, pairs in self.parted(items):
            value = smallest_threshold(Liked.of(similarity[pairs], users[pairs]), rule)
            found.update((self.names[place], value) for place in segment)
        return found

    def parted(self, items: Int[Array, " pairs"]) -> Iterator[tuple[Int64[Array, " names"], Int64[Array, " rows"]]]:
        """The categories of each segment, and which of some pairs belong to it; segments without any are left out.

        Args:
            items: item of each pair.
        """
        segment = np.where(self.pooled, len(self.names), np.arange(len(self.names)))
        of_pair = self.groups.take(items)
        pair = np.repeat(np.arange(len(items)), of_pair.lengths)
        # A pair of several pooled categories belongs to their segment once.
        key = np.unique(segment[of_pair.values] * max(1, len(items)) + pair)
        kind, row = np.divmod(key, max(1, len(items)))
        kinds, begins = np.unique(kind, return_index=True)
        for one, rows in zip(kinds, np.split(row, begins[1:]), strict=False):
            yield np.flatnonzero(segment == one), rows


def segments_of(categories: Sequence[Sequence[str]], training: Log, minimum: int) -> Segments:
    """Which categories stand for themselves, and which are pooled.

    Args:
        categories: of each item.
        training: events of the training period.
        minimum: users who liked something of a category in training, for it to stand for itself.
    """
    rows = [row or (WITHOUT,) for row in categories]
    names = sorted(set(chain.from_iterable(rows)))
    number = {name: place for place, name in enumerate(names)}
    groups = Ragged.from_rows([sorted({number[name] for name in row}) for row in rows])
    likes = training.feedback == POSITIVE
    of_event = groups.take(training.item[likes])
    users = np.repeat(training.user[likes].astype(np.int64), of_event.lengths)
    distinct = np.unique(of_event.values.astype(np.int64) * training.n_users + users)
    count = np.bincount(distinct // max(1, training.n_users), minlength=len(names))
    return Segments(tuple(names), groups, count < minimum)
