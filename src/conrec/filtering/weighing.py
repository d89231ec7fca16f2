"""What each prediction of a predict set counts: by its rank, its score and its age."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64

from conrec.arrays import Array
from conrec.errors import ConfigError

__all__ = ["DAY", "Weighing"]

DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Weighing:
    """The similarity to a prediction is multiplied by its weight, from 0 to 1; the defaults are the paper's, 1 for all.

    Rank and score are part of what a threshold was calibrated with (`Threshold`). Age is not: thresholds are calibrated
    on fresh predictions; with weights they are 0 at least, and ageing lowers every similarity above 0, so that the
    filter drops less and keeps every bound.

    Attributes:
        rank_weight: weight of each prediction as a share of that of the one before it, ``rank_weight ** (rank - 1)``.
        score_weight: how much less a prediction counts whose score is lower: ``exp(score_weight * (score - best))``.
            Scores of language models are log-probabilities, so 1 weighs by probability, as a share of the best one's.
        half_life_days: ``2 ** (-age / half_life_days)``; None: predictions do not age.
    """

    rank_weight: float = 1.0
    score_weight: float = 0.0
    half_life_days: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.rank_weight <= 1:
            raise ConfigError(f"is {self.rank_weight}", where="filter.rank_weight", expected="above 0, at most 1")
        if not 0 <= self.score_weight < np.inf:
            raise ConfigError(f"is {self.score_weight}", where="filter.score_weight", expected="0 or more")
        if self.half_life_days is not None and not 0 < self.half_life_days < np.inf:
            raise ConfigError(f"is {self.half_life_days}", where="filter.half_life_days", expected="more than 0")

    @property
    def all_alike(self) -> bool:
        """Whether every prediction counts 1."""
        return self.rank_weight == 1 and self.score_weight == 0 and self.half_life_days is None

    @property
    def least(self) -> float:
        """The lowest threshold that a filter may have: a weight below 1 brings a negative cosine nearer to 0, which
        only a negative threshold could notice."""
        return -np.inf if self.all_alike else 0.0

    def weights(
        self, scores: Float32[Array, "users K"], predicted_at: Int64[Array, " users"], now: float | None = None
    ) -> Float64[Array, "users K"] | None:
        """Weight of each prediction; None where all are 1.

        Args:
            scores: best first; -inf in an empty slot.
            predicted_at: unix seconds, when each user's set was predicted.
            now: unix seconds; None: now.
        """
        if self.all_alike:
            return None
        weights = np.tile(self.rank_weight ** np.arange(scores.shape[1], dtype=np.float64), (len(scores), 1))
        if self.score_weight:
            best = np.where(np.isfinite(scores[:, :1]), scores[:, :1], 0).astype(np.float64)
            weights *= np.exp(np.minimum(self.score_weight * (scores.astype(np.float64) - best), 0))
        if self.half_life_days is not None:
            age = np.maximum((time.time() if now is None else now) - predicted_at, 0) / DAY
            weights *= np.exp2(-age / self.half_life_days)[:, None]
        return weights
