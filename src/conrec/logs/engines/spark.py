"""Spark: the same queries on whatever master is in use; rows come back through Arrow."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from conrec.errors import ConfigError, MissingExtraError
from conrec.logs.engines.base import Engine, Part, Value
from conrec.logs.parquet import Group, groups_of, read_group

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

__all__ = ["Spark"]

_FUNCTIONS = (
    "CREATE OR REPLACE TEMPORARY FUNCTION hash60(x STRING) RETURNS BIGINT"
    " RETURN CAST(conv(substr(md5(x), 1, 15), 16, 10) AS BIGINT)",
    "CREATE OR REPLACE TEMPORARY FUNCTION bucket(number BIGINT, width BIGINT) RETURNS BIGINT"
    " RETURN CAST(floor(number / width) AS BIGINT)",
    "CREATE OR REPLACE TEMPORARY FUNCTION window_starts(times ARRAY<BIGINT>, horizon BIGINT) RETURNS ARRAY<BIGINT>"
    " RETURN aggregate(times, array(times[0]), (found, t) -> CASE WHEN t >= element_at(found, -1) + horizon"
    " THEN concat(found, array(t)) ELSE found END)",
)
_BATCH = 262_144


class Spark(Engine):
    """A session beside the active one, or on ``master``; one that was active before stays as it was.

    Each step's rows stay on the executors; where the session has a checkpoint folder they are written there, and so
    outlive an executor that is lost.

    Args:
        master: such as `local[2]` or `yarn`; None: what Spark's own configuration says, else `local[*]`.

    Raises:
        MissingExtraError: pyspark, or the pandas that it asks for, is not installed.
    """

    name = "spark"

    def __init__(self, master: str | None = None) -> None:
        for package in ("pyspark", "pandas"):
            try:
                __import__(package)
            except ImportError:
                raise MissingExtraError(package, "spark") from None
        from pyspark.sql import SparkSession  # noqa: PLC0415  (an extra)

        active = SparkSession.getActiveSession()
        self.own = active is None
        self.started: SparkSession = active or _started(master)
        # Tables, functions and settings of its own: nothing of the user's session is touched.
        self.session: SparkSession = self.started.newSession()
        self.names: set[str] = set()
        # Spark 4.3 cannot checkpoint a union of which it knows constraints ("key not found").
        self.session.conf.set("spark.sql.constraintPropagation.enabled", "false")
        for function in _FUNCTIONS:
            self.session.sql(function)

    def table(self, name: str, rows: pa.Table) -> None:
        self._keep(name, self.session.createDataFrame(rows))

    def read_parts(
        self, name: str, paths: Sequence[Path], columns: Sequence[str], function: Part, schema: pa.Schema
    ) -> None:
        from pyspark.errors import PySparkException  # noqa: PLC0415  (an extra)
        from pyspark.sql.pandas.types import from_arrow_schema  # noqa: PLC0415  (an extra)

        def made(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                for one in batch.to_pylist():
                    group = Group(Path(one["path"]), one["group"], one["row"], one["first"])
                    for chunk in read_group(group, names, _BATCH):
                        yield from function(chunk).to_batches()

        names = list(columns)
        groups = groups_of(paths)
        if not groups:
            self.table(name, schema.empty_table())
            return
        # Spark's own reader takes names for patterns and makes one type of all parts' types.
        listed = pa.table(
            {
                "path": [str(one.path.absolute()) for one in groups],
                "group": [one.group for one in groups],
                "row": [one.row for one in groups],
                "first": [one.first for one in groups],
            }
        )
        spread = self.session.createDataFrame(listed).repartition(len(groups))
        try:
            self._keep(name, spread.mapInArrow(made, from_arrow_schema(schema)))
        except PySparkException:
            for group in groups:  # what a worker raised comes back as text: here it is raised again as what it is
                for chunk in read_group(group, names):
                    function(chunk)
            raise

    def step(self, name: str, query: str, **values: Value) -> None:
        self._keep(name, self._frame(query, values))

    def batches(self, query: str, **values: Value) -> Iterator[pa.RecordBatch]:
        yield from self._frame(query, values).toArrow().to_batches(_BATCH)

    def read(self, query: str, **values: Value) -> pa.Table:
        return self._frame(query, values).toArrow()

    def by_group(
        self, query: str, key: str, function: Callable[[pa.Table], pa.Table], schema: pa.Schema, **values: Value
    ) -> pa.Table:
        from pyspark.sql.pandas.types import from_arrow_schema  # noqa: PLC0415  (an extra)

        def of_one(rows: pa.Table) -> pa.Table:  # Spark wants the types written out
            return function(rows)

        of_one.__annotations__ = {"rows": pa.Table, "return": pa.Table}
        grouped = self._frame(query, values).groupBy(key)
        return grouped.applyInArrow(of_one, from_arrow_schema(schema)).toArrow().cast(schema)

    def drop(self, *names: str) -> None:
        for name in names:
            if name in self.names:
                self.names.remove(name)
                self.session.catalog.dropTempView(name)  # Spark frees the blocks when the frame is collected

    def close(self) -> None:
        self.drop(*list(self.names))
        if self.own:
            self.started.stop()

    def _frame(self, query: str, values: dict[str, Value]) -> DataFrame:
        return self.session.sql(query, args=values or None)

    def _keep(self, name: str, frame: DataFrame) -> None:
        # Computed now and cut off from how it was: a plan that holds all the plans before it doubles with each step.
        durable = self.session.sparkContext.getCheckpointDir() is not None
        kept = frame.checkpoint() if durable else frame.localCheckpoint()
        kept.createOrReplaceTempView(name)
        self.names.add(name)


def _started(master: str | None) -> SparkSession:
    """A new session; what keeps Spark from starting is the user's to mend."""
    try:
        return local_session(master)
    except Exception as error:
        raise ConfigError(
            f"Spark could not be started ({str(error).partition(chr(10))[0][:200]})",
            where="engine.master" if master else "engine.name",
            expected="a master that can be reached, such as local[2], and Java 17 or later",
            mend="Look at JAVA_HOME and engine.master, or use engine.name = duckdb.",
        ) from None


def local_session(master: str | None) -> SparkSession:
    from pyspark.sql import SparkSession  # noqa: PLC0415  (an extra)

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName("conrec").config("spark.ui.showConsoleProgress", "false")
    if master is not None:
        builder = builder.master(master)
    if master is not None and master.startswith("local"):
        for key, value in (
            ("spark.ui.enabled", "false"),
            ("spark.driver.host", "127.0.0.1"),
            ("spark.driver.bindAddress", "127.0.0.1"),
            ("spark.sql.shuffle.partitions", "8"),
        ):
            builder = builder.config(key, value)
    return builder.getOrCreate()
