"""Small random logs with anchors and candidates, for the tests of evaluation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from conrec.arrays import Array, Ragged
from conrec.logs.anchors import Anchors, build_anchors
from conrec.logs.log import Log
from conrec.protocol import DAY, Periods

PERIODS = Periods(60 * DAY, 70 * DAY, 100 * DAY)


class World(NamedTuple):
    """A log, its validation and test anchors, and negatives per item in the training period."""

    log: Log
    anchors: Anchors
    item_negatives: Array


def world(seed: int, users: int = 15, items: int = 30, events: int = 400, candidates: int = 6) -> World:
    """Random feedback over 100 days; `PERIODS` are its cuts."""
    random = np.random.default_rng(seed)
    times = random.integers(0, 300, events) * (DAY // 3)
    times[0] = 100 * DAY - 1
    log = Log.from_columns(
        tuple(f"u{one:02d}" for one in range(users)),
        tuple(f"i{one:02d}" for one in range(items)),
        (users * random.random(events) ** 2).astype(int),
        (items * random.random(events) ** 2).astype(int),
        times,
        random.integers(-1, 2, events),
    )
    built = build_anchors(log, PERIODS, 7 * DAY)
    drawn = np.full((len(built), candidates), -1, dtype=np.int32)
    for row in np.flatnonzero(built.split > 0):
        others = np.setdiff1d(random.permutation(items), built.future_negatives[int(row)])[: candidates - 1]
        drawn[row] = random.permutation(np.r_[built.next_item[row], others])
    anchors = built.with_candidates(drawn)
    return World(log, anchors.select(anchors.split > 0), log.before(PERIODS.validation).negative_counts()[1])


def anchors_of(future: list[list[int]], users: list[int] | None = None) -> Anchors:
    """Test anchors with the given future negatives and nothing else of note."""
    n = len(future)
    return Anchors(
        np.arange(n, dtype=np.int64),
        np.asarray(range(n) if users is None else users, dtype=np.int32),
        np.full(n, 80 * DAY, dtype=np.int64),
        np.full(n, 2, dtype=np.int8),
        Ragged.from_rows(future),
        Ragged.from_rows([[] for _ in future]),
        np.full((n, 20), -1, dtype=np.int32),
        np.zeros(n, dtype=bool),
        np.ones(n, dtype=np.int32),
    )
