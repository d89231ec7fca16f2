"""The nearest items by embedding: what looks and reads like the things that the user disliked.

No feedback of others leads from item to item, only what the encoders made of titles, texts and images::

    score(u, j) = (1 + n₋(j))^p · Σ_i 0.5^(age / half life) · max(0, cos(e_i, e_j))

summed over what u disliked and has j among its nearest neighbours. The embeddings e are taken less the mean of the
training items: encoders put all texts into one narrow cone, and without this everything is near everything. ``n₋(j)``
counts the dislikes of the training period, halved with age; with p = 0 it is the bare neighbourhood, whose top 20 is
mostly what nobody ever sees.

Items that are near nothing that the user disliked are ordered by their number of dislikes, below all others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float32
from scipy.sparse import csr_array

from conrec.arrays import Array
from conrec.baselines.base import CELLS, CatalogueScorer, Curve
from conrec.baselines.simple.fallback import by_dislikes, dislikes_of_late
from conrec.baselines.simple.profiles import DISLIKES, profiles
from conrec.baselines.simple.rows import csr_tensors, in_memory, read_csr, stacked
from conrec.baselines.simple.saved import read_settings, read_tables, table_of, write_model
from conrec.errors import NotApplicableError
from conrec.logs.log import Log
from conrec.recommender import Queries, Ranking
from conrec.settings.baselines.simple import NearestItemConfig

if TYPE_CHECKING:
    from conrec.workspace import Workspace

__all__ = ["SPACE", "NearestItem", "nearest_items"]

SPACE: dict[str, tuple[float | int | None, ...]] = {
    "training_half_life_days": (7.0, 20.0, None),
    "popularity_power": (0.0, 0.5, 1.0),
    "neighbours": (100, 500),
    "half_life_days": (7.0, 30.0, None),
}
"""The grid that `conrec baselines search` searches."""
LEAST_ROWS = 64
"""Items whose similarities to all others are computed at once, at least."""


@dataclass(frozen=True, slots=True)
class NearestItem(CatalogueScorer):
    """The neighbours of every item.

    Attributes:
        neighbours: [items, items], row i: cosines of its nearest; see `conrec.baselines.simple.rows.in_memory`.
        dislikes: float64 [items], of the training period, halved with age.
        settings: it was fitted with.
        curve: empty; nothing is trained in steps.
    """

    neighbours: csr_array
    dislikes: Array
    settings: NearestItemConfig
    curve: Curve = field(default_factory=dict)

    @classmethod
    def fit(cls, space: Workspace, name: str) -> NearestItem:
        """Find the neighbours of every item.

        Raises:
            NotApplicableError: all items have the same embedding.
        """
        settings = space.config.baselines.nearest_item
        return cls.of(space.training_log, space.embeddings, space.trained_items, settings)

    @classmethod
    def of(
        cls,
        training_log: Log,
        embeddings: Float32[Array, "items d"],
        trained: Bool[Array, " items"],
        settings: NearestItemConfig,
    ) -> NearestItem:
        """Fit on embeddings and a log of the training period alone.

        Raises:
            NotApplicableError: all items have the same embedding.
        """
        neighbours = nearest_items(embeddings, trained, settings.neighbours)
        if neighbours.nnz == 0:
            raise NotApplicableError(
                "no item is near another",
                where="items",
                expected="embeddings that tell items apart",
                mend="Give the items titles, texts, images or co-feedback to embed (encoder), or leave the row out.",
            )
        dislikes = dislikes_of_late(training_log, settings.training_half_life_days)
        return cls(in_memory(neighbours), dislikes, settings)

    @property
    def parameters(self) -> int:
        """Counts of the training period; the neighbours are the encoder's, not learned from the log."""
        return len(self.dislikes)

    def scores(self, log: Log, queries: Queries) -> Float32[Array, "queries items"]:
        """Sum of the cosines to what the user disliked, times popularity."""
        history = profiles(log, queries, DISLIKES, self.settings.half_life_days)
        near: Array = (history @ self.neighbours).toarray() * (1.0 + self.dislikes) ** self.settings.popularity_power
        return (near + by_dislikes(self.dislikes)).astype(np.float32)

    def save(self, folder: Path) -> None:
        """Write ``model.safetensors`` and ``config.json``."""
        write_model(folder, {"dislikes": self.dislikes, **csr_tensors("neighbours", self.neighbours)}, self.settings)

    @classmethod
    def load(cls, folder: Path, space: Workspace, name: str) -> NearestItem:
        """Read what `save` wrote; it answers to the byte as the saved one did.

        Raises:
            ArtefactError: a file is missing, damaged, or does not fit the others.
        """
        settings, tables = read_settings(folder, NearestItemConfig), read_tables(folder)
        dislikes = table_of(tables, "dislikes", folder, None)
        neighbours = read_csr(tables, "neighbours", (len(dislikes), len(dislikes)), folder)
        return cls(in_memory(neighbours), dislikes, settings)


def nearest_items(embeddings: Float32[Array, "items d"], trained: Bool[Array, " items"], n: int) -> csr_array:
    """The nearest neighbours of each item.

    Args:
        embeddings: of the items.
        trained: items whose mean is the centre.
        n: how many each keeps, of those with a cosine above 0.

    Returns:
        float32 [items, items], row i: cosines of its nearest; ties by the lower item.
    """
    centred = embeddings - embeddings[trained].mean(axis=0, dtype=np.float64).astype(np.float32)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = np.divide(centred, length, out=np.zeros_like(centred), where=length > np.finfo(np.float32).eps)
    step = max(LEAST_ROWS, CELLS // max(1, len(unit)))

    def blocks() -> Iterator[csr_array]:
        for begin in range(0, len(unit), step):
            cosine = unit[begin : begin + step] @ unit.T
            own = np.arange(len(cosine))
            cosine[own, begin + own] = -np.inf
            nearest = Ranking.from_scores(cosine, n)
            row, place = np.nonzero(nearest.score > 0)
            yield csr_array((nearest.score[row, place], (row, nearest.item[row, place])), shape=cosine.shape)

    return stacked(blocks(), len(unit))
