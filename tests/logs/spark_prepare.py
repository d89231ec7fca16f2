"""Prepare logs on a local Spark with two workers; run as a script by test_engines, so that no JVM outlives a test."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow.parquet as pq

from conrec.config import load_config
from conrec.errors import ConrecError
from conrec.logs.counts import Counts, FileCounts
from conrec.logs.engines.spark import local_session
from conrec.logs.prepare import prepare
from conrec.logs.sources import Loaded


def loaded(case: Path) -> Loaded:
    """The clean log of a case."""
    events, items = (pq.read_table(case / f"{name}.parquet") for name in ("events", "items"))
    counts = Counts(*(FileCounts("given", one.num_rows, one.num_rows) for one in (events, items)))
    return Loaded("given", events, items, counts, {})


def main(folder: Path) -> None:
    """Prepare each FOLDER/CASE, its events.parquet or what its config.toml names, into FOLDER/CASE/spark.

    What stops one is written to FOLDER/CASE/error.txt. The user's own tables must still be there at the end.
    """
    session = local_session("local[2]")
    session.range(3).createOrReplaceTempView("events")
    for case in sorted(one for one in folder.iterdir() if one.is_dir()):
        config = load_config(file=case / "config.toml", overrides={"engine": {"name": "spark"}})
        try:
            prepare(config, case / "spark", loaded(case) if (case / "events.parquet").exists() else None)
        except ConrecError as error:
            (case / "error.txt").write_text(str(error), encoding="utf-8")
    assert session.sql("SELECT * FROM events").count() == 3
    session.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
