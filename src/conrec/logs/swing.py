"""Swing: which items are disliked together, and the items that stand for a user's future negatives (GTS)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from conrec.arrays import Array, Ragged
from conrec.artefacts import read_parquet, write_parquet
from conrec.config import SwingConfig
from conrec.errors import ArtefactError
from conrec.logs.anchors import Anchors
from conrec.logs.engines import DuckDb
from conrec.logs.log import Log
from conrec.logs.relations.events import register_log
from conrec.logs.relations.swing import swing_pairs

__all__ = ["SWING", "SwingTable", "gts", "read_swing", "swing_neighbours", "swing_table", "write_swing"]

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
    """Neighbours of each item by the Swing similarity of negative feedback (`conrec.logs.relations.swing`).

    Args:
        train_log: events of the training period only.
        config: the constants.
        seed: of the samples; each item's is derived from it and the item's id.
    """
    with DuckDb() as engine:
        register_log(engine, train_log)
        return swing_table(swing_pairs(engine, np.iinfo(np.int64).max, config, seed), train_log.n_items)


def swing_table(found: pa.Table, n_items: int) -> SwingTable:
    """What `conrec.logs.relations.swing.swing_pairs` found, with a row for each of ``n_items`` catalogue items."""
    counts = np.bincount(found["item_code"].to_numpy(), minlength=n_items)
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64)])
    return SwingTable(Ragged(offsets, found["neighbour"].to_numpy()), found["similarity"].to_numpy())


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


def write_swing(path: Path, swing: SwingTable, item_ids: Sequence[str]) -> None:
    """Write the table by item ids."""
    names = pa.array(item_ids, pa.string())
    item = np.repeat(np.arange(len(item_ids)), swing.neighbours.lengths)
    columns = [names.take(pa.array(item)), names.take(pa.array(swing.neighbours.values)), swing.similarity]
    write_parquet(path, pa.table(columns, schema=SWING))


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
