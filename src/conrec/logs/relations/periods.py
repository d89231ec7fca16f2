"""Where the periods are cut (`conrec.protocol`): the timestamp at a position in time order, without sorting the log."""

from __future__ import annotations

import numpy as np

from conrec.logs.engines.base import Engine
from conrec.protocol import DAY, Periods, cut_periods

__all__ = ["cut_log"]

_DAYS = f"SELECT bucket(ts, {DAY}) AS day, count(*) AS n FROM events GROUP BY bucket(ts, {DAY}) ORDER BY day"
_SECONDS = f"SELECT ts, count(*) AS n FROM events WHERE bucket(ts, {DAY}) = :day GROUP BY ts ORDER BY ts"


def cut_log(engine: Engine, validation_cut: float, test_cut: float) -> Periods:
    """The periods of ``events``.

    Events are counted by day, and by second within the day that holds the wanted position: two small answers instead
    of a sorted log.

    Raises:
        DataError: the log is empty, or the cuts leave a period empty.
    """
    days = engine.read(_DAYS)
    day, count = days["day"].to_numpy(), days["n"].to_numpy()
    ends = np.cumsum(count)

    def at(position: int) -> int:
        index = int(np.searchsorted(ends, position, side="right"))
        seconds = engine.read(_SECONDS, day=int(day[index]))
        within = position - int(ends[index] - count[index])
        return int(
            seconds["ts"][int(np.searchsorted(np.cumsum(seconds["n"].to_numpy()), within, side="right"))].as_py()
        )

    return cut_periods(int(count.sum()), at, validation_cut, test_cut)
