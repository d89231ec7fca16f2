"""Anchors as the rows of data/anchors.parquet, and back; a row that contradicts the log is an error with its place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conrec.arrays import Array, Ragged
from conrec.errors import ArtefactError
from conrec.logs.anchors import Anchors
from conrec.logs.log import Log
from conrec.logs.schema import ANCHORS, SPLITS
from conrec.protocol import CANDIDATES

__all__ = ["anchor_tables", "anchors_from_table"]

_PART = 100_000


def anchor_tables(anchors: Anchors, user_ids: Sequence[str], item_ids: Sequence[str]) -> Iterator[pa.Table]:
    """Anchors as tables of schema ANCHORS, some rows at a time; training anchors have no candidates (null).

    Args:
        anchors: of all splits.
        user_ids: that ``anchors.user`` is an index into.
        item_ids: that the anchors' items are indices into.
    """
    users, items = (pa.array(one, pa.string()) for one in (user_ids, item_ids))
    splits = pa.array(SPLITS, pa.string())
    for begin in range(0, max(len(anchors), 1), _PART):
        part = anchors.select(np.arange(begin, min(begin + _PART, len(anchors))))
        drawn = part.candidates >= 0
        asked = drawn.sum(axis=1) > 0
        candidates = Ragged(np.append(0, np.cumsum(drawn.sum(axis=1))), part.candidates[drawn])
        next_item = items.take(pa.array(part.next_item))
        yield pa.table(
            {
                "anchor_id": part.anchor_id,
                "user_id": users.take(pa.array(part.user)),
                "timestamp": part.timestamp,
                "split": splits.take(pa.array(part.split)),
                "next_item": next_item,
                "future_negatives": _lists(part.future_negatives, items),
                "future_positives": _lists(part.future_positives, items),
                "candidates": _lists(candidates, items, np.logical_not(asked)),
                "candidate_answer": pc.if_else(pa.array(asked), next_item, None),
                "long_tail_user": part.long_tail_user,
                "negative_history": part.negative_history,
            },
            schema=ANCHORS,
        )


def anchors_from_table(table: pa.Table, log: Log, where: str = "data/anchors.parquet") -> Anchors:
    """Read what `anchor_tables` gives.

    Args:
        table: schema ANCHORS.
        log: that the anchors belong to.
        where: the file, for errors.

    Raises:
        ArtefactError: a row that contradicts the log or itself, named with its number (from 1) and column.
    """
    rows = _Rows(table, log, where)
    users, splits, next_item = (rows.one(name) for name in ("user_id", "split", "next_item"))
    negatives, positives, drawn = (rows.many(one) for one in ("future_negatives", "future_positives", "candidates"))
    answer = rows.one("candidate_answer", may_be_null=True)
    rows.refuse(negatives.lengths == 0, "future_negatives", "is empty", "at least the next item")
    first = negatives.values[negatives.offsets[:-1]] if len(negatives.values) else next_item
    rows.refuse(next_item != first, "next_item", None, "the first of future_negatives")
    shown = drawn.lengths > 0
    rows.refuse(~shown & (answer >= 0), "candidate_answer", "is there without candidates", "null")
    owner = np.repeat(np.arange(len(drawn)), drawn.lengths)
    distinct = np.unique(owner * (log.n_items + 1) + drawn.values) // (log.n_items + 1)
    different = np.bincount(distinct, minlength=len(drawn))
    wrong = (drawn.lengths > CANDIDATES) | (different < drawn.lengths)
    if wrong.any():
        row = int(np.argmax(wrong))
        found = f"holds {drawn.lengths[row]} items, {different[row]} of them distinct"
        raise rows.error(row, "candidates", found, f"at most {CANDIDATES} distinct items")
    holds = np.bincount(owner, drawn.values == answer[owner], minlength=len(drawn)) > 0
    expected = "the next item, and it among the candidates"
    rows.refuse(shown & (~holds | (answer != next_item)), "candidate_answer", None, expected)
    candidates = np.full((len(drawn), CANDIDATES), -1, dtype=np.int32)
    candidates[owner, np.arange(len(owner)) - np.repeat(drawn.offsets[:-1], drawn.lengths)] = drawn.values
    return Anchors(
        rows.numbers("anchor_id"),
        users,
        rows.numbers("timestamp"),
        splits.astype(np.int8),
        negatives,
        positives,
        candidates,
        rows.numbers("long_tail_user"),
        rows.numbers("negative_history"),
    )


def _lists(rows: Ragged, names: pa.Array, is_null: Array | None = None) -> pa.ListArray:
    offsets = pa.array(rows.offsets.astype(np.int32))
    nulls = None if is_null is None else pa.array(is_null)
    return pa.ListArray.from_arrays(offsets, names.take(pa.array(rows.values)), mask=nulls)


class _Rows:
    """Columns of an anchor table as indices into the log; unknown names are errors with their place."""

    def __init__(self, table: pa.Table, log: Log, where: str) -> None:
        self.table, self.where = table.combine_chunks(), where
        self.items = pa.array(log.item_ids, pa.string())
        self.known = {"user_id": pa.array(log.user_ids, pa.string()), "split": pa.array(SPLITS, pa.string())}

    def error(self, row: int, column: str, found: str, expected: str) -> ArtefactError:
        """An error that names the place of a value; ``row`` counts from 0, the message from 1."""
        mend = "The files in RUN/data are damaged or of different runs: build the data stage again."
        place = f"{self.where}, row {row + 1}, column {column!r}"
        return ArtefactError(found, where=place, expected=expected, mend=mend)

    def refuse(self, wrong: Array, column: str, found: str | None, expected: str) -> None:
        """Raise for the first row of the mask; ``found`` None: what stands there."""
        if wrong.any():
            row = int(np.argmax(wrong))
            raise self.error(row, column, found or f"is {self.table[column][row].as_py()!r}", expected)

    def one(self, column: str, *, may_be_null: bool = False) -> Array:
        """Index of each value, int32; -1 for null where it may be null."""
        values = self.table[column]
        index = _indices(values, self.known.get(column, self.items))
        unknown = (index < 0) & ~(np.asarray(values.is_null()) if may_be_null else np.zeros(len(index), dtype=bool))
        self.refuse(unknown, column, None, self._expected(column))
        return index

    def many(self, column: str) -> Ragged:
        """Item indices of each list; null is empty."""
        values = self.table[column]
        lengths = np.asarray(pc.fill_null(pc.list_value_length(values), 0))
        offsets = np.append(0, np.cumsum(lengths, dtype=np.int64))
        flat = pc.list_flatten(values)
        index = _indices(flat, self.items)
        if (index < 0).any():
            place = int(np.argmax(index < 0))
            row = int(np.searchsorted(offsets, place, side="right")) - 1
            raise self.error(row, column, f"names {flat[place].as_py()!r}", self._expected(column))
        return Ragged(offsets, index)

    def numbers(self, column: str) -> Array:
        """A column without nulls as an array."""
        values = self.table[column]
        self.refuse(np.asarray(values.is_null()), column, "is null", f"a value of {values.type}")
        return np.asarray(values.to_numpy())

    def _expected(self, column: str) -> str:
        known = {"user_id": "a user of events.parquet", "split": f"one of {', '.join(SPLITS)}"}
        return known.get(column, "an item of items.parquet")


def _indices(values: pa.ChunkedArray, known: pa.Array) -> Array:
    """Index of each value among ``known``, int32; -1 where it is not there."""
    found = pc.fill_null(pc.index_in(values, value_set=known, skip_nulls=True), -1)
    return np.asarray(found).astype(np.int32)
