"""Made-up logs in which something simple can be learned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from conrec.arrays import Ragged
from conrec.logs.log import Log
from conrec.protocol import DAY
from conrec.workspace import Categories

END = 100 * DAY
"""After the last event of `two_tastes`."""


def two_tastes(users: int = 40, items: int = 20, seed: int = 0) -> Log:
    """Two groups of users: one dislikes the items of even index and likes the odd ones, the other the reverse.

    Everybody has reacted to half of all items, so that the other half is left to be predicted.
    """
    random = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), items // 2)
    item = np.concatenate([random.permutation(items)[: items // 2] for _ in range(users)])
    feedback = np.where((user + item) % 2 == 0, -1, 1)
    width = len(str(users))
    return Log.from_columns(
        tuple(f"u{one:0{width}d}" for one in range(users)),
        tuple(f"i{one:02d}" for one in range(items)),
        user,
        item,
        random.integers(0, 100, len(user)) * DAY,
        feedback,
    )


def categories_of(kinds: Sequence[Sequence[str]]) -> Categories:
    """Categories of items given by their names."""
    names = tuple(sorted({name for row in kinds for name in row}))
    return Categories(Ragged.from_rows([[names.index(name) for name in row] for row in kinds]), names)
