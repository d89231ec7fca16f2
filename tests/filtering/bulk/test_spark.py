"""The filter on Spark: the rows of DuckDB, and errors that are ours."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conrec.errors import ArtefactError, ConfigError, DataError, MissingExtraError
from conrec.filtering.bulk import spark
from conrec.filtering.bulk.apply import ADDED, apply_filter
from conrec.filtering.bulk.pairs import FilterJob
from conrec.filtering.bulk.spark import apply_on_spark, filter_pairs, map_in_arrow, raising_ours
from conrec.filtering.policy import Policy
from conrec.settings.engine import EngineConfig
from tests.filtering.random_run import DAY, drawn_pairs, write_random_run

NOW = 130.0 * DAY


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Treat it as read-only."""
    return write_random_run(tmp_path_factory.mktemp("run"))


def test_the_function_for_arrow_judges_partitions(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Spark: an iterator of batches in, an iterator of batches out, and nothing opened for an empty one."""
    pairs = drawn_pairs(700)
    pq.write_table(pairs, tmp_path / "in.parquet")
    apply_filter(run, "conrec", tmp_path / "in.parquet", tmp_path / "out.parquet")
    opened: list[FilterJob] = []
    monkeypatch.setattr(FilterJob, "open", counting(opened, FilterJob.open))
    function = map_in_arrow(FilterJob(run, "conrec"))
    monkeypatch.setattr(spark, "ROWS", 100)
    for _ in range(2):
        found = pa.Table.from_batches(function(iter(pairs.to_batches(max_chunksize=37))))
        assert found.equals(pq.read_table(tmp_path / "out.parquet"))
    assert len(opened) == 1
    assert list(map_in_arrow(FilterJob(Path("nowhere"), "conrec"))(iter([]))) == []


def counting(calls, function):
    def counted(self):
        calls.append(self)
        return function(self)

    return counted


@pytest.mark.skipif(shutil.which("java") is None and "JAVA_HOME" not in os.environ, reason="Spark needs Java 17")
@pytest.mark.skipif(importlib.util.find_spec("pyspark") is None, reason="the extra `spark` is not installed")
def test_spark_gives_the_rows_of_duckdb(run: Path, tmp_path: Path) -> None:
    # Of equal candidates of a request, which one a floor brings back depends on an order that Spark has not.
    pairs = drawn_pairs(2_000)
    keys = ["request", "user_id", "item_id"]
    pairs = pairs.group_by(keys).aggregate([("position", "min")]).rename_columns([*keys, "position"])
    folder = tmp_path / "parts [a]"
    folder.mkdir()
    pq.write_table(pairs.slice(0, 900), folder / "part-0.parquet")
    pq.write_table(pairs.slice(900), folder / "part-1.parquet")
    script = Path(__file__).with_name("spark_filter.py")
    root = script.parents[2]
    # A machine that lives for seconds: little compiled, one collector, no plan turned into Java.
    quick = "--conf spark.sql.codegen.wholeStage=false"
    java = "--driver-java-options '-XX:TieredStopAtLevel=1 -XX:+UseSerialGC'"
    done = subprocess.run(
        [sys.executable, str(script), str(run), str(folder), str(tmp_path / "out"), str(NOW)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")])),
            "PYSPARK_SUBMIT_ARGS": f"{java} {quick} pyspark-shell",
            "NUMBA_DISABLE_JIT": "1",
        },
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = done.stdout.splitlines()
    plain = apply_filter(
        run,
        "conrec",
        folder,
        tmp_path / "plain.parquet",
        policy=Policy(keep_at_least=16),
        request_column="request",
        now=NOW,
    )
    assert said[0] == plain.lines()[0]
    found, expected = (pq.read_table(tmp_path / name).sort_by("position") for name in ("out", "plain.parquet"))
    assert found.column_names == [*keys, "position", *ADDED]
    assert found.equals(expected)
    assert "kept: too few would remain" in found["reason"].to_pylist()
    assert "away: there is no run here" in said[1]


def test_what_cannot_work_is_said_before_spark_starts(run: Path, tmp_path: Path) -> None:
    engine, job = EngineConfig(name="spark"), FilterJob(run, "conrec")
    out = tmp_path / "out"
    (tmp_path / "in.csv").write_text("user_id,item_id\nu1,1\n")
    with pytest.raises(DataError, match="is not Parquet"):
        apply_on_spark(job, tmp_path / "in.csv", out, engine)
    pq.write_table(drawn_pairs(0), tmp_path / "empty.parquet")
    with pytest.raises(DataError, match="has no rows"):
        apply_on_spark(job, tmp_path / "empty.parquet", out, engine)
    pq.write_table(drawn_pairs(3), tmp_path / "in.parquet")
    (tmp_path / "precious").mkdir()
    with pytest.raises(DataError, match="precious: is there and is not what Spark wrote"):
        apply_on_spark(job, tmp_path / "in.parquet", tmp_path / "precious", engine)
    (tmp_path / "_SUCCESS").touch()
    with pytest.raises(DataError, match=r"in\.parquet: would be replaced by the output"):
        apply_on_spark(job, tmp_path / "in.parquet", tmp_path, engine)
    with pytest.raises(DataError, match="has no column 'session'"):
        apply_on_spark(FilterJob(run, "conrec", request_column="session"), tmp_path / "in.parquet", out, engine)
    assert not out.exists()


def test_a_frame_that_does_not_fit_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyspark")

    class Frame:
        columns = ("user_id", "item")

    with pytest.raises(ConfigError, match="the columns are user_id, item; expected item_id"):
        filter_pairs(Frame(), FilterJob(run, "conrec"))
    Frame.columns = ("user_id", "item_id", "reason")
    with pytest.raises(DataError, match="already has a column 'reason'"):
        filter_pairs(Frame(), FilterJob(run, "conrec"))
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'conrec\[spark\]'"):
        filter_pairs(Frame(), FilterJob(run, "conrec"))


def test_errors_of_workers_come_out_as_they_were() -> None:
    errors = pytest.importorskip("pyspark.errors")
    told = "\n  File x\nconrec.errors.ArtefactError: RUN/filter: there is nothing; expected a store.\n\nat org.apache"
    with pytest.raises(ArtefactError, match=r"^RUN/filter: there is nothing; expected a store\.$"), raising_ours():
        raise errors.PySparkException(told)
    with pytest.raises(MissingExtraError, match=r"^the package 'x' is not installed\.$"), raising_ours():
        raise errors.PySparkException("conrec.errors.MissingExtraError: the package 'x' is not installed.")
    with pytest.raises(errors.PySparkException, match="of its own"), raising_ours():
        raise errors.PySparkException("one of its own")
