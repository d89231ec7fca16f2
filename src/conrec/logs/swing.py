"""Swing: which items are disliked together, and the items that stand for a user's future negatives (GTS)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from conrec.arrays import Array, Ragged
from conrec.artefacts import read_parquet, write_parquet
from conrec.config import SwingConfig
from conrec.errors import ArtefactError
from conrec.logs.anchors import Anchors
from conrec.logs.log import Log
from conrec.protocol import NEGATIVE
from conrec.seeds import generator

__all__ = ["SWING", "SwingTable", "gts", "read_swing", "swing_neighbours", "write_swing"]

SWING = pa.schema([("item_id", pa.string()), ("neighbour", pa.string()), ("similarity", pa.float32())])
"""Columns of data/swing.parquet, by item and then by falling similarity."""


@dataclass(frozen=True, slots=True)
class SwingTable:
    """The nearest items of each item.

    Attributes:
        neighbours: ragged int32 items, one row per catalogue item, by (similarity falling, item index).
        similarity: float32 [neighbours], beside ``neighbours.values``; all above 0.
    """

    neighbours: Ragged
    similarity: Array


def swing_neighbours(train_log: Log, config: SwingConfig, seed: int) -> SwingTable:
    """Neighbours of each item by the Swing similarity of negative feedback (CoNRec, section on GTS).

    With I(u) the items that u disliked, U(i) the users who disliked i, and Id(x) = 1 if x > ``more_than``::

        Swi(i,j) = sum over u != v in U(i) & U(j) of
                   w_u * w_v * Id(|U(i) & U(j)|) / (|I(u) & I(v)| + alpha2) / sqrt(N_j)
        w_u      = (|I(u)| + alpha1) ** -theta

    N_j is the number of negative events of j. Where more than ``users_per_item`` users disliked i, the sum
    runs over a seeded sample of them; Id and N_j always count everybody.

    Args:
        train_log: events of the training period only.
        config: the constants.
        seed: of the samples; each item's is derived from it and the item's id.
    """
    matrix = _dislikes(train_log)
    by_item = matrix.T.tocsr()
    user_weight = (np.asarray(matrix.sum(axis=1)).ravel() + config.alpha1) ** -config.theta
    _, events_per_item = train_log.negative_counts()
    rows: list[Array] = []
    similarities: list[Array] = []
    for item, name in enumerate(train_log.item_ids):
        users = by_item.indices[by_item.indptr[item] : by_item.indptr[item + 1]]
        common = np.asarray(matrix[users].sum(axis=0)).ravel() if len(users) > config.more_than else np.zeros(0)
        others = np.flatnonzero(common > config.more_than)
        others = others[others != item]
        if not len(others):
            rows.append(np.empty(0, dtype=np.int32))
            continue
        if len(users) > config.users_per_item:
            draw = generator(seed, "swing", name)
            users = np.sort(draw.choice(np.sort(users), config.users_per_item, replace=False))
        liked_by = matrix[users]
        pair = (liked_by @ liked_by.T).toarray()
        weight = user_weight[users]
        pair = weight[:, None] * weight[None, :] / (pair + config.alpha2)
        np.fill_diagonal(pair, 0.0)
        block = liked_by[:, others].toarray()
        similarity = ((pair @ block) * block).sum(axis=0) / np.sqrt(events_per_item[others])
        similarity = similarity.astype(np.float32)  # before sorting, so that rounding does not decide ties
        order = np.argsort(-similarity, kind="stable")[: config.neighbours]
        order = order[similarity[order] > 0]
        rows.append(others[order].astype(np.int32))
        similarities.append(similarity[order])
    flat = np.concatenate(similarities) if similarities else np.empty(0, dtype=np.float32)
    return SwingTable(Ragged.from_rows(rows), flat)


def _dislikes(log: Log) -> sp.csr_matrix:
    """1.0 where a user disliked an item, float64 [users, items]."""
    negative = log.feedback == NEGATIVE
    pairs = np.unique(log.user[negative].astype(np.int64) * log.n_items + log.item[negative])
    user, item = np.divmod(pairs, max(log.n_items, 1))
    return sp.csr_matrix((np.ones(len(pairs)), (user, item)), shape=(log.n_users, log.n_items))


def gts(anchors: Anchors, swing: SwingTable) -> Ragged:
    """The ground-truth set of each anchor: its future negatives, then the Swing neighbours of each.

    Items are distinct, the future negatives first and in their order, then neighbours in the order of the
    negative that brings them and of falling similarity. A neighbour that the user likes within the same
    window stays out: the reward would otherwise praise and punish the same item.
    """
    negatives, positives = anchors.future_negatives, anchors.future_positives
    n_items = len(swing.neighbours)
    anchor = _row_of_each(negatives)
    near, source = _expanded(swing.neighbours, negatives.values)
    key = anchor[source] * n_items + near
    liked = _row_of_each(positives) * n_items + positives.values
    near, source = near[~np.isin(key, liked)], source[~np.isin(key, liked)]
    items = np.concatenate([negatives.values, near])
    rows = np.concatenate([anchor, anchor[source]])
    _, first = np.unique(rows * n_items + items, return_index=True)  # future negatives stand before neighbours
    first = first[np.lexsort((first, rows[first]))]
    offsets = np.zeros(len(anchors) + 1, dtype=np.int64)
    np.cumsum(np.bincount(rows[first], minlength=len(anchors)), out=offsets[1:])
    return Ragged(offsets, items[first].astype(np.int32))


def _row_of_each(ragged: Ragged) -> Array:
    """Row that each value stands in, int64 [values]."""
    return np.repeat(np.arange(len(ragged), dtype=np.int64), ragged.lengths)


def _expanded(ragged: Ragged, rows: Array) -> tuple[Array, Array]:
    """The values of the given rows one after another, and the position in ``rows`` that each came from."""
    lengths = ragged.lengths[rows]
    source = np.repeat(np.arange(len(rows)), lengths)
    within = np.arange(len(source)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return ragged.values[ragged.offsets[rows][source] + within], source


def write_swing(path: Path, swing: SwingTable, log: Log) -> None:
    """Write the table by item ids."""
    names = np.asarray(log.item_ids, dtype=object)
    table = pa.table(
        {
            "item_id": np.repeat(names, swing.neighbours.lengths),
            "neighbour": names[swing.neighbours.values],
            "similarity": swing.similarity,
        },
        schema=SWING,
    )
    write_parquet(path, table)


def read_swing(path: Path, log: Log) -> SwingTable:
    """Read what `write_swing` wrote.

    Raises:
        ArtefactError: the file is missing or damaged, or names an item that the log does not have.
    """
    table = read_parquet(path, SWING)
    index = {name: position for position, name in enumerate(log.item_ids)}
    codes: Callable[[str], Array] = lambda name: np.asarray(  # noqa: E731
        [index.get(one, -1) for one in table[name].to_pylist()], dtype=np.int32
    )
    item, neighbour = codes("item_id"), codes("neighbour")
    if (item < 0).any() or (neighbour < 0).any() or (np.diff(item) < 0).any():
        raise ArtefactError("names items that the log does not have, or has them in another order", where=str(path))
    offsets = np.searchsorted(item, np.arange(log.n_items + 1)).astype(np.int64)
    return SwingTable(Ragged(offsets, neighbour), table["similarity"].to_numpy())
