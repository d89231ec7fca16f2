"""Swing on negative feedback: which items are disliked together (CoNRec, section on GTS).

With I(u) the items that u disliked, U(i) the users who disliked i, and Id(x) = 1 if x > ``more_than``::

    Swi(i,j) = sum over u != v in U(i) & U(j) of
               w_u * w_v * Id(|U(i) & U(j)|) / (|I(u) & I(v)| + alpha2) / sqrt(N_j)
    w_u      = (|I(u)| + alpha1) ** -theta

N_j is the number of negative events of j. Where more than ``users_per_item`` users disliked i, the sum
runs over a seeded sample of them; Id and N_j always count everybody.

Queries find the pairs of items that enough users share, and gather for each item i the dislikes of its (sampled) users;
`similarities` then works out one item at a time, wherever the engine runs it.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from conrec.config import SwingConfig
from conrec.logs.engines.base import Engine

__all__ = ["FOUND", "similarities", "swing_pairs"]

FOUND = pa.schema([("item_code", pa.int32()), ("neighbour", pa.int32()), ("similarity", pa.float32())])
"""Rows of `swing_pairs`."""

_DISLIKES = "SELECT DISTINCT user_code, item_code FROM events WHERE feedback = -1 AND ts < :before"
_NEGATIVES = "SELECT item_code, count(*) AS n FROM events WHERE feedback = -1 AND ts < :before GROUP BY item_code"
_WEIGHTS = "SELECT user_code, count(*) AS n FROM dislikes GROUP BY user_code"

# An item that no more than ``more_than`` users disliked shares no more with any other.
_ENOUGH = """
    SELECT d.user_code, d.item_code FROM dislikes d JOIN (
        SELECT item_code FROM dislikes GROUP BY item_code HAVING count(*) > :more_than
    ) k ON d.item_code = k.item_code"""
_PAIRS = """
    SELECT a.item_code AS one, b.item_code AS other
    FROM enough a JOIN enough b ON a.user_code = b.user_code AND a.item_code < b.item_code
    GROUP BY a.item_code, b.item_code HAVING count(*) > :more_than"""
_BOTH_WAYS = """
    SELECT p.item_code, p.neighbour, n.n FROM (
        SELECT one AS item_code, other AS neighbour FROM half UNION ALL SELECT other, one FROM half
    ) p JOIN item_negatives n ON p.neighbour = n.item_code"""
_SAMPLED = """
    SELECT user_code, item_code FROM (
        SELECT e.user_code, e.item_code,
            row_number() OVER (PARTITION BY e.item_code ORDER BY
                hash60(concat_ws('|', :seed, 'swing', i.item_id, u.user_id)), e.user_code) AS turn
        FROM enough e JOIN items i ON e.item_code = i.item_code JOIN users u ON e.user_code = u.user_code
        WHERE e.item_code IN (SELECT item_code FROM pairs)
    ) AS drawn WHERE turn <= :users_per_item"""

# For each item: a row for each dislike of each of its users (n: how many the user has), and one for each item that it
# may be near to (user -1; n: its negative events).
_GATHERED = """
    SELECT s.item_code, s.user_code, d.item_code AS other, w.n
    FROM sampled s JOIN dislikes d ON s.user_code = d.user_code JOIN weights w ON s.user_code = w.user_code
    UNION ALL SELECT item_code, -1 AS user_code, neighbour AS other, n FROM pairs"""


def swing_pairs(engine: Engine, before: int, config: SwingConfig, seed: int) -> pa.Table:
    """The nearest items of each item, of the negative events before a time.

    Args:
        engine: that holds ``users``, ``items`` and ``events``.
        before: end of the training period, seconds UTC.
        config: the constants.
        seed: of the samples of users; an item's sample rests on it, the item's id and the users' ids.

    Returns:
        Schema `FOUND`, by item and then by (similarity falling, neighbour); all similarities above 0.
    """
    engine.step("dislikes", _DISLIKES, before=before)
    engine.step("item_negatives", _NEGATIVES, before=before)
    engine.step("weights", _WEIGHTS)
    engine.step("enough", _ENOUGH, more_than=config.more_than)
    engine.step("half", _PAIRS, more_than=config.more_than)
    engine.step("pairs", _BOTH_WAYS)
    engine.step("sampled", _SAMPLED, seed=str(seed), users_per_item=config.users_per_item)
    found = engine.by_group(_GATHERED, "item_code", partial(similarities, config=config), FOUND)
    engine.drop("sampled", "pairs", "half", "enough", "weights", "item_negatives", "dislikes")
    return found.sort_by([("item_code", "ascending"), ("similarity", "descending"), ("neighbour", "ascending")])


def similarities(rows: pa.Table, config: SwingConfig) -> pa.Table:
    """The nearest items of one item.

    Args:
        rows: item_code (one value), user_code, other, n: an item that the user disliked (n: how many he did), or with
            user_code -1 an item that enough users share (n: its negative events).
        config: the constants.

    Returns:
        Schema `FOUND`, at most ``config.neighbours`` rows.
    """
    user, other, n = (rows[name].to_numpy() for name in ("user_code", "other", "n"))
    users, first, row = np.unique(user[user >= 0], return_index=True, return_inverse=True)
    items, column = np.unique(other[user >= 0], return_inverse=True)
    near = (user < 0) & np.isin(other, items)  # of the others no sampled user disliked one
    order = np.argsort(other[near])
    others, events = other[near][order], n[near][order]
    if not len(others):
        return FOUND.empty_table()
    disliked = sp.csr_matrix((np.ones(len(row)), (row, column)), shape=(len(users), len(items)))
    disliked.sort_indices()
    weight = (n[user >= 0][first] + config.alpha1) ** -config.theta
    # Every two of these users share the item itself, so that all overlaps are there.
    pair = weight[:, None] * weight[None, :] / ((disliked @ disliked.T).toarray() + config.alpha2)
    np.fill_diagonal(pair, 0.0)
    block = disliked[:, np.searchsorted(items, others)]
    summed = np.asarray(block.multiply((block.T @ pair).T).sum(axis=0)).ravel()
    similarity = (summed / np.sqrt(events)).astype(np.float32)  # before sorting, so that rounding decides no ties
    best = np.argsort(-similarity, kind="stable")[: config.neighbours]
    best = best[similarity[best] > 0]
    code = np.full(len(best), rows["item_code"][0].as_py(), dtype=np.int32)
    return pa.table([code, others[best].astype(np.int32), similarity[best]], schema=FOUND)
