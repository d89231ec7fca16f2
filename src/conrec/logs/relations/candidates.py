"""The 20 candidates of an anchor: its next item and 19 others, drawn once and ranked by every model.

The others, each step only for what the step before left open:

1. items that this user met the same UTC day, from the anchor's time on and within its period, without
   disliking them in the window and without having them in the history; a draw among them where they are more than 19;
2. items that other users had events with on that day, drawn without replacement with probability
   proportional to the number of those events; never one of the user's history or window;
3. the same from the days before, one after another; never from a day after;
4. other catalogue items, uniformly; never one of the user's history or window.

An anchor has fewer than 20 candidates only where the catalogue has no more.

A draw is an order: what is to be drawn gets a number from the MD5 of the seed, the anchor and the item, and the
smallest are taken. Draws by popularity walk through a day's events: these are shuffled once, each anchor begins
somewhere and goes round; the distinct items that it meets are those of a draw without replacement in which an item's
chance is its number of events. So the draw of an anchor depends on nothing but the seed, its user and its time and what
happened up to that day, and is the same on every engine.

An item is barred from steps 2 to 4 if the user has an event with it before the end of the window: that is the history
and the window at once.
"""

from __future__ import annotations

from itertools import pairwise

from conrec.logs.engines.base import Engine
from conrec.protocol import CANDIDATES, DAY

__all__ = ["find_candidates"]

_STEPS_AT_ONCE = (64, 1024)
"""Of a walk through the anchor's day; few anchors need more."""
_ROWS_AT_ONCE = 20_000_000
_EARLIER_DAYS = 8
"""Days with events before the anchor's that are walked before all the others."""

_ASKED = f"""
    SELECT s.start, s.user_code, s.ts, s.stop, bucket(s.ts, {DAY}) AS day,
        concat_ws('|', :seed, u.user_id, s.ts) AS name
    FROM starts s JOIN users u ON s.user_code = u.user_code WHERE s.split > 0"""

_NEXT_ITEM = """
    SELECT start, item_code FROM (
        SELECT w.start, w.item_code, row_number() OVER (PARTITION BY w.start ORDER BY w.ts, w.position) AS turn
        FROM window_negatives w JOIN asked a ON w.start = a.start
    ) AS ordered WHERE turn = 1"""

# What the user met that day in the window and did not dislike in it, without having it in the history.
_OWN = f"""
    WITH met AS (
        SELECT DISTINCT a.start, a.name, e.item_code
        FROM asked a JOIN events e ON a.user_code = e.user_code AND a.day = bucket(e.ts, {DAY})
        JOIN seen s ON e.user_code = s.user_code AND e.item_code = s.item_code
        WHERE e.ts >= a.ts AND e.ts < a.stop AND e.feedback <> -1 AND s.first_seen >= a.ts
    ), drawn AS (
        SELECT m.start, m.item_code,
            row_number() OVER (PARTITION BY m.start ORDER BY hash60(concat_ws('|', 'own', m.name, i.item_id))) AS turn
        FROM met m JOIN items i ON m.item_code = i.item_code
        LEFT JOIN window_negatives w ON m.start = w.start AND m.item_code = w.item_code WHERE w.start IS NULL
    )
    SELECT start, item_code FROM drawn WHERE turn < {CANDIDATES}"""

# The days with events up to the last anchor's, and where a day stands among them.
_DAYS = f"""
    SELECT day, n, row_number() OVER (ORDER BY day) AS place FROM (
        SELECT bucket(ts, {DAY}) AS day, count(*) AS n FROM events GROUP BY bucket(ts, {DAY})
    ) AS counted"""
_SHUFFLED = f"""
    SELECT d.place, e.user_code, e.item_code,
        row_number() OVER (PARTITION BY d.place ORDER BY
            hash60(concat_ws('|', :seed, 'day', u.user_id, i.item_id, e.ts)), e.position) - 1 AS slot
    FROM events e JOIN days d ON bucket(e.ts, {DAY}) = d.day
    JOIN users u ON e.user_code = u.user_code JOIN items i ON e.item_code = i.item_code
    WHERE d.place IN (SELECT place FROM unshuffled)"""
