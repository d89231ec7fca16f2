"""What the filter says of a candidate, and why."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conrec.arrays import Array

__all__ = ["REASONS", "Decision", "Decisions", "Filtered", "PastDislike"]

KEPT, DROPPED, UNKNOWN_USER, UNKNOWN_ITEM, EMPTY_SET, FLOOR, ALLOWED, DRY_RUN, NO_STORE = range(9)
REASONS = (
    "not above the threshold",
    "above the threshold",
    "unknown user",
    "unknown item",
    "empty predict set",
    "kept: too few would remain",
    "kept: on the allow-list",
    "kept: dry run",
    "kept: store unreachable",
)
"""Why a candidate was kept or dropped. Only the second one drops; the sixth to the eighth keep what it would drop."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """What the filter says of n (user, candidate) pairs.

    Attributes:
        similarity: float32 [n], weighted, to the nearest item of the user's predict set; NaN where it is unknown.
        nearest: int32 [n], catalogue index of that item; -1 where there is none.
        reason: int8 [n], index into `REASONS`.
    """

    similarity: Array
    nearest: Array
    reason: Array

    def __len__(self) -> int:
        return len(self.reason)

    @property
    def dropped(self) -> Array:
        """Whether each candidate is dropped, bool [n]."""
        return np.asarray(self.reason == DROPPED)


@dataclass(frozen=True, slots=True)
class PastDislike:
    """An item that a user disliked.

    Attributes:
        item_id: the item.
        similarity: cosine of its rebuilt embedding to that of the candidate.
        timestamp: unix seconds, of the last time.
    """

    item_id: str
    similarity: float
    timestamp: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What the filter says of one candidate.

    Attributes:
        item_id: the candidate.
        dropped: whether it is dropped.
        similarity: weighted, to the nearest prediction; None where it is unknown.
        nearest_sid: semantic ID of the nearest prediction, ``a_5 b_2 c_9``, or None.
        nearest_item: the item of that semantic ID, or None.
        reason: one of `REASONS`.
        past_dislikes: what the user disliked that is nearest to the candidate, nearest first; empty unless asked for.
    """

    item_id: str
    dropped: bool
    similarity: float | None
    nearest_sid: str | None
    nearest_item: str | None
    reason: str
    past_dislikes: tuple[PastDislike, ...] = ()


@dataclass(frozen=True, slots=True)
class Filtered:
    """Candidates of one user, both lists in the given order."""

    kept: tuple[Decision, ...]
    dropped: tuple[Decision, ...]
