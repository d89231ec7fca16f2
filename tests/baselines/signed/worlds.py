"""A made-up log in which the sign of an event decides what is disliked next."""

from __future__ import annotations

from typing import Any

import numpy as np

from conrec.arrays import Array
from conrec.logs.log import Log
from conrec.protocol import DAY
from conrec.recommender import Queries, Recommender

PROBES = 8
"""Items 0 to 7; who likes item x dislikes item 8 + x the day after, who finds it neutral dislikes item 16 + x."""
WEEKS = 5
SIGN_CUT = WEEKS * 7 * DAY
"""T_val of `signs`: every second user has met five probes and answered them; the others three, then one more alone."""


def signs(users: int = 96) -> Log:
    """Each week every user meets a probe that is new to him and likes it or not; a day later he dislikes its answer.

    Dislikes alone say nothing of the next answer, and items without their signs leave two of them.
    """
    random = np.random.default_rng(0)
    rows = []
    for user in range(users):
        probes = random.permutation(PROBES)
        for week in range(2, WEEKS + 1) if user % 2 else range(WEEKS):
            sign = int(random.integers(0, 2))
            at = week * 7 * DAY + user
            rows.append((user, probes[week], at, sign))
            if week < WEEKS:
                rows.append((user, _answer(probes[week], sign), at + DAY, -1))
    user, item, timestamp, feedback = np.array(rows).T
    names = tuple(f"u{one:03d}" for one in range(users))
    return Log.from_columns(names, tuple(f"i{one:02d}" for one in range(3 * PROBES)), user, item, timestamp, feedback)


def _answer(probe: Array | int, sign: Array | int) -> Any:
    return np.where(np.asarray(sign) == 1, PROBES + np.asarray(probe), 2 * PROBES + np.asarray(probe))


def answers_signs(model: Recommender, log: Log) -> float:
    """Share of the users of `signs` with a probe left for whom a model's first answer to it is right.

    0.5 is the most for a model that does not see signs, and an eighth or so for one that sees dislikes alone.
    """
    users = np.arange(1, log.n_users, 2, dtype=np.int32)
    last = np.array([log.events_of(int(user))[-1] for user in users])
    top = model.predict(log, Queries(users, np.full(len(users), SIGN_CUT + DAY)), 1).item[:, 0]
    return float((top == _answer(log.item[last], log.feedback[last])).mean())
