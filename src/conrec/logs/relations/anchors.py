"""Anchors and their windows as queries; what the words mean is in `conrec.protocol`.

An anchor is the event that opens its window, so the event's position is its key (``start``):

======================  ===========================================================================
``starts``              start, split, user_code, ts, stop (end of the window), negative_history
``window_negatives``    start, ts, position, item_code: the future negatives, one row an item
``window_positives``    start, ts, position, item_code: the future positives, one row an item
``long_tail_users``     user_code: fewer than 3 negatives in the training period
======================  ===========================================================================

A window of ``horizon`` seconds touches at most two of the buckets ``floor(ts / horizon)``: windows meet events
by (user, bucket), so that a user with a long history costs no more than what lies in his windows.
"""

from __future__ import annotations

from conrec.logs.engines.base import Engine
from conrec.protocol import LONG_TAIL_USER_NEGATIVES, Periods

__all__ = ["find_anchors"]

# Every negative event, how many of the user's are strictly earlier, and whether it is the first of its second.
_NEGATIVES = """
    SELECT user_code, item_code, ts, position,
        rank() OVER (PARTITION BY user_code ORDER BY ts) - 1 AS negative_history,
        row_number() OVER (PARTITION BY user_code, ts ORDER BY position) AS turn,
        CASE WHEN ts < :validation THEN 0 WHEN ts < :test THEN 1 ELSE 2 END AS split
    FROM events WHERE feedback = -1"""

_OPENINGS = """
    SELECT user_code, split, window_starts(times, :horizon) AS opened FROM (
        SELECT user_code, split, array_sort(array_agg(DISTINCT ts)) AS times
        FROM negative_events WHERE split > 0 GROUP BY user_code, split
    ) AS listed"""

# A history is there where the user has an event before t: then his first one is earlier.
_STARTS = """
    WITH opening AS (
        SELECT position, split, user_code, ts, negative_history, least(ts + :horizon, :validation) AS stop
        FROM negative_events WHERE split = 0
        UNION ALL
        SELECT n.position, n.split, n.user_code, n.ts, n.negative_history,
            least(n.ts + :horizon, CASE WHEN n.split = 1 THEN :test ELSE :end END) AS stop
        FROM negative_events n JOIN openings o ON n.user_code = o.user_code AND n.split = o.split
        WHERE n.turn = 1 AND array_contains(o.opened, n.ts)
    ), first_event AS (SELECT user_code, min(first_seen) AS ts FROM seen GROUP BY user_code)
    SELECT o.position AS start, o.split, o.user_code, o.ts, o.stop, CAST(o.negative_history AS INT) AS negative_history
    FROM opening o JOIN first_event f ON o.user_code = f.user_code WHERE f.ts < o.ts"""

# An item is a future negative of a window if the user first met it in the window or later, and first disliked it in
# the window: one row per user and item is enough.
_FIRST_NEGATIVES = """
    SELECT n.user_code, n.item_code, n.ts, n.position, s.first_seen
    FROM (
        SELECT user_code, item_code, ts, position,
            row_number() OVER (PARTITION BY user_code, item_code ORDER BY ts, position) AS turn
        FROM negative_events
    ) n JOIN seen s ON n.user_code = s.user_code AND n.item_code = s.item_code WHERE n.turn = 1"""

# A positive event is the first of its item in a window if the one before it lies before the window.
_POSITIVES = """
    SELECT user_code, item_code, ts, position,
        lag(ts) OVER (PARTITION BY user_code, item_code ORDER BY ts, position) AS before
    FROM events WHERE feedback = 1"""

_IN_WINDOW = """
    WITH opened AS (
        SELECT start, user_code, ts, stop, bucket(ts, :horizon) AS part FROM starts
        UNION ALL SELECT start, user_code, ts, stop, bucket(ts, :horizon) + 1 AS part FROM starts
    ), happened AS (SELECT {happened}.*, bucket(ts, :horizon) AS part FROM {happened})
    SELECT o.start, h.ts, h.position, h.item_code
    FROM opened o JOIN happened h ON o.user_code = h.user_code AND o.part = h.part
    WHERE h.ts >= o.ts AND h.ts < o.stop AND {counts}"""
_NEW_NEGATIVE = "h.first_seen >= o.ts"
_NEW_POSITIVE = "(h.before IS NULL OR h.before < o.ts)"

_LONG_TAIL = f"""
    SELECT u.user_code FROM users u LEFT JOIN (
        SELECT user_code, count(*) AS n FROM negative_events WHERE split = 0 GROUP BY user_code
    ) c ON u.user_code = c.user_code WHERE coalesce(c.n, 0) < {LONG_TAIL_USER_NEGATIVES}"""


def find_anchors(engine: Engine, periods: Periods, horizon: int) -> None:
    """Make the tables above of ``users``, ``events`` and ``seen``; a start without future negatives stays in ``starts``
    only until the end.

    Args:
        engine: that holds them.
        periods: the cuts.
        horizon: H in seconds.
    """
    cuts = {"validation": periods.validation, "test": periods.test, "end": periods.end}
    engine.step("negative_events", _NEGATIVES, **cuts)
    engine.step("openings", _OPENINGS, horizon=horizon)
    engine.step("starts", _STARTS, horizon=horizon, **cuts)
    engine.step("first_negatives", _FIRST_NEGATIVES)
    engine.step("window_negatives", _window("first_negatives", _NEW_NEGATIVE), horizon=horizon)
    engine.step("starts", "SELECT * FROM starts WHERE start IN (SELECT start FROM window_negatives)")
    engine.step("positive_events", _POSITIVES)
    engine.step("window_positives", _window("positive_events", _NEW_POSITIVE), horizon=horizon)
    engine.step("long_tail_users", _LONG_TAIL)
    engine.drop("openings", "first_negatives", "positive_events", "negative_events")


def _window(happened: str, counts: str) -> str:
    return _IN_WINDOW.format(happened=happened, counts=counts)
