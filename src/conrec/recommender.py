"""What every row of the table can do: rank the catalogue for a (user, time), and score given candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from conrec.arrays import Array

if TYPE_CHECKING:
    from conrec.logs.log import Log

__all__ = ["Queries", "Ranking", "Recommender"]


@dataclass(frozen=True, slots=True)
class Queries:
    """Questions "what will this user dislike next, asked at this time?".

    Attributes:
        user: int32 [Q], index into the log's users.
        timestamp: int64 [Q]; only events strictly before it may be read.
    """

    user: Array
    timestamp: Array

    def __len__(self) -> int:
        return len(self.user)

    def select(self, rows: Array | slice) -> Queries:
        """The queries at the given rows."""
        return Queries(self.user[rows], self.timestamp[rows])


@dataclass(frozen=True, slots=True)
class Ranking:
    """Top K of each query, best first.

    Attributes:
        item: int32 [Q, K], distinct in each row; -1 behind the last where fewer than K items are eligible.
        score: float32 [Q, K], not increasing in a row; -inf where item is -1.
    """

    item: Array
    score: Array

    @classmethod
    def from_scores(cls, scores: Array, k: int) -> Ranking:
        """The K best of full-catalogue scores (float [Q, items], -inf: not eligible); ties by lower item index."""
        k_found = min(k, scores.shape[1])
        order = np.empty((len(scores), k_found), dtype=np.int32)
        if k_found:
            # Only what is no worse than the k-th best is sorted; for large catalogues ten times as fast as sorting all.
            falling = -scores
            bound = np.partition(falling, k_found - 1, axis=1)[:, k_found - 1]
            for row, (values, last) in enumerate(zip(falling, bound, strict=True)):
                near = np.flatnonzero(values <= last)
                order[row] = near[np.argsort(values[near], kind="stable")[:k_found]]
        best = np.take_along_axis(scores, order, axis=1).astype(np.float32)
        order[np.isneginf(best)] = -1
        pad = ((0, 0), (0, k - k_found))
        return cls(
            np.pad(order, pad, constant_values=-1),
            np.pad(best, pad, constant_values=-np.inf),
        )


@runtime_checkable
class Recommender(Protocol):
    """A fitted model.

    ``log`` may hold events at or after a query's time; a model reads none of them.
    """

    def predict(self, log: Log, queries: Queries, k: int, *, history_eligible: bool = False) -> Ranking:
        """The K catalogue items that each user will most likely dislike next.

        Args:
            log: the whole log, for histories.
            queries: Q questions.
            k: how many items.
            history_eligible: whether items of the user's history may be returned.
        """
        ...

    def score(self, log: Log, queries: Queries, candidates: Array) -> Array:
        """Score of each candidate, float32 [Q, C], higher for a more likely dislike.

        Args:
            log: the whole log, for histories.
            queries: Q questions.
            candidates: int32 [Q, C], -1 for none; their scores are -inf.
        """
        ...
