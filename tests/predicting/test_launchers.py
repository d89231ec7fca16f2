"""The same answers from Spark and from torchrun as from one process."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conrec.errors import ConfigError, MissingExtraError
from conrec.predicting.job import PredictJob
from conrec.predicting.plan import MANIFEST, PREDICT_SETS, read_plan, shard_name
from conrec.predicting.run import predict_users
from conrec.predicting.spark import map_in_arrow, predict_on_spark

LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def plain(run_folder, tmp_path_factory):
    """All users in four shards by one process; treat them as read-only."""
    folder = tmp_path_factory.mktemp("plain") / "sets"
    predict_users(PredictJob(run_folder, k=5, batch_size=7), folder, shards=4)
    return folder


def rows(table):
    """Rows by user and rank, scores apart."""
    ordered = table.sort_by([("user_id", "ascending"), ("rank", "ascending")])
    return ordered.drop_columns(["score"]).to_pylist(), ordered["score"].to_numpy()


def read(folder):
    plan = read_plan(folder)
    return pa.concat_tables(pq.read_table(plan.path(shard)) for shard in range(plan.shards))


def test_two_processes_under_torchrun_write_the_same_bytes(run_folder, plain, tmp_path):
    out = tmp_path / "sets"
    options = ["--k", "5", "--batch-size", "7", "--shards", "4", "--set", "run.threads=1"]
    done = subprocess.run(
        [*LAUNCHER, "-m", "conrec", "predict", str(run_folder), "--out", str(out), *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[0] == "60 questions in 4 shards: 4 written, 0 finished before"
    assert done.stdout.count("written:") == 1
    for name in (MANIFEST, *(shard_name(shard, 4) for shard in range(4))):
        assert (out / name).read_bytes() == (plain / name).read_bytes(), name


def test_a_shard_of_ones_own_and_torchrun_exclude_each_other(run_folder, tmp_path, monkeypatch):
    from conrec.predicting import run  # noqa: PLC0415
    from conrec.processes import Processes  # noqa: PLC0415

    predictor = run.Predictor(PredictJob(run_folder, "most-disliked"))
    plan = run.Plan(tmp_path, {}, 4, 60)
    assert run._mine(plan, None, Processes(1, 3, 3)) == [1]
    assert run._mine(plan, None, Processes(0, 3, 3)) == [0, 3]
    assert predictor.config.run.threads == 1
    with pytest.raises(ConfigError, match="torchrun shares the shards out"):
        run._mine(plan, 0, Processes(0, 2, 2))


def test_the_function_for_arrow_answers_partitions(run_folder, plain):
    """Without Spark: an iterator of batches in, an iterator of batches out, and nothing loaded for an empty one."""
    function = map_in_arrow(PredictJob(run_folder, k=5, batch_size=7))
    users = sorted(set(read(plain)["user_id"].to_pylist()))
    batches = [pa.RecordBatch.from_pydict({"user_id": users[begin : begin + 25]}) for begin in (0, 25, 50)]
    found, expected = rows(pa.Table.from_batches(function(iter(batches)), PREDICT_SETS)), rows(read(plain))
    assert found[0] == expected[0]
    np.testing.assert_allclose(found[1], expected[1], atol=1e-5)
    nowhere = map_in_arrow(PredictJob(Path("nowhere")))
    assert list(nowhere(iter([]))) == []


@pytest.mark.skipif(shutil.which("java") is None and "JAVA_HOME" not in os.environ, reason="Spark needs Java 17")
@pytest.mark.skipif(importlib.util.find_spec("pyspark") is None, reason="the extra `spark` is not installed")
def test_spark_gives_the_same_answers(run_folder, plain, tmp_path):
    users = pa.table({"user_id": sorted({*read(plain)["user_id"].to_pylist(), "nobody"})})
    pq.write_table(users.append_column("other", pa.array(range(len(users)))), tmp_path / "users.parquet")
    script = Path(__file__).with_name("spark_job.py")
    done = subprocess.run(
        [sys.executable, str(script), str(run_folder), str(tmp_path / "users.parquet"), str(tmp_path / "sets")],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["partitions"] == 4
    assert said["types"] == {
        "user_id": "string",
        "timestamp": "bigint",
        "rank": "int",
        "item_id": "string",
        "score": "float",
        "codes": "array<int>",
    }
    found, expected = rows(pq.read_table(tmp_path / "sets")), rows(read(plain))
    assert found[0] == expected[0]
    np.testing.assert_allclose(found[1], expected[1], atol=1e-5)


def test_without_pyspark_the_extra_is_named(run_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'conrec\[spark\]'"):
        predict_on_spark(None, PredictJob(run_folder))
