"""`filter apply` in bulk: the answers of the filter asked by hand, row by row, however the rows are cut; and faults."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conrec.errors import ArtefactError, DataError
from conrec.filtering.bulk.apply import ADDED, apply_filter
from conrec.filtering.bulk.grouping import whole_groups
from conrec.filtering.bulk.pairs import FilterJob, distinct_ids
from conrec.filtering.decisions import DROPPED, REASONS
from conrec.filtering.filter import NegativeFilter
from conrec.filtering.policy import Policy
from conrec.filtering.stores.base import StoreUnavailableError
from conrec.settings.engine import EngineConfig
from tests.filtering.random_run import DAY, drawn_pairs, write_random_run

Build = Callable[[float | None], Path]
POLICIES = {
    "paper": (Policy(), None),
    "weights, ages": (Policy(half_life_days=30.0), None),
    "dry run": (Policy(dry_run=True), None),
    "allow": (Policy(allow=frozenset(str(item) for item in range(1, 150))), None),
    "floor": (Policy(keep_at_least=60), None),
    "floor by request": (Policy(keep_at_least=16, allow=frozenset(["5", "6"])), "request"),
    "sorted": (Policy(), None),
    "floor, dry run": (Policy(keep_at_least=60, dry_run=True), None),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Treat it as read-only."""
    return write_random_run(tmp_path_factory.mktemp("run"))


