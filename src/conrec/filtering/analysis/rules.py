"""The rules that platforms use, each as a score of (anchor, item) pairs: what stands above a threshold is dropped.

A rule reads what is known strictly before the anchor's time, and no model of users. Each has a floor: the score of a
pair that it knows nothing of, which it never drops.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from conrec.arrays import Array, Ragged
from conrec.baselines.base import CatalogueScorer
from conrec.filtering.analysis.pairs import Pairs, past_items
from conrec.filtering.vectors.table import ItemTable, max_similarity
from conrec.logs.anchors import Anchors
from conrec.logs.log import Log
from conrec.protocol import NEGATIVE, POSITIVE
from conrec.seeds import derive

__all__ = ["COSINE_FLOOR", "BlockGroup", "Counted", "NearDislikes", "Rule", "Shuffled", "uniform"]

COSINE_FLOOR = -1.0
"""No cosine lies below it, so that where nothing is known nothing is dropped."""


@runtime_checkable
class Rule(Protocol):
    """A rule of thumb."""

    @property
    def name(self) -> str:
        """What tables call it."""

    @property
    def says(self) -> str:
        """What it does, a clause."""

    @property
    def floor(self) -> float:
        """Score of what it knows nothing of."""

    def scores(self, log: Log, anchors: Anchors, pairs: Pairs) -> Float32[Array, " pairs"]:
        """Score of each pair, never below the floor.

        Args:
            log: the whole log; nothing at or after an anchor's time is read for it.
            anchors: that the pairs are of.
            pairs: to be scored.
        """


@dataclass(frozen=True, slots=True)
class BlockGroup:
    """Block what has an attribute of which the user disliked enough: a category, a shop, a brand.

    An item with several values is blocked with the first of them that is: its score is the highest of theirs.

    Attributes:
        name, says: see `Rule`.
        groups: values of the attribute of each item, as numbers.
        measure: of a value, in the user's past: ``count``, its dislikes n ("block after n dislikes"); ``share``,
            these as a share of all his dislikes; ``rate``, (n + 1) / (m + 2) with m its likes and dislikes. A value
            without a dislike is at the floor, 0, in all of them.
    """

    name: str
    says: str
    groups: Ragged
    measure: Literal["count", "share", "rate"]
    floor: float = 0.0

    def scores(self, log: Log, anchors: Anchors, pairs: Pairs) -> Float32[Array, " pairs"]:
        """See `Rule`."""
        disliked = past_items(log, anchors, (NEGATIVE,))
        keys, counts = self._count(disliked)
        value = counts.astype(np.float64)
        if self.measure == "share":
            value /= disliked.lengths[keys // self._values]
        elif self.measure == "rate":
            met_keys, met = self._count(past_items(log, anchors, (NEGATIVE, POSITIVE)))
            value = (value + 1) / (met[np.searchsorted(met_keys, keys)] + 2)
        found = np.full(len(pairs), self.floor, dtype=np.float32)
        if len(keys):
            held = self.groups.take(pairs.item)
            owner = np.repeat(np.arange(len(pairs)), held.lengths)
            wanted = pairs.anchor[owner] * self._values + held.values
            at = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
            hit = keys[at] == wanted
            np.maximum.at(found, owner[hit], value[at[hit]].astype(np.float32))
        return found

    @property
    def _values(self) -> int:
        return int(self.groups.values.max(initial=0)) + 1

    def _count(self, past: Ragged) -> tuple[Array, Array]:
        """How often each (anchor, value) was met: keys ``anchor * values + value``, rising, and their counts."""
        anchor = np.repeat(np.arange(len(past)), past.lengths)
        held = self.groups.take(past.values)
        keys, counts = np.unique(np.repeat(anchor, held.lengths) * self._values + held.values, return_counts=True)
        return keys, counts


@dataclass(frozen=True, slots=True)
class NearDislikes:
    """Drop the nearest neighbours of what the user has disliked: the highest cosine to any of it.

    Attributes:
        name, says: see `Rule`.
        table: rows of all items.
    """

    name: str
    says: str
    table: ItemTable
    floor: float = COSINE_FLOOR

    def scores(self, log: Log, anchors: Anchors, pairs: Pairs) -> Float32[Array, " pairs"]:
        """See `Rule`."""
        disliked = past_items(log, anchors, (NEGATIVE,))
        sets = np.full((len(disliked), int(disliked.lengths.max(initial=1))), -1, dtype=np.int32)
        for row, items in enumerate(disliked):
            sets[row, : len(items)] = items
        cosine, _ = max_similarity(self.table, sets, pairs.anchor, pairs.item)
        return np.where(np.isnan(cosine), np.float32(self.floor), cosine)


@dataclass(frozen=True, slots=True)
class Counted:
    """Drop what everybody dislikes: the score of a row of the table that counts, for instance `MostDisliked`.

    Attributes:
        name, says: see `Rule`.
        model: its scores are at least 0, and 0 without a dislike.
    """

    name: str
    says: str
    model: CatalogueScorer
    floor: float = 0.0

    def scores(self, log: Log, anchors: Anchors, pairs: Pairs) -> Float32[Array, " pairs"]:
        """See `Rule`."""
        return self.model.score(log, anchors.queries, pairs.table())[pairs.anchor, pairs.places].astype(np.float32)


@dataclass(frozen=True, slots=True)
class Shuffled:
    """Drop at random: a floor for all others. The same pair gets the same number, whatever stands beside it.

    Attributes:
        name, says: see `Rule`.
        seed: of the run.
    """

    name: str
    says: str
    seed: int
    floor: float = 0.0

    def scores(self, log: Log, anchors: Anchors, pairs: Pairs) -> Float32[Array, " pairs"]:
        """Uniform in (0, 1]; see `Rule`."""
        return uniform(self.seed, "random rule", anchors.anchor_id[pairs.anchor], pairs.item).astype(np.float32)


def uniform(seed: int, purpose: str, anchor_id: Array, item: Array) -> Array:
    """A number in (0, 1] of each (anchor, item), float64, by SplitMix64 (Steele, Lea and Flood, 2014)."""
    with np.errstate(over="ignore"):
        state = np.full(len(item), derive(seed, purpose), dtype=np.uint64)
        for part in (anchor_id, item):
            state = (state ^ part.astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state ^= state >> np.uint64(31)
    return ((state >> np.uint64(40)).astype(np.float64) + 1) / (1 << 24)
