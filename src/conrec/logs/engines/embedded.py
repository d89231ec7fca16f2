"""DuckDB within this process: in memory as far as it goes, on disk beyond."""

from __future__ import annotations

import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from conrec.errors import ConfigError, ConrecError
from conrec.logs.engines.base import Engine, Part, Value
from conrec.logs.parquet import groups_of, read_group

__all__ = ["DuckDb"]

_FUNCTIONS = (
    "CREATE MACRO hash60(x) AS CAST('0x' || substr(md5(x), 1, 15) AS BIGINT)",
    "CREATE MACRO bucket(number, width) AS CAST(floor(number / width) AS BIGINT)",
    "CREATE MACRO window_starts(times, horizon) AS list_reduce(times, lambda found, t: CASE WHEN"
    " t >= found[-1] + horizon THEN list_append(found, t) ELSE found END, [times[1]])",
)
_BATCH = 262_144
_BOUND = re.compile(r":([a-z_]+)")


class DuckDb(Engine):
    """A database of its own, in memory.

    Args:
        threads: that it may use.
        memory_gb: before it spills, in 10^9 bytes; None: DuckDB's own limit, lowered to half of the machine's memory.
        temporary: folder for what it spills; None: the system's.
    """

    name = "duckdb"

    def __init__(self, threads: int = 1, memory_gb: float | None = None, temporary: Path | None = None) -> None:
        self.connection = duckdb.connect(":memory:")
        run = self.connection.execute
        run("SET threads = $n", {"n": threads})
        run("SET preserve_insertion_order = false")
        run("SET enable_progress_bar = false")
        run("SET memory_limit = $limit", {"limit": "50%" if memory_gb is None else f"{memory_gb:.3f}GB"})
        # Made when something spills; DuckDB would take a folder below the current one.
        self.spilled = (temporary or Path(tempfile.gettempdir())) / f"conrec-{uuid.uuid4().hex}"
        run("SET temp_directory = $folder", {"folder": str(self.spilled)})
        for function in _FUNCTIONS:
            run(function)

    def table(self, name: str, rows: pa.Table) -> None:
        self._put(name, rows)

    def read_parts(
        self, name: str, paths: Sequence[Path], columns: Sequence[str], function: Part, schema: pa.Schema
    ) -> None:
        def parts() -> Iterator[pa.RecordBatch]:
            for group in groups_of(paths):
                for chunk in read_group(group, columns):
                    yield from function(chunk).to_batches()

        self.stream(name, parts(), schema)

    def stream(self, name: str, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> None:
        """Put batches in, one after another, under ``name``, without holding all of them.

        Raises:
            ConrecError: what making ``batches`` raises.
        """
        raised: list[ConrecError] = []

        def guarded() -> Iterator[pa.RecordBatch]:
            try:
                yield from batches
            except ConrecError as error:  # DuckDB would wrap it in one of its own
                raised.append(error)

        self._put(name, pa.RecordBatchReader.from_batches(schema, guarded()))
        if raised:
            raise raised[0]

    def step(self, name: str, query: str, **values: Value) -> None:
        self._run(f"CREATE OR REPLACE TABLE {name} AS {query}", values)

    def batches(self, query: str, **values: Value) -> Iterator[pa.RecordBatch]:
        bound, used = _bound(query, values)
        with _limits():
            reader = self.connection.sql(bound, params=used).to_arrow_reader(_BATCH)
        yield pa.RecordBatch.from_pylist([], schema=reader.schema)  # so that no rows still have their columns
        yield from reader

    def by_group(
        self, query: str, key: str, function: Callable[[pa.Table], pa.Table], schema: pa.Schema, **values: Value
    ) -> pa.Table:
        found = [schema.empty_table()]
        open_rows: list[pa.Table] = []  # of the value that the last batch ended with
        for batch in self.batches(f"SELECT * FROM ({query}) ORDER BY {key}", **values):
            rows = pa.Table.from_batches([batch])
            if not rows.num_rows:
                continue
            keys = rows[key].to_numpy()
            cuts = np.flatnonzero(np.diff(keys)) + 1
            if open_rows and open_rows[0][key][0].as_py() != keys[0]:
                found.append(function(pa.concat_tables(open_rows)))
                open_rows = []
            for start, stop in zip([0, *cuts], cuts, strict=False):
                found.append(function(pa.concat_tables([*open_rows, rows.slice(start, stop - start)])))
                open_rows = []
            open_rows.append(rows.slice(int(cuts[-1]) if len(cuts) else 0))
        if open_rows:
            found.append(function(pa.concat_tables(open_rows)))
        return pa.concat_tables(found)

    def drop(self, *names: str) -> None:
        for name in names:
            self.connection.execute(f"DROP TABLE IF EXISTS {name}")

    def close(self) -> None:
        self.connection.close()
        shutil.rmtree(self.spilled, ignore_errors=True)

    def _put(self, name: str, given: pa.Table | pa.RecordBatchReader) -> None:
        self.connection.register("_given", given)
        self.step(name, "SELECT * FROM _given")
        self.connection.unregister("_given")

    def _run(self, query: str, values: dict[str, Value]) -> None:
        with _limits():
            self.connection.execute(*_bound(query, values))


@contextmanager
def _limits() -> Iterator[None]:
    """Say with our own words that memory or the disk for what does not fit in it is not enough."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        found = "DuckDB needs more memory than it may use, or more disk than there is for what does not fit in it"
        mend = f"Raise engine.memory_gb, or name a folder with more room. DuckDB says: {_first_line(error)}"
        raise ConfigError(found, where="engine.memory_gb, engine.temporary", mend=mend) from None
    except duckdb.IOException as error:
        raise ConfigError(
            f"DuckDB cannot write what does not fit in memory ({_first_line(error)})",
            where="engine.temporary",
            expected="a folder that can be written, on a disk with room",
        ) from None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _bound(query: str, values: dict[str, Value]) -> tuple[str, dict[str, Value]]:
    """A query with DuckDB's spelling of what is bound, and the values that it uses."""
    return _BOUND.sub(r"$\1", query), {name: values[name] for name in _BOUND.findall(query)}
