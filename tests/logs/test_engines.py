"""Both engines give the same: functions, groups, and the files of the data stage byte by byte."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from conrec.config import load_config
from conrec.logs.engines import DuckDb, Engine
from conrec.logs.log import Log
from conrec.logs.prepare import Prepared, prepare
from conrec.logs.relations.events import number_events, register_log
from conrec.logs.relations.periods import cut_log
from conrec.logs.schema import EVENTS, ITEMS
from conrec.protocol import periods_of, tile_windows
from tests.logs.small_logs import draw_log
from tests.logs.spark_prepare import loaded
from tests.logs.test_opening import write_broken, write_messy, write_odd


def log_of(engine: Engine) -> Log:
    """The log that an engine holds, in memory."""
    users = engine.read("SELECT user_id FROM users ORDER BY user_code")
    items = engine.read("SELECT item_id FROM items ORDER BY item_code")
    rows = engine.read("SELECT user_code, item_code, ts, feedback FROM events ORDER BY ts, position")
    return Log.from_columns(
        tuple(users["user_id"].to_pylist()),
        tuple(items["item_id"].to_pylist()),
        rows["user_code"].to_numpy(),
        rows["item_code"].to_numpy(),
        rows["ts"].to_numpy(),
        rows["feedback"].to_numpy(),
    )


def test_functions_are_what_the_base_says() -> None:
    with DuckDb() as engine:
        row = engine.read(
            "SELECT hash60(:text) AS h, bucket(-1, 7) AS low, bucket(13, 7) AS b", text="a|b"
        ).to_pylist()[0]
        assert row == {"h": int(hashlib.md5(b"a|b").hexdigest()[:15], 16), "low": -1, "b": 1}
        draw = np.random.default_rng(0)
        for _ in range(20):
            times = np.unique(draw.integers(0, 60, 15))
            engine.table("listed", pa.table({"times": [times.tolist()]}))
            (found,) = engine.read("SELECT window_starts(times, :h) AS w FROM listed", h=7)["w"].to_pylist()
            assert found == times[tile_windows(times, 7)].tolist()


def test_values_are_bound_and_never_pasted() -> None:
    text = "'; DROP TABLE kept; --"
    with DuckDb() as engine:
        engine.table("kept", pa.table({"a": [text, "b"]}))
        engine.step("found", "SELECT a FROM kept WHERE a = :text", text=text)
        assert engine.read("SELECT * FROM found")["a"].to_pylist() == [text]
        assert engine.number("SELECT count(*) AS n FROM kept") == 2
        engine.drop("found", "never_there")
        assert engine.read("SELECT a FROM kept WHERE a = 'c'").schema.names == ["a"]


def test_groups_are_whole_wherever_a_batch_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conrec.logs.engines.embedded._BATCH", 2048)
    sizes = 40 + 13 * np.arange(40) % 300
    rows = pa.table({"key": np.repeat(np.arange(40), sizes), "n": np.ones(sizes.sum(), dtype=np.int64)})
    schema = pa.schema([("key", pa.int64()), ("n", pa.int64())])

    def add(group: pa.Table) -> pa.Table:
        (key,) = pc.unique(group["key"]).to_pylist()
        return pa.table([[key], [group.num_rows]], schema=schema)

    with DuckDb() as engine:
        engine.table("given", rows)
        found = engine.by_group("SELECT * FROM given", "key", add, schema).sort_by("key")
        assert found["n"].to_pylist() == np.bincount(rows["key"].to_numpy()).tolist()
        assert engine.by_group("SELECT * FROM given WHERE n > 1", "key", add, schema).num_rows == 0


@pytest.mark.parametrize("random_log", range(3), indirect=True)
def test_a_log_goes_in_and_comes_out(random_log: Log) -> None:
    log = random_log
    names = {"user_id": np.take(log.user_ids, log.user), "item_id": np.take(log.item_ids, log.item)}
    rows = {"position": np.arange(len(log)), **names, "timestamp": log.timestamp, "feedback": log.feedback}
    with DuckDb() as engine, DuckDb() as other:
        register_log(engine, log)
        other.table("clean_events", pa.table(rows))
        number_events(other, pa.array(log.item_ids))
        for again in (log_of(engine), log_of(other)):
            for name in ("user", "item", "timestamp", "feedback", "user_offsets", "user_events"):
                assert np.array_equal(getattr(again, name), getattr(log, name)), name
        for cuts in ((0.5, 0.6), (0.7, 0.8), (0.33, 0.91)):
            assert cut_log(engine, *cuts) == periods_of(log.timestamp, *cuts)


def test_spark_writes_the_same_bytes(prepared_ml100k: Prepared, tmp_path: Path) -> None:
    pytest.importorskip("pyspark")
    log = prepared_ml100k.log
    some = np.flatnonzero(log.user % 8 == 0)
    write_case(tmp_path / "ml-100k", log, some, "[swing]\nmore_than = 2\n")
    small = draw_log(3, users=6, events=240, days=30, items=80)
    config = "[swing]\nmore_than = 1\nusers_per_item = 4\n[protocol]\nvalidation_cut = 0.5\n"
    write_case(tmp_path / "drawn", small, np.arange(len(small)), config)
    write_messy(tmp_path / "parts", 3)
    write_odd(tmp_path / "odd")
    write_broken(tmp_path / "broken")
    script = Path(__file__).with_name("spark_prepare.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("ml-100k", "drawn", "parts", "odd"):
        case = tmp_path / name
        given = loaded(case) if name in ("ml-100k", "drawn") else None
        prepare(load_config(file=case / "config.toml"), case / "duckdb", given)
        assert given is None or pq.read_table(case / "duckdb/data/swing.parquet").num_rows > 0
        for file in sorted((case / "duckdb/data").iterdir()):
            assert file.read_bytes() == (case / "spark/data" / file.name).read_bytes(), f"{case.name}: {file.name}"
    said = (tmp_path / "broken/error.txt").read_text(encoding="utf-8")
    assert "part-001.parquet, row 1235" in said
    assert "not UTF-8" in said


def write_case(case: Path, log: Log, rows: np.ndarray, config: str) -> None:
    """Events (in a shuffled order) and items of a log, and a configuration."""
    case.mkdir()
    rows = np.random.default_rng(0).permutation(rows)
    names = {"user_id": np.take(log.user_ids, log.user[rows]), "item_id": np.take(log.item_ids, log.item[rows])}
    events = {**names, "timestamp": log.timestamp[rows], "feedback": log.feedback[rows]}
    pq.write_table(pa.table(events, schema=EVENTS), case / "events.parquet")
    items = [{"item_id": one, "title": one, "text": one, "category": [], "image": None} for one in log.item_ids]
    pq.write_table(pa.Table.from_pylist(items, schema=ITEMS), case / "items.parquet")
    (case / "config.toml").write_text(config)
