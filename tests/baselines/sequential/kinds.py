"""A log in which the category of the last dislike tells that of the next one, and nothing tells the item."""

from __future__ import annotations

from typing import Any

import numpy as np

from conrec.logs.log import Log
from conrec.protocol import DAY
from conrec.recommender import Queries

KINDS, EACH, COLD = 5, 12, 3
"""Categories, items of each, and how many of those, the last ones, nobody dislikes in the training period."""
CUT = 56 * DAY
"""T_val: eight of ten dislikes teach, one a week."""
ASKED = 60 * DAY
"""After the ninth."""
CATEGORIES = [[f"kind {item // EACH}"] for item in range(KINDS * EACH)]


def kinds_in_turn(*, cold: bool = False, users: int = 60) -> Log:
    """Dislikes of kinds 0, 1, 2, 3, 4, 0, … from a start of each user's own.

    Args:
        cold: whether the ninth is of an item that nobody disliked in the training period.
        users: how many.
    """
    random = np.random.default_rng(0)
    user, step = np.repeat(np.arange(users), 10), np.tile(np.arange(10), users)
    kind = (user + step) % KINDS
    item = kind * EACH + random.integers(EACH - COLD, size=len(kind))
    if cold:
        item = np.where(step == 8, kind * EACH + EACH - COLD + user % COLD, item)
    names = tuple(f"u{one:02d}" for one in range(users))
    catalogue = tuple(f"i{one:02d}" for one in range(KINDS * EACH))
    return Log.from_columns(names, catalogue, user, item, step * 7 * DAY + user, np.full(len(user), -1))


def follows_kinds(model: Any, log: Log) -> float:
    """Share of a model's first three answers that are of the kind that comes next."""
    users = np.arange(log.n_users, dtype=np.int32)
    top = model.predict(log, Queries(users, np.full(log.n_users, ASKED)), 3).item
    return float((top // EACH == ((users + 9) % KINDS)[:, None]).mean())
