"""User-kNN on signed feedback: the dislikes of the users whose likes and dislikes are most like this one's.

User-based collaborative filtering (Herlocker, Konstan, Borchers and Riedl, SIGIR 1999) with dislikes as the target. A
user is the vector of his feedback, with an entry for each item and sign, so that two users are alike where they gave
the same items the same signs; against the training users v::

    sim(u, v) = <x_u, x_v> / (|x_u| |x_v| + shrinkage)
    score(u, j) = popularity · mean_v y_vj + Σ_v in the nearest of u  sim(u, v) · y_vj

with ``y_vj`` 1 where v disliked j, halved with the time from then to the end of the training period. Departures:

* feedback is three signs, not ratings less their mean, and the sum is not divided by the similarities: how many of the
  neighbours disliked an item counts, not how much they disliked it on average;
* the vector of the asking user is read up to the time of the query, those of the others are of the training period;
* nobody is his own neighbour, and only users of a positive similarity are neighbours;
* dislikes of late count more, and the mean of all users is the item bias;
* items that nobody of these disliked are ordered by their number of dislikes, below all others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32
from scipy.sparse import csr_array

from conrec.arrays import Array
from conrec.baselines.base import CELLS, CatalogueScorer, Curve
from conrec.baselines.simple.fallback import active_users, by_dislikes, dislikes_of_late
from conrec.baselines.simple.profiles import DISLIKES, interactions, profiles
from conrec.baselines.simple.rows import csr_tensors, in_memory, read_csr, stacked, strongest
from conrec.baselines.simple.saved import read_settings, read_tables, table_of, write_model
from conrec.logs.log import Log
from conrec.recommender import Queries
from conrec.settings.baselines.simple import UserKnnConfig

if TYPE_CHECKING:
    from conrec.workspace import Workspace

__all__ = ["SPACE", "UserKnn"]

SPACE: dict[str, tuple[float | int | None, ...]] = {
    "training_half_life_days": (7.0, 20.0, None),
    "popularity": (0.0, 100.0, 1000.0),
    "neighbours": (200, 1000),
    "positive": (0.0, 0.5, 1.0),
}
"""The grid that `conrec baselines search` searches."""


@dataclass(frozen=True, slots=True)
class UserKnn(CatalogueScorer):
    """A fitted user-kNN: it remembers the training period.

    Attributes:
        givers: [3 items, users], feedback of the training period with the weights of its signs: a column for each
            user's vector. This and the next one as `conrec.baselines.simple.rows.in_memory` says.
        dislikes: [users, items], y of the module's formula.
        everybody: float64 [items], what of an item's score is the same for all users.
        users: row of each user by his ID; a later log may number them in another way.
        settings: it was fitted with.
        curve: empty; nothing is trained in steps.
        lengths: float64 [users], of the vectors.
    """

    givers: csr_array
    dislikes: csr_array
    everybody: Array
    users: dict[str, int]
    settings: UserKnnConfig
    curve: Curve = field(default_factory=dict)
    lengths: Array = field(init=False)

    def __post_init__(self) -> None:
        """Measure the vectors once."""
        object.__setattr__(self, "lengths", _lengths(csr_array(self.givers.T)))

    @classmethod
    def fit(cls, space: Workspace, name: str) -> UserKnn:
        """Remember the feedback of the training period."""
        return cls.of(space.training_log, space.config.baselines.user_knn)

    @classmethod
    def of(cls, training_log: Log, settings: UserKnnConfig) -> UserKnn:
        """Fit on a log of the training period alone."""
        givers = csr_array(interactions(training_log, settings.weights, apart=True).T)
        disliked = interactions(training_log, DISLIKES, settings.training_half_life_days)
        dislikes = dislikes_of_late(training_log, settings.training_half_life_days)
        everybody = by_dislikes(dislikes) + settings.popularity * dislikes / max(1, active_users(training_log))
        users = _rows(training_log.user_ids)
        return cls(in_memory(givers), in_memory(disliked), everybody, users, settings)

    @property
    def parameters(self) -> int:
        """Entries of feedback that are remembered."""
        return int(self.givers.nnz + self.dislikes.nnz)

    def scores(self, log: Log, queries: Queries) -> Float32[Array, "queries items"]:
        """Sum of the similarities of the neighbours who disliked each item."""
        near = in_memory(self.neighbours(log, queries))
        result: Array = self.everybody + (near @ self.dislikes).toarray()
        return result.astype(np.float32)

    def neighbours(self, log: Log, queries: Queries) -> csr_array:
        """``sim(u, v)`` of each query's nearest users, float32 [Q, users]; ties by the lower user."""
        asking = profiles(log, queries, self.settings.weights, self.settings.half_life_days, apart=True)
        asked, known = _lengths(asking), self.lengths
        own = np.array([self.users.get(log.user_ids[user], -1) for user in queries.user], dtype=np.int64)
        step = max(1, CELLS // max(1, len(self.users)))

        def blocks() -> Iterator[csr_array]:
            for begin in range(0, len(queries), step):
                shared = csr_array(asking[begin : begin + step] @ self.givers)
                query = begin + np.repeat(np.arange(shared.shape[0]), np.diff(shared.indptr))
                similarity = shared.data / (asked[query] * known[shared.indices] + self.settings.shrinkage)
                similarity[own[query] == shared.indices] = 0.0
                found = csr_array((similarity, shared.indices, shared.indptr), shape=shared.shape)
                yield strongest(found, self.settings.neighbours)

        return stacked(blocks(), len(self.users))

    def save(self, folder: Path) -> None:
        """Write ``model.safetensors`` and ``config.json``."""
        tables = {"everybody": self.everybody}
        tables |= csr_tensors("vectors", csr_array(self.givers.T)) | csr_tensors("dislikes", self.dislikes)
        write_model(folder, tables, self.settings)

    @classmethod
    def load(cls, folder: Path, space: Workspace, name: str) -> UserKnn:
        """Read what `save` wrote; it answers to the byte as the saved one did.

        Raises:
            ArtefactError: a file is missing, damaged, or does not fit the others.
        """
        settings, tables = read_settings(folder, UserKnnConfig), read_tables(folder)
        everybody = table_of(tables, "everybody", folder, None)
        users, items = _rows(space.prepared.log.user_ids), len(everybody)
        vectors = read_csr(tables, "vectors", (len(users), 3 * items), folder)
        dislikes = read_csr(tables, "dislikes", (len(users), items), folder)
        return cls(in_memory(csr_array(vectors.T)), in_memory(dislikes), everybody, users, settings)


def _rows(user_ids: tuple[str, ...]) -> dict[str, int]:
    """Row of each user."""
    return {name: row for row, name in enumerate(user_ids)}


def _lengths(matrix: csr_array) -> Array:
    """Euclidean length of each row, float64 [rows]; 1 for rows of zeros, which are similar to nobody."""
    squares = np.add.reduceat(np.r_[matrix.data.astype(np.float64) ** 2, 0.0], matrix.indptr[:-1])
    squares[np.diff(matrix.indptr) == 0] = 1.0
    return np.sqrt(squares)
