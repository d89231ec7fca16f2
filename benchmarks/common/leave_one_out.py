"""A log as the literature splits it, leave-one-out by time, in the form that our models and RecBole read.

The ordinary protocol of next-item recommendation keeps each user's last interaction for the test, the one before for
validation, and trains on the rest. Ours cuts all users at one time and asks for dislikes. The first becomes a special
case of the second when the log is rewritten: every interaction counts as a dislike, and its time is its place in its
user's sequence, except that all validation interactions happen at one later moment and all test interactions at the
next. Nothing in the models has to change for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from conrec.arrays import Array, Ragged
from conrec.logs.anchors import Anchors
from conrec.logs.log import Log
from conrec.logs.prepare import Prepared
from conrec.logs.schema import SPLITS
from conrec.logs.swing import SwingTable
from conrec.protocol import CANDIDATES, NEGATIVE, Periods

__all__ = ["figures_of", "leave_one_out", "ranks_of", "write_for_recbole"]

FEWEST = 3
"""Interactions that a user must have: one for each part."""


def leave_one_out(events: pa.Table, items: pa.Table) -> Prepared:
    """Rewrite a log.

    Args:
        events: schema `conrec.logs.schema.EVENTS`; a user's events are ordered by (timestamp, row).
        items: schema `conrec.logs.schema.ITEMS`.

    Returns:
        The log with feedback -1 and times 0, 1, 2, … within each user's training part, a validation and a test anchor
        for each user, no training anchors, no candidates and no Swing neighbours. Histories are eligible or not as
        the caller says; nothing here depends on it.

    Raises:
        ValueError: a user has fewer than three interactions.
    """
    items = items.sort_by("item_id")
    given = Log.from_tables(events, items)
    length = np.diff(given.user_offsets)
    if (length < FEWEST).any():
        user = given.user_ids[int(np.argmax(length < FEWEST))]
        raise ValueError(f"user {user!r} has fewer than {FEWEST} interactions: leave-one-out needs one for each part")
    order = given.user_events
    place = np.arange(len(given)) - np.repeat(given.user_offsets[:-1], length)
    left = np.repeat(length, length) - 1 - place  # interactions of the user that follow
    validation = int(length.max())
    periods = Periods(validation, validation + 1, validation + 2)
    time = np.where(left == 0, periods.test, np.where(left == 1, periods.validation, place))
    log = Log.from_columns(
        given.user_ids, given.item_ids, given.user[order], given.item[order], time, np.full(len(order), NEGATIVE)
    )
    return Prepared(log, items, _anchors(log, periods), periods, _no_neighbours(log.n_items))


def _anchors(log: Log, periods: Periods) -> Anchors:
    """Validation anchors of all users, then their test anchors."""
    users = np.arange(log.n_users, dtype=np.int32)
    length = np.diff(log.user_offsets)
    parts = {"validation": (2, periods.validation), "test": (1, periods.test)}
    asked = [log.item[log.user_events[log.user_offsets[1:] - back]] for back, _ in parts.values()]
    n = 2 * len(users)
    return Anchors(
        np.arange(n, dtype=np.int64),
        np.concatenate([users, users]),
        np.repeat([moment for _, moment in parts.values()], len(users)).astype(np.int64),
        np.repeat([SPLITS.index(name) for name in parts], len(users)).astype(np.int8),
        Ragged(np.arange(n + 1, dtype=np.int64), np.concatenate(asked).astype(np.int32)),
        Ragged(np.zeros(n + 1, dtype=np.int64), np.empty(0, dtype=np.int32)),
        np.full((n, CANDIDATES), -1, dtype=np.int32),
        np.zeros(n, dtype=np.bool_),
        np.concatenate([length - back for back, _ in parts.values()]).astype(np.int32),
    )


def _no_neighbours(n_items: int) -> SwingTable:
    nothing = Ragged(np.zeros(n_items + 1, dtype=np.int64), np.empty(0, dtype=np.int32))
    return SwingTable(nothing, np.empty(0, dtype=np.float32))


def write_for_recbole(prepared: Prepared, folder: Path) -> None:
    """Write the same log as RecBole's atomic files ``NAME/NAME.inter`` and ``NAME/NAME.item``; NAME is the folder's.

    RecBole holds times as 32-bit floats, in which the seconds of a real log collapse to multiples of 64 and its split
    is by the order of rows; the places that stand here instead are exact, so that both sides split alike.
    """
    log = prepared.log
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        f"{log.user_ids[user]}\t{log.item_ids[item]}\t{time}"
        for user, item, time in zip(log.user.tolist(), log.item.tolist(), log.timestamp.tolist(), strict=True)
    ]
    header = "user_id:token\titem_id:token\ttimestamp:float"
    (folder / f"{folder.name}.inter").write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    of = zip(prepared.items["item_id"].to_pylist(), prepared.items["category"].to_pylist(), strict=True)
    rows = [f"{item}\t{' '.join(name.replace(' ', '_') for name in names or ())}" for item, names in of]
    (folder / f"{folder.name}.item").write_text(
        "\n".join(["item_id:token\tclass:token_seq", *rows, ""]), encoding="utf-8"
    )


def ranks_of(scores: Array, target: Array, history: Sequence[Array] | None = None) -> list[int]:
    """Place of each query's true item in the full ranking, from 1; ties by the lower item index.

    Args:
        scores: float [Q, items].
        target: int [Q].
        history: items that are taken out of each query's ranking; None: none are.
    """
    own = scores[np.arange(len(target)), target][:, None]
    before = (scores > own) | ((scores == own) & (np.arange(scores.shape[1]) < target[:, None]))
    for row, items in enumerate(history or ()):
        before[row, items] = False
    return [int(one) for one in 1 + before.sum(axis=1)]


def figures_of(ranks: Sequence[int]) -> Mapping[str, float]:
    """Hit rates, and the discounted gain of one true item: 1 / log2(1 + rank) up to rank 10."""
    place = np.asarray(ranks)
    return {
        "hit@10": float((place <= 10).mean()),
        "hit@20": float((place <= 20).mean()),
        "ndcg@10": float(np.where(place <= 10, 1 / np.log2(1.0 + place), 0.0).mean()),
    }
