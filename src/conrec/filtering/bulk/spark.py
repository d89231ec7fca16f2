"""The filter on Spark: a DataFrame of (user, candidate) pairs in, the same rows with the filter's decision out.

Each Python worker of Spark opens the filter once and keeps it; so the run's folder must be readable at the same path
on every machine, and the store there too, or on a server (``valkey://…``) that every machine reaches.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conrec import errors
from conrec.errors import ConfigError, ConrecError, DataError, MissingExtraError
from conrec.filtering.bulk.apply import ApplySummary, summary_of
from conrec.filtering.bulk.grouping import sort_keys, whole_groups
from conrec.filtering.bulk.pairs import JUDGED, FilterJob, PairJudge, refuse_added
from conrec.filtering.bulk.tables import open_table
from conrec.filtering.decisions import REASONS
from conrec.folders import replacing_folder
from conrec.logs.parquet import open_parquet, parquet_parts
from conrec.settings.engine import EngineConfig

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

__all__ = ["apply_on_spark", "filter_pairs", "map_in_arrow", "raising_ours"]

ROWS = 65_536
"""Rows that are judged together; Spark's own batches are smaller."""
_loaded: dict[FilterJob, PairJudge] = {}
"""The last filter of this Python worker; Spark gives one worker many partitions."""


def map_in_arrow(job: FilterJob) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The function to give to ``DataFrame.mapInArrow``: the columns that come in, and those of `JUDGED` behind them.

    Its input has ``user_id`` and ``item_id``, text or whole numbers. Where the filter's policy has a floor, requests
    must be whole in their partition and sorted, as `filter_pairs` sees to.

    Args:
        job: what to open.
    """

    def judge_partition(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        first = next(batches, None)
        if first is None:  # an empty partition opens nothing
            return
        judge = _judge(job)
        tables = (pa.Table.from_batches([one]) for one in chain([first], batches))
        for table in whole_groups(tables, sort_keys(job) if judge.whole_requests else (), ROWS):
            judged = table
            for name, column in judge.columns(judge.decide(table, "the DataFrame")).items():
                judged = judged.append_column(name, column)
            yield from judged.combine_chunks().to_batches()

    return judge_partition


def filter_pairs(pairs: DataFrame, job: FilterJob) -> DataFrame:
    """The rows of a DataFrame with the filter's decision, as columns `JUDGED`; computed when it is read.

    Args:
        pairs: columns ``user_id`` and ``item_id``, and any others; its partitions are what the work is shared by.
            Sorted by user within them, each user is looked up fewer times.
        job: which filter.

    Raises:
        MissingExtraError: pyspark, or the pandas that it asks for, is not installed.
        ConfigError: a column is missing, or one of the added ones is there already.
        ConrecError: the filter cannot be opened here; what a worker meets comes out of Spark, see `raising_ours`.
    """
    for package in ("pyspark", "pandas"):
        try:
            __import__(package)
        except ImportError:
            raise MissingExtraError(package, "spark") from None
    from pyspark.sql import functions  # noqa: PLC0415  (an extra)
    from pyspark.sql.pandas.types import from_arrow_schema  # noqa: PLC0415  (an extra)
    from pyspark.sql.types import StructType  # noqa: PLC0415  (an extra)

    for name in job.required:
        if name not in pairs.columns:
            raise ConfigError(f"the columns are {', '.join(pairs.columns)}", where="pairs", expected=name)
    refuse_added(pairs.columns, "pairs")
    schema = StructType([*pairs.schema.fields, *from_arrow_schema(JUDGED).fields])
    if _judge(job).whole_requests:  # what does not fit is said here, not in the middle of a Spark job
        keys = [functions.coalesce(pairs[name].cast("string"), functions.lit("")) for name in sort_keys(job)]
        pairs = pairs.repartition(*keys).sortWithinPartitions(*keys)
    return pairs.mapInArrow(map_in_arrow(job), schema)


def apply_on_spark(job: FilterJob, candidates: Path, out_folder: Path, engine: EngineConfig) -> ApplySummary:
    """`conrec.filtering.bulk.apply.apply_filter` on Spark.

    Args:
        job: which filter, and what a request is.
        candidates: a Parquet file or a folder of them, with user_id and item_id, readable on every machine.
        out_folder: where the judged rows go, as parts in no order; one of an earlier call is replaced at the end.
        engine: which master.

    Raises:
        MissingExtraError: pyspark, or the pandas that it asks for, is not installed.
        DataError: the input or output cannot be used.
        ConrecError: the filter cannot be opened, here or on a worker.
    """
    table = open_table(candidates, job.required)
    if not table.parts:
        raise DataError("is not Parquet", where=str(candidates), expected="Parquet, for Spark shares it by its parts")
    if not table.rows:
        raise DataError("has no rows", where=str(candidates), expected="at least one candidate")
    refuse_added(table.schema.names if table.schema is not None else [], str(candidates))
    if out_folder.exists() and not (out_folder / "_SUCCESS").is_file():
        raise DataError(
            "is there and is not what Spark wrote", where=str(out_folder), expected="a new folder, or one to replace"
        )
    for inside in (candidates, job.run_folder):
        if inside.resolve().is_relative_to(out_folder.resolve()):
            raise DataError("would be replaced by the output", where=str(inside), expected="another --out")
    from conrec.logs.engines.spark import Spark  # noqa: PLC0415  (an extra)

    with closing(Spark(engine.master)) as spark, replacing_folder(out_folder.resolve()) as temporary, raising_ours():
        # Spark takes names for patterns, and knows other file systems than this one.
        paths = [re.sub(r"([\\\[\]{}*?])", r"\\\1", f"file://{part.resolve()}") for part in table.parts]
        judged = filter_pairs(spark.session.read.parquet(*paths), job)
        judged.write.mode("overwrite").parquet(f"file://{temporary}")
        counts = np.zeros(len(REASONS), dtype=np.int64)
        for part in parquet_parts(temporary):
            with open_parquet(part) as file:
                for batch in file.iter_batches(columns=["reason"]):
                    codes = pc.index_in(batch["reason"], value_set=pa.array(REASONS, pa.string())).to_numpy()
                    counts += np.bincount(codes, minlength=len(REASONS))
    return summary_of(job, _judge(job), counts, out_folder)


@contextmanager
def raising_ours() -> Iterator[None]:
    """Raise an error of this package, which a Spark worker met and Spark tells as text, as what it was.

    Raises:
        ConrecError: it.
    """
    from pyspark.errors import PySparkException  # noqa: PLC0415  (an extra)

    try:
        yield
    except PySparkException as error:
        found = re.search(r"conrec\.errors\.(\w+): ([^\n]*)", str(error))
        if found is None:
            raise
        kind = getattr(errors, found[1], ConrecError)
        own: ConrecError = kind.__new__(kind)
        ConrecError.__init__(own, found[2])
        raise own from None


def _judge(job: FilterJob) -> PairJudge:
    """The filter of a job, opened and checked once in this process."""
    if job not in _loaded:
        _loaded.clear()
        _loaded[job] = job.open()
    return _loaded[job]
