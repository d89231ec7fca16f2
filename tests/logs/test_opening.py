"""Parquet tables read by the engine itself give what loading them gives, from one file or from a folder of parts."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conrec.config import DataConfig, load_config
from conrec.errors import DataError
from conrec.logs.engines import DuckDb
from conrec.logs.opening import open_log
from conrec.logs.sources import load, source_files
from conrec.protocol import DAY

CONFIG = """
[data]
source = "table"
events = "{events}"
items = "items.parquet"
timestamp_unit = "ms"
[data.columns]
user_id = "the user's"
item_id = "item.id"
timestamp = "when"
event = "what"
reason = "why"
[data.feedback.events]
dislike = -1
undislike = "undo dislike"
view = 0
like = 1
[data.cleaning]
repeat_seconds = 3600
[protocol]
horizon_days = 1
[swing]
more_than = 1
"""


def messy(seed: int, rows: int = 3000) -> pa.Table:
    """Events with duplicates, undos, repeats, reasons, unknown items, empty ids and times that are none."""
    draw = np.random.default_rng(seed)
    user = draw.choice(["u 1", " u2", 'u"3', "", "u5", "u6"], rows, p=[0.3, 0.2, 0.2, 0.02, 0.2, 0.08])
    turn = np.sort(draw.integers(0, rows, rows))
    seconds = 1_500_000_000 + 20 * turn + DAY * (turn // 100)
    seconds[draw.random(rows) < 0.01] = 5
    return pa.table(
        {
            "the user's": user,
            "item.id": draw.integers(0, 302, rows),
            "when": 1000 * seconds + draw.integers(0, 1000, rows),
            "what": draw.choice(["dislike", "undislike", "view", "like", "?"], rows, p=[0.3, 0.05, 0.3, 0.34, 0.01]),
            "why": draw.choice([None, "already bought", "don't like it", "spam"], rows),
            "unused": np.zeros(rows),
        }
    )


def write_messy(folder: Path, parts: int) -> Path:
    """The log of `messy` in one file, or in a folder of several; returns its configuration file."""
    folder.mkdir(exist_ok=True)
    rows = messy(0)
    if parts == 1:
        pq.write_table(rows, folder / "messy.parquet", row_group_size=700)
    else:
        (folder / "parts").mkdir()
        cuts = np.linspace(0, rows.num_rows, parts + 1).astype(int)
        for part, (begin, end) in enumerate(pairwise(cuts)):
            pq.write_table(rows.slice(begin, end - begin), folder / f"parts/part-{part:03}.parquet")
    items = [{"item_id": str(n), "title": f"title {n}"} for n in range(300)]
    pq.write_table(pa.Table.from_pylist(items), folder / "items.parquet")
    config = folder / "config.toml"
    config.write_text(CONFIG.format(events="messy.parquet" if parts == 1 else "parts"))
    return config


def write_odd(folder: Path) -> Path:
    """A folder of parts that no reader should guess about: other types, an empty one, a hidden one, odd names.

    Beside it lies a file that its name, taken for a pattern, would also name.
    """
    path = write_messy(folder, 1)
    rows = messy(0).slice(0, 1200)
    named = folder / "part[1]*"
    named.mkdir()
    text = rows.set_column(1, "item.id", rows["item.id"].cast(pa.string()))
    wide = rows.set_column(1, "item.id", pa.array([2**53 + 1 if n % 7 == 0 else n % 300 for n in range(1200)]))
    for name, part in (("a", rows.slice(0, 0)), ("b*", rows), ("c", text), ("d:e", wide), ("_hidden", rows)):
        pq.write_table(part, named / f"{name}.parquet", row_group_size=500)
    pq.write_table(rows, folder / "part1x.parquet")
    path.write_text(CONFIG.format(events="part[1]*"))
    return path


def write_broken(folder: Path) -> Path:
    """Two parts, of which the second has an id that is not UTF-8, far from the first rows."""
    path = write_messy(folder, 2)
    part = folder / "parts/part-001.parquet"
    rows = pq.read_table(part)
    users = [one.encode() for one in rows["the user's"].to_pylist()]
    users[1234] = b"\xff\xfe"
    broken = pa.array(users, pa.binary()).cast(pa.large_binary()).view(pa.large_string())
    pq.write_table(rows.set_column(0, "the user's", broken), part, store_schema=True)
    return path


def opened(config: DataConfig) -> tuple[list[dict[str, Any]], Any]:
    with DuckDb() as engine:
        found = open_log(engine, config)
        rows = engine.read("SELECT user_id, item_id, timestamp, feedback FROM clean_events ORDER BY position")
        return rows.to_pylist(), found


@pytest.mark.parametrize("parts", [1, 4])
def test_the_engine_reads_what_loading_reads(tmp_path: Path, parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conrec.logs.parquet.read_group.__defaults__", (512,), raising=True)
    config = load_config(file=write_messy(tmp_path, parts)).data
    loaded = load(config)
    rows, found = opened(config)
    assert rows == loaded.events.to_pylist()
    assert found.items.equals(loaded.items.sort_by("item_id"))
    assert found.hashes == loaded.hashes
    assert len(source_files(config)) == parts + 1
    ours, theirs = found.counts.events, loaded.counts.events
    assert (ours.rows, ours.kept, ours.refused, ours.noted) == (theirs.rows, theirs.kept, theirs.refused, theirs.noted)
    assert len(ours.refused) >= 8
    assert ours.examples.keys() == theirs.examples.keys()
    if parts > 1:
        assert any("part-003.parquet, row" in one or "part-000.parquet, row" in one for one in ours.examples.values())


def test_a_folder_of_parts_is_positions_one_after_another(tmp_path: Path) -> None:
    one = opened(load_config(file=write_messy(tmp_path / "one", 1)).data)[0]
    assert opened(load_config(file=write_messy(tmp_path / "many", 5)).data)[0] == one


def test_what_is_wrong_with_a_column_is_said_before_anything_is_read(tmp_path: Path) -> None:
    config = load_config(file=write_messy(tmp_path, 1)).data
    rows = messy(0)
    lists = pa.array([[1]] * rows.num_rows)
    pq.write_table(rows.set_column(0, "the user's", lists), tmp_path / "messy.parquet")
    with pytest.raises(DataError, match="holds values of type list"):
        opened(config)
    pq.write_table(rows.set_column(2, "when", pa.array(np.arange(rows.num_rows))), tmp_path / "messy.parquet")
    with pytest.raises(DataError, match="rows cannot be used"):
        opened(config)
    pq.write_table(rows.drop_columns(["why"]), tmp_path / "messy.parquet")
    with pytest.raises(DataError, match="has no column 'why'"):
        opened(config)
    pq.write_table(rows.slice(0, 0), tmp_path / "messy.parquet")
    with pytest.raises(DataError, match="has no rows"):
        opened(config)


def test_parts_of_other_types_an_empty_one_and_a_hidden_one(tmp_path: Path) -> None:
    config = load_config(file=write_odd(tmp_path)).data
    rows, found = opened(config)
    assert found.counts.events.rows == 3600
    assert rows == load(config).events.to_pylist()
    assert {"299", "7"} <= {one["item_id"] for one in rows}
    assert found.counts.events.refused["unknown item"] > 100  # 2^53 + 1 among them, to the digit
    assert any("9007199254740993" in one or "row" in one for one in found.counts.events.examples.values())


def test_what_is_wrong_in_a_later_part_is_named_with_its_place(tmp_path: Path) -> None:
    config = load_config(file=write_broken(tmp_path)).data
    for read in (opened, load):
        with pytest.raises(DataError, match=r"part-001.parquet, row 1235, column .*not UTF-8"):
            read(config)
