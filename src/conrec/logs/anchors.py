"""Anchors in memory: when a prediction is asked, and what would have been right (see `conrec.protocol`)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from conrec.arrays import Array, Ragged
from conrec.logs.engines import DuckDb, Engine
from conrec.logs.log import Log
from conrec.logs.relations.anchors import find_anchors
from conrec.logs.relations.candidates import find_candidates
from conrec.logs.relations.events import register_log
from conrec.logs.schema import SPLITS
from conrec.protocol import CANDIDATES, Periods
from conrec.recommender import Queries

__all__ = ["Anchors", "build_anchors", "read_anchors"]


@dataclass(frozen=True, slots=True)
class Anchors:
    """Anchors of all three splits, ordered by (timestamp, user, position).

    Attributes:
        anchor_id: int64 [anchors], 0, 1, 2, … over all splits; kept when rows are selected.
        user: int32 [anchors], index into the log's users.
        timestamp: int64 [anchors].
        split: int8 [anchors], index into `conrec.logs.schema.SPLITS`.
        future_negatives: ragged int32 items, in order of their first event; the first is the next item.
        future_positives: ragged int32 items.
        candidates: int32 [anchors, 20], items in shuffled order, -1 where a catalogue is too small for 20;
            all -1 for training anchors.
        long_tail_user: bool [anchors].
        negative_history: int32 [anchors], negative events in the history.
    """

    anchor_id: Array
    user: Array
    timestamp: Array
    split: Array
    future_negatives: Ragged
    future_positives: Ragged
    candidates: Array
    long_tail_user: Array
    negative_history: Array

    def __len__(self) -> int:
        return len(self.anchor_id)

    @property
    def next_item(self) -> Array:
        """First negative of each window that is not in the history, int32 [anchors]."""
        return self.future_negatives.values[self.future_negatives.offsets[:-1]]

    @property
    def queries(self) -> Queries:
        """The (user, time) of each anchor."""
        return Queries(self.user, self.timestamp)

    def select(self, rows: Array) -> Anchors:
        """The anchors at the given rows (int or bool), in that order."""
        rows = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        return Anchors(
            self.anchor_id[rows],
            self.user[rows],
            self.timestamp[rows],
            self.split[rows],
            self.future_negatives.take(rows),
            self.future_positives.take(rows),
            self.candidates[rows],
            self.long_tail_user[rows],
            self.negative_history[rows],
        )

    def of_split(self, split: str) -> Anchors:
        """The anchors of "train", "validation" or "test"."""
        return self.select(self.split == SPLITS.index(split))

    def with_candidates(self, candidates: Array) -> Anchors:
        """The same anchors with other candidates, int32 [anchors, 20]."""
        return replace(self, candidates=candidates.astype(np.int32))


def build_anchors(log: Log, periods: Periods, horizon_seconds: int, candidates_seed: int | None = None) -> Anchors:
    """All anchors of a log that is in memory.

    Args:
        log: the whole log.
        periods: its cuts.
        horizon_seconds: H in seconds.
        candidates_seed: seed of the candidates; None: none are drawn.
    """
    with DuckDb() as engine:
        register_log(engine, log)
        find_anchors(engine, periods, horizon_seconds)
        if candidates_seed is not None:
            find_candidates(engine, candidates_seed)
        return read_anchors(engine, with_candidates=candidates_seed is not None)


def read_anchors(engine: Engine, *, with_candidates: bool = True) -> Anchors:
    """The anchors that the queries of `conrec.logs.relations` left in an engine.

    Args:
        engine: after ``find_anchors``.
        with_candidates: whether ``find_candidates`` ran, too.
    """
    rows = engine.read(
        "SELECT s.*, l.user_code IS NOT NULL AS long_tail FROM starts s"
        " LEFT JOIN long_tail_users l ON s.user_code = l.user_code ORDER BY s.ts, s.user_code, s.start"
    )
    starts = rows["start"].to_numpy()
    candidates = np.full((len(starts), CANDIDATES), -1, dtype=np.int32)
    if with_candidates:
        drawn = engine.read("SELECT start, item_code, place FROM candidates")
        by_start = np.argsort(starts)
        anchor = by_start[np.searchsorted(starts[by_start], drawn["start"].to_numpy())]
        candidates[anchor, drawn["place"].to_numpy()] = drawn["item_code"].to_numpy()
    return Anchors(
        np.arange(len(starts), dtype=np.int64),
        rows["user_code"].to_numpy().astype(np.int32),
        rows["ts"].to_numpy().astype(np.int64),
        rows["split"].to_numpy().astype(np.int8),
        _ragged(engine, "window_negatives", starts),
        _ragged(engine, "window_positives", starts),
        candidates,
        np.asarray(rows["long_tail"]),
        rows["negative_history"].to_numpy().astype(np.int32),
    )


def _ragged(engine: Engine, table: str, starts: Array) -> Ragged:
    """Items of each start, in the order of ``starts``."""
    rows = engine.read(f"SELECT start, item_code FROM {table} ORDER BY start, ts, position")
    by_start = np.argsort(starts)
    owner = np.searchsorted(starts[by_start], rows["start"].to_numpy())
    offsets = np.zeros(len(starts) + 1, dtype=np.int64)
    np.cumsum(np.bincount(owner, minlength=len(starts)), out=offsets[1:])
    return Ragged(offsets, rows["item_code"].to_numpy().astype(np.int32)).take(np.argsort(by_start))
