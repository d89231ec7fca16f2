"""Anchors: when a prediction is asked, and what would have been right (see `conrec.protocol`)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from conrec.arrays import Array, Ragged
from conrec.errors import ArtefactError
from conrec.logs.engines import DuckDb, Engine
from conrec.logs.log import Log
from conrec.logs.relations.anchors import find_anchors
from conrec.logs.relations.events import register_log
from conrec.logs.schema import ANCHORS, SPLITS
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

    def to_table(self, log: Log) -> pa.Table:
        """As a table of `conrec.logs.schema.ANCHORS`; training anchors have no candidates (null)."""
        names = np.asarray(log.item_ids, dtype=object)
        candidates = [names[row[row >= 0]].tolist() if (row >= 0).any() else None for row in self.candidates]
        next_item = names[self.next_item]
        return pa.table(
            {
                "anchor_id": self.anchor_id,
                "user_id": np.asarray(log.user_ids, dtype=object)[self.user],
                "timestamp": self.timestamp,
                "split": np.asarray(SPLITS, dtype=object)[self.split],
                "next_item": next_item,
                "future_negatives": [names[row].tolist() for row in self.future_negatives],
                "future_positives": [names[row].tolist() for row in self.future_positives],
                "candidates": pa.array(candidates, pa.list_(pa.string())),
                "candidate_answer": [
                    None if row is None else answer for row, answer in zip(candidates, next_item, strict=True)
                ],
                "long_tail_user": self.long_tail_user,
                "negative_history": self.negative_history,
            },
            schema=ANCHORS,
        )

    @classmethod
    def from_table(cls, table: pa.Table, log: Log, where: str = "data/anchors.parquet") -> Anchors:
        """Read what `to_table` wrote.

        Args:
            table: schema ANCHORS.
            log: that the anchors belong to.
            where: the file, for errors.

        Raises:
            ArtefactError: a row that contradicts the log or itself, named with its number (from 1) and column.
        """
        rows = _Rows(table, log, where)
        users, splits = rows.one("user_id"), rows.one("split")
        negatives, positives, drawn = (rows.many(one) for one in ("future_negatives", "future_positives", "candidates"))
        next_item, answer = rows.one("next_item"), rows.one("candidate_answer")
        candidates = np.full((len(drawn), CANDIDATES), -1, dtype=np.int32)
        for row, (future, shown) in enumerate(zip(negatives, drawn, strict=True)):
            if not future:
                raise rows.error(row, "future_negatives", "is empty", "at least the next item")
            if next_item[row] != future[0]:
                raise rows.error(row, "next_item", rows.shown(row, "next_item"), "the first of future_negatives")
            if not shown:
                if answer[row] >= 0:
                    raise rows.error(row, "candidate_answer", "is there without candidates", "null")
                continue
            if len(shown) > CANDIDATES or len(set(shown)) < len(shown):
                found = f"holds {len(shown)} items, {len(set(shown))} of them distinct"
                raise rows.error(row, "candidates", found, f"at most {CANDIDATES} distinct items")
            if answer[row] not in shown or answer[row] != next_item[row]:
                found = rows.shown(row, "candidate_answer")
                raise rows.error(row, "candidate_answer", found, "the next item, and it among the candidates")
            candidates[row, : len(shown)] = shown
        return cls(
            rows.numbers("anchor_id"),
            np.asarray(users, dtype=np.int32),
            rows.numbers("timestamp"),
            np.asarray(splits, dtype=np.int8),
            Ragged.from_rows(negatives),
            Ragged.from_rows(positives),
            candidates,
            rows.numbers("long_tail_user"),
            rows.numbers("negative_history"),
        )


class _Rows:
    """Columns of an anchor table as indices into the log; unknown names are errors with their place."""

    def __init__(self, table: pa.Table, log: Log, where: str) -> None:
        self.table, self.where = table, where
        items = {name: index for index, name in enumerate(log.item_ids)}
        users = {name: index for index, name in enumerate(log.user_ids)}
        splits = {name: index for index, name in enumerate(SPLITS)}
        self.known: dict[str, dict[str, int]] = {"user_id": users, "split": splits}
        self.items = items

    def error(self, row: int, column: str, found: str, expected: str) -> ArtefactError:
        """An error that names the place of a value; ``row`` counts from 0, the message from 1."""
        mend = "The files in RUN/data are damaged or of different runs: build the data stage again."
        place = f"{self.where}, row {row + 1}, column {column!r}"
        return ArtefactError(found, where=place, expected=expected, mend=mend)

    def shown(self, row: int, column: str) -> str:
        """ "is 'x'" for an error."""
        return f"is {self.table[column][row].as_py()!r}"

    def one(self, column: str) -> list[int]:
        """Index of each value; -1 for null where the column may be null."""
        known = self.known.get(column, self.items)
        if column == "candidate_answer":
            known = {**known, None: -1}  # type: ignore[dict-item]
        found: list[int] = []
        for row, value in enumerate(self.table[column].to_pylist()):
            if value not in known:
                raise self.error(row, column, f"is {value!r}", self._expected(column))
            found.append(known[value])
        return found

    def many(self, column: str) -> list[list[int]]:
        """Item indices of each list; null is empty."""
        found: list[list[int]] = []
        for row, values in enumerate(self.table[column].to_pylist()):
            strange = [one for one in values or () if one not in self.items]
            if strange:
                raise self.error(row, column, f"names {strange[0]!r}", self._expected(column))
            found.append([self.items[one] for one in values or ()])
        return found

    def numbers(self, column: str) -> Array:
        """A column without nulls as an array."""
        values = self.table[column]
        if values.null_count:
            raise self.error(values.is_null().to_pylist().index(True), column, "is null", f"a value of {values.type}")
        return np.asarray(values.to_numpy())

    def _expected(self, column: str) -> str:
        known = {"user_id": "a user of events.parquet", "split": f"one of {', '.join(SPLITS)}"}
        return known.get(column, "an item of items.parquet")


def build_anchors(log: Log, periods: Periods, horizon_seconds: int) -> Anchors:
    """All anchors of a log that is in memory, without candidates (see `conrec.logs.candidates`).

    Args:
        log: the whole log.
        periods: its cuts.
        horizon_seconds: H in seconds.
    """
    with DuckDb() as engine:
        register_log(engine, log)
        find_anchors(engine, periods, horizon_seconds)
        return read_anchors(engine)


def read_anchors(engine: Engine) -> Anchors:
    """The anchors that `conrec.logs.relations.anchors.find_anchors` left in an engine, without candidates."""
    rows = engine.read(
        "SELECT s.*, l.user_code IS NOT NULL AS long_tail FROM starts s"
        " LEFT JOIN long_tail_users l ON s.user_code = l.user_code ORDER BY s.ts, s.user_code, s.start"
    )
    starts = rows["start"].to_numpy()
    return Anchors(
        np.arange(len(starts), dtype=np.int64),
        rows["user_code"].to_numpy().astype(np.int32),
        rows["ts"].to_numpy().astype(np.int64),
        rows["split"].to_numpy().astype(np.int8),
        _ragged(engine, "window_negatives", starts),
        _ragged(engine, "window_positives", starts),
        np.full((len(starts), CANDIDATES), -1, dtype=np.int32),
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
