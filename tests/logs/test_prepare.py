"""The data folder of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from conrec.artefacts import hash_file, read_json, read_parquet
from conrec.config import Config
from conrec.errors import ArtefactError, DataError
from conrec.logs.counts import Counts, FileCounts
from conrec.logs.prepare import Prepared, prepare, read_prepared
from conrec.logs.schema import ANCHORS, EVENTS, ITEMS
from conrec.logs.sources import Loaded
from conrec.protocol import CANDIDATES

FILES = {
    "events.parquet", "items.parquet", "anchors.parquet", "periods.json", "counts.json", "swing.parquet",
}  # fmt: skip


def test_the_files_of_the_contract(prepared_folder: Path, ml100k: Loaded) -> None:
    data = prepared_folder / "data"
    assert {one.name for one in data.iterdir()} == FILES
    for name, schema in (("events", EVENTS), ("items", ITEMS), ("anchors", ANCHORS)):
        assert read_parquet(data / f"{name}.parquet").schema.equals(schema), name
    events = read_parquet(data / "events.parquet")
    assert events.num_rows == 100_000
    assert (np.diff(events["timestamp"].to_numpy()) >= 0).all()
    order = np.argsort(ml100k.events["timestamp"].to_numpy(), kind="stable")
    assert events.equals(ml100k.events.take(pa.array(order)).combine_chunks())
    ids = read_parquet(data / "items.parquet")["item_id"].to_pylist()
    assert ids == sorted(ml100k.items["item_id"].to_pylist())
    counts = read_json(data / "counts.json")
    assert counts["source"] == "ml-100k"
    for file in ("events", "items"):
        assert counts[file]["rows"] == counts[file]["kept"] + sum(counts[file]["refused"].values())
    assert list(read_json(data / "periods.json")) == ["validation", "test", "end"]


def test_periods_are_cut_at_shares_of_the_events(prepared_ml100k: Prepared) -> None:
    times = prepared_ml100k.log.timestamp
    periods = prepared_ml100k.periods
    assert (periods.validation, periods.test, periods.end) == (times[70_000], times[80_000], times[-1] + 1)


def test_candidates_hold_the_answer(prepared_folder: Path) -> None:
    anchors = read_parquet(prepared_folder / "data" / "anchors.parquet")
    train = anchors.filter(pc.equal(anchors["split"], "train"))
    assert train["candidates"].null_count == train.num_rows
    for row in anchors.filter(pc.not_equal(anchors["split"], "train")).to_pylist():
        assert row["candidate_answer"] == row["next_item"] == row["future_negatives"][0]
        assert row["candidate_answer"] in row["candidates"]
        assert len(set(row["candidates"])) == CANDIDATES


def test_the_same_log_gives_the_same_bytes(ml100k: Loaded, prepared_folder: Path, tmp_path: Path) -> None:
    prepare(Config(), tmp_path, ml100k)
    for name in FILES:
        assert hash_file(tmp_path / "data" / name) == hash_file(prepared_folder / "data" / name), name


def loaded(rows: list[tuple[str, str, int, int]]) -> Loaded:
    events = pa.table(dict(zip(EVENTS.names, map(list, zip(*rows, strict=True)), strict=True)), schema=EVENTS)
    ids = sorted({row[1] for row in rows}, reverse=True)
    items = pa.Table.from_pylist(
        [{"item_id": one, "title": one, "text": one, "category": [], "image": None} for one in ids], schema=ITEMS
    )
    counts = Counts(FileCounts("events", len(rows), len(rows)), FileCounts("items", len(ids), len(ids)))
    return Loaded("small", events, items, counts, {})


ROWS = [("a", f"i{n}", 10**9 + n, -1 if n % 2 else 1) for n in range(10)]


def test_a_small_log(tmp_path: Path) -> None:
    prepare(Config(), tmp_path, loaded(ROWS))
    prepared = read_prepared(tmp_path)
    assert prepared.log.item_ids == tuple(f"i{n}" for n in range(10))
    assert prepared.anchors.candidates.shape == (len(prepared.anchors), CANDIDATES)
    assert len(prepared.swing.neighbours) == 10


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([(u, i, t, abs(f)) for u, i, t, f in ROWS], ["the train period", "7 events of 1 users, 0 of them negative"]),
        ([(f"u{n}", i, t, f) for n, (u, i, t, f) in enumerate(ROWS)], ["the train period", "no anchor"]),
        ([(u, i, t, f if n < 8 else 1) for n, (u, i, t, f) in enumerate(ROWS)], ["the test period", "2001-09-09"]),
        ([(u, i, 10**9, f) for u, i, _, f in ROWS], ["periods", "protocol.validation_cut"]),
        ([ROWS[0]], ["periods", "too short"]),
    ],
)
def test_a_log_without_anchors_says_what_it_has(
    rows: list[tuple[str, str, int, int]], says: list[str], tmp_path: Path
) -> None:
    with pytest.raises(DataError) as caught:
        prepare(Config(), tmp_path, loaded(rows))
    for part in says:
        assert part in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    prepare(Config(), tmp_path, loaded(ROWS))
    (tmp_path / "data" / "periods.json").write_text("{}")
    with pytest.raises(ArtefactError, match=r"periods\.json"):
        read_prepared(tmp_path)
    (tmp_path / "data" / "events.parquet").write_text("x")
    with pytest.raises(ArtefactError, match=r"events\.parquet: cannot be read as Parquet"):
        read_prepared(tmp_path)
    with pytest.raises(ArtefactError, match=r"items\.parquet: this file is missing"):
        read_prepared(tmp_path / "none")
