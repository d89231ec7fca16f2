"""The 20 candidates of an anchor: its next item and 19 others, drawn once and ranked by every model.

The others, each step only for what the step before left open:

1. items that this user met the same UTC day, from the anchor's time on and within its period, without
   disliking them in the window and without having them in the history; in order of time, and a draw
   among them where they are more than 19;
2. items that other users had events with on that day, drawn without replacement with probability
   proportional to the number of those events; never one of the user's history or window;
3. the same from the days before, one after another; never from a day after;
4. other catalogue items, uniformly; never one of the user's history or window.

An anchor has fewer than 20 candidates only where the catalogue has no more.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int32

from conrec.arrays import Array
from conrec.logs.anchors import Anchors
from conrec.logs.log import Log
from conrec.logs.schema import SPLITS
from conrec.protocol import CANDIDATES, DAY, NEGATIVE, Periods
from conrec.seeds import generator

__all__ = ["draw_candidates"]


def draw_candidates(
    log: Log, anchors: Anchors, periods: Periods, horizon_seconds: int, seed: int
) -> Int32[Array, "anchors 20"]:
    """Candidates of each validation and test anchor.

    Each anchor's draw is seeded by (``seed``, the user's id, the anchor's time), so that neither the order of
    users nor the other anchors change it.

    Args:
        log: the whole log.
        anchors: of any splits.
        periods: the log's cuts.
        horizon_seconds: H in seconds.
        seed: of the draw.

    Returns:
        int32 [anchors, 20], shuffled; -1 behind the last where a catalogue is too small; training anchors all -1.
    """
    days = _Days(log)
    drawn = np.full((len(anchors), CANDIDATES), -1, dtype=np.int32)
    barred = np.zeros(log.n_items, dtype=bool)
    for row, next_item in enumerate(anchors.next_item):
        split = SPLITS[anchors.split[row]]
        if split == "train":
            continue
        user, t = int(anchors.user[row]), int(anchors.timestamp[row])
        draw = generator(seed, "candidates", log.user_ids[user], t)
        _, end = periods.span(split)
        history = log.item[log.history(user, t)]
        window = log.events_of(user, t, min(t + horizon_seconds, end))
        own = _own(log, window, history, anchors.future_negatives[row], t // DAY)
        chosen = np.concatenate([[next_item], _draw(draw, own, None, CANDIDATES - 1)])
        touched = np.concatenate([history, log.item[window], chosen])
        barred[touched] = True
        chosen = _fill(draw, chosen, barred, days, user, t // DAY)
        barred[touched] = False
        barred[chosen] = False
        drawn[row, : len(chosen)] = draw.permutation(chosen)
    return drawn


def _own(log: Log, window: Array, history: Array, negatives: Array, day: int) -> Array:
    """Distinct items of the user's window that he met on ``day`` and did not dislike, in order of time."""
    today = window[(log.timestamp[window] // DAY == day) & (log.feedback[window] != NEGATIVE)]
    items = log.item[today]
    items = items[~np.isin(items, history) & ~np.isin(items, negatives)]
    _, first = np.unique(items, return_index=True)
    return np.take(items, np.sort(first))


def _fill(draw: np.random.Generator, chosen: Array, barred: Array, days: _Days, user: int, day: int) -> Array:
    """``chosen`` with others' items of that day, of the days before, and of the catalogue, up to 20.

    ``barred`` (bool [items]) marks what must not be drawn; what is drawn gets marked.
    """
    position: int | None = days.position(day)
    while len(chosen) < CANDIDATES and position is not None:
        items, counts = days.others(position, user)
        free = ~barred[items]
        found = _draw(draw, items[free], counts[free], CANDIDATES - len(chosen))
        barred[found] = True
        chosen = np.concatenate([chosen, found])
        position = position - 1 if position else None
    if len(chosen) < CANDIDATES:
        found = _draw(draw, np.flatnonzero(~barred), None, CANDIDATES - len(chosen))
        barred[found] = True
        chosen = np.concatenate([chosen, found])
    return chosen.astype(np.int32)


def _draw(draw: np.random.Generator, items: Array, weights: Array | None, most: int) -> Array:
    """All of ``items`` where they are at most ``most``, else a draw without replacement.

    Weighted draws take the largest log(weight) + Gumbel noise, which is the same as drawing one after another
    with probability proportional to the weight.
    """
    if len(items) <= most:
        return items
    noise = draw.gumbel(size=len(items))
    keys = noise if weights is None else noise + np.log(weights)
    return items[np.sort(np.argsort(-keys, kind="stable")[:most])]


class _Days:
    """Events of each UTC day that has any, in order."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.day, first = np.unique(log.timestamp // DAY, return_index=True)
        self.first = np.append(first, len(log))
        self.counted: dict[int, tuple[Array, Array]] = {}

    def position(self, day: int) -> int:
        """Index of a day that has events."""
        return int(np.searchsorted(self.day, day))

    def others(self, position: int, user: int) -> tuple[Array, Array]:
        """Items with events of other users on a day, by item index, and the number of those events."""
        span = slice(int(self.first[position]), int(self.first[position + 1]))
        if position not in self.counted:
            self.counted[position] = np.unique(self.log.item[span], return_counts=True)
        items, counts = self.counted[position]
        own = self.log.item[span][self.log.user[span] == user]
        if len(own):
            counts = counts.copy()
            np.subtract.at(counts, np.searchsorted(items, own), 1)
        return items[counts > 0], counts[counts > 0]
