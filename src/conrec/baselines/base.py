"""A model that scores the whole catalogue, and what follows from that alone: the top K and candidate scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32, Int32

from conrec.arrays import Array
from conrec.errors import ArtefactError
from conrec.logs.log import Log
from conrec.recommender import Queries, Ranking

__all__ = ["CatalogueScorer", "Curve", "without_history"]

Curve = dict[str, list[list[int | float]]]
"""Series of a training by name, each of [step, value] pairs."""
CELLS = 2_000_000
"""Scores (queries times items) held at once; a batch is at least one query."""


class CatalogueScorer(ABC):
    """A `conrec.recommender.Recommender` made of one method, `scores`.

    A query's answer depends on that query and on events strictly before it, on nothing else: neither on the
    queries beside it nor on their order (``tests/conformance.py`` holds every model to this).
    """

    @abstractmethod
    def scores(self, log: Log, queries: Queries) -> Float32[Array, "queries items"]:
        """Score of every catalogue item, finite, higher for a more likely dislike.

        Args:
            log: the whole log; only events strictly before a query's time may be read.
            queries: Q questions.
        """

    def predict(self, log: Log, queries: Queries, k: int, *, history_eligible: bool = False) -> Ranking:
        """The K best catalogue items of each query; ties by the lower item index.

        Args:
            log: the whole log, for histories.
            queries: Q questions.
            k: how many items; where fewer are eligible the rest of the row is -1.
            history_eligible: whether items of the user's history may be returned.

        Raises:
            ArtefactError: the model was fitted on another catalogue.
        """
        parts = []
        for batch, scores in self._batches(log, queries):
            eligible = scores if history_eligible else without_history(scores, log, batch)
            parts.append(Ranking.from_scores(eligible, k))
        if not parts:
            return Ranking(np.empty((0, k), dtype=np.int32), np.empty((0, k), dtype=np.float32))
        return Ranking(np.concatenate([one.item for one in parts]), np.concatenate([one.score for one in parts]))

    def score(
        self, log: Log, queries: Queries, candidates: Int32[Array, "queries candidates"]
    ) -> Float32[Array, "queries candidates"]:
        """Score of each candidate; -inf where the candidate is -1 (none).

        Raises:
            ArtefactError: the model was fitted on another catalogue.
        """
        result = np.empty(candidates.shape, dtype=np.float32)
        begin = 0
        for batch, scores in self._batches(log, queries):
            rows = slice(begin, begin + len(batch))
            asked = candidates[rows]
            result[rows] = np.where(asked >= 0, np.take_along_axis(scores, np.maximum(asked, 0), axis=1), -np.inf)
            begin += len(batch)
        return result

    def _batches(self, log: Log, queries: Queries) -> Iterator[tuple[Queries, Array]]:
        """Queries in batches of bounded memory, each with its scores."""
        size = max(1, CELLS // max(1, log.n_items))
        for begin in range(0, len(queries), size):
            batch = queries.select(slice(begin, begin + size))
            scores = self.scores(log, batch)
            if scores.shape != (len(batch), log.n_items):
                raise ArtefactError(
                    f"{type(self).__name__} scores {scores.shape[1]} items",
                    expected=f"the {log.n_items} items of the log's catalogue",
                    mend="The model belongs to another catalogue: fit it again on this log.",
                )
            yield batch, scores


def without_history(scores: Array, log: Log, queries: Queries) -> Array:
    """A copy of ``scores`` with -inf at the items of each user's history."""
    scores = scores.copy()
    for row, (user, timestamp) in enumerate(zip(queries.user, queries.timestamp, strict=True)):
        scores[row, log.item[log.history(int(user), int(timestamp))]] = -np.inf
    return scores