def asked_by_hand(run: Path, pairs: pa.Table, policy: Policy, request: str | None, now: float) -> list[dict[str, Any]]:
    """Each request of each user asked for itself, in the plainest way; a row of `ADDED` for each pair."""
    negative_filter = NegativeFilter.load(run, "conrec", policy=policy)
    rows = pairs.to_pylist()
    groups: dict[tuple[Any, Any], list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault((row["user_id"] or "", (row[request] or "") if request else ""), []).append(number)
    answers: list[dict[str, Any]] = [{}] * len(rows)
    for (user, _), numbers in groups.items():
        items = [None if rows[number]["item_id"] is None else str(rows[number]["item_id"]) for number in numbers]
        judged = negative_filter.judge(user, items, now=now)
        for number, similarity, nearest, reason in zip(
            numbers, judged.similarity.tolist(), judged.nearest.tolist(), judged.reason.tolist(), strict=True
        ):
            near = None if nearest < 0 else negative_filter.catalogue.item_ids[nearest]
            words = (negative_filter.catalogue.sid_text(nearest), near, REASONS[reason])
            known = None if np.isnan(similarity) else similarity
            answers[number] = dict(zip(ADDED, (known, reason == DROPPED, *words), strict=True))
    return answers


@pytest.mark.parametrize("name", POLICIES)
def test_every_row_as_if_asked_by_hand(run: Path, tmp_path: Path, name: str) -> None:
    now = 130.0 * DAY
    policy, request = POLICIES[name]
    pairs = drawn_pairs(3_000)
    folder = tmp_path / "parts"
    folder.mkdir()
    cuts = [0, 1, 1, 1_700, 3_000]
    for number, (begin, end) in enumerate(pairwise(cuts)):
        pq.write_table(pairs.slice(begin, end - begin), folder / f"part-{number}.parquet", row_group_size=500)
    (folder / "_SUCCESS").touch()
    done = apply_filter(
        run,
        "conrec",
        folder,
        tmp_path / "out.parquet",
        block=256,
        policy=policy,
        request_column=request,
        now=now,
        sort=name == "sorted",
    )
    out = pq.read_table(tmp_path / "out.parquet")
    assert out.select(pairs.column_names).equals(pairs)
    expected = asked_by_hand(run, pairs, policy, request, now)
    assert out.select(list(ADDED)).to_pylist() == expected
    counted = {reason: sum(one["reason"] == reason for one in expected) for reason in {*out["reason"].to_pylist()}}
    assert (done.rows, done.dropped) == (3_000, counted.get("above the threshold", 0))
    assert (done.unknown_users, done.unknown_items) == (counted["unknown user"], counted["unknown item"])
    assert 0 < sum(one["dropped"] for one in expected) < 3_000 or policy.dry_run
    more = {"floor": "too few would remain", "allow": "on the allow-list", "dry run": "dry run"}
    for word, reason in more.items():
        if word in name:
            assert f"kept: {reason}" in done.lines()[1]
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_text_formats_have_floors_too(run: Path, tmp_path: Path, suffix: str) -> None:
    policy, request = POLICIES["floor by request"]
    pairs = drawn_pairs(400).cast(
        pa.schema([("request", pa.string()), ("user_id", pa.string()), ("item_id", pa.string()), ("position", "int64")])
    )
    pq.write_table(pairs, tmp_path / "in.parquet")
    for source, out in (
        ("in.parquet", f"text{suffix}"),
        (f"text{suffix}", "again.parquet"),
        ("in.parquet", "out.parquet"),
    ):
        if out.startswith("text"):  # to get the rows as text, without the decision
            apply_filter(run, "conrec", tmp_path / source, tmp_path / out)
            drop_added(tmp_path / out)
        else:
            apply_filter(
                run, "conrec", tmp_path / source, tmp_path / out, policy=policy, request_column=request, block=100
            )
    first, second = (pq.read_table(tmp_path / f"{name}.parquet").select(list(ADDED)) for name in ("out", "again"))
    assert second.equals(first)
    assert "kept: too few would remain" in first["reason"].to_pylist()


def drop_added(path: Path) -> None:
    """Take the filter's columns out of a text file."""
    import csv  # noqa: PLC0415
    import json  # noqa: PLC0415

    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        kept = [{name: value for name, value in row.items() if name not in ADDED} for row in rows]
        path.write_text("".join(json.dumps(row) + "\n" for row in kept))
        return
    with path.open(newline="") as handle:
        rows = list(csv.reader(handle))
    places = [place for place, name in enumerate(rows[0]) if name not in ADDED]
    with path.open("w", newline="") as handle:
        csv.writer(handle).writerows([row[place] for place in places] for row in rows)


def test_groups_stay_whole_wherever_a_batch_ends() -> None:
    sizes = 1 + 13 * np.arange(40) % 30
    users = np.repeat([f"u{number:02}" for number in range(40)], sizes)
    table = pa.table({"request": [None] * len(users), "user_id": users, "n": np.arange(len(users))})
    pieces = [table.slice(begin, 7) for begin in range(0, len(table), 7)]
    found = list(whole_groups(pieces, ("request", "user_id"), 20))
    assert pa.concat_tables(found).equals(table)
    ends = np.cumsum([len(one) for one in found])
    assert set(ends.tolist()) <= set(np.cumsum(sizes).tolist())
    assert max(len(one) for one in found) < 20 + 7 + sizes.max()
    assert [len(one) for one in whole_groups(pieces, (), 20)][:2] == [21, 21]
    assert list(whole_groups([], ("user_id",))) == []


def test_ids_of_all_kinds_are_looked_at_once() -> None:
    big = "x" * (1 << 20)
    column = pa.chunked_array([pa.array(["b", None, "", "a"]), pa.array([big, "b"])])
    found = distinct_ids(column, "here", "user_id")
    assert found.values.to_pylist() == ["a", "b", big]
    assert found.row.tolist() == [1, -1, -1, 0, 2, 1]
    numbers = distinct_ids(pa.chunked_array([pa.array([2**64 - 1, 7, None], pa.uint64())]), "here", "item_id")
    assert (numbers.values.to_pylist(), numbers.row.tolist()) == (["18446744073709551615", "7"], [0, 1, -1])
    for kind in (pa.string_view(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())):
        same = distinct_ids(pa.chunked_array([pa.array(["b", None, "a"]).cast(kind)]), "here", "user_id")
        assert (same.values.to_pylist(), same.row.tolist()) == (["a", "b"], [1, -1, 0])
    nothing = distinct_ids(pa.chunked_array([pa.nulls(3)]), "here", "user_id")
    assert (len(nothing.values), nothing.row.tolist()) == (0, [-1, -1, -1])
    torn = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")])
    with pytest.raises(DataError, match="here, column user_id: has text that is not UTF-8"):
        distinct_ids(pa.chunked_array([torn]), "here", "user_id")
    with pytest.raises(DataError, match="here, column user_id: has the type bool"):
        distinct_ids(pa.chunked_array([[True]]), "here", "user_id")


def test_a_small_catalogue_and_a_large_one_are_searched_alike(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = FilterJob(run, "conrec").open()
    ids = distinct_ids(pa.chunked_array([["300", None, "1", "no", "1", ""]]), "here", "item_id")
    found = judge.items(ids)
    monkeypatch.setattr("conrec.filtering.bulk.pairs.MANY", -1.0)
    assert judge.items(ids).tolist() == found.tolist() == [299, -1, 0, -1, 0, -1]


def write_parts(folder: Path, **columns: Any) -> Path:
    folder.mkdir()
    pq.write_table(pa.table({"user_id": ["u1"], "item_id": ["1"]}), folder / "part-0.parquet")
    pq.write_table(pa.table(columns), folder / "part-1.parquet")
    return folder


def test_folders_that_are_no_table_are_refused(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"

    def refused(source: Path, says: str, **options: Any) -> None:
        with pytest.raises(DataError, match=says):
            apply_filter(run, "conrec", source, out, **options)
        assert not out.exists()

    (tmp_path / "nothing").mkdir()
    refused(tmp_path / "nothing", "has no Parquet files")
    other = write_parts(tmp_path / "other", user_id=["u1"], item=["1"])
    refused(other, r"part-1\.parquet: has the columns user_id \(string\), item .* expected those of part-0\.parquet")
    refused(write_parts(tmp_path / "kinds", user_id=["u1"], item_id=[1]), r"item_id \(int64\)")
    good = write_parts(tmp_path / "good", user_id=["u1"], item_id=["1"])
    refused(good, "has no column 'session'", request_column="session")
    part = good / "part-1.parquet"
    whole = part.read_bytes()
    part.write_bytes(whole[: len(whole) // 2])
    refused(good, r"part-1\.parquet: cannot be read as Parquet")
    part.write_bytes(b"")
    refused(good, r"part-1\.parquet: cannot be read as Parquet")
    part.write_bytes(whole[:4] + bytes(len(whole) // 3) + whole[4 + len(whole) // 3 :])  # its footer is right
    refused(good, r"part-1\.parquet")
    part.write_bytes(whole)
    with pytest.raises(DataError, match="the output is the input"):
        apply_filter(run, "conrec", good, part)
    pq.write_table(pa.table({"user_id": ["u1"], "item_id": ["1"]}).slice(0, 0), tmp_path / "empty.parquet")
    refused(tmp_path / "empty.parquet", "has no rows")
    refused(tmp_path / "empty.parquet", "has no rows", policy=Policy(keep_at_least=1))
    assert not list(tmp_path.glob("*.tmp"))


def test_wide_rows_come_in_short_blocks(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conrec.filtering.bulk.tables.BLOCK_BYTES", 1 << 16)
    wide = [f"{number:03}" + "x" * 10_000 for number in range(60)]
    pq.write_table(pa.table({"user_id": wide, "item_id": ["1"] * 60}), tmp_path / "in.parquet", compression="none")
    done = apply_filter(run, "conrec", tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert (done.rows, done.unknown_users) == (60, 60)
    out = pq.ParquetFile(tmp_path / "out.parquet")
    assert out.metadata.num_row_groups >= 10
    assert out.read()["user_id"].to_pylist() == wide


def test_a_store_that_goes_away_stops_an_offline_command(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Online everything would be kept; here half a file of that would look like a finished one."""
    from conrec.filtering.stores.lmdb import PredictSetStore  # noqa: PLC0415

    def away(*_: object) -> None:
        raise StoreUnavailableError("no answer")

    pq.write_table(drawn_pairs(10), tmp_path / "in.parquet")
    monkeypatch.setattr(PredictSetStore, "get_many", away)
    with pytest.raises(StoreUnavailableError, match=r"did not answer.*same command again"):
        apply_filter(run, "conrec", tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_a_store_elsewhere(run: Path, tmp_path: Path) -> None:
    pq.write_table(drawn_pairs(10), tmp_path / "in.parquet")
    apply_filter(run, "conrec", tmp_path / "in.parquet", tmp_path / "a.parquet")
    apply_filter(run, "conrec", tmp_path / "in.parquet", tmp_path / "b.parquet", store=str(run / "filter" / "conrec"))
    assert pq.read_table(tmp_path / "a.parquet").equals(pq.read_table(tmp_path / "b.parquet"))
    with pytest.raises(ArtefactError):
        apply_filter(run, "conrec", tmp_path / "in.parquet", tmp_path / "b.parquet", store=str(tmp_path / "none"))


FULL = """
import resource, sys
from pathlib import Path
from conrec.artefacts import disk_full
from conrec.filtering.bulk.apply import apply_filter
from conrec.filtering.policy import Policy
run, source, out = map(Path, sys.argv[1:4])
resource.setrlimit(resource.RLIMIT_FSIZE, (16384, 16384))
for policy in (Policy(), Policy(keep_at_least=2)):
    try:
        apply_filter(run, "conrec", source, out, policy=policy)
    except OSError as error:
        assert disk_full(error), error
        print("full")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of this kind")
@pytest.mark.parametrize("name", ["out.parquet", "out.csv"])
def test_a_full_disk_leaves_the_old_output(run: Path, tmp_path: Path, name: str) -> None:
    source, out = tmp_path / "in.parquet", tmp_path / name
    draw = np.random.default_rng(0)
    pairs = drawn_pairs(20_000).append_column("noise", pa.array(draw.random(20_000)))
    pq.write_table(pairs, source)
    out.write_text("old")
    command = [sys.executable, "-c", FULL, str(run), str(source), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "full\nfull\n"), done.stderr
    assert out.read_text() == "old"
    assert {one.name for one in tmp_path.iterdir()} == {"in.parquet", name}


SLOW = """
import sys, time
from pathlib import Path
from conrec.filtering.bulk import apply
from conrec.filtering.bulk.tables import OpenTable
blocks = OpenTable.blocks
def one_at_a_time(self, size=None):
    for number, one in enumerate(blocks(self, 10)):
        yield one
        if number == 3:
            print("writing", flush=True)
            time.sleep(60)
OpenTable.blocks = one_at_a_time
run, source, out = map(Path, sys.argv[1:4])
apply.apply_filter(run, "conrec", source, out)
"""


def test_killed_while_it_writes(run: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pq.write_table(drawn_pairs(100), source)
    out.write_text("old")
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, str(run), str(source), str(out)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGKILL)
    assert out.read_text() == "old"
    assert len(list(tmp_path.glob(".out.parquet.*.tmp"))) == 1
    apply_filter(run, "conrec", source, out, engine=EngineConfig(temporary=tmp_path))
    assert pq.read_table(out).num_rows == 100
    assert {one.name for one in tmp_path.iterdir()} == {"in.parquet", "out.parquet"}
