"""What is done with a candidate beside the threshold: ageing, a floor, an allow-list, a dry run."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64

from conrec.arrays import Array
from conrec.errors import ConfigError
from conrec.settings.filtering import FilterConfig

__all__ = ["Policy"]


@dataclass(frozen=True, slots=True)
class Policy:
    """What is done with what the threshold says; the defaults do nothing.

    Attributes:
        half_life_days: days after which a prediction counts half (`conrec.filtering.weighing.Weighing`); None: it does
            not age.
        keep_at_least: of the candidates of one request at least so many are kept, where there are so many; what is
            dropped least surely, by similarity, comes back first.
        allow: item IDs that are never dropped.
        dry_run: say what would be dropped, and keep it.
    """

    half_life_days: float | None = None
    keep_at_least: int = 0
    allow: frozenset[str] = frozenset()
    dry_run: bool = False

    @classmethod
    def of(cls, config: FilterConfig) -> Policy:
        """The policy of a run's settings."""
        return cls(config.half_life_days, config.keep_at_least, frozenset(config.allow), config.dry_run)

    def __post_init__(self) -> None:
        if self.keep_at_least < 0:
            raise ConfigError(f"is {self.keep_at_least}", where="filter.keep_at_least", expected="0 or more")

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
