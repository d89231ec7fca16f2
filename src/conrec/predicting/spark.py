"""The same prediction on Spark: a function for ``DataFrame.mapInArrow``.

Each Python worker of Spark loads the run once and keeps it; so the run's folder, and the file of newer events where
there is one, must be readable at the same path on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

import pyarrow as pa

from conrec.errors import ConfigError, MissingExtraError
from conrec.predicting.job import PredictJob
from conrec.predicting.predictor import Predictor, predict_batches

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

__all__ = ["SPARK_SCHEMA", "map_in_arrow", "predict_on_spark"]

SPARK_SCHEMA = "user_id string, timestamp bigint, rank int, item_id string, score float, codes array<int>"
"""`conrec.predicting.predictor.PREDICT_SETS` in Spark's words."""
_loaded: dict[str, Predictor] = {}
"""The last predictor of this Python worker; Spark gives one worker many partitions."""


def map_in_arrow(job: PredictJob, threads: int = 1) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The function to give to ``DataFrame.mapInArrow``, with `SPARK_SCHEMA`.

    Its input has the column ``user_id`` (string) and, where the job has no time, perhaps ``timestamp`` (bigint, seconds
    UTC); other columns are ignored. Users without an event before the time come out with no rows.

    Args:
        job: run, row, time, newer events.
        threads: CPU threads of each worker; Spark starts one worker a core (``spark.task.cpus``).
    """

    def predict_partition(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        first = next(batches, None)
        if first is not None:
            yield from predict_batches(chain([first], batches), _predictor(job, threads))

    return predict_partition


def predict_on_spark(users: DataFrame, job: PredictJob, threads: int = 1) -> DataFrame:
    """Predict sets of a Spark DataFrame of users, as a DataFrame of `SPARK_SCHEMA`; computed when it is read.

    Args:
        users: column ``user_id`` and perhaps ``timestamp``; its partitions are what the work is shared by.
        job: run, row, time, newer events.
        threads: CPU threads of each worker.

    Raises:
        MissingExtraError: pyspark, or the pandas that it asks for, is not installed.
        ConfigError: there is no column ``user_id``, or the job does not fit the run.
    """
    for package in ("pyspark", "pandas"):
        try:
            __import__(package)
        except ImportError:
            raise MissingExtraError(package, "spark") from None
    if "user_id" not in users.columns:
        raise ConfigError(f"the columns are {', '.join(users.columns)}", where="users", expected="user_id")
    Predictor(job)  # what does not fit is said here, not in the middle of a Spark job
    kept = [name for name in ("user_id", "timestamp") if name in users.columns]
    return users.select(*kept).mapInArrow(map_in_arrow(job, threads), SPARK_SCHEMA)


def _predictor(job: PredictJob, threads: int) -> Predictor:
    """The predictor of a job, loaded once in this process."""
    import torch  # noqa: PLC0415  (in the worker, not where the job is planned)

    name = repr(job)
    if name not in _loaded:
        torch.set_num_threads(threads)
        _loaded.clear()
        _loaded[name] = Predictor(job)
    return _loaded[name]