_NOTHING_SHUFFLED = """
    SELECT d.place, e.user_code, e.item_code, d.place AS slot FROM events e CROSS JOIN days d WHERE 1 = 0"""
_UNSHUFFLED = "SELECT DISTINCT place FROM all_walks WHERE place NOT IN (SELECT place FROM shuffled)"

# Which days each unfilled anchor walks, in which order (turn), and where it begins.
_STEPS = "SELECT a.n * 32 + b.n AS step FROM {0} a CROSS JOIN {0} b".format(
    f"(SELECT * FROM (VALUES {', '.join(f'({n})' for n in range(32))}) AS v(n))"
)

# The anchors that have fewer than 20 so far.
_UNFILLED = f"""
    SELECT a.*, d.place, coalesce(c.n, 0) AS has FROM walking a JOIN days d ON a.day = d.day
    LEFT JOIN (SELECT start, count(*) AS n FROM chosen GROUP BY start) c ON a.start = c.start
    WHERE coalesce(c.n, 0) < {CANDIDATES}"""
_WALKS = """
    SELECT u.start, u.user_code, u.stop, u.has, d.place, d.n, u.place - d.place AS turn,
        hash60(concat_ws('|', 'walk', u.name, d.day)) % d.n AS begin
    FROM unfilled u JOIN days d ON d.place <= u.place - :nearest AND d.place >= u.place - :farthest"""
_SOME_STEPS = """
    SELECT w.start, w.user_code, w.stop, w.has, w.turn, w.step, e.user_code AS other, e.item_code
    FROM (
        SELECT w.start, w.user_code, w.stop, w.has, w.turn, s.step, w.place, (w.begin + s.step) % w.n AS slot
        FROM walks w JOIN steps s ON s.step < w.n WHERE s.step >= :first AND s.step < :last
    ) w JOIN shuffled e ON w.place = e.place AND w.slot = e.slot"""
_ALL_STEPS = """
    SELECT w.start, w.user_code, w.stop, w.has, w.turn, (e.slot - w.begin + w.n) % w.n AS step,
        e.user_code AS other, e.item_code
    FROM walks w JOIN shuffled e ON w.place = e.place"""
_WALKED = """
    WITH met AS ({met}), free AS (
        SELECT m.start, m.has, m.item_code, m.turn, m.step,
            row_number() OVER (PARTITION BY m.start, m.item_code ORDER BY m.turn, m.step) AS again
        FROM met m
        LEFT JOIN seen s ON m.user_code = s.user_code AND m.item_code = s.item_code AND s.first_seen < m.stop
        LEFT JOIN chosen c ON m.start = c.start AND m.item_code = c.item_code
        WHERE m.other <> m.user_code AND s.user_code IS NULL AND c.start IS NULL
    ), ordered AS (
        SELECT start, item_code, has, row_number() OVER (PARTITION BY start ORDER BY turn, step) AS nth
        FROM free WHERE again = 1
    )
    SELECT start, item_code FROM ordered WHERE has + nth <= :most"""

# Where the catalogue has no more than what is missing, all of it is taken: nobody walks through the log for it.
_EXHAUSTED = f"""
    WITH barred AS (
        SELECT u.start, count(*) AS n FROM unfilled u JOIN seen s ON u.user_code = s.user_code
        WHERE s.first_seen < u.stop GROUP BY u.start
    ), drawn AS (
        SELECT c.start, count(*) AS n FROM chosen c JOIN unfilled u ON c.start = u.start
        LEFT JOIN seen s ON u.user_code = s.user_code AND c.item_code = s.item_code AND s.first_seen < u.stop
        WHERE s.user_code IS NULL GROUP BY c.start
    )
    SELECT u.* FROM unfilled u JOIN barred b ON u.start = b.start LEFT JOIN drawn d ON u.start = d.start
    WHERE :items - b.n - coalesce(d.n, 0) <= {CANDIDATES} - u.has"""

_CATALOGUE = """
    WITH free AS (
        SELECT u.start, u.has, i.item_code,
            row_number() OVER (PARTITION BY u.start ORDER BY hash60(concat_ws('|', 'any', u.name, i.item_id))) AS nth
        FROM {unfilled} u CROSS JOIN items i
        LEFT JOIN seen s ON u.user_code = s.user_code AND i.item_code = s.item_code AND s.first_seen < u.stop
        LEFT JOIN chosen c ON u.start = c.start AND i.item_code = c.item_code
        WHERE s.user_code IS NULL AND c.start IS NULL
    )
    SELECT start, item_code FROM free WHERE has + nth <= :most"""

