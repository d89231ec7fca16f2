"""The filter on a local Spark with one worker; run as a script by test_spark, so that no JVM outlives a test."""

from __future__ import annotations

import sys
from pathlib import Path

from conrec.errors import ArtefactError
from conrec.filtering.bulk.pairs import FilterJob
from conrec.filtering.bulk.spark import apply_on_spark, filter_pairs, map_in_arrow, raising_ours
from conrec.filtering.policy import Policy
from conrec.logs.engines.spark import local_session
from conrec.settings.engine import EngineConfig


def main(run: Path, pairs: Path, out: Path, now: float) -> None:
    """Judge PAIRS into OUT, by requests that Spark has to bring together, and meet an error on a worker."""
    session = local_session("local[1]")
    job = FilterJob(run, "conrec", None, Policy(keep_at_least=16), "request", now)
    done = apply_on_spark(job, pairs, out, EngineConfig(name="spark"))
    sys.stdout.write(done.lines()[0] + "\n")
    frame = session.read.parquet(str(out)).select("user_id", "item_id")  # a session from outside goes on
    schema = filter_pairs(frame, FilterJob(run, "conrec")).schema
    try:
        with raising_ours():
            frame.mapInArrow(map_in_arrow(FilterJob(run / "away", "conrec")), schema).take(1)
    except ArtefactError as error:
        sys.stdout.write(f"{error}\n")
    session.stop()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), float(sys.argv[4]))
