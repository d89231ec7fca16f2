"""Predict sets on a local Spark with two workers; run as a script by test_spark, so that no JVM outlives a test."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from conrec.predicting.job import PredictJob
from conrec.predicting.spark import predict_on_spark


def main(run: str, users: str, out: str) -> None:
    os.environ["PYSPARK_PYTHON"] = sys.executable
    from pyspark.sql import SparkSession  # noqa: PLC0415

    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", "11")
        .getOrCreate()
    )
    asked = spark.read.parquet(users).repartition(4)
    sets = predict_on_spark(asked, PredictJob(Path(run), k=5, batch_size=7))
    sets.write.parquet(out)
    said = {"types": dict(sets.dtypes), "partitions": asked.rdd.getNumPartitions()}
    spark.stop()
    sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:4])
