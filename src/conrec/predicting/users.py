"""Who is asked, and at which time: all users of a log, or those of a file."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from conrec.arrays import Array
from conrec.errors import ConfigError, DataError
from conrec.logs.columns import ids_of, seconds_of
from conrec.logs.counts import FileCounts
from conrec.logs.files import TextFormat, column_names, read_raw
from conrec.logs.log import Log
from conrec.logs.validation import Refusals
from conrec.protocol import DAY

__all__ = ["ASKED", "Asked", "all_users", "end_of", "has_history", "moment", "users_of_file"]

ASKED = pa.schema([("user_id", pa.string()), ("timestamp", pa.int64())])
"""Columns of what is asked."""
NO_HISTORY = "no event before the time"
AHEAD = 3660 * DAY
"""How far after now a time is still taken for one in seconds."""


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
        raise DataError("no user has an event before this time", where=f"the time {at}", mend="Give a later --at.")
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
            seconds UTC, or a column of dates); ``data/anchors.parquet`` of a run is such a file.
        log: for histories; whoever has none at his time is left out and counted.
        at: time of all questions; None: the column ``timestamp``, or the end of the log where there is none.

    Raises:
        DataError: the file cannot be used, or nobody in it has a history.
    """
    text = TextFormat(None, None, "utf-8", True)
    timed = at is None and "timestamp" in column_names(path, text)
    raw = read_raw(path, text, ["user_id", "timestamp"] if timed else ["user_id"])
    refusals = Refusals(raw)
    ids, there = ids_of(raw, "user_id")
    names = ids.to_pylist()

    def shown(row: int) -> str:
        return f"user {names[row]!r}" + (f", timestamp {raw.table['timestamp'][row].as_py()!r}" if timed else "")

    refusals.refuse(~there, "empty user ID", shown)
    if timed:
        times, readable = seconds_of(raw, "timestamp", "s", int(time.time()) + AHEAD)
        refusals.refuse(~readable, "timestamp that cannot be read", shown)
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
    counts = refusals.counts(1.0)
    return Asked(_table(ids.filter(pa.array(refusals.kept)), times[refusals.kept]), counts)


def _table(users: pa.Array, times: Array) -> pa.Table:
    return pa.table({"user_id": users, "timestamp": times.astype(np.int64)}, schema=ASKED)


def moment(text: str) -> int:
    """Seconds since 1970 UTC from digits or ISO 8601; without an offset it is UTC.

    >>> moment("1998-04-23"), moment("893286639"), moment("1998-04-23T02:00:00+02:00")
    (893289600, 893286639, 893289600)

    Raises:
        ConfigError: it is neither.
    """
    if text.strip().isdecimal():
        return int(text)
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ConfigError(
            f"{text!r} is no time", where="--at", expected="seconds since 1970 UTC, or ISO 8601 such as 1998-04-23"
        ) from None
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    return int(np.floor(found.timestamp()))
