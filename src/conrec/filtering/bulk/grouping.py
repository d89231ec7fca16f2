"""All candidates of a request judged together, however they lie in a file: sorted by DuckDB, on disk beyond memory.

What is asked of a whole request (a floor on how many candidates remain) cannot be answered block by block. So the
keys of all rows are sorted by request and user, judged request by request, and the decisions are sorted back into
the order of the file; the rows themselves are not moved.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from conrec.artefacts import saying_disk_full
from conrec.filtering.bulk.pairs import FilterJob, PairJudge, as_text
from conrec.filtering.decisions import Decisions
from conrec.logs.engines import DuckDb
from conrec.settings.engine import EngineConfig

__all__ = ["in_file_order", "sort_keys", "whole_groups"]

DECIDED = pa.schema(
    [("position", pa.int64()), ("similarity", pa.float32()), ("nearest", pa.int32()), ("reason", pa.int8())]
)
"""Decisions, and where in the file their rows stand, from 0."""
ROWS = 262_144


def sort_keys(job: FilterJob) -> tuple[str, ...]:
    """The columns of a table of pairs that say which rows are one request."""
    return tuple(dict.fromkeys([*([job.request_column] if job.request_column else []), "user_id"]))


def whole_groups(tables: Iterable[pa.Table], keys: Sequence[str], rows: int = ROWS) -> Iterator[pa.Table]:
    """Rows that are sorted by some columns, in tables that end where a group of equal keys ends.

    Args:
        tables: the rows, cut anywhere.
        keys: columns of text or whole numbers, in which null and empty are the same; none: every row is a group.
        rows: a table ends at the last end of a group once it has so many; it is longer where one group is.
    """
    held: list[pa.Table] = []
    count = 0
    for table in tables:
        held.append(table)
        count += table.num_rows
        if count < rows:
            continue
        joined = pa.concat_tables(held)
        cut = _last_start(joined, keys) if keys else count
        if cut:
            yield joined.slice(0, cut)
        held, count = [joined.slice(cut)], count - cut
    if count:
        yield pa.concat_tables(held)


def _last_start(rows: pa.Table, keys: Sequence[str]) -> int:
    """Where the last group of a sorted table begins; 0 where it is the only one."""
    differs = np.zeros(len(rows) - 1, dtype=np.bool_)
    for name in keys:
        column = _text(rows, name).combine_chunks()
        differs |= pc.not_equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
    ends = np.flatnonzero(differs)
    return int(ends[-1]) + 1 if len(ends) else 0


def _text(rows: pa.Table, name: str, where: str = "the table") -> pa.ChunkedArray:
    """A column of IDs as text, empty where it is null."""
    return pc.fill_null(as_text(rows[name], where, name).cast(pa.large_string()), "")


@contextmanager
def in_file_order(
    tables: Iterator[pa.Table], judge: PairJudge, where: str, engine: EngineConfig
) -> Iterator[Callable[[int], Decisions]]:
    """Judge rows by request and user, and give the decisions back in the order of the file.

    Args:
        tables: all rows of a file, in its order, with the columns that the judge's job requires.
        judge: the filter.
        where: the file, for errors.
        engine: threads, memory and temporary folder of DuckDB.

    Yields:
        A function that gives the decisions of the next n rows of the file.

    Raises:
        ConrecError: what reading ``keys`` raises.
        OSError: the disk is full, among others.
    """
    with (
        tempfile.TemporaryDirectory(prefix="conrec-", dir=engine.temporary) as folder,
        closing(DuckDb(engine.threads or 1, engine.memory_gb, Path(folder))) as database,
    ):
        names = judge.job.required
        # Names of columns are never pasted into a query.
        columns = [f"c{number}" for number in range(len(names))]
        schema = pa.schema([("position", pa.int64()), *((one, pa.large_string()) for one in columns)])

        def keys() -> Iterator[pa.RecordBatch]:
            first = 0
            for table in tables:
                position = pa.array(np.arange(first, first + len(table)))
                made = pa.table([position, *(_text(table, name, where) for name in names)], schema=schema)
                yield from made.to_batches()
                first += len(table)

        database.stream("pairs", keys(), schema)
        order = ", ".join(columns[names.index(name)] for name in sort_keys(judge.job))
        batches = database.batches(f"SELECT * FROM pairs ORDER BY {order}, position")
        asked = (pa.Table.from_batches([batch]).rename_columns(["", *names]) for batch in batches)
        decided = Path(folder) / "decided.parquet"
        with saying_disk_full(decided), pq.ParquetWriter(decided, DECIDED) as writer:
            for group in whole_groups(asked, sort_keys(judge.job)):
                one = judge.decide(group, where)
                writer.write_table(pa.table([group[0], one.similarity, one.nearest, one.reason], schema=DECIDED))
        database.drop("pairs")
        with pq.ParquetFile(decided) as file:
            database.stream("decided", file.iter_batches(), DECIDED)
        decided.unlink()
        sorted_back = database.batches("SELECT * EXCLUDE (position) FROM decided ORDER BY position")
        rest: list[pa.RecordBatch] = []

        def take(count: int) -> Decisions:
            have = sum(batch.num_rows for batch in rest)
            while have < count:
                rest.append(next(sorted_back))
                have += rest[-1].num_rows
            table = pa.Table.from_batches(rest)
            rest[:] = table.slice(count).to_batches()
            taken = table.slice(0, count)
            return Decisions(*(taken[name].to_numpy() for name in ("similarity", "nearest", "reason")))

        yield take