_SHOWN = """
    SELECT c.start, c.item_code,
        row_number() OVER (PARTITION BY c.start ORDER BY hash60(concat_ws('|', 'at', a.name, i.item_id))) - 1 AS place
    FROM chosen c JOIN asked a ON c.start = a.start JOIN items i ON c.item_code = i.item_code"""


def find_candidates(engine: Engine, seed: int) -> None:
    """Make ``candidates`` (start, item_code, place from 0) for the validation and test anchors in ``starts``.

    Args:
        engine: that holds what `conrec.logs.relations.anchors.find_anchors` made.
        seed: of the draws.
    """
    engine.step("asked", _ASKED, seed=str(seed))
    engine.step("walking", "SELECT * FROM asked")
    engine.step("chosen", _NEXT_ITEM)
    _choose(engine, _OWN)
    engine.step("days", _DAYS)
    engine.step("steps", _STEPS)
    engine.step("shuffled", _NOTHING_SHUFFLED)
    last = engine.number("SELECT coalesce(max(place), 0) FROM days")
    # The anchor's day, a few steps first; the days before it, near ones first; the catalogue.
    for steps in pairwise((0, *_STEPS_AT_ONCE)):
        _walk(engine, seed, (0, 0), steps)
    _walk(engine, seed, (0, 0), None)
    if _unfilled(engine):
        engine.step("exhausted", _EXHAUSTED, items=engine.number("SELECT count(*) AS n FROM items"))
        _choose(engine, _CATALOGUE.format(unfilled="exhausted"), most=CANDIDATES)
        engine.step("walking", "SELECT * FROM walking WHERE start NOT IN (SELECT start FROM exhausted)")
    for days in ((1, _EARLIER_DAYS), (1, last)):
        _walk(engine, seed, days, None)
    if _unfilled(engine):
        _choose(engine, _CATALOGUE.format(unfilled="unfilled"), most=CANDIDATES)
    engine.step("candidates", _SHOWN)
    engine.drop(
        "exhausted", "shuffled", "unshuffled", "walks", "unfilled", "steps", "days", "chosen", "walking", "asked"
    )


def _walk(engine: Engine, seed: int, days: tuple[int, int], steps: tuple[int, int] | None) -> None:
    """Let the unfilled anchors walk through days (how far before their own, from and to), or some steps of them.

    Those who met almost all of a day's items must look at almost all of its events; no more than some millions at once.
    """
    if not _unfilled(engine):
        return
    engine.step("all_walks", _WALKS, nearest=days[0], farthest=days[1])
    engine.step("unshuffled", _UNSHUFFLED)
    if engine.number("SELECT count(*) AS n FROM unshuffled"):
        engine.step("more", _SHUFFLED, seed=str(seed))
        engine.step("shuffled", "SELECT * FROM shuffled UNION ALL SELECT * FROM more")
    parts = 1 if steps else 1 + engine.number("SELECT coalesce(sum(n), 0) AS n FROM all_walks") // _ROWS_AT_ONCE
    for part in range(parts):
        engine.step("walks", "SELECT * FROM all_walks WHERE start % :parts = :part", parts=parts, part=part)
        if steps:
            _choose(engine, _WALKED.format(met=_SOME_STEPS), first=steps[0], last=steps[1], most=CANDIDATES)
        else:
            _choose(engine, _WALKED.format(met=_ALL_STEPS), most=CANDIDATES)
    engine.drop("all_walks")


def _unfilled(engine: Engine) -> int:
    """Find the anchors with fewer than 20 candidates; how many they are."""
    engine.step("unfilled", _UNFILLED)
    return engine.number("SELECT count(*) FROM unfilled")


def _choose(engine: Engine, query: str, **values: int) -> None:
    """Add what a query gives to ``chosen``."""
    engine.step("more", query, **values)
    engine.step("chosen", "SELECT * FROM chosen UNION ALL SELECT * FROM more")
    engine.drop("more")
