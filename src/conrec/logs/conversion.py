"""From the columns of an events file to events: each row on its own, kept or refused, so that a file may come in parts.

Rules that look at several events of a user are in `conrec.logs.relations.cleaning`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conrec.arrays import Array
from conrec.errors import ConfigError
from conrec.logs.columns import Rows, ids_of, numbers_of, read_ids, read_numbers, shown_at, strings_of
from conrec.logs.times import EARLIEST, likely_unit, read_seconds, seconds_of
from conrec.protocol import NEGATIVE, NEUTRAL, POSITIVE
from conrec.settings.data import DataConfig, EventColumns, FeedbackRule, reason_key

__all__ = ["CONVERTED", "NOTES", "Part", "check_columns", "convert"]

CONVERTED = pa.schema(
    [
        ("position", pa.int64()),  # in the source, from 0
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("timestamp", pa.int64()),
        ("feedback", pa.int8()),
        ("undoes", pa.int8()),  # -1: takes back a dislike, +1: a like, 0: nothing
        ("refused", pa.string()),  # for what reason; null: kept so far
        ("noted", pa.string()),  # what is worth a note, joined by NOTES; null: nothing
        ("shown", pa.string()),  # what stands in the first row of a part that is refused or noted for something
    ]
)
"""Rows of an events file after conversion; what a refused one holds in the columns before ``refused`` is of no use."""
NOTES = "; "
_UNDOES = {"undo dislike": NEGATIVE, "undo like": POSITIVE}


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of a file.

    Attributes:
        table: their columns.
        first: position of the first one in the file.
        whole: the file.
    """

    table: pa.Table
    first: int
    whole: Rows

    def place(self, row: int, column: str = "") -> str:
        """File, line or row, and column, for an error."""
        return self.whole.place(self.first + row, column)


def convert(rows: Rows, columns: EventColumns, config: DataConfig, latest: int, first: int = 0) -> pa.Table:
    """Events of schema `CONVERTED`, one for each row, in their order.

    Args:
        rows: of a file or of a part of it, the columns that ``columns`` names.
        columns: exactly one of rating, event and feedback is given.
        config: the rule from rating, event name and reason to feedback, the unit and the zone of time.
        latest: seconds UTC after which nothing can have happened.
        first: position of the first row in the source.

    Raises:
        DataError: a column holds what can be no id, or text that is not UTF-8.
        ConfigError: the rule has no thresholds or no event names, or there is no such time zone.
    """
    marks = _Marks(rows.table.num_rows)
    user, user_there, user_trimmed = read_ids(rows, columns.user_id)
    item, item_there, item_trimmed = read_ids(rows, columns.item_id)
    unit = config.timestamp_unit
    times = read_seconds(rows, columns.timestamp, unit, latest, config.timezone)
    seconds = times.seconds

    def moment(row: int) -> str:
        hint = likely_unit(rows, columns.timestamp, int(seconds[row]), unit, latest)
        return f"{_value(rows, columns.timestamp)(row)} ({'; '.join(filter(None, (_date(int(seconds[row])), hint)))})"

    def trimmed(row: int) -> str:
        return _value(rows, columns.user_id if user_trimmed[row] else columns.item_id)(row)

    marks.refuse(~user_there, "empty user id", _value(rows, columns.user_id))
    marks.refuse(~item_there, "empty item id", _value(rows, columns.item_id))
    marks.refuse(~times.there, "timestamp not readable", _value(rows, columns.timestamp))
    marks.refuse((seconds < EARLIEST) | (seconds > latest), "timestamp before 1990 or in the future", moment)
    feedback, undoes = _feedback(rows, columns, config.feedback, marks)
    if columns.reason is not None:
        dropped, unknown = _reasons(rows, columns.reason, config.feedback)
        negative = feedback == NEGATIVE
        marks.refuse(dropped & negative, "reason left out", _value(rows, columns.reason))
        marks.note(unknown & negative, "reason not in the table", _value(rows, columns.reason))
    marks.note(user_trimmed | item_trimmed, "white space around an id", trimmed)
    for remark, of_rows in times.remarks.items():
        marks.note(of_rows, remark, moment)
    position = np.arange(first, first + len(seconds), dtype=np.int64)
    return pa.Table.from_arrays([position, user, item, seconds, feedback, undoes, *marks.columns()], schema=CONVERTED)


def check_columns(rows: Rows, columns: EventColumns, config: DataConfig, latest: int) -> None:
    """Raise where a whole column cannot be read, or its unit is evidently another one; a slow look at a whole file.

    It finds nothing in a file of which `convert` keeps at least half of the rows.

    Args:
        rows: of the whole file.
        columns: as for `convert`.
        config: as for `convert`.
        latest: as for `convert`.

    Raises:
        DataError: not one value of a column can be read, or most timestamps are in another unit.
    """
    ids_of(rows, columns.user_id)
    ids_of(rows, columns.item_id)
    seconds_of(rows, columns.timestamp, config.timestamp_unit, latest, config.timezone)
    if columns.rating is not None:
        numbers_of(rows, columns.rating, "a number in each row")
    if columns.feedback is not None:
        numbers_of(rows, columns.feedback, "-1, 0 or 1")


