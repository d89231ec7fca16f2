"""Small logs whose right answers can be read off, and plain transcriptions of what the analysis computes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from conrec.arrays import Array, Ragged
from conrec.logs.anchors import Anchors
from conrec.logs.log import Log

Event = tuple[int, int, int, int]
"""User, item, timestamp, feedback."""


def log_of(events: Sequence[Event], users: int = 3, items: int = 6) -> Log:
    """A log of the given events over users u0, u1, … and items i0, i1, …"""
    columns = np.asarray(events, dtype=np.int64).reshape(-1, 4).T
    names = tuple(f"u{one}" for one in range(users)), tuple(f"i{one}" for one in range(items))
    return Log.from_columns(*names, *columns)


def anchors_of(
    rows: Sequence[tuple[int, int, Sequence[int], Sequence[int], Sequence[int]]],
    long_tail: Sequence[bool] | None = None,
    history: Sequence[int] | None = None,
) -> Anchors:
    """Test anchors of (user, timestamp, candidates, future positives, future negatives)."""
    n = len(rows)
    width = max((len(row[2]) for row in rows), default=0)
    candidates = np.full((n, width), -1, dtype=np.int32)
    for place, row in enumerate(rows):
        candidates[place, : len(row[2])] = row[2]
    return Anchors(
        np.arange(n, dtype=np.int64) + 100,
        np.asarray([row[0] for row in rows], dtype=np.int32),
        np.asarray([row[1] for row in rows], dtype=np.int64),
        np.full(n, 2, dtype=np.int8),
        Ragged.from_rows([row[4] for row in rows]),
        Ragged.from_rows([row[3] for row in rows]),
        candidates,
        np.asarray(long_tail or [False] * n, dtype=np.bool_),
        np.asarray(history or [1] * n, dtype=np.int32),
    )


def plain_caught(positives: Sequence[float], negatives: Sequence[float], rate: float) -> float:
    """The highest share caught by drawing lots between two thresholds whose mixture loses ``rate``: every pair tried.

    Thresholds are the scores that occur, and one below all of them; what is dropped is above.
    """
    up, down = np.asarray(positives, dtype=np.float64), np.asarray(negatives, dtype=np.float64)
    levels = [-np.inf, *np.unique(np.concatenate([up, down]))]
    points = [((up > level).mean(), (down > level).mean()) for level in levels]
    # Neighbours alone: a mixture of distant ones is another rule.
    points.sort()
    best = max(caught for lost, caught in points if lost <= rate + 1e-12)
    below = max(lost for lost, _ in points if lost <= rate + 1e-12)
    above = [(lost, caught) for lost, caught in points if lost > rate + 1e-12]
    if not above:
        return float(best)
    lost, caught = above[0]
    return float(best + (rate - below) / (lost - below) * (caught - best))


def unit(rows: Array) -> Array:
    """Rows at length 1, float32."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
