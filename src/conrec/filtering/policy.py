"""What is done with a candidate beside the threshold: weights of predictions, a floor, an allow-list, a dry run."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from conrec.arrays import Array
from conrec.errors import ConfigError
from conrec.settings.filtering import FilterConfig

__all__ = ["Policy"]

DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Policy:
    """How the filter uses what was predicted; the defaults are the paper's rule alone.

    Attributes:
        score_weight: how much less a prediction counts whose score is lower: the similarity to it is multiplied by
            ``exp(score_weight * (score - best score))``; 0: all count alike. Scores of language models are
            log-probabilities, so 1 weighs by probability, as a share of the best one's.
        half_life_days: days after which a prediction counts half: similarities are multiplied by
            ``2 ** (-age / half_life_days)``; None: it does not age. A threshold was calibrated on fresh predictions;
            with weights it is 0 at least, and ageing lowers every similarity above 0, so that the filter drops less
            and keeps every bound.
        keep_at_least: of the candidates of one request at least so many are kept, where there are so many; what is
            dropped least surely, by similarity, comes back first.
        allow: item IDs that are never dropped.
        dry_run: say what would be dropped, and keep it.
    """

    score_weight: float = 0.0
    half_life_days: float | None = None
    keep_at_least: int = 0
    allow: frozenset[str] = frozenset()
    dry_run: bool = False

    @classmethod
    def of(cls, config: FilterConfig) -> Policy:
        """The policy of a run's settings."""
        return cls(
            config.score_weight, config.half_life_days, config.keep_at_least, frozenset(config.allow), config.dry_run
        )

    def __post_init__(self) -> None:
        if not 0 <= self.score_weight < np.inf:
            raise ConfigError(f"is {self.score_weight}", where="filter.score_weight", expected="0 or more")
        if self.half_life_days is not None and not 0 < self.half_life_days < np.inf:
            raise ConfigError(f"is {self.half_life_days}", where="filter.half_life_days", expected="more than 0")
        if self.keep_at_least < 0:
            raise ConfigError(f"is {self.keep_at_least}", where="filter.keep_at_least", expected="0 or more")

    def weights(
        self, scores: Float32[Array, "users K"], predicted_at: Int64[Array, " users"], now: float | None = None
    ) -> Float64[Array, "users K"] | None:
        """Weight of each prediction, from 0 to 1; None where all are 1.

        Args:
            scores: best first; -inf in an empty slot.
            predicted_at: unix seconds, when each user's set was predicted.
            now: unix seconds; None: now.
        """
        if self.score_weight == 0 and self.half_life_days is None:
            return None
        weights = np.ones(scores.shape)
        if self.score_weight:
            best = np.where(np.isfinite(scores[:, :1]), scores[:, :1], 0).astype(np.float64)
            weights = np.exp(np.minimum(self.score_weight * (scores.astype(np.float64) - best), 0))
        if self.half_life_days is not None:
            age = np.maximum((time.time() if now is None else now) - predicted_at, 0) / DAY
            weights *= np.exp2(-age / self.half_life_days)[:, None]
        return weights

    def spared(
        self, dropped: Bool[Array, " n"], similarity: Float32[Array, " n"], requests: Int64[Array, " n"] | None = None
    ) -> Bool[Array, " n"]:
        """Which of the dropped candidates come back, so that `keep_at_least` of each request remain.

        The least similar ones come back; of equal ones the first.

        Args:
            dropped: whether each candidate would be dropped.
            similarity: of each candidate.
            requests: which request each candidate belongs to; None: all to one.
        """
        spared = np.zeros(len(dropped), dtype=np.bool_)
        if not self.keep_at_least or not dropped.any():
            return spared
        request = (
            np.zeros(len(dropped), dtype=np.int64) if requests is None else np.unique(requests, return_inverse=True)[1]
        )
        missing = self.keep_at_least - np.bincount(request[~dropped], minlength=int(request.max()) + 1)
        order = np.flatnonzero(dropped)
        order = order[np.lexsort((similarity[order], request[order]))]  # stable: of equal ones the first
        first = np.searchsorted(request[order], request[order])
        place = np.arange(len(order)) - first
        spared[order[place < missing[request[order]]]] = True
        return spared

    def allowed(self, item_ids: Collection[str | None], more: Collection[str] = ()) -> Bool[Array, " n"] | None:
        """Whether each candidate is on the allow-list; None where there is none."""
        if not self.allow and not more:
            return None
        return np.asarray([one in self.allow or one in more for one in item_ids], dtype=np.bool_)
