"""What a relational step may ask of an engine: named tables, queries over them, and a function for each group of rows.

Queries are written in the SQL that DuckDB and Spark share: common table expressions, joins, window functions,
``count(*) FILTER``, ``CAST``; no ``::``, no ``//``, no lambdas, no ``QUALIFY``. What they spell differently is a
function that each engine defines under one name:

* ``hash60(text)``: the first 60 bits of the text's MD5, BIGINT; the seeded draws rest on it.
* ``bucket(number, width)``: ``floor(number / width)``, BIGINT.
* ``window_starts(times, horizon)``: of a sorted list of distinct times those that open a window: the first, then
  each first one at or after the end of the window before (`conrec.protocol`).

A value is bound as ``:name``, never pasted; names of tables and columns are the project's own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

import pyarrow as pa

from conrec.logs.parquet import Chunk

__all__ = ["Engine", "Part", "Value"]

Value = int | float | str
Part = Callable[[Chunk], pa.Table]
"""From some rows of a file to as many others."""


class Engine(ABC):
    """A session with its own tables; they vanish when it is closed."""

    name: str

    @abstractmethod
    def table(self, name: str, rows: pa.Table) -> None:
        """Put an Arrow table in, under ``name``."""

    @abstractmethod
    def read_parts(
        self, name: str, paths: Sequence[Path], columns: Sequence[str], function: Part, schema: pa.Schema
    ) -> None:
        """Put in what a function makes of the rows of Parquet files, a part at a time, without holding all of them.

        Args:
            name: of the table.
            paths: the files, in order; where Spark runs on several machines, readable on all of them.
            columns: of the files.
            function: gets some rows of one file and returns as many of ``schema``, in their order; Spark sends it to
                its workers.
            schema: of what it returns.

        Raises:
            ConrecError: what ``function`` raises, and a file that cannot be read.
        """

    @abstractmethod
    def step(self, name: str, query: str, **values: Value) -> None:
        """Compute a query once and keep its rows under ``name``; a table of that name is replaced."""

    @abstractmethod
    def batches(self, query: str, **values: Value) -> Iterator[pa.RecordBatch]:
        """The rows of a query, in its order, a batch at a time."""

    @abstractmethod
    def by_group(
        self, query: str, key: str, function: Callable[[pa.Table], pa.Table], schema: pa.Schema, **values: Value
    ) -> pa.Table:
        """Give the rows of each value of ``key`` to ``function``, all of one value together, and join what it returns.

        Args:
            query: with a column ``key`` of whole numbers.
            key: the column.
            function: gets the rows of one value in any order, and returns rows of ``schema``; the same rows whatever
                order it gets them in. Spark sends it to its workers, so it must be importable there.
            schema: of what it returns.
            values: bound in the query.

        Returns:
            All rows, in any order of the groups.
        """

    @abstractmethod
    def drop(self, *names: str) -> None:
        """Forget tables that are not needed any more; unknown names are no mistake."""

    @abstractmethod
    def close(self) -> None:
        """End the session."""

    def read(self, query: str, **values: Value) -> pa.Table:
        """The rows of a query in its order, as one table."""
        batches = list(self.batches(query, **values))
        return pa.Table.from_batches(batches)

    def number(self, query: str, **values: Value) -> int:
        """The one whole number that a query gives."""
        return int(self.read(query, **values).column(0)[0].as_py())

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
