"""Rules of cleaning that look at several events, as queries; each takes its rows out of what the one before has left.

1. **catalogue**: an event of an item that the catalogue does not have is refused.
2. **undo**: an undo takes back the earlier events of its user and item whose sign it names, as far back as the undo
   before it and at most `CleaningConfig.undo_within_hours`. Neither they nor the undo itself stay. What was undone
   later than that was felt at its time, and taking it back would change histories by what came after them: it stays.
3. **duplicates**: of the events of one user, item and second the last in the source stays (`DataConfig.duplicates`).
4. **repeated presses**: an event at most `CleaningConfig.repeat_seconds` after the one before of the same user, item
   and feedback is refused, whether or not that one stays: a whole burst counts once.
5. **bot-like users**: all events of a user who has too many in one minute or one day of the clock (UTC) are refused.
6. **order**: an event that is earlier than the one before of its user in the source stays and is noted.

"Earlier" is by (timestamp, position in the source) throughout. What comes before, row by row, is in
`conrec.logs.conversion`; `conrec.logs.rules` has the words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from conrec.logs.columns import shown
from conrec.logs.conversion import NOTES
from conrec.logs.engines.base import Engine, Value
from conrec.logs.refusals import Places, Tally
from conrec.logs.rules import ASKED, in_order, rule_counts
from conrec.protocol import DAY
from conrec.settings.data import DataConfig

__all__ = ["clean"]

_COLUMNS = "position, user_id, item_id, timestamp, feedback"
_CONVERSION = """
    SELECT refused AS word, count(*) AS n, min(position) AS first,
        min_by(shown, CASE WHEN shown IS NOT NULL THEN position END) AS shown
    FROM converted WHERE refused IS NOT NULL GROUP BY refused"""
_NOTES = """
    SELECT c.noted AS word, count(*) AS n, min(c.position) AS first,
        min(CASE WHEN c.shown IS NOT NULL THEN c.position END) AS telling,
        min_by(c.shown, CASE WHEN c.shown IS NOT NULL THEN c.position END) AS shown
    FROM converted c WHERE c.noted IS NOT NULL
        AND EXISTS (SELECT 1 FROM clean_events e WHERE e.position = c.position) GROUP BY c.noted"""
_UNKNOWN = """
    SELECT count(*) AS n, min(position) AS first, min_by(item_id, position) AS item_id FROM converted c
    WHERE refused IS NULL AND NOT EXISTS (SELECT 1 FROM catalogue i WHERE i.item_id = c.item_id)"""
_KNOWN = "FROM converted WHERE refused IS NULL AND item_id IN (SELECT item_id FROM catalogue)"

# Events and undos of one sign in one line of time: what comes right before an undo is what it takes back, or too old,
# or another undo; and an event is taken back by the undo that comes next, however many events lie between.
_UNDONE = """
    WITH pairs AS (SELECT DISTINCT user_id, item_id, undoes AS sign FROM clean_events WHERE undoes <> 0), line AS (
        SELECT e.position, e.user_id, e.item_id, e.timestamp, e.undoes, p.sign
        FROM clean_events e JOIN pairs p ON e.user_id = p.user_id AND e.item_id = p.item_id
        WHERE e.undoes = p.sign OR (e.undoes = 0 AND e.feedback = p.sign)
    ), beside AS (
        SELECT position, timestamp, undoes,
            lag(undoes) OVER (PARTITION BY user_id, item_id, sign ORDER BY timestamp, position) AS undoes_before,
            lag(timestamp) OVER (PARTITION BY user_id, item_id, sign ORDER BY timestamp, position) AS ts_before,
            min(CASE WHEN undoes <> 0 THEN timestamp END) OVER (PARTITION BY user_id, item_id, sign
                ORDER BY timestamp, position ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING) AS undone_at
        FROM line
    )
    SELECT position, undone_at AS other, CASE
            WHEN undoes = 0 THEN 'taken back by an undo'
            WHEN undoes_before = 0 AND timestamp - ts_before <= :within THEN 'undo'
            WHEN undoes_before = 0 THEN 'undo of an older event'
            ELSE 'undo with nothing to undo' END AS reason
    FROM beside WHERE undoes <> 0 OR undone_at - timestamp <= :within"""
_AGAIN = """
    WITH repeated AS (
        SELECT user_id, item_id, timestamp, max(position) AS last FROM clean_events
        GROUP BY user_id, item_id, timestamp HAVING count(*) > 1
    )
    SELECT e.position, r.last AS other,
        CASE WHEN e.feedback = l.feedback THEN 'duplicate event' ELSE 'contradicting event' END AS reason
    FROM repeated r
    JOIN clean_events e ON e.user_id = r.user_id AND e.item_id = r.item_id AND e.timestamp = r.timestamp
    JOIN clean_events l ON l.position = r.last
    WHERE e.position <> r.last"""
_PRESSES = """
    SELECT position, other, 'repeated press' AS reason FROM (
        SELECT position, timestamp, lag(timestamp) OVER (PARTITION BY user_id, item_id, feedback
            ORDER BY timestamp, position) AS other FROM clean_events
    ) e WHERE timestamp - other <= :seconds"""
_BOTS = """
    SELECT e.position, b.most AS other, '{reason}' AS reason FROM clean_events e JOIN (
        SELECT user_id, max(n) AS most FROM (
            SELECT user_id, part, count(*) AS n
            FROM (SELECT user_id, bucket(timestamp, :width) AS part FROM clean_events) p GROUP BY user_id, part
        ) c GROUP BY user_id HAVING max(n) > :allowed
    ) b ON e.user_id = b.user_id"""
_TOO_FAST = _BOTS.format(reason="too many events in a minute")
_TOO_MANY = _BOTS.format(reason="too many events in a day")
_BACKWARDS = """
    SELECT count(*) AS n, min(position) AS first, min_by(user_id, position) AS user_id,
        min_by(timestamp, position) AS timestamp, min_by(before, position) AS other
    FROM (
        SELECT position, user_id, timestamp, lag(timestamp) OVER (PARTITION BY user_id ORDER BY position) AS before
        FROM clean_events
    ) e WHERE timestamp < before"""

_REMOVED = """
    SELECT reason, count(*) AS n, min(position) AS first, min_by(other, position) AS other
    FROM removed GROUP BY reason"""
_LEFT = f"""
    SELECT {_COLUMNS} FROM clean_events e
    WHERE NOT EXISTS (SELECT 1 FROM removed r WHERE r.position = e.position)"""
_ROW = f"SELECT {_COLUMNS} FROM clean_events WHERE position = :position"
_ALWAYS = 2**62

_Shown = Callable[[Mapping[str, Any], int | None], str]
"""From the first refused row and what its rule has to say beside it to an example."""


def clean(engine: Engine, config: DataConfig, source: Places, known_item: str) -> Tally:
    """Make ``clean_events`` (position, user_id, item_id, timestamp, feedback) of ``converted`` and ``catalogue``.

    Args:
        engine: that holds ``converted`` (`conrec.logs.conversion.CONVERTED`, each position once) and ``catalogue``
            (item_id, each once).
        config: the settings of the rules.
        source: where the rows of ``converted`` come from, asked by their positions.
        known_item: an item of the catalogue, shown beside one that is unknown.

    Returns:
        The counts of all rows, those that conversion refused included; whether too many are refused is left to
        `Tally.counts`.
    """
    cleaning = config.cleaning
    tally = Tally(source, engine.number("SELECT count(*) AS n FROM converted"))
    for row in sorted(engine.read(_CONVERSION).to_pylist(), key=lambda row: in_order(row["word"])):
        tally.add_refused(row["word"], row["n"], row["first"], row["shown"], asked=row["word"] in ASKED)
    undos = engine.number(f"SELECT count(*) AS n {_KNOWN} AND undoes <> 0")
    engine.step("clean_events", f"SELECT {_COLUMNS}{', undoes' if undos else ''} {_KNOWN}")
    if engine.number("SELECT count(*) AS n FROM clean_events") < tally.rows - sum(tally.refused.values()):
        unknown = engine.read(_UNKNOWN).to_pylist()[0]
        says = f"item {shown(unknown['item_id'])} is not in the items file (which begins with {shown(known_item)})"
        tally.add_refused("unknown item", unknown["n"], unknown["first"], says)
    if undos:
        hours = cleaning.undo_within_hours
        _remove(engine, tally, _UNDONE, _undo_shown, within=_ALWAYS if hours == "always" else int(hours * 3600))
    if config.duplicates == "last":
        _remove(engine, tally, _AGAIN, lambda row, last: _again_shown(engine, source, row, last))
    if cleaning.repeat_seconds:
        _remove(engine, tally, _PRESSES, _press_shown, seconds=cleaning.repeat_seconds)
    if cleaning.bot_events_per_minute is not None:
        _remove(engine, tally, _TOO_FAST, _bot_shown, width=60, allowed=cleaning.bot_events_per_minute)
    if cleaning.bot_events_per_day is not None:
        _remove(engine, tally, _TOO_MANY, _bot_shown, width=DAY, allowed=cleaning.bot_events_per_day)
    _note(engine, tally)
    tally.rules = rule_counts(tally.rows, tally.refused, tally.noted)
    return tally


def _remove(engine: Engine, tally: Tally, query: str, says: _Shown, **values: Value) -> None:
    """Take the rows that a query gives (position, other, reason) out of ``clean_events`` and count them."""
    engine.step("removed", query, **values)
    found = engine.read(_REMOVED).to_pylist()
    for one in sorted(found, key=lambda one: in_order(one["reason"])):
        row = engine.read(_ROW, position=one["first"]).to_pylist()[0]
        asked = one["reason"] in ASKED
        tally.add_refused(one["reason"], one["n"], one["first"], says(row, one["other"]), asked=asked)
    if found:
        engine.step("clean_events", _LEFT)
    engine.drop("removed")


def _note(engine: Engine, tally: Tally) -> None:
    """Count what is worth a note of the rows that are left."""
    words: dict[str, tuple[int, int, str]] = {}
    for row in engine.read(_NOTES).to_pylist():
        first, says = (row["first"], row["word"]) if row["shown"] is None else (row["telling"], row["shown"])
        for word in row["word"].split(NOTES):
            n, before, said = words.get(word, (0, first, says))
            words[word] = (n + row["n"], *min((before, said), (first, says)))
    for word in sorted(words, key=in_order):
        tally.add_noted(word, *words[word])
    backwards = engine.read(_BACKWARDS).to_pylist()[0]
    if backwards["n"]:
        says = f"user {shown(backwards['user_id'])}, timestamp {backwards['timestamp']} after {backwards['other']}"
        tally.add_noted("earlier than the row before of the same user", backwards["n"], backwards["first"], says)


def _event(row: Mapping[str, Any]) -> str:
    return f"user {shown(row['user_id'])}, item {shown(row['item_id'])}, timestamp {row['timestamp']}"


def _undo_shown(row: Mapping[str, Any], undone_at: int | None) -> str:
    return _event(row)


def _press_shown(row: Mapping[str, Any], before: int | None) -> str:
    return f"{_event(row)}, feedback {row['feedback']}, the same at {before}"


def _bot_shown(row: Mapping[str, Any], most: int | None) -> str:
    return f"user {shown(row['user_id'])}, who has {most} in one of them"


def _again_shown(engine: Engine, source: Places, row: Mapping[str, Any], last: int | None) -> str:
    assert last is not None
    stays = engine.read(_ROW, position=last).to_pylist()[0]
    if row["feedback"] == stays["feedback"]:
        return f"{_event(row)} come again"
    here, there = row["feedback"], stays["feedback"]
    return f"{_event(row)} have feedback {here} here and {there} on {source.at(last)}, which stays"
