"""Whom and what a filter is looked at by: kinds of users, and the largest categories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from conrec.arrays import Array, Ragged
from conrec.filtering.analysis.pairs import KINDS, Pairs
from conrec.logs.anchors import Anchors

__all__ = ["ALL", "LARGEST", "NO_CATEGORY", "OTHERS", "Categories", "user_segments"]

ALL = "all"
LARGEST = 12
"""Categories that have a row of their own; the others are pooled."""
OTHERS, NO_CATEGORY = "all other categories", "no category"


def user_segments(anchors: Anchors) -> dict[str, Array]:
    """bool [anchors] by segment: everybody, long-tail users (fewer than 3 negatives in training), the others, and
    anchors whose history has no negative."""
    return {
        ALL: np.ones(len(anchors), dtype=np.bool_),
        "long_tail_users": anchors.long_tail_user,
        "other_users": ~anchors.long_tail_user,
        "no_negative_history": anchors.negative_history == 0,
    }


@dataclass(frozen=True, slots=True)
class Categories:
    """The largest categories among the judged items, and the rest.

    A pair of an item with several categories counts in each of them (once in "all other categories").

    Attributes:
        names: of the rows.
        pair: int64 [entries], pair of each (pair, row).
        row: int64 [entries].
        items: int64 [rows], catalogue items of each row.
        counts: int64 [rows, kinds], pairs of each.
    """

    names: tuple[str, ...]
    pair: Array
    row: Array
    items: Array
    counts: Array

    @classmethod
    def of(cls, categories: Sequence[Sequence[str]], pairs: Pairs, largest: int = LARGEST) -> Categories | None:
        """Rows by number of judged pairs, the largest first; None where no item has a category.

        Args:
            categories: of each item of the catalogue.
            pairs: that are judged.
            largest: rows of one category each.
        """
        listed = [sorted(set(one)) for one in categories]
        names = sorted({name for row in listed for name in row})
        if not names:
            return None
        number = {name: place for place, name in enumerate(names)}
        groups = Ragged.from_rows([[number[name] for name in row] for row in listed])
        seen = np.bincount(groups.take(pairs.item).values, minlength=len(names))
        order = np.argsort(-seen, kind="stable")[:largest]
        shown = [int(one) for one in order if seen[one] > 0]
        others = len(shown)
        to_row = np.full(len(names), others, dtype=np.int64)
        to_row[shown] = np.arange(others)
        # Each item's rows, once each: several of its categories may be among the others.
        rows = Ragged.from_rows([np.unique(to_row[one]) if len(one) else np.asarray([others + 1]) for one in groups])
        held = rows.take(pairs.item)
        pair = np.repeat(np.arange(len(pairs)), held.lengths)
        titles = [*(names[one] for one in shown), OTHERS, NO_CATEGORY]
        counts = np.zeros((len(titles), len(KINDS)), dtype=np.int64)
        np.add.at(counts, (held.values, pairs.kind[pair]), 1)
        whole = np.bincount(rows.values, minlength=len(titles))
        keep = [one for one in range(len(titles)) if one < others or counts[one].any()]
        place = np.full(len(titles), -1, dtype=np.int64)
        place[keep] = np.arange(len(keep))
        row = place[held.values]
        return cls(tuple(titles[one] for one in keep), pair, row, whole[keep], counts[keep])

    def shares(self, dropped: Array, pairs: Pairs) -> list[list[float | None]]:
        """Share dropped of each kind of pair in each row, None where there are none."""
        cells = self.row * len(KINDS) + pairs.kind[self.pair]
        found = np.bincount(cells, weights=dropped[self.pair], minlength=self.counts.size)
        shares = [part / whole if whole else None for part, whole in zip(found, self.counts.ravel(), strict=True)]
        return [shares[begin : begin + len(KINDS)] for begin in range(0, len(shares), len(KINDS))]
