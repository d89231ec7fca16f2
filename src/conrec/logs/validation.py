"""From raw columns to clean events and items; each row is kept or refused for one reason, and counted.

A mistake in the structure of a file (a missing column, another unit of time, one item under two titles) is
an error that names its place. A mistake in single rows is counted and the row refused, unless more rows are
refused than `DataConfig.max_refused` allows: then the most frequent reason is the error.

Of the events of one user, item and second the last in the file stays (`DataConfig.duplicates`). The others are counted
as "duplicate event" where their feedback is that of the one that stays, else as "contradicting event".
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conrec.arrays import Array
from conrec.config import DataConfig, EventColumns, FeedbackRule
from conrec.errors import ConfigError, DataError
from conrec.logs.columns import EARLIEST, ids_of, likely_unit, numbers_of, seconds_of, strings_of
from conrec.logs.counts import FileCounts
from conrec.logs.files import Raw
from conrec.logs.schema import EVENTS
from conrec.protocol import DAY, NEGATIVE, NEUTRAL, POSITIVE

__all__ = ["Refusals", "clean_events", "feedback_column", "feedback_names"]


class Refusals:
    """The reason for which each row is refused; the first reason that applies counts."""

    def __init__(self, raw: Raw) -> None:
        self.raw = raw
        self.kept: Array = np.ones(raw.table.num_rows, dtype=bool)
        self.refused: dict[str, int] = {}
        self.noted: dict[str, int] = {}
        self.examples: dict[str, str] = {}
        self.first: dict[str, int] = {}
        self.asked = 0

    def refuse(self, wrong: Array, reason: str, shown: Callable[[int], str], *, asked: bool = False) -> None:
        """Refuse the rows of the mask ``wrong`` that are still kept.

        Args:
            wrong: bool [rows].
            reason: under which they are counted.
            shown: says what stands in a row.
            asked: whether the user asked for it; such rows are no sign of a broken file.
        """
        self._count(self.refused, wrong & self.kept, reason, shown)
        self.asked += int((wrong & self.kept).sum()) if asked else 0
        self.kept = self.kept & ~wrong

    def note(self, odd: Array, remark: str, shown: Callable[[int], str]) -> None:
        """Count kept rows without refusing them."""
        self._count(self.noted, odd & self.kept, remark, shown)

    def counts(self, most: float, *, may_be_empty: bool = False) -> FileCounts:
        """The counts.

        Args:
            most: share of rows that may be refused.
            may_be_empty: whether it is no mistake that none is kept.

        Raises:
            DataError: more are, with the counts and the first example of the most frequent reason.
        """
        counts = self._counts()
        if counts.rows - counts.kept - self.asked > most * counts.rows or not (counts.kept or may_be_empty):
            found, where = self._worst(counts)
            raise DataError(
                found,
                where=where,
                expected=f"at most {most:.0%} refused rows",
                mend="Mend the file or its column mapping; to go on with the rest, raise data.max_refused.",
            )
        return counts

    def counts_or(self, none: str) -> FileCounts:
        """The counts of a file of which any row may be refused, as long as one is kept.

        Args:
            none: what it means where none is.

        Raises:
            DataError: not one row is kept.
        """
        counts = self._counts()
        if not counts.kept:
            found, where = self._worst(counts)
            raise DataError(f"{none}: {found}", where=where)
        return counts

    def _counts(self) -> FileCounts:
        rows, kept = len(self.kept), int(self.kept.sum())
        return FileCounts(self.raw.path.name, rows, kept, self.refused, self.noted, self.examples)

    def _worst(self, counts: FileCounts) -> tuple[str, str]:
        """What is wrong with the refused rows, and the place of the first of the most frequent reason."""
        worst = max(self.refused, key=lambda reason: self.refused[reason])
        listed = ", ".join(f"{n} {reason}" for reason, n in self.refused.items())
        found = (
            f"{counts.rows - counts.kept} of {counts.rows} rows cannot be used ({listed}); "
            f"the first that is {worst!r} is {self.examples[worst]}"
        )
        return found, self.raw.place(self.first[worst])

    def _count(self, into: dict[str, int], rows: Array, reason: str, shown: Callable[[int], str]) -> None:
        found = np.flatnonzero(rows)
        if len(found):
            into[reason] = len(found)
            self.first[reason] = int(found[0])
            self.examples[reason] = f"{self.raw.at(int(found[0]))}: {shown(int(found[0]))}"


def feedback_names(columns: EventColumns) -> list[str]:
    """The columns among which `feedback_column` chooses: those that are given, else all three of its own names."""
    given = [name for name in (columns.rating, columns.event, columns.feedback) if name is not None]
    return given or ["rating", "event", "feedback"]


def feedback_column(columns: EventColumns, present: list[str]) -> EventColumns:
    """The mapping with exactly one of rating, event and feedback; where none is given, the file's own column
    of one of these names is taken.

    Raises:
        ConfigError: none or several of them.
    """
    kinds = ("rating", "event", "feedback")
    given: list[str] = [name for name in kinds if getattr(columns, name) is not None]
    if not given:
        found: list[str] = [name for name in kinds if name in present]
        columns = columns.model_copy(update={name: name for name in found})
        given = found
    if len(given) != 1:
        raise ConfigError(
            f"{' and '.join(given) or 'none of rating, event and feedback'} {'are' if given else 'is'} given",
            where="data.columns",
            expected="exactly one of rating, event and feedback",
            mend=f"Say which column tells likes from dislikes; the file has {', '.join(map(repr, present))}.",
        )
    return columns


def clean_events(
    raw: Raw, columns: EventColumns, config: DataConfig, items: pa.Table, now: int | None = None
) -> tuple[pa.Table, FileCounts]:
    """Events of schema EVENTS in the order of the file, and the counts.

    Args:
        raw: the columns that ``columns`` names.
        columns: exactly one of rating, event and feedback is given.
        config: the rule from rating or event name to feedback, the unit of time, what to do with duplicates.
        items: clean items; an event of any other item is refused.
        now: seconds UTC; events later than a day after it are refused. None: the clock's.

    Raises:
        DataError: a column cannot be read at all, or too many rows are refused.
        ConfigError: the rule has no thresholds or no event names.
    """
    latest = (int(time.time()) if now is None else now) + DAY
    refusals = Refusals(raw)
    user, user_there = ids_of(raw, columns.user_id)
    item, item_there = ids_of(raw, columns.item_id)
    seconds, read = seconds_of(raw, columns.timestamp, config.timestamp_unit, latest)

    def value(column: str | None) -> Callable[[int], str]:
        return lambda row: f"{column} = {raw.table[column][row].as_py()!r}"

    def moment(row: int) -> str:
        hint = likely_unit(raw, columns.timestamp, int(seconds[row]), config.timestamp_unit, latest)
        return f"{value(columns.timestamp)(row)} ({'; '.join(filter(None, (_moment(int(seconds[row])), hint)))})"

    refusals.refuse(~user_there, "empty user id", value(columns.user_id))
    refusals.refuse(~item_there, "empty item id", value(columns.item_id))
    refusals.refuse(~read, "timestamp not readable", value(columns.timestamp))
    refusals.refuse(
        (seconds < EARLIEST) | (seconds > latest),
        "timestamp before 1990 or in the future",
        moment,
    )
    feedback = _feedback(raw, columns, config.feedback, refusals)
    if columns.reason is not None and config.feedback.left_out_reasons:
        left_out = pa.array(config.feedback.left_out_reasons, pa.string())
        given = np.asarray(pc.is_in(strings_of(raw, columns.reason), value_set=left_out))
        refusals.refuse((feedback == NEGATIVE) & given, "reason left out", value(columns.reason), asked=True)
    known = np.asarray(pc.is_in(item, value_set=items["item_id"].combine_chunks()))
    example = items["item_id"][0].as_py() if items.num_rows else ""
    refusals.refuse(
        ~known,
        "unknown item",
        lambda row: f"item {item[row].as_py()!r} is not in the items file (which begins with {example!r})",
    )
    if config.duplicates == "last":
        last = _last(user, item, seconds, refusals.kept)
        again = last != np.arange(len(last))

        def repeated(row: int) -> str:
            same = f"user {user[row].as_py()!r}, item {item[row].as_py()!r}, timestamp {seconds[row]}"
            if feedback[row] == feedback[last[row]]:
                return f"{same} come again"
            later = raw.at(int(last[row]))
            return f"{same} have feedback {feedback[row]} here and {feedback[last[row]]} on {later}, which stays"

        refusals.refuse(again & (feedback != feedback[last]), "contradicting event", repeated)
        refusals.refuse(again, "duplicate event", repeated)
    counts = refusals.counts(config.max_refused)
    keep = pa.array(refusals.kept)
    table = pa.table(
        {"user_id": user, "item_id": item, "timestamp": pa.array(seconds), "feedback": pa.array(feedback)},
        schema=EVENTS,
    )
    return table.filter(keep), counts


def _feedback(raw: Raw, columns: EventColumns, rule: FeedbackRule, refusals: Refusals) -> Array:
    """Feedback of each row, int8; rows without one are refused."""
    if columns.rating is not None:
        low, high = rule.negative_at_most, rule.positive_at_least
        if low is None:
            raise ConfigError(
                "no rule says which ratings are negative",
                where="data.feedback",
                mend="Set data.feedback.negative_at_most and positive_at_least, for instance 2 and 4 for stars.",
            )
        if high is not None and high <= low:
            raise ConfigError(f"positive_at_least {high} is not above negative_at_most {low}", where="data.feedback")
        rating, there = numbers_of(raw, columns.rating, "a number in each row")
        shown = _shown(raw, columns.rating)
        refusals.refuse(~there, "rating not a number", shown)
        positive = np.zeros(len(rating), dtype=bool) if high is None else rating >= high
        return np.where(rating <= low, NEGATIVE, np.where(positive, POSITIVE, NEUTRAL)).astype(np.int8)
    if columns.event is not None:
        if not rule.events:
            raise ConfigError(
                "no rule says what the event names mean",
                where="data.feedback.events",
                mend="For instance events = { not_interested = -1, view = 0, purchase = 1 }.",
            )
        names = pc.fill_null(strings_of(raw, columns.event), "")
        listed = list(rule.events)
        code = np.asarray(pc.fill_null(pc.index_in(names, value_set=pa.array(listed, pa.string())), -1))
        refusals.refuse(code < 0, "event name not listed", _shown(raw, columns.event))
        meaning: Array = np.asarray([*(rule.events[name] for name in listed), NEUTRAL], dtype=np.int8)
        return np.take(meaning, code)
    assert columns.feedback is not None  # feedback_column has seen to it
    number, there = numbers_of(raw, columns.feedback, "-1, 0 or 1")
    right = there & np.isin(number, (NEGATIVE, NEUTRAL, POSITIVE))
    refusals.refuse(~right, "feedback not -1, 0 or 1", _shown(raw, columns.feedback))
    return np.where(right, number, NEUTRAL).astype(np.int8)


def _last(user: pa.Array, item: pa.Array, seconds: Array, kept: Array) -> Array:
    """For each kept row the last kept row with its (user, item, timestamp), int64 [rows].

    Rows that are not kept point to themselves.
    """
    rows = np.flatnonzero(kept)
    keys: tuple[Any, ...] = (
        rows,
        seconds[rows],
        np.asarray(item.dictionary_encode().indices)[rows],
        np.asarray(user.dictionary_encode().indices)[rows],
    )
    order = np.lexsort(keys)
    ends = np.ones(len(order), dtype=bool)  # in that order, whether a row is the last of its group
    if len(order):
        ends[:-1] = np.any([key[order][1:] != key[order][:-1] for key in keys[1:]], axis=0)
    group_end = np.flatnonzero(ends)[np.cumsum(ends) - ends]
    last = np.arange(len(kept), dtype=np.int64)
    last[rows[order]] = rows[order[group_end]]
    return last


def _shown(raw: Raw, column: str) -> Callable[[int], str]:
    return lambda row: f"{column} = {raw.table[column][row].as_py()!r}"


def _moment(seconds: int) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
    except (ValueError, OverflowError, OSError):
        return "beyond the calendar"
