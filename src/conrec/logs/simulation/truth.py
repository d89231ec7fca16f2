"""What every user truly dislikes most, computed from the known utilities: categories and items, at any time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int
from pydantic import ValidationError

from conrec.arrays import Array
from conrec.artefacts import read_json
from conrec.errors import ArtefactError
from conrec.logs.simulation.world import World, draw_world
from conrec.settings.simulation import SimulationConfig

__all__ = ["SETTINGS", "Interests", "averse_items", "read_world", "true_interests"]

SETTINGS = "simulation.json"
"""File of a simulated log that holds its settings and counts."""
CHUNK = 1 << 22
"""Utilities held at once."""
GROUP = 64


@dataclass(frozen=True, slots=True)
class Interests:
    """Ranked negative interests.

    Attributes:
        ranked: int32 [n, k], categories or items, the strongest aversion first; -1 where there are fewer.
        aversion: float32 [n, k], negative utility (for categories: taste) of each, falling; NaN where there is none.
    """

    ranked: Array
    aversion: Array


def true_interests(world: World, users: Int[Array, " n"], timestamp: Int[Array, " n"], k: int) -> Interests:
    """The ``k`` categories to which each user has the strongest aversion at a time.

    Args:
        world: of the log.
        users: index of each user, that is the number in his ID.
        timestamp: seconds UTC; before the first and after the last day, those of that day.
        k: how many; a user has ``disliked`` of them.
    """
    people, day = world.people, world.day_of(timestamp)
    own = people.category[users, world.config.liked :]
    taste = np.take_along_axis(world.tastes(users, day), own, axis=1)
    order = np.argsort(taste, axis=1, kind="stable")[:, :k]
    found = Interests(np.take_along_axis(own, order, axis=1), -np.take_along_axis(taste, order, axis=1))
    return _wide(found, k)


def averse_items(world: World, users: Int[Array, " n"], timestamp: Int[Array, " n"], k: int) -> Interests:
    """The ``k`` items, of those that are there at a time, to which each user has the strongest aversion.

    Arguments as for `true_interests`. Utilities of all items are computed for each user.
    """
    parts: list[Interests] = []
    day = world.day_of(timestamp)
    size = max(1, CHUNK // world.config.items)
    kept = min(k, world.config.items)
    for begin in range(0, len(users), size):
        here = slice(begin, begin + size)
        utility = world.utilities_of_all(users[here], day[here])
        for one in np.unique(day[here]):
            utility[day[here] == one] += np.where(world.catalogue.arrival > one, np.float32(np.inf), np.float32(0))
        nearest = _smallest(utility, kept)
        own = np.take_along_axis(utility, nearest, axis=1)
        order = np.lexsort((nearest, own), axis=1)
        own = np.take_along_axis(own, order, axis=1)
        ranked = np.take_along_axis(nearest, order, axis=1).astype(np.int32)
        parts.append(Interests(np.where(np.isinf(own), -1, ranked), np.where(np.isinf(own), np.nan, -own)))
    if not parts:
        return _wide(Interests(np.empty((0, 0), np.int32), np.empty((0, 0), np.float32)), k)
    joined = Interests(*(np.concatenate([getattr(one, name) for one in parts]) for name in Interests.__slots__))
    return _wide(joined, k)


def _smallest(values: Array, k: int) -> Array:
    """Places of the ``k`` smallest entries of each row in any order, int64 [rows, k].

    Of groups of `GROUP` entries, the ``k`` with the smallest minima hold all of them.
    """
    rows, n = values.shape
    groups = -(-n // GROUP)
    if not k or groups <= k:
        return np.argpartition(values, k - 1, axis=1)[:, :k] if k else np.empty((rows, 0), dtype=np.int64)
    lowest = np.minimum.reduceat(values, np.arange(0, n, GROUP), axis=1)
    chosen = np.sort(np.argpartition(lowest, k - 1, axis=1)[:, :k], axis=1)
    places = (chosen[:, :, None] * GROUP + np.arange(GROUP)).reshape(rows, k * GROUP)
    own = np.where(places < n, np.take_along_axis(values, np.minimum(places, n - 1), axis=1), np.inf)
    return np.take_along_axis(places, np.argpartition(own, k - 1, axis=1)[:, :k], axis=1)


def read_world(folder: Path) -> World:
    """The truth behind a simulated log, for every user, item and time.

    Raises:
        ArtefactError: the folder holds no simulated log, or one of other settings than there are now.
    """
    path = folder / SETTINGS
    found = read_json(path)
    try:
        return draw_world(SimulationConfig.model_validate(found["settings"]))
    except (KeyError, TypeError, ValidationError):
        raise ArtefactError(
            "holds no settings of a simulation", where=str(path), mend="Write the log anew: `conrec data simulate`."
        ) from None


def _wide(found: Interests, k: int) -> Interests:
    """The same with ``k`` columns."""
    more = ((0, 0), (0, k - found.ranked.shape[1]))
    return Interests(
        np.pad(found.ranked, more, constant_values=-1).astype(np.int32),
        np.pad(found.aversion, more, constant_values=np.nan).astype(np.float32),
    )
