"""What is judged: an anchor's candidates, and what its user went on to like and to dislike; and what he did before."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32

from conrec.arrays import Array, Ragged
from conrec.logs.anchors import Anchors
from conrec.logs.log import Log

__all__ = ["CANDIDATES", "KINDS", "NEGATIVES", "POSITIVES", "Pairs", "past_items"]

CANDIDATES, POSITIVES, NEGATIVES = range(3)
KINDS = ("candidates", "positives", "negatives")
"""The anchor's candidates, its future positives and its future negatives."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Every (anchor, item) that a filter has to judge, candidates first, then positives, then negatives.

    An item that is both a candidate and a future negative (the next item is) makes two pairs.

    Attributes:
        anchor: int64 [pairs], row of the anchor.
        item: int32 [pairs].
        kind: int8 [pairs], index into `KINDS`.
        anchors: number of anchors.
    """

    anchor: Array
    item: Array
    kind: Array
    anchors: int

    @classmethod
    def of(cls, anchors: Anchors) -> Pairs:
        """The pairs of some anchors."""
        row, place = np.nonzero(anchors.candidates >= 0)
        parts = [(row, anchors.candidates[row, place])]
        for rows in (anchors.future_positives, anchors.future_negatives):
            parts.append((np.repeat(np.arange(len(rows)), rows.lengths), rows.values))
        kind = np.repeat(np.arange(len(parts)), [len(items) for _, items in parts])
        return cls(
            np.concatenate([rows for rows, _ in parts]).astype(np.int64),
            np.concatenate([items for _, items in parts]).astype(np.int32),
            kind.astype(np.int8),
            len(anchors),
        )

    def __len__(self) -> int:
        return len(self.item)

    def of_kind(self, kind: int) -> Bool[Array, " pairs"]:
        """Which pairs are of a kind."""
        return np.asarray(self.kind == kind)

    def table(self) -> Int32[Array, "anchors most"]:
        """The items of each anchor as one row of a table, -1 behind the last; see `places`."""
        found = np.full((self.anchors, self._most), -1, dtype=np.int32)
        found[self.anchor, self.places] = self.item
        return found

    @property
    def places(self) -> Array:
        """Column of each pair in `table`, int64 [pairs]."""
        order = np.argsort(self.anchor, kind="stable")
        lengths = np.bincount(self.anchor, minlength=self.anchors)
        begins = np.cumsum(lengths) - lengths
        places = np.empty(len(order), dtype=np.int64)
        places[order] = np.arange(len(order)) - np.repeat(begins, lengths)
        return places

    @property
    def _most(self) -> int:
        return int(np.bincount(self.anchor, minlength=self.anchors).max(initial=0))


def past_items(log: Log, anchors: Anchors, feedback: Collection[int]) -> Ragged:
    """Items of each anchor's user that got such feedback strictly before the anchor's time, in time order.

    An item that got it several times is there as often.
    """
    wanted = np.isin(log.feedback, list(feedback))
    rows = []
    for user, time in zip(anchors.user.tolist(), anchors.timestamp.tolist(), strict=True):
        events = log.history(user, time)
        rows.append(log.item[events[wanted[events]]])
    return Ragged.from_rows(rows)
