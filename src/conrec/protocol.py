"""The protocol: every definition that a printed figure rests on, as pure functions on arrays.

In words (``docs/protocol.md`` explains the reasons):

* **Events** are ordered by (timestamp, position in the source). Feedback is -1, 0 or +1.
* **Periods**: a cut at share q is the timestamp of the event at position ``floor(q * N)``, counted from 0.
  Training is before T_val, validation is [T_val, T_test), test is from T_test to the last event.
* **Windows** of a user tile a period: the first negative in it opens [t, t + H days), the first negative
  at or after the end of that window opens the next. A window never crosses the end of its period.
* **Anchor**: the (user, t) of a window. Its **history** is the user's events strictly before t.
  Anchors without any history are left out.
* **Future negatives**: the distinct negatives of the window that are not in the history, in order of
  their first event; an anchor with none is left out. **Next item**: the first of them.
  **Future positives**: the distinct positives of the window.
* **Training anchors**: one for every negative event before T_val, windows cut off at T_val.
* **Eligible** for a top K: the catalogue less the user's history (a setting keeps the history in).
* **Long tail**: users with fewer than 3, items with fewer than 5 negatives in the training period.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import floor

import numpy as np
from jaxtyping import Int64

from conrec.arrays import Array
from conrec.errors import DataError

__all__ = [
    "CANDIDATES",
    "DAY",
    "LONG_TAIL_ITEM_NEGATIVES",
    "LONG_TAIL_USER_NEGATIVES",
    "NEGATIVE",
    "NEUTRAL",
    "POSITIVE",
    "Periods",
    "cut_periods",
    "periods_of",
    "tile_windows",
]

NEGATIVE, NEUTRAL, POSITIVE = -1, 0, 1
DAY = 86_400
"""Seconds in a day (UTC)."""
LONG_TAIL_USER_NEGATIVES = 3
LONG_TAIL_ITEM_NEGATIVES = 5
CANDIDATES = 20


@dataclass(frozen=True, slots=True)
class Periods:
    """The three periods of a log, as int64 seconds UTC.

    Attributes:
        validation: T_val; the training period is everything before it.
        test: T_test; the validation period is [T_val, T_test).
        end: one second after the last event; the test period is [T_test, end).
    """

    validation: int
    test: int
    end: int

    def span(self, split: str) -> tuple[int, int]:
        """First second of a split ("train", "validation", "test") and the second after its last."""
        begin = np.iinfo(np.int64).min
        return {
            "train": (int(begin), self.validation),
            "validation": (self.validation, self.test),
            "test": (self.test, self.end),
        }[split]


def periods_of(timestamps: Int64[Array, " events"], validation_cut: float, test_cut: float) -> Periods:
    """Cut a log in time order at the shares ``validation_cut`` and ``test_cut``.

    Raises:
        DataError: the cuts leave the training or the validation period empty.
    """
    return cut_periods(len(timestamps), lambda position: int(timestamps[position]), validation_cut, test_cut)


def cut_periods(n: int, at: Callable[[int], int], validation_cut: float, test_cut: float) -> Periods:
    """Cut a log of ``n`` events, of which ``at`` gives the timestamp at a position in time order, from 0.

    Raises:
        DataError: the cuts leave the training or the validation period empty.
    """
    if n == 0:
        raise DataError("the log has no events", expected="at least a few hundred events")
    # In decimals, as a share is written: 0.7 * 90 is 62.99… in binary floats.
    validation, test = (at(floor(Fraction(str(share)) * n)) for share in (validation_cut, test_cut))
    if not at(0) < validation < test:
        raise DataError(
            f"the cuts at {validation_cut} and {test_cut} of {n} events fall on the timestamps {validation} and {test}",
            where="periods",
            expected="three periods that all hold events",
            mend="The log is too short, or too many events share one timestamp: bring more time, or move "
            "protocol.validation_cut and protocol.test_cut.",
        )
    return Periods(validation, test, at(n - 1) + 1)


def tile_windows(negative_times: Int64[Array, " negatives"], horizon: int) -> Int64[Array, " windows"]:
    """Positions (into ``negative_times``, sorted) of the negatives that open a window of ``horizon`` seconds."""
    opens: list[int] = []
    position = 0
    while position < len(negative_times):
        opens.append(position)
        position = int(np.searchsorted(negative_times, negative_times[position] + horizon, side="left"))
    return np.asarray(opens, dtype=np.int64)
