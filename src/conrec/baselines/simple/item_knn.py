"""Item-kNN to dislikes: items that were disliked by the users who reacted to the same things as this one.

Item-based collaborative filtering (Sarwar, Karypis, Konstan and Riedl, WWW 2001; Deshpande and Karypis, TOIS 2004) with
dislikes as the target. For each sign s, and items i and j apart::

    sim_s(i, j) = Σ_u 1[u gave i the sign s] · y_uj / (n_s(i)^a · n₋(j)^b + shrinkage)

with ``y_uj`` 1 where u disliked j, halved with the time from then to the end of the training period, ``n_s(i)`` the
users who gave item i the sign s, and ``n₋(j) = Σ_u y_uj``. With a = b = 1/2 and neither shrinkage nor halving it is the
cosine of the two columns. Each item keeps its nearest neighbours, and a user's score of j is the sum of ``sim_s(i, j)``
over his history, each event with the weight of its sign, halved with age.

Two rows of the table: ``item-knn-negatives`` reads a history's dislikes alone, ``item-knn-all`` all of it. Departures:

* similarity leads from one sign to another, so it is not symmetric where s is not a dislike;
* a smaller b than 1/2 leaves popular dislikes more of their weight (as in P3alpha and RP3beta);
* dislikes of late count more than old ones: where items come and go, as films in tweets do, this and the next one are
  what the model lives on;
* every history begins with an item to which everybody has reacted: it leads to what is disliked most, and is the item
  bias (``popularity`` is its weight);
* items that nothing leads to are ordered by their number of dislikes, below all others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Float64
from scipy.sparse import csr_array

from conrec.arrays import Array
from conrec.baselines.base import CELLS, CatalogueScorer, Curve
from conrec.baselines.simple.fallback import active_users, by_dislikes, dislikes_of_late
from conrec.baselines.simple.profiles import DISLIKES, interactions, profiles
from conrec.baselines.simple.rows import csr_tensors, in_memory, read_csr, stacked, strongest
from conrec.baselines.simple.saved import read_settings, read_tables, table_of, write_model
from conrec.logs.log import Log
from conrec.recommender import Queries
from conrec.settings.baselines.simple import ItemKnnAllConfig, ItemKnnConfig

if TYPE_CHECKING:
    from conrec.workspace import Workspace

__all__ = ["SPACE", "ItemKnn", "similar_items"]

KINDS: dict[str, type[ItemKnnConfig]] = {"item-knn-negatives": ItemKnnConfig, "item-knn-all": ItemKnnAllConfig}
SPACE: dict[str, tuple[float | int | None, ...]] = {
    "training_half_life_days": (7.0, 20.0, None),
    "popularity": (0.0, 3.0, 10.0),
    "target_power": (0.0, 0.25, 0.5),
    "shrinkage": (0.0, 5.0, 20.0),
}
"""The grid that `conrec baselines search` searches."""


@dataclass(frozen=True, slots=True)
class ItemKnn(CatalogueScorer):
    """A fitted item-kNN.

    Attributes:
        neighbours: [3 items, items], a block of rows for each sign s: row i of it holds ``sim_s(i, ·)``; see
            `conrec.baselines.simple.rows.in_memory`.
        everybody: float64 [items], what the item that everybody has reacted to leads to.
        settings: it was fitted with.
        curve: empty; nothing is trained in steps.
    """

    neighbours: csr_array
    everybody: Array
    settings: ItemKnnConfig
    curve: Curve = field(default_factory=dict)

    @classmethod
    def fit(cls, space: Workspace, name: str) -> ItemKnn:
        """Count who disliked what together in the training period, and keep the nearest neighbours."""
        settings: ItemKnnConfig = getattr(space.config.baselines, name.replace("-", "_"))
        return cls.of(space.training_log, settings)

    @classmethod
    def of(cls, training_log: Log, settings: ItemKnnConfig) -> ItemKnn:
        """Fit on a log of the training period alone."""
        disliked = interactions(training_log, DISLIKES, settings.training_half_life_days)
        reads = settings.weights
        given = interactions(
            training_log, (float(reads[0] != 0), float(reads[1] != 0), float(reads[2] != 0)), apart=True
        )
        neighbours = similar_items(given, disliked, settings)
        dislikes = dislikes_of_late(training_log, settings.training_half_life_days)
        bias = settings.popularity * _similarity(dislikes, active_users(training_log), dislikes, settings)
        return cls(in_memory(neighbours), by_dislikes(dislikes) + bias, settings)

    @property
    def parameters(self) -> int:
        """Similarities that are kept."""
        return int(self.neighbours.nnz)

    def scores(self, log: Log, queries: Queries) -> Float32[Array, "queries items"]:
        """Sum of the similarities that lead from the history to each item."""
        history = profiles(log, queries, self.settings.weights, self.settings.half_life_days, apart=True)
        result: Array = self.everybody + (history @ self.neighbours).toarray()
        return result.astype(np.float32)

    def save(self, folder: Path) -> None:
        """Write ``model.safetensors`` and ``config.json``."""
        write_model(folder, {"everybody": self.everybody, **csr_tensors("neighbours", self.neighbours)}, self.settings)

    @classmethod
    def load(cls, folder: Path, space: Workspace, name: str) -> ItemKnn:
        """Read what `save` wrote; it answers to the byte as the saved one did.

        Raises:
            ArtefactError: a file is missing, damaged, or does not fit the others.
        """
        settings, tables = read_settings(folder, KINDS[name]), read_tables(folder)
        everybody = table_of(tables, "everybody", folder, None)
        neighbours = read_csr(tables, "neighbours", (3 * len(everybody), len(everybody)), folder)
        return cls(in_memory(neighbours), everybody, settings)


def similar_items(source: csr_array, target: csr_array, settings: ItemKnnConfig) -> csr_array:
    """The nearest neighbours of each item.

    Args:
        source: float64 [users, 3 items], 1 where the user gave the item the sign, the signs apart.
        target: float64 [users, items], y of the module's formula.
        settings: powers, shrinkage and how many neighbours.

    Returns:
        float32 [3 items, items], ``sim_s(i, ·)`` of the nearest; ties by the lower item.
    """
    leads, dislikes = (np.asarray(one.sum(axis=0)).reshape(-1) for one in (source, target))
    by_item = csr_array(source.T)
    step = max(1, CELLS // max(1, target.shape[1]))

    def blocks() -> Iterator[csr_array]:
        for begin in range(0, by_item.shape[0], step):
            together = csr_array(by_item[begin : begin + step] @ target)
            leading = begin + np.repeat(np.arange(together.shape[0]), np.diff(together.indptr))
            similarity = _similarity(together.data, leads[leading], dislikes[together.indices], settings)
            similarity[leading % target.shape[1] == together.indices] = 0.0
            found = csr_array((similarity, together.indices, together.indptr), shape=together.shape)
            yield strongest(found, settings.neighbours)

    return stacked(blocks(), target.shape[1])


def _similarity(
    together: Float64[Array, " n"],
    leads: Float64[Array, " n"] | int,
    dislikes: Float64[Array, " n"],
    settings: ItemKnnConfig,
) -> Float64[Array, " n"]:
    """The module's formula; 0 where nothing is shared."""
    norm = leads**settings.source_power * dislikes**settings.target_power + settings.shrinkage
    return np.divide(together, norm, out=np.zeros_like(together), where=together > 0)
