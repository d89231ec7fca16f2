"""Which items may be predicted tonight: a file of live items, perhaps with a prior for each. No torch needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from conrec.arrays import Array
from conrec.logs.columns import ids_of, numbers_of
from conrec.logs.counts import FileCounts
from conrec.logs.refusals import Refusals
from conrec.predicting.files import read_columns

__all__ = ["Pool", "read_pool"]


@dataclass(frozen=True, slots=True)
class Pool:
    """A part of the catalogue.

    Attributes:
        live: bool [items], which may be predicted.
        prior: float32 [items], added to the log-probability of a live item; None where the file has no column for it.
        counts: rows of the file, kept or refused, and why.
    """

    live: Array
    prior: Array | None
    counts: FileCounts


def read_pool(path: Path, item_ids: Sequence[str]) -> Pool:
    """Read ``item_id`` and, where there is one, ``prior`` (a number, in natural logarithms).

    Args:
        path: .parquet, .csv, .tsv or .jsonl.
        item_ids: the run's catalogue; items that it does not know are refused and counted, since the model has no
            name for them.

    Raises:
        DataError: the file cannot be used, or none of its items is known.
    """
    raw = read_columns(path, "item_id", ["prior"])
    weighted = "prior" in raw.table.column_names
    refusals = Refusals(raw)
    ids, there = ids_of(raw, "item_id")
    names = ids.to_pylist()

    def shown(row: int) -> str:
        return f"item {names[row]!r}" + (f", prior {raw.table['prior'][row].as_py()!r}" if weighted else "")

    refusals.refuse(~there, "empty item ID", shown)
    index = {name: position for position, name in enumerate(item_ids)}
    items = np.asarray([index.get(name, -1) for name in names], dtype=np.int64)
    refusals.refuse(items < 0, "item that the run does not know", shown)
    values = np.zeros(len(names))
    if weighted:
        values, readable = numbers_of(raw, "prior", "a prior")
        refusals.refuse(~readable, "prior that is no number", shown)
    again = np.ones(len(names), dtype=bool)
    again[np.unique(items, return_index=True)[1]] = False
    refusals.refuse(again, "named before", shown)
    counts = refusals.counts_or("no item of the file can be predicted")
    kept = items[refusals.kept]
    live = np.zeros(len(item_ids), dtype=bool)
    live[kept] = True
    prior = None
    if weighted:
        prior = np.zeros(len(item_ids), dtype=np.float32)
        prior[kept] = values[refusals.kept]
    return Pool(live, prior, counts)
