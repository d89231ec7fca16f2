"""Clean converted rows on a local Spark with two workers; run by test_cleaning, so that no JVM outlives a test."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from conrec.config import DataConfig
from conrec.logs.engines.spark import Spark
from conrec.logs.files import Raw
from conrec.logs.relations.cleaning import clean


def main(folder: Path) -> None:
    """Read config.json, converted.parquet, catalogue.parquet of each FOLDER/CASE; write spark.parquet, spark.json."""
    with Spark("local[2]") as engine:
        for case in sorted(one for one in folder.iterdir() if one.is_dir()):
            for name in ("converted", "catalogue"):
                engine.table(name, pq.read_table(case / f"{name}.parquet"))
            config = DataConfig.model_validate_json((case / "config.json").read_text())
            source = Raw(Path("events.csv"), pa.table({}), lambda row: row + 1, "row")
            counts = clean(engine, config, source, "i0").counts(1.0, may_be_empty=True)
            (case / "spark.json").write_text(json.dumps(counts.to_json()))
            pq.write_table(engine.read("SELECT * FROM clean_events ORDER BY position"), case / "spark.parquet")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
