"""The tables that every step starts from: users and items numbered, events by number and in order.

===========  ======================================================================================
``users``    user_code INT, user_id STRING; numbered in the order of the ids
``items``    item_code INT, item_id STRING; numbered in the order of the ids
``events``   position BIGINT (in the source), user_code, item_code, ts BIGINT (seconds UTC), feedback
``seen``     user_code, item_code, first_seen BIGINT: when the user first met the item
===========  ======================================================================================
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from conrec.logs.engines.base import Engine
from conrec.logs.log import Log

__all__ = ["number_events", "register_log"]

_USERS = "SELECT CAST(row_number() OVER (ORDER BY user_id) - 1 AS INT) AS user_code, user_id FROM named"
_EVENTS = """
    SELECT e.position, u.user_code, i.item_code, e.timestamp AS ts, CAST(e.feedback AS INT) AS feedback
    FROM clean_events e JOIN users u ON e.user_id = u.user_id JOIN items i ON e.item_id = i.item_id"""
_SEEN = "SELECT user_code, item_code, min(ts) AS first_seen FROM events GROUP BY user_code, item_code"


def number_events(engine: Engine, item_ids: pa.Array) -> None:
    """Make ``users``, ``items``, ``events`` and ``seen`` of ``clean_events`` (position, user_id, item_id, timestamp,
    feedback).

    Args:
        engine: that holds ``clean_events``.
        item_ids: of the catalogue, sorted; every item of ``clean_events`` is among them.
    """
    engine.table("items", _numbered("item", item_ids))
    engine.step("named", "SELECT DISTINCT user_id FROM clean_events")
    engine.step("users", _USERS)
    engine.drop("named")
    engine.step("events", _EVENTS)
    engine.step("seen", _SEEN)


def register_log(engine: Engine, log: Log) -> None:
    """Put a log that is in memory into an engine, as the same tables."""
    engine.table("users", _numbered("user", pa.array(log.user_ids, pa.string())))
    engine.table("items", _numbered("item", pa.array(log.item_ids, pa.string())))
    rows = {
        "position": np.arange(len(log), dtype=np.int64),
        "user_code": log.user.astype(np.int32),
        "item_code": log.item.astype(np.int32),
        "ts": log.timestamp,
        "feedback": log.feedback.astype(np.int32),
    }
    engine.table("events", pa.table(rows))
    engine.step("seen", _SEEN)


def _numbered(kind: str, ids: pa.Array) -> pa.Table:
    codes = np.arange(len(ids), dtype=np.int32)
    return pa.table({f"{kind}_code": codes, f"{kind}_id": ids})