class _Marks:
    """Why each row is refused, and what is to be said of those that are kept."""

    def __init__(self, rows: int) -> None:
        self.why = np.full(rows, -1, dtype=np.int8)  # index of the reason
        self.reasons: list[str] = []
        self.what = np.zeros(rows, dtype=np.int32)  # one bit a note
        self.notes: list[str] = []
        self.shown: dict[int, str] = {}

    def refuse(self, wrong: Array, reason: str, shown: Callable[[int], str]) -> None:
        """Refuse the rows of a mask that are still kept."""
        found = wrong & (self.why < 0)
        if found.any():
            self.why[found] = len(self.reasons)
            self.reasons.append(reason)
            self._show(found, shown)

    def note(self, odd: Array, remark: str, shown: Callable[[int], str]) -> None:
        """Note the kept rows of a mask; to be called when all are refused that will be."""
        found = odd & (self.why < 0)
        if found.any():
            self.what[found] |= 1 << len(self.notes)
            self.notes.append(remark)
            self._show(found, shown)

    def columns(self) -> tuple[pa.Array, pa.Array, pa.Array]:
        """The columns ``refused``, ``noted`` and ``shown``."""
        sets, of_row = np.unique(self.what, return_inverse=True)
        joined = [NOTES.join(one for bit, one in enumerate(self.notes) if bits >> bit & 1) or None for bits in sets]
        rows = np.full(len(self.why), -1, dtype=np.int32)
        rows[list(self.shown)] = np.arange(len(self.shown))
        return (
            _text_of(self.reasons, self.why),
            _text_of(joined, of_row.astype(np.int32)),
            _text_of(list(self.shown.values()), rows),
        )

    def _show(self, found: Array, shown: Callable[[int], str]) -> None:
        row = int(np.argmax(found))
        self.shown[row] = f"{self.shown[row]}; {shown(row)}" if row in self.shown else shown(row)


def _text_of(texts: Sequence[str | None], codes: Array) -> pa.Array:
    """The text of each code, null for -1."""
    indices = pa.array(codes, mask=codes < 0)
    return pa.array(texts, pa.string()).take(indices) if texts else pa.nulls(len(codes), pa.string())


def _feedback(rows: Rows, columns: EventColumns, rule: FeedbackRule, marks: _Marks) -> tuple[Array, Array]:
    """Feedback of each row and which feedback it takes back, int8 [rows] each; rows without either are refused."""
    none = np.zeros(rows.table.num_rows, dtype=np.int8)
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
        rating, there = read_numbers(rows, columns.rating)
        marks.refuse(~there, "rating not a number", _value(rows, columns.rating))
        positive = np.zeros(len(rating), dtype=bool) if high is None else rating >= high
        return np.where(rating <= low, NEGATIVE, np.where(positive, POSITIVE, NEUTRAL)).astype(np.int8), none
    if columns.event is not None:
        if not rule.events:
            raise ConfigError(
                "no rule says what the event names mean",
                where="data.feedback.events",
                mend="For instance events = { not_interested = -1, view = 0, purchase = 1 }.",
            )
        names = pc.fill_null(strings_of(rows, columns.event), "")
        listed = list(rule.events)
        code = np.asarray(pc.fill_null(pc.index_in(names, value_set=pa.array(listed, pa.string())), -1))
        marks.refuse(code < 0, "event name not listed", _value(rows, columns.event))
        means = [rule.events[name] for name in listed]
        feedback: Array = np.asarray([*(NEUTRAL if one in _UNDOES else one for one in means), NEUTRAL], dtype=np.int8)
        undoes: Array = np.asarray([*(_UNDOES.get(str(one), 0) for one in means), 0], dtype=np.int8)
        return np.take(feedback, code), np.take(undoes, code)
    assert columns.feedback is not None  # feedback_column has seen to it
    number, there = read_numbers(rows, columns.feedback)
    right = there & np.isin(number, (NEGATIVE, NEUTRAL, POSITIVE))
    marks.refuse(~right, "feedback not -1, 0 or 1", _value(rows, columns.feedback))
    return np.where(right, number, NEUTRAL).astype(np.int8), none


def _reasons(rows: Rows, column: str, rule: FeedbackRule) -> tuple[Array, Array]:
    """Which rows have a reason that is dropped, and which one that is not in the table: bool [rows] each."""
    actions = {reason_key(reason): action for reason, action in rule.reasons.items()}
    given = pc.fill_null(strings_of(rows, column), "").dictionary_encode()
    keys = [reason_key(one) for one in given.dictionary.to_pylist()]
    of_row = given.indices.to_numpy(zero_copy_only=False)
    dropped = np.asarray([actions.get(key) == "drop" for key in keys], dtype=bool)[of_row]
    unknown = np.asarray([bool(key) and key not in actions for key in keys], dtype=bool)[of_row]
    return dropped, unknown


def _value(rows: Rows, column: str) -> Callable[[int], str]:
    return lambda row: f"{column} = {shown_at(rows, column, row)}"


def _date(seconds: int) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
    except (ValueError, OverflowError, OSError):
        return "beyond the calendar"
