"""Rows that come from the rows of other files: several files joined, one row made into many, or one for each item."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conrec.arrays import Array
from conrec.logs.files import Raw

__all__ = ["Derived", "items_of_events", "join_files", "made_from"]


@dataclass(frozen=True, slots=True)
class Derived(Raw):
    """Rows of which each came from a row of a file.

    Attributes:
        origin: from the index of a row (from 0) to the file that it came from and the index of the row there.
        several: whether there is more than one file, so that a place has to name it.
    """

    origin: Callable[[int], tuple[Raw, int]]
    several: bool

    def at(self, row: int) -> str:
        """ "line 12", or "log_random.csv, line 12" where there are several files."""
        raw, own = self.origin(row)
        return f"{raw.path.name}, {raw.at(own)}" if self.several else raw.at(own)

    def place(self, row: int, column: str = "") -> str:
        """File, line or row, and column, for an error."""
        raw, own = self.origin(row)
        return raw.place(own, column)


def join_files(raws: Sequence[Raw]) -> Raw:
    """The rows of files with equal columns, one file after the other; a single file as it is.

    Its path is for showing: the names of the files, joined by a plus sign.
    """
    if len(raws) == 1:
        return raws[0]
    ends = np.cumsum([raw.table.num_rows for raw in raws])

    def origin(row: int) -> tuple[Raw, int]:
        file = int(np.searchsorted(ends, row, side="right"))
        return raws[file], row - (int(ends[file - 1]) if file else 0)

    shown = Path(raws[0].path.parent, " + ".join(raw.path.name for raw in raws))
    table = pa.concat_tables([raw.table for raw in raws])

    def number(row: int) -> int:
        raw, own = origin(row)
        return raw.number(own)

    return Derived(shown, table, number, raws[0].unit, origin, several=True)


def made_from(raw: Raw, table: pa.Table, rows: Array) -> Raw:
    """Other rows than those of the file.

    Args:
        raw: the file.
        table: the rows.
        rows: int64 [rows], index of the row of ``raw`` that each was made from.
    """

    def origin(row: int) -> tuple[Raw, int]:
        return raw, int(rows[row])

    return Derived(raw.path, table, lambda row: raw.number(int(rows[row])), raw.unit, origin, several=False)


def items_of_events(raw: Raw, column: str, others: Sequence[str] = ()) -> Raw:
    """One row for each distinct item of the events, where there is no file of items.

    Args:
        raw: the events.
        column: of the item IDs; rows without one are passed over, as they are refused among the events.
        others: columns whose value in the first row of an item is taken.

    Returns:
        ``column`` and ``others``, in the order of first occurrence, under the name "items of FILE".
    """
    ids = raw.table[column].combine_chunks()
    ids = pa.concat_arrays(ids.chunks) if isinstance(ids, pa.ChunkedArray) else ids
    there = pc.unique(pc.drop_null(ids))
    rows = np.asarray(pc.index_in(there, value_set=ids)).astype(np.int64)
    table = pa.table({column: there, **{name: raw.table[name].take(pa.array(rows)) for name in others}})
    return replace(made_from(raw, table, rows), path=raw.path.with_name(f"items of {raw.path.name}"))
