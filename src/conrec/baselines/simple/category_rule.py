"""The category rule, what platforms do today: what a user disliked, he will dislike more of.

Two forms, over the categories c of an item, with ``d(u, c)`` the user's dislikes in category c up to the time of the
query, halved with age, and ``d(u) = Σ_c d(u, c)``:

* ``block``: a category with at least ``blocked_after`` dislikes is blocked; items in a blocked category come before
  all others, and within both by popularity. The score is a whole number that says the item's place and no more: items
  of equal popularity share one, and float32 keeps all of them apart in catalogues of up to four million items;
* ``share``: popularity times the mean over the item's categories of ``(d(u, c) / q(c) + s) / (d(u) + s)``: how much
  more often this user's dislikes fall into the category than everybody's, whose share of it is ``q(c)`` in the training
  period; smoothed by s dislikes of everybody.

Popularity is live (`conrec.baselines.simple.popularity.LivePopularity`, with the number of dislikes in the training
period behind it where nothing is live), or that number alone. Items without a category are never blocked, and take
a share of 1. A rule by shop, the other one that platforms have, is not possible here: neither events nor items name a
shop; where a log has one, it can be given as a category.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Float64
from scipy.sparse import csr_array

from conrec.arrays import Array
from conrec.baselines.base import CatalogueScorer, Curve
from conrec.baselines.simple.fallback import by_dislikes, dislikes_of_late
from conrec.baselines.simple.popularity import LivePopularity
from conrec.baselines.simple.profiles import DISLIKES, profiles
from conrec.baselines.simple.rows import csr_tensors, in_memory, read_csr
from conrec.baselines.simple.saved import read_settings, read_tables, table_of, write_model
from conrec.errors import NotApplicableError
from conrec.logs.log import Log
from conrec.recommender import Queries
from conrec.settings.baselines.simple import CategoryRuleConfig, PopularityConfig

if TYPE_CHECKING:
    from conrec.workspace import Categories, Workspace

__all__ = ["SPACE", "CategoryRule"]

SPACE: dict[str, tuple[str | float | int | None, ...]] = {
    "rule": ("block", "share"),
    "order": ("live", "count"),
    "blocked_after": (2, 5),
    "smoothing": (30.0, 300.0),
}
"""The grid that `conrec baselines search` searches."""


@dataclass(frozen=True, slots=True)
class CategoryRule(CatalogueScorer):
    """The rule with what it counted.

    Attributes:
        categories: [items, categories], 1 where the item is in the category; see
            `conrec.baselines.simple.rows.in_memory`.
        share: float64 [categories], q(c): of everybody's dislikes of the training period, one added to each.
        dislikes: float64 [items], in the training period.
        settings: of the rule.
        live: of the live popularity.
        curve: empty; nothing is trained in steps.
        items: [categories, items], the transpose of ``categories``.
        place: float32 [items], from below among the distinct numbers of dislikes: 0, 1, …
    """

    categories: csr_array
    share: Array
    dislikes: Array
    settings: CategoryRuleConfig
    live: PopularityConfig
    curve: Curve = field(default_factory=dict)
    items: csr_array = field(init=False)
    place: Array = field(init=False)

    def __post_init__(self) -> None:
        """Turn the table over and order the items once, not for every batch of queries."""
        object.__setattr__(self, "items", in_memory(csr_array(self.categories.T)))
        object.__setattr__(self, "place", np.unique(self.dislikes, return_inverse=True)[1].astype(np.float32))

    @classmethod
    def fit(cls, space: Workspace, name: str) -> CategoryRule:
        """Count the dislikes of each category in the training period.

        Raises:
            NotApplicableError: no item has a category.
        """
        baselines = space.config.baselines
        return cls.of(space.training_log, space.categories, baselines.category_rule, baselines.popularity)

    @classmethod
    def of(
        cls, training_log: Log, categories: Categories, settings: CategoryRuleConfig, live: PopularityConfig
    ) -> CategoryRule:
        """Fit on a log of the training period alone.

        Raises:
            NotApplicableError: no item has a category.
        """
        of = categories.of
        if len(of.values) == 0:
            raise NotApplicableError(
                "no item has a category",
                where="items",
                expected="at least some items with categories",
                mend="Name them in the item file (data.item_columns.category), or leave the row out.",
            )
        shape = (training_log.n_items, len(categories.names))
        member = csr_array((np.ones(len(of.values), dtype=np.float32), of.values, of.offsets), shape=shape)
        member.sort_indices()
        dislikes = dislikes_of_late(training_log, None)
        member = in_memory(member)
        there = 1.0 + dislikes @ member
        return cls(member, there / there.sum(), dislikes, settings, live)

    @property
    def parameters(self) -> int:
        """Counts of the training period."""
        return len(self.share) + len(self.dislikes)

    def scores(self, log: Log, queries: Queries) -> Float32[Array, "queries items"]:
        """Items of disliked categories first or weighted up, by popularity."""
        history = profiles(log, queries, DISLIKES, self.settings.half_life_days)
        disliked = csr_array(history @ self.categories)
        if self.settings.rule == "block":
            blocked = in_memory(csr_array(disliked >= self.settings.blocked_after))
            result: Array = self._places(log, queries)
            result[(blocked @ self.items).toarray() > 0] += 2 * len(self.place)
            return result
        return (self._more_than_others(disliked) * self._popular(log, queries)).astype(np.float32)

    def _more_than_others(self, disliked: csr_array) -> Float64[Array, "queries items"]:
        """Mean over each item's categories of the smoothed ratio of shares; 1 without a category."""
        smoothing, all_of = self.settings.smoothing, np.asarray(disliked.sum(axis=1)).reshape(-1, 1)
        ratio = (disliked.toarray() / self.share + smoothing) / (all_of + smoothing)
        n_categories = np.diff(self.categories.indptr)
        mean = np.asarray(self.categories @ ratio.T).T / np.maximum(1, n_categories)
        return np.where(n_categories > 0, mean, 1.0)

    def _places(self, log: Log, queries: Queries) -> Float32[Array, "queries items"]:
        """Place of each item from below by popularity, below 2 items; those that are live are all above the rest."""
        result = np.tile(self.place, (len(queries), 1))
        if self.settings.order == "live":
            for row, live in enumerate(LivePopularity(self.live).scores(log, queries)):
                there = np.flatnonzero(live)
                popular = live[there] + by_dislikes(self.dislikes)[there]
                result[row, there] = len(self.place) + np.unique(popular, return_inverse=True)[1]
        return result

    def _popular(self, log: Log, queries: Queries) -> Float64[Array, "queries items"]:
        """Popularity at the time of each query."""
        if self.settings.order == "count":
            return np.broadcast_to(self.dislikes, (len(queries), len(self.dislikes)))
        return LivePopularity(self.live).scores(log, queries) + by_dislikes(self.dislikes)

    def save(self, folder: Path) -> None:
        """Write ``model.safetensors`` and ``config.json``."""
        tables = {"share": self.share, "dislikes": self.dislikes, **csr_tensors("categories", self.categories)}
        write_model(folder, tables, self.settings)

    @classmethod
    def load(cls, folder: Path, space: Workspace, name: str) -> CategoryRule:
        """Read what `save` wrote; it answers to the byte as the saved one did.

        Raises:
            ArtefactError: a file is missing, damaged, or does not fit the others.
        """
        settings, tables = read_settings(folder, CategoryRuleConfig), read_tables(folder)
        share, dislikes = (table_of(tables, one, folder, None) for one in ("share", "dislikes"))
        categories = read_csr(tables, "categories", (len(dislikes), len(share)), folder)
        return cls(in_memory(categories), share, dislikes, settings, space.config.baselines.popularity)
