"""Who is asked, and at which time: all users of a log, or those of a file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from conrec.arrays import Array
from conrec.errors import DataError
from conrec.logs.columns import ids_of
from conrec.logs.counts import FileCounts
from conrec.logs.log import Log
from conrec.logs.refusals import Refusals
from conrec.predicting.files import read_columns
from conrec.predicting.times import far_ahead, latest, times_of

__all__ = ["ASKED", "Asked", "all_users", "end_of", "has_history", "users_of_file"]

ASKED = pa.schema([("user_id", pa.string()), ("timestamp", pa.int64())])
"""Columns of what is asked."""
NO_HISTORY = "no event before the time"


@dataclass(frozen=True, slots=True)
class Asked:
    """Questions, each with an answer to expect.

    Attributes:
        table: schema `ASKED`, rows distinct.
        counts: rows of the file or users of the log, kept or refused, and why.
    """

    table: pa.Table
    counts: FileCounts

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def digest(self, begin: int = 0, end: int | None = None) -> str:
        """SHA-256 of the questions from row ``begin`` to before row ``end``."""
        rows = self.table.slice(begin, None if end is None else end - begin)
        digest = hashlib.sha256()
        for user, at in zip(rows["user_id"].to_pylist(), rows["timestamp"].to_pylist(), strict=True):
            digest.update(f"{user}\0{at}\n".encode())
        return digest.hexdigest()


def end_of(log: Log) -> int:
    """The second after the last event."""
    return int(log.timestamp[-1]) + 1


def has_history(log: Log, user: int, at: int) -> bool:
    """Whether a user of the log has an event strictly before ``at``."""
    return len(log.history(user, at)) > 0


def all_users(log: Log, at: int) -> Asked:
    """Every user of the log with an event strictly before ``at``, in the order of their IDs.

    Raises:
        DataError: nobody has one.
    """
    there = np.asarray([has_history(log, user, at) for user in range(log.n_users)], dtype=bool)
    kept = int(there.sum())
    if not kept:
        where = f"the time {at} ({np.datetime64(at, 's')} UTC)"
        raise DataError("no user has an event before this time", where=where, mend="Give a later --at.")
    refused, examples = {}, {}
    if kept < log.n_users:
        refused = {NO_HISTORY: log.n_users - kept}
        examples = {NO_HISTORY: f"user {log.user_ids[int(np.argmin(there))]!r}"}
    users = pa.array(log.user_ids, pa.string()).filter(pa.array(there))
    counts = FileCounts("users of the log", log.n_users, kept, refused, {}, examples)
    return Asked(_table(users, np.full(kept, at)), counts)


def users_of_file(path: Path, log: Log, at: int | None) -> Asked:
    """The users of a file, in its order, each at a time of his own or all at one.

    Args:
        path: .parquet, .csv, .tsv or .jsonl with ``user_id`` and, where ``at`` is None, perhaps ``timestamp`` (whole
            seconds UTC, ISO 8601, or a column of dates); ``data/anchors.parquet`` of a run is such a file.
        log: for histories; whoever has none at his time is left out and counted.
        at: time of all questions; None: the column ``timestamp``, or the end of the log where there is none.

    Raises:
        DataError: the file cannot be used, or nobody in it has a history.
    """
    raw = read_columns(path, "user_id", ["timestamp"])
    given = "timestamp" in raw.table.column_names
    timed = given and at is None
    refusals = Refusals(raw)
    ids, there = ids_of(raw, "user_id")
    names = ids.to_pylist()

    def shown(row: int) -> str:
        return f"user {names[row]!r}" + (f", timestamp {raw.table['timestamp'][row].as_py()!r}" if given else "")

    refusals.refuse(~there, "empty user ID", shown)
    if timed:
        times, readable = times_of(raw, "timestamp")
        refusals.refuse(~readable, "timestamp that cannot be read", shown)
        refusals.refuse(
            times > latest(), "timestamp in the future", lambda row: f"{shown(row)} {far_ahead(int(times[row]))}"
        )
    else:
        times = np.full(len(names), end_of(log) if at is None else at)
    index = {name: position for position, name in enumerate(log.user_ids)}
    users = np.asarray([index.get(name, -1) for name in names], dtype=np.int64)
    refusals.refuse(users < 0, "user without any event in the log", shown)
    pairs = zip(users.tolist(), times.tolist(), strict=True)
    without = np.asarray([user >= 0 and not has_history(log, user, when) for user, when in pairs], dtype=bool)
    refusals.refuse(without, NO_HISTORY, shown)
    first = np.unique(np.stack([users, times]), axis=1, return_index=True)[1]
    again = np.ones(len(names), dtype=bool)
    again[first] = False
    refusals.refuse(again, "asked before", shown)
    if given and not timed:
        remark = "timestamp that is not read, since one time is given for all"
        refusals.note(np.ones(len(names), dtype=bool), remark, shown)
    counts = refusals.counts_or("nobody in the file can be asked")
    return Asked(_table(ids.filter(pa.array(refusals.kept)), times[refusals.kept]), counts)


def _table(users: pa.Array, times: Array) -> pa.Table:
    return pa.table({"user_id": users, "timestamp": times.astype(np.int64)}, schema=ASKED)
