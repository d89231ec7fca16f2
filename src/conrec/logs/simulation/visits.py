"""Who comes when: how many exposures each user gets on each day, and at which seconds.

Users' activity is log-normal; each has a number of exposures and of sessions for his whole time on the platform, which
are handed out day by day (a binomial draw of what is left), so that nothing has to be planned ahead or stored, and
exactly as many exposures are handed out as the settings say. Weekends and evenings are busier.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

from conrec.arrays import Array
from conrec.protocol import DAY
from conrec.seeds import generator
from conrec.settings.simulation import SimulationConfig

__all__ = ["Visits", "exposures_of_users", "seconds_of_day"]

WEEK = (1.0, 0.95, 0.95, 1.0, 1.1, 1.3, 1.25)
"""How busy each day of the week is."""
HOURS = (6, 3, 2, 1, 1, 2, 5, 9, 12, 13, 14, 15, 17, 16, 15, 15, 16, 18, 22, 27, 31, 32, 26)
"""How busy each hour is; no session begins in the last."""
GAP = 25.0
"""Mean seconds between two exposures of a session."""


def exposures_of_users(config: SimulationConfig) -> Int64[Array, " users"]:
    """Exposures of each user over the whole log, int64 [users], at least 1; their sum is ``config.events``."""
    random = generator(config.seed, "simulation", "activity")
    weight = np.cumsum(np.exp(config.activity_spread * random.standard_normal(config.users)))
    shared = np.floor(weight / weight[-1] * (config.events - config.users)).astype(np.int64)
    shared[-1] = config.events - config.users
    return np.asarray(1 + np.diff(shared, prepend=0))


class Visits:
    """What is left of each user's exposures and sessions.

    Args:
        config: the platform.
        exposures: int64 [users], of `exposures_of_users`, perhaps of the first users alone.
    """

    def __init__(self, config: SimulationConfig, exposures: Array) -> None:
        random = generator(config.seed, "simulation", "arrivals")
        n = config.users
        late = random.random(n) < config.newcomers
        last = max(1, round(0.8 * config.days))
        arrival = np.where(late, random.integers(0, last, n), 0)
        self.arrival = arrival[: len(exposures)]
        self.events = exposures.copy()
        self.sessions = np.minimum(exposures, np.maximum(1, np.round(exposures / config.session_length))).astype(
            np.int64
        )
        busy = np.asarray(WEEK)[((config.start // DAY + 3) % 7 + np.arange(config.days)) % 7]  # 1970-01-01: Thursday
        self.share = busy / np.cumsum(busy[::-1])[::-1]

    def of_day(self, day: int, begin: int, end: int, random: np.random.Generator) -> tuple[Array, Array]:
        """Sessions and exposures of the users ``begin`` to ``end`` on a day, int64 [users] each.

        They are taken from what is left.
        """
        here = slice(begin, end)
        left, events = self.sessions[here], self.events[here]
        sessions = random.binomial(left, np.where(self.arrival[here] <= day, self.share[day], 0.0))
        part = np.divide(sessions, left, out=np.zeros(len(left)), where=left > 0)
        shown = np.where(sessions == left, events, random.binomial(events, part))
        self.sessions[here] -= sessions
        self.events[here] -= shown
        return np.minimum(sessions, shown), shown

    def give_back(self, users: Array, exposures: Array) -> None:
        """Leave exposures that could not be made for one more session on a later day, int64 [n] both."""
        self.events[users] += exposures
        self.sessions[users] += exposures > 0


def seconds_of_day(random: np.random.Generator, sessions: Array, shown: Array) -> Array:
    """Second of the day of each exposure, int64 [sum of ``shown``], strictly rising within each user.

    Args:
        random: the draw.
        sessions: int64 [rows], at least 1.
        shown: int64 [rows], exposures of each row; at least its sessions, less than a day's seconds.
    """
    row = np.repeat(np.arange(len(shown)), shown)
    place = np.arange(len(row)) - np.repeat(np.cumsum(shown) - shown, shown)
    first = np.cumsum(sessions) - sessions
    hour = np.asarray(HOURS, dtype=np.float64)
    starts = 3600 * random.choice(len(hour), int(sessions.sum()), p=hour / hour.sum())
    starts += random.integers(0, 3600, len(starts))
    session = first[row] + place * sessions[row] // shown[row]
    opens = np.concatenate([[True], session[1:] != session[:-1]]) if len(row) else np.zeros(0, dtype=bool)
    gaps = 1 + random.exponential(GAP, len(row)).astype(np.int64)
    since = np.cumsum(gaps)
    since -= since[opens][np.cumsum(opens) - 1]
    # Sessions are drawn in any order: sorted within each row, then kept apart by a second at least.
    second = np.sort(row * (2 * DAY) + np.minimum(starts[session] + since, 2 * DAY - 1)) - row * (2 * DAY)
    apart = np.maximum.accumulate(row * (4 * DAY) + second - place) - row * (4 * DAY) + place
    return np.asarray(np.minimum(apart, DAY - shown[row] + place))
