"""The platform day by day: feeds, reactions, learning; one day in memory at a time.

Each block of users has its own draws on each day, from a seed of (the run's, day, block). So the log depends on the
settings alone, however it is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from conrec.arrays import Array
from conrec.logs.simulation.reactions import Felt, Reactions, Thresholds, feel, react, thresholds_of
from conrec.logs.simulation.recommender import Recommender
from conrec.logs.simulation.visits import Visits, exposures_of_users, seconds_of_day
from conrec.logs.simulation.world import World, blocks, draw_world, mean_events
from conrec.progress import meter
from conrec.protocol import DAY
from conrec.seeds import generator
from conrec.settings.simulation import SimulationConfig

__all__ = ["Day", "calibrate", "days_of"]

PILOTS = 3
"""Pilots one after another, each with the thresholds that the one before would have needed."""
UNDO_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Day:
    """The events of one day by (time, user).

    Attributes:
        user: int64 [n].
        item: int64 [n].
        timestamp: int64 [n].
        reactions: of each event; of an undoing all of it but ``undoing`` means nothing.
        undoing: bool [n], events that take back the press of the same user on the same item before.
    """

    user: Array
    item: Array
    timestamp: Array
    reactions: Reactions
    undoing: Array

    def __len__(self) -> int:
        return len(self.user)


def days_of(world: World, thresholds: Thresholds, felt: list[Felt] | None = None) -> Iterator[Day]:
    """The days of the log, one after another.

    Args:
        world: with all users of the settings, or with the first of them alone, who are then alone on the platform.
        thresholds: of the reactions.
        felt: a list that is given what every exposure felt like, for `calibrate`.
    """
    config = world.config
    exposures = exposures_of_users(config)[: world.n_users]
    visits, recommender = Visits(config, exposures), Recommender(world, exposures)
    for day in range(config.days):
        recommender.open_day(day)
        parts: list[Day] = []
        for number, (begin, end) in enumerate(blocks(world.n_users)):
            random = generator(config.seed, "simulation", "day", day, number)
            sessions, shown = visits.of_day(day, begin, end, random)
            here = np.flatnonzero(shown)
            if not len(here):
                continue
            row, items = recommender.feed(random, begin + here, shown[here])
            made = np.bincount(row, minlength=len(here))
            visits.give_back(begin + here, shown[here] - made)
            there = made > 0
            seconds = seconds_of_day(random, np.minimum(sessions[here], made)[there], made[there])
            users = (begin + here)[row]
            taste = world.tastes(begin + here, np.full(len(here), day))
            feelings = feel(world, random, taste, row, users, items)
            reactions = react(config, random, feelings, thresholds)
            kept = np.where(reactions.undone, 0, reactions.feedback)
            recommender.learn(users, items, kept)
            if felt is not None:
                felt.append(feelings)
            events = Day(users, items, config.start + day * DAY + seconds, reactions, np.zeros(len(users), np.bool_))
            parts.append(_with_undoings(events, random))
        recommender.close_day()
        if parts:
            yield _in_order(parts)


def calibrate(config: SimulationConfig) -> Thresholds:
    """Thresholds of the reactions that give the shares of positives and negatives of the settings.

    What is shown depends on what was disliked before. So the first users of the platform, as many as give about
    ``pilot_events`` exposures, are simulated alone some times over, each time with the thresholds that would have met
    the shares the time before.
    """
    users = min(config.users, max(50, round(config.pilot_events / mean_events(config))))
    world = draw_world(config, users)
    thresholds = Thresholds(-1.5, 1.5)
    with meter("calibrating", PILOTS * config.days) as step:
        for pilot in range(PILOTS):
            felt: list[Felt] = []
            for _ in days_of(world, thresholds, felt):
                step(note=f"pilot {pilot + 1} of {PILOTS}")
            columns = (np.concatenate([getattr(one, name) for one in felt]) for name in Felt.__slots__)
            thresholds = thresholds_of(config, Felt(*columns))
    return thresholds


def _with_undoings(day: Day, random: np.random.Generator) -> Day:
    """The events of a block, and behind them one for each press that is taken back."""
    rows = np.flatnonzero(day.reactions.undone)
    if not len(rows):
        return day
    end = day.timestamp[rows] // DAY * DAY + DAY - 1
    later = np.minimum(day.timestamp[rows] + 1 + random.integers(0, UNDO_SECONDS, len(rows)), end)
    again = Day(day.user[rows], day.item[rows], later, _taken(day.reactions, rows), np.ones(len(rows), np.bool_))
    return _joined([day, again])


def _in_order(parts: list[Day]) -> Day:
    """The events of all blocks of a day by (time, user), a press before its undoing."""
    day = _joined(parts)
    order = np.lexsort((day.undoing, day.user, day.timestamp))
    return _picked(day, order)


def _joined(parts: list[Day]) -> Day:
    reactions = Reactions(
        *(np.concatenate([getattr(one.reactions, name) for one in parts]) for name in Reactions.__slots__)
    )
    user, item, timestamp, undoing = (
        np.concatenate([getattr(one, name) for one in parts]) for name in ("user", "item", "timestamp", "undoing")
    )
    return Day(user, item, timestamp, reactions, undoing)


def _picked(day: Day, rows: Array) -> Day:
    return Day(day.user[rows], day.item[rows], day.timestamp[rows], _taken(day.reactions, rows), day.undoing[rows])


def _taken(reactions: Reactions, rows: Array) -> Reactions:
    return Reactions(*(getattr(reactions, name)[rows] for name in Reactions.__slots__))
