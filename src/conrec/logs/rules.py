"""The rules that clean events, in the order in which they are applied, and what each counts under which words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from conrec.logs.counts import RuleCounts

__all__ = ["ASKED", "RULES", "Rule", "in_order", "rule_counts"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes:
        name: for people.
        refuses: reasons under which it refuses rows, in order.
        changes: notes of rows that it keeps otherwise than they stand in the source.
        notes: notes of rows that it leaves as they are.
        asked: whether the user asked for it, or the platform did: such rows are no sign of a broken file.
    """

    name: str
    refuses: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    asked: bool = False


RULES = (
    Rule("ids", ("empty user id", "empty item id"), ("white space around an id",)),
    Rule(
        "time",
        ("timestamp not readable", "timestamp before 1990 or in the future"),
        (
            "local time that the clock skips, read with the offset before the change",
            "local time that the clock shows twice, read as the first",
            "timestamp in milliseconds",
            "timestamp in microseconds",
            "timestamp in nanoseconds",
        ),
    ),
    Rule("feedback", ("rating not a number", "event name not listed", "feedback not -1, 0 or 1")),
    Rule("reasons", ("reason left out",), notes=("reason not in the table",), asked=True),
    Rule("catalogue", ("unknown item",)),
    Rule("undo", ("taken back by an undo", "undo", "undo of an older event", "undo with nothing to undo"), asked=True),
    Rule("duplicates", ("contradicting event", "duplicate event")),
    Rule("repeated presses", ("repeated press",), asked=True),
    Rule("bot-like users", ("too many events in a minute", "too many events in a day"), asked=True),
    Rule("order", notes=("earlier than the row before of the same user",)),
)

ASKED = frozenset(reason for rule in RULES if rule.asked for reason in rule.refuses)
"""Reasons that do not count towards `DataConfig.max_refused`."""

_WORDS = [word for rule in RULES for word in (*rule.refuses, *rule.changes, *rule.notes)]


def in_order(word: str) -> int:
    """Where a reason or a note stands among all of them."""
    return _WORDS.index(word)


def rule_counts(rows: int, refused: Mapping[str, int], noted: Mapping[str, int]) -> tuple[RuleCounts, ...]:
    """What each rule did, in order.

    Args:
        rows: that the first rule saw.
        refused: rows by reason.
        noted: kept rows by note.

    Returns:
        For each rule the rows that went on (the changed ones included), those of them that it changed and that are
        still there at the end, and those that it refused.
    """
    found: list[RuleCounts] = []
    for rule in RULES:
        gone = sum(refused.get(one, 0) for one in rule.refuses)
        rows -= gone
        found.append(RuleCounts(rule.name, rows, sum(noted.get(one, 0) for one in rule.changes), gone))
    return tuple(found)
