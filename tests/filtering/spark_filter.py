"""The filter on a local Spark with one worker; run as a script by test_spark, so that no JVM outlives a test."""

from __future__ import annotations

import sys
from pathlib import Path

from conrec.errors import ArtefactError
from conrec.filtering.pairs import FilterJob
from conrec.filtering.policy import Policy
from conrec.filtering.spark import apply_on_spark, filter_pairs, map_in_arrow, raising_ours
from conrec.logs.engines.spark import local_session
from conrec.settings.engine import EngineConfig


def main(run: Path, pairs: Path, out: Path, now: float) -> None:
    """Judge PAIRS into OUT/plain and OUT/floor, and meet an error on a worker."""
    session = local_session("local[1]")
    for name, policy, request in (("plain", None, None), ("floor", Policy(keep_at_least=16), "request")):
        job = FilterJob(run, "conrec", None, policy, request, now)
        done = apply_on_spark(job, pairs, out / name, EngineConfig(name="spark"))
        sys.stdout.write(done.lines()[0] + "\n")
    frame = session.read.parquet(str(out / "plain"))
    judged = filter_pairs(frame.select("user_id", "item_id").limit(5), FilterJob(run, "conrec"))
    away = frame.select("user_id", "item_id").mapInArrow(map_in_arrow(FilterJob(run / "away", "conrec")), judged.schema)
    try:
        with raising_ours():
            away.collect()
    except ArtefactError as error:
        sys.stdout.write(f"{error}\n")
    assert judged.count() == 5, "a session from outside goes on"
    session.stop()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), float(sys.argv[4]))
