"""Swing by other means: the paper's triple sum over Python sets, and the formula as one query of Spark."""

from __future__ import annotations

import time
from collections import defaultdict

import numpy as np
import pyarrow as pa

from conrec.config import SwingConfig

__all__ = ["spark_seconds", "triple_sum"]

_FORMULA = """
    WITH size AS (SELECT user_code, count(*) AS n FROM dislikes GROUP BY user_code),
    shared AS (
        SELECT a.item_code AS i, b.item_code AS j FROM dislikes a JOIN dislikes b ON a.user_code = b.user_code
        WHERE a.item_code <> b.item_code GROUP BY a.item_code, b.item_code HAVING count(*) > {more_than}
    ), both_of AS (
        SELECT s.i, s.j, a.user_code FROM shared s JOIN dislikes a ON a.item_code = s.i
        JOIN dislikes b ON b.item_code = s.j AND b.user_code = a.user_code
    ), couple AS (
        SELECT x.i, x.j, x.user_code AS u, y.user_code AS v FROM both_of x JOIN both_of y ON x.i = y.i AND x.j = y.j
        WHERE x.user_code <> y.user_code
    ), overlap AS (
        SELECT c.u, c.v, count(*) AS n FROM (SELECT DISTINCT u, v FROM couple) c JOIN dislikes a ON a.user_code = c.u
        JOIN dislikes b ON b.user_code = c.v AND a.item_code = b.item_code GROUP BY c.u, c.v
    ), summed AS (
        SELECT c.i, c.j,
            sum(power(su.n + {alpha1}, -{theta}) * power(sv.n + {alpha1}, -{theta}) / (o.n + {alpha2})) AS s
        FROM couple c JOIN overlap o ON c.u = o.u AND c.v = o.v JOIN size su ON su.user_code = c.u
        JOIN size sv ON sv.user_code = c.v GROUP BY c.i, c.j
    ), ranked AS (
        SELECT s.i, s.j, s.s / sqrt(n.n) AS similarity,
            row_number() OVER (PARTITION BY s.i ORDER BY s.s / sqrt(n.n) DESC, s.j) AS place
        FROM summed s JOIN negatives n ON s.j = n.item_code
    )
    SELECT i, j, similarity FROM ranked WHERE place <= {neighbours}"""


def triple_sum(user: np.ndarray, item: np.ndarray, config: SwingConfig) -> list[tuple[int, int, float]]:
    """The formula, word for word, over the dislikes (user, item) of nobody's sample: items, users, users.

    Returns:
        Item, neighbour, similarity of the nearest of each item.
    """
    disliked: dict[int, set[int]] = defaultdict(set)
    users: dict[int, set[int]] = defaultdict(set)
    events: dict[int, int] = defaultdict(int)
    for u, i in zip(user.tolist(), item.tolist(), strict=True):
        disliked[u].add(i)
        users[i].add(u)
        events[i] += 1
    weight = {u: (len(items) + config.alpha1) ** -config.theta for u, items in disliked.items()}
    often = sorted(i for i, of in users.items() if len(of) > config.more_than)
    found = []
    for i in often:
        near = []
        for j in often:
            common = users[i] & users[j]
            if i == j or len(common) <= config.more_than:
                continue
            total = 0.0
            for u in common:
                for v in common:
                    if u != v:
                        total += weight[u] * weight[v] / (len(disliked[u] & disliked[v]) + config.alpha2)
            near.append((-total / events[j] ** 0.5, j))
        found += [(i, j, -similarity) for similarity, j in sorted(near)[: config.neighbours]]
    return found


def spark_seconds(rows: pa.Table, config: SwingConfig, turns: int) -> tuple[list[float], int]:
    """Seconds of the formula as one query on ``local[2]``, its session and one turn before not counted, and its rows.

    Args:
        rows: user_code, item_code of each negative event.
        config: the constants.
        turns: how often.
    """
    from conrec.logs.engines.spark import Spark  # noqa: PLC0415  (an extra)

    with Spark("local[2]") as engine:
        engine.table("negative", rows)
        engine.step("dislikes", "SELECT DISTINCT user_code, item_code FROM negative")
        engine.step("negatives", "SELECT item_code, count(*) AS n FROM negative GROUP BY item_code")
        names = ("more_than", "alpha1", "alpha2", "theta", "neighbours")
        query = _FORMULA.format(**{name: getattr(config, name) for name in names})
        seconds, found = [], 0
        for _ in range(turns + 1):
            begin = time.perf_counter()
            found = engine.read(query).num_rows
            seconds.append(time.perf_counter() - begin)
    return seconds[1:], found
