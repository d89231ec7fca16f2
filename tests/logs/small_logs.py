"""Random small logs, full of ties, repeats and users with one event."""

from __future__ import annotations

import numpy as np

from conrec.logs.log import Log
from conrec.protocol import DAY


def draw_log(seed: int, users: int = 12, items: int = 60, events: int = 500, days: int = 40) -> Log:
    """Events of few users in few weeks, so that timestamps tie and items repeat."""
    draw = np.random.default_rng(seed)
    user = np.append(draw.integers(0, users - 1, events - 1), users - 1)  # the last user has one event
    return Log.from_columns(
        tuple(f"u{n:02d}" for n in range(users)),
        tuple(f"i{n:02d}" for n in range(items)),
        user,
        (items * draw.random(events) ** 2).astype(np.int64),
        10_000 * DAY + draw.integers(0, days * 24, events) * (DAY // 24),
        draw.choice([-1, 0, 1], events, p=[0.3, 0.2, 0.5]),
    )
