"""The log in memory: events as integer columns in time order, with an index by user."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from conrec.arrays import Array
from conrec.protocol import NEGATIVE

__all__ = ["Log"]


@dataclass(frozen=True, slots=True)
class Log:
    """Events of one platform over a fixed catalogue.

    Attributes:
        user_ids: str [users], sorted.
        item_ids: str [items], in the order of the item file; an item's index is its row there.
        user: int32 [events], index into ``user_ids``; events are ordered by (timestamp, position in the source).
        item: int32 [events], index into ``item_ids``.
        timestamp: int64 [events], seconds UTC.
        feedback: int8 [events], -1, 0 or +1.
        user_offsets: int64 [users + 1]; the events of user u are ``user_events[user_offsets[u]:user_offsets[u + 1]]``.
        user_events: int64 [events], positions of events grouped by user, each group in time order.
    """

    user_ids: tuple[str, ...]
    item_ids: tuple[str, ...]
    user: Array
    item: Array
    timestamp: Array
    feedback: Array
    user_offsets: Array
    user_events: Array

    @classmethod
    def from_columns(
        cls,
        user_ids: tuple[str, ...],
        item_ids: tuple[str, ...],
        user: Array,
        item: Array,
        timestamp: Array,
        feedback: Array,
    ) -> Log:
        """Sort events by (timestamp, given position) and index them by user."""
        order = np.argsort(timestamp, kind="stable")
        user, item = user[order].astype(np.int32), item[order].astype(np.int32)
        offsets = np.zeros(len(user_ids) + 1, dtype=np.int64)
        np.cumsum(np.bincount(user, minlength=len(user_ids)), out=offsets[1:])
        return cls(
            user_ids,
            item_ids,
            user,
            item,
            timestamp[order].astype(np.int64),
            feedback[order].astype(np.int8),
            offsets,
            np.argsort(user, kind="stable").astype(np.int64),
        )

    @classmethod
    def from_tables(cls, events: pa.Table, items: pa.Table) -> Log:
        """Read tables of `conrec.logs.schema`; every item of ``events`` must be in ``items``."""
        item_ids = tuple(items["item_id"].to_pylist())
        user_ids = tuple(sorted(events["user_id"].unique().to_pylist()))
        return cls.from_columns(
            user_ids,
            item_ids,
            _codes(events["user_id"], user_ids),
            _codes(events["item_id"], item_ids),
            events["timestamp"].to_numpy(),
            events["feedback"].to_numpy(),
        )

    def __len__(self) -> int:
        return len(self.timestamp)

    @property
    def n_users(self) -> int:
        """Number of users."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """Number of catalogue items, with or without events."""
        return len(self.item_ids)

    def before(self, timestamp: int) -> Log:
        """The log of all events strictly before ``timestamp``, over the same users and catalogue."""
        end = int(np.searchsorted(self.timestamp, timestamp, side="left"))
        return Log.from_columns(
            self.user_ids,
            self.item_ids,
            self.user[:end],
            self.item[:end],
            self.timestamp[:end],
            self.feedback[:end],
        )

    def events_of(self, user: int, begin: int | None = None, end: int | None = None) -> Array:
        """Positions of a user's events with ``begin <= timestamp < end``, int64 [n], in time order."""
        events = self.user_events[self.user_offsets[user] : self.user_offsets[user + 1]]
        times = self.timestamp[events]
        first = 0 if begin is None else np.searchsorted(times, begin, side="left")
        last = len(events) if end is None else np.searchsorted(times, end, side="left")
        return events[first:last]

    def history(self, user: int, timestamp: int) -> Array:
        """Positions of a user's events strictly before ``timestamp``, int64 [n], in time order."""
        return self.events_of(user, end=timestamp)

    def negative_counts(self) -> tuple[Array, Array]:
        """Negatives per user (int64 [users]) and per item (int64 [items])."""
        negative = self.feedback == NEGATIVE
        return (
            np.bincount(self.user[negative], minlength=self.n_users),
            np.bincount(self.item[negative], minlength=self.n_items),
        )


def _codes(column: pa.ChunkedArray, values: tuple[str, ...]) -> Array:
    """Index of each entry of ``column`` in ``values``, int32."""
    index = {value: position for position, value in enumerate(values)}
    encoded = column.combine_chunks().dictionary_encode()
    table = np.asarray([index[value] for value in encoded.dictionary.to_pylist()], dtype=np.int32)
    return table[encoded.indices.to_numpy()] if len(table) else np.empty(0, dtype=np.int32)
