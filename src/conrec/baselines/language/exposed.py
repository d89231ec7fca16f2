"""Training choices made as candidates are: a disliked item among items that the user met or could have met that day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from conrec.arrays import Array
from conrec.logs.anchors import Anchors
from conrec.logs.log import Log
from conrec.protocol import DAY, NEGATIVE

__all__ = ["Exposed", "draw_exposed"]


@dataclass(frozen=True, slots=True)
class Exposed:
    """n times an item that was disliked next, and items exposed the same day.

    Attributes:
        user: int32 [n].
        timestamp: int64 [n].
        item: int32 [n], the disliked one.
        others: n times int64 [at most as many as were asked for], distinct, in random order, never ``item``.
    """

    user: Array
    timestamp: Array
    item: Array
    others: Sequence[Array]

    def __len__(self) -> int:
        return len(self.user)


def draw_exposed(
    train_log: Log, anchors: Anchors, horizon_seconds: int, others: int, rng: np.random.Generator
) -> Exposed:
    """Choices of some training anchors, by the rule of `conrec.logs.relations.candidates` within the training period.

    First what the user met that UTC day, from the anchor's time on, without disliking it in the window; then what
    others met that day, by popularity; then what they met on the days before; then any other item. Never one of the
    history or the window.

    Args:
        train_log: the log of the training period.
        anchors: training anchors.
        horizon_seconds: length of a window.
        others: items to draw for each.
        rng: source of chance.
    """
    drawn = []
    for row in range(len(anchors)):
        user, time = int(anchors.user[row]), int(anchors.timestamp[row])
        drawn.append(_others(train_log, user, time, time + horizon_seconds, int(anchors.next_item[row]), others, rng))
    return Exposed(anchors.user, anchors.timestamp, anchors.next_item, drawn)


def _others(log: Log, user: int, time: int, stop: int, answer: int, n: int, rng: np.random.Generator) -> Array:
    """At most n items exposed to a user on the day of a time, in random order."""
    begin = time // DAY * DAY
    window = log.events_of(user, time, stop)
    barred = {answer, *log.item[log.history(user, time)].tolist()}
    disliked = set(log.item[window[log.feedback[window] == NEGATIVE]].tolist())
    met = set(log.item[log.events_of(user, time, min(stop, begin + DAY))].tolist()) - barred - disliked
    chosen = rng.permutation(sorted(met))[:n].astype(np.int64)
    if len(chosen) == n:
        return chosen
    barred |= set(log.item[window].tolist())
    found = chosen.tolist()
    end = int(np.searchsorted(log.timestamp, begin + DAY))
    for first in _days_before(log, begin, end):
        # A walk through the events of the day in random order: distinct items by their number of events.
        for item in rng.permutation(log.item[first:end]).tolist():
            if len(found) == n:
                break
            if item not in barred:
                barred.add(item)
                found.append(item)
        if len(found) == n:
            break
        end = first
    else:
        free = np.setdiff1d(np.arange(log.n_items), sorted(barred))
        found += rng.permutation(free)[: n - len(found)].tolist()
    return rng.permutation(np.asarray(found, dtype=np.int64))


EARLIER = 8
"""Days with events before the anchor's that are walked through."""


def _days_before(log: Log, begin: int, end: int) -> list[int]:
    """Positions of the first events of the day that begins at a time, and of those before it that have events."""
    firsts = [int(np.searchsorted(log.timestamp, begin))]
    while firsts[-1] > 0 and len(firsts) <= EARLIER:
        day = int(log.timestamp[firsts[-1] - 1]) // DAY * DAY
        firsts.append(int(np.searchsorted(log.timestamp, day)))
    return firsts
