"""Which rows of a file are refused or worth a note, and why: each row counts once, the first reason that applies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from conrec.arrays import Array
from conrec.errors import DataError
from conrec.logs.counts import FileCounts, RuleCounts

__all__ = ["Places", "Refusals", "Tally"]


@runtime_checkable
class Places(Protocol):
    """Where rows come from; `conrec.logs.files.Raw` is one."""

    @property
    def path(self) -> Path: ...

    def at(self, row: int) -> str: ...

    def place(self, row: int, column: str = "") -> str: ...


@runtime_checkable
class _Source(Places, Protocol):
    @property
    def table(self) -> pa.Table: ...


class Tally:
    """Counts of refused and noted rows, by reason, with the first row of each.

    Args:
        source: where the rows come from.
        rows: how many there are.
    """

    def __init__(self, source: Places, rows: int) -> None:
        self.source = source
        self.rows = rows
        self.refused: dict[str, int] = {}
        self.noted: dict[str, int] = {}
        self.examples: dict[str, str] = {}
        self.first: dict[str, int] = {}
        self.asked = 0
        self.rules: tuple[RuleCounts, ...] = ()

    def add_refused(self, reason: str, count: int, first: int, shown: str, *, asked: bool = False) -> None:
        """Count refused rows.

        Args:
            reason: why.
            count: how many; 0 is not counted.
            first: the first of them, from 0.
            shown: what stands in it.
            asked: whether the user asked for it; such rows are no sign of a broken file.
        """
        self._count(self.refused, reason, count, first, shown)
        self.asked += count if asked else 0

    def add_noted(self, remark: str, count: int, first: int, shown: str) -> None:
        """Count rows that are kept but worth knowing of; arguments as for `add_refused`."""
        self._count(self.noted, remark, count, first, shown)

    def counts(self, most: float, *, may_be_empty: bool = False) -> FileCounts:
        """The counts.

        Args:
            most: share of rows that may be refused.
            may_be_empty: whether it is no mistake that none is kept.

        Raises:
            DataError: more are, with the counts and the first example of the most frequent reason.
        """
        counts = self._counts()
        if counts.rows - counts.kept - self.asked > most * counts.rows or not (counts.kept or may_be_empty):
            found, where = self._worst(counts)
            raise DataError(
                found,
                where=where,
                expected=f"at most {most:.0%} refused rows",
                mend="Mend the file or its column mapping; to go on with the rest, raise data.max_refused.",
            )
        return counts

    def counts_or(self, none: str) -> FileCounts:
        """The counts of a file of which any row may be refused, as long as one is kept.

        Args:
            none: what it means where none is.

        Raises:
            DataError: not one row is kept.
        """
        counts = self._counts()
        if not counts.kept:
            found, where = self._worst(counts)
            raise DataError(f"{none}: {found}", where=where)
        return counts

    def _counts(self) -> FileCounts:
        kept = self.rows - sum(self.refused.values())
        return FileCounts(self.source.path.name, self.rows, kept, self.refused, self.noted, self.examples, self.rules)

    def _worst(self, counts: FileCounts) -> tuple[str, str]:
        """What is wrong with the refused rows, and the place of the first of the most frequent reason."""
        worst = max(self.refused, key=lambda reason: self.refused[reason])
        listed = ", ".join(f"{n} {reason}" for reason, n in self.refused.items())
        found = (
            f"{counts.rows - counts.kept} of {counts.rows} rows cannot be used ({listed}); "
            f"the first that is {worst!r} is {self.examples[worst]}"
        )
        return found, self.source.place(self.first[worst])

    def _count(self, into: dict[str, int], reason: str, count: int, first: int, shown: str) -> None:
        if count:
            into[reason] = count
            self.first[reason] = first
            self.examples[reason] = f"{self.source.at(first)}: {shown}"


class Refusals(Tally):
    """A tally of a file whose columns are in memory, with a mask of the rows that are still kept.

    Args:
        source: the file.
    """

    def __init__(self, source: _Source) -> None:
        super().__init__(source, source.table.num_rows)
        self.kept: Array = np.ones(self.rows, dtype=bool)

    def refuse(self, wrong: Array, reason: str, shown: Callable[[int], str], *, asked: bool = False) -> None:
        """Refuse the rows of a mask that are still kept.

        Args:
            wrong: bool [rows].
            reason: under which they are counted.
            shown: says what stands in a row.
            asked: whether the user asked for it; such rows are no sign of a broken file.
        """
        found = np.flatnonzero(wrong & self.kept)
        if len(found):
            self.add_refused(reason, len(found), int(found[0]), shown(int(found[0])), asked=asked)
        self.kept = self.kept & ~wrong

    def note(self, odd: Array, remark: str, shown: Callable[[int], str]) -> None:
        """Count the kept rows of a mask without refusing them."""
        found = np.flatnonzero(odd & self.kept)
        if len(found):
            self.add_noted(remark, len(found), int(found[0]), shown(int(found[0])))
