"""`filter apply`: every format in and out, the rows unchanged, bad input named."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conrec.errors import ArtefactError, DataError
from conrec.filtering.bulk.apply import ADDED, apply_filter
from conrec.filtering.policy import Policy

Build = Callable[[float | None], Path]

ROWS: list[dict[str, Any]] = [
    {"user_id": "ann", "item_id": "i0", "slot": "1"},
    {"user_id": "bob", "item_id": "i0", "slot": "2"},
    {"user_id": "stranger", "item_id": "i0", "slot": "a,b"},
    {"user_id": "ann", "item_id": "i9", "slot": 'say "no"'},
    {"user_id": "42", "item_id": "7", "slot": ""},
    {"user_id": "ann", "item_id": "i1", "slot": "line\nbreak"},
]
EXPECTED = [
    (1.0, True, "a_0 b_0 c_0", "i0", "above the threshold"),
    (0.0, False, "a_1 b_1 c_0", "i4", "not above the threshold"),
    (None, False, None, None, "unknown user"),
    (None, False, None, None, "unknown item"),
    (-0.866025, False, "a_0 b_1 c_0", "i2", "not above the threshold"),
    (0.984808, True, "a_0 b_0 c_0", "i0", "above the threshold"),
]


def write_rows(path: Path) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.DictWriter(handle, list(ROWS[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(ROWS)
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        assert table.schema.field("similarity").type == pa.float32()
        return [{**row, "similarity": _six(row["similarity"])} for row in table.to_pylist()]
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with path.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t" if path.suffix == ".tsv" else ","))
    return [
        {
            **row,
            "similarity": float(row["similarity"]) if row["similarity"] else None,
            "dropped": row["dropped"] == "true",
            "nearest_sid": row["nearest_sid"] or None,
            "nearest_item": row["nearest_item"] or None,
        }
        for row in rows
    ]


def _six(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


@pytest.mark.parametrize("out", [".parquet", ".csv", ".tsv", ".jsonl"])
@pytest.mark.parametrize("given", [".parquet", ".csv", ".tsv", ".jsonl"])
def test_every_format_to_every_format(circle_run: Build, tmp_path: Path, given: str, out: str) -> None:
    run = circle_run(0.9)
    source, target = write_rows(tmp_path / f"in{given}"), tmp_path / "new folder" / f"out{out}"
    summary = apply_filter(run, "conrec", source, target, block=4)
    rows = read_rows(target)
    assert [{name: row[name] for name in ROWS[0]} for row in rows] == ROWS
    assert [tuple(row[name] for name in ADDED[1:]) for row in rows] == [one[1:] for one in EXPECTED]
    assert [row["similarity"] for row in rows] == pytest.approx([one[0] for one in EXPECTED], abs=1e-4)
    assert (summary.rows, summary.dropped, summary.kept) == (6, 2, 4)
    assert (summary.unknown_users, summary.unknown_items, summary.threshold) == (1, 1, 0.9)
    assert [one.name for one in target.parent.iterdir()] == [target.name]


def test_blocks_change_nothing(circle_run: Build, tmp_path: Path) -> None:
    run, source = circle_run(0.9), write_rows(tmp_path / "in.csv")
    apply_filter(run, "conrec", source, tmp_path / "one.csv", block=1)
    apply_filter(run, "conrec", source, tmp_path / "all.csv", block=100)
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "all.csv").read_bytes()


def test_types_of_parquet_stay(circle_run: Build, tmp_path: Path) -> None:
    table = pa.table(
        {
            "when": pa.array([1, 2], pa.timestamp("us")),
            "user_id": pa.array([42, 43], pa.int64()),
            "item_id": pa.array(["7", "7"]).dictionary_encode(),
            "score": pa.array([0.5, float("nan")], pa.float32()),
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    apply_filter(circle_run(0.9), "conrec", tmp_path / "in.parquet", tmp_path / "out.parquet")
    out = pq.read_table(tmp_path / "out.parquet")
    assert out.schema.names == [*table.schema.names, *ADDED]
    assert [out.schema.field(name).type for name in table.schema.names] == table.schema.types
    assert out["reason"].to_pylist() == ["not above the threshold", "unknown user"]
    apply_filter(circle_run(0.9), "conrec", tmp_path / "in.parquet", tmp_path / "out.jsonl")
    second = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[1])
    assert (second["score"], second["when"], second["user_id"]) == (None, "1970-01-01 00:00:00.000002", 43)


def test_json_objects_stay_as_they_are(circle_run: Build, tmp_path: Path) -> None:
    rows = [
        {"item_id": 7, "user_id": 42, "nested": {"b": [1, None], "a": 2**60}},
        {"user_id": "ann", "item_id": None, "only here": "🎬 \ud800"},
    ]
    (tmp_path / "in.jsonl").write_text("\n" + "\n".join(json.dumps(row) for row in rows))
    apply_filter(circle_run(0.9), "conrec", tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    out = read_rows(tmp_path / "out.jsonl")
    assert [{name: row[name] for name in row if name not in ADDED} for row in out] == rows
    assert [row["reason"] for row in out] == ["not above the threshold", "unknown item"]
    rows[1]["only here"] = "plain"
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps(row) for row in [*rows, {"user_id": "a", "item_id": "b"}]))
    with pytest.raises(DataError, match=r"in\.jsonl, rows .*different types.*\.jsonl, which keeps them"):
        apply_filter(circle_run(0.9), "conrec", tmp_path / "in.jsonl", tmp_path / "out.parquet", block=1)


def test_keys_that_come_late_are_columns_too(circle_run: Build, tmp_path: Path) -> None:
    rows = [{"user_id": "ann", "item_id": "i0", "n": 1}, {"user_id": "ann", "item_id": "i1", "n": 0.5, "note": "x"}]
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    apply_filter(circle_run(0.9), "conrec", tmp_path / "in.jsonl", tmp_path / "out.parquet", block=1)
    out = pq.read_table(tmp_path / "out.parquet")
    assert out["n"].to_pylist() == [1.0, 0.5]
    assert out["note"].to_pylist() == [None, "x"]


def test_numbers_keep_their_leading_zeros_in_csv(circle_run: Build, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("\ufeffuser_id,item_id\n042,7\n42,07\n\n42,7\n", encoding="utf-8")
    apply_filter(circle_run(0.9), "conrec", tmp_path / "in.csv", tmp_path / "out.csv")
    rows = read_rows(tmp_path / "out.csv")
    assert [row["user_id"] for row in rows] == ["042", "42", "42"]
    assert [row["reason"] for row in rows] == ["unknown user", "unknown item", "not above the threshold"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("in.csv", "", r"in\.csv: this file is empty"),
        ("in.csv", "user_id,item_id\n", "has no rows"),
        ("in.csv", "user_id,item\nann,i0\n", r"has no column 'item_id'.*Its columns: user_id, item"),
        ("in.csv", "user_id,item_id\nann,i0\nann\n", r"in\.csv, line 3: has 1 values; expected 2"),
        ("in.csv", "user_id,item_id,user_id\nann,i0,x\n", "'user_id' twice"),
        ("in.csv", "user_id,item_id,dropped\nann,i0,x\n", "already has a column 'dropped'"),
        ("in.csv", 'user_id,item_id\nann,"i0\n', "cannot be read as CSV"),
        ("in.csv", b"user_id,item_id\nann,\xff\xfe\n", "cannot be read as CSV"),
        ("in.jsonl", "", "is empty"),
        ("in.jsonl", "\n\n", "has no rows"),
        ("in.jsonl", '{"user_id": "ann", "item_id": "i0"}\n{"user_id": "ann"}\n', r"row 2: has no 'item_id'"),
        ("in.jsonl", '{"user_id": "ann", "item_id": "i0"}\n{"user_id"\n', r"line 2: is not JSON"),
        ("in.jsonl", "[1, 2]\n", r"line 1: is '\[1, 2\]'; expected an object"),
        ("in.jsonl", '{"user_id": 1.5, "item_id": "i0"}\n', r"row 1, user_id: 1\.5; expected text"),
        ("in.jsonl", '{"user_id": "a", "item_id": "i", "reason": 1}\n', "already has a column 'reason'"),
        ("in.parquet", "no parquet", "cannot be read as Parquet"),
        ("in.xlsx", "x", r"suffix '\.xlsx'; expected \.parquet, \.csv"),
        ("in", "x", "has no suffix"),
    ],
)
def test_bad_input_is_named(circle_run: Build, tmp_path: Path, name: str, content: str | bytes, says: str) -> None:
    path, out = tmp_path / name, tmp_path / "out.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    out.write_text("of an earlier run")
    with pytest.raises(DataError, match=says):
        apply_filter(circle_run(0.9), "conrec", path, out)
    assert out.read_text() == "of an earlier run"
    assert not list(tmp_path.glob("*.tmp"))


def test_other_mistakes_are_named(circle_run: Build, tmp_path: Path) -> None:
    run, source = circle_run(0.9), write_rows(tmp_path / "in.csv")
    with pytest.raises(DataError, match="does not exist"):
        apply_filter(run, "conrec", tmp_path / "none.csv", tmp_path / "out.csv")
    with pytest.raises(DataError, match=r"'\.cvs'.*Did you mean '\.csv'"):
        apply_filter(run, "conrec", source, tmp_path / "out.cvs")
    with pytest.raises(DataError, match="the output is the input"):
        apply_filter(run, "conrec", source, source)
    with pytest.raises(ArtefactError, match="Did you mean 'conrec'"):
        apply_filter(run, "conreg", source, tmp_path / "out.csv")
    with pytest.raises(ArtefactError, match="no run here"):
        apply_filter(tmp_path / "no run", "conrec", source, tmp_path / "out.csv")
    pq.write_table(pa.table({"user_id": [1.5], "item_id": ["i0"]}), tmp_path / "in.parquet")
    with pytest.raises(DataError, match=r"column user_id: has the type double"):
        apply_filter(run, "conrec", tmp_path / "in.parquet", tmp_path / "out.csv")


def test_a_column_of_requests_that_nothing_asks_for_is_said(circle_run: Build, tmp_path: Path) -> None:
    run, source = circle_run(0.9), write_rows(tmp_path / "in.csv")
    for floor, said in ((0, True), (1, False)):
        policy = Policy(keep_at_least=floor)
        done = apply_filter(run, "conrec", source, tmp_path / "out.csv", policy=policy, request_column="item_id")
        assert any("'item_id' changed nothing: only filter.keep_at_least" in line for line in done.lines()) is said


@pytest.mark.parametrize(("threshold", "why"), [(0.9, False), (1.0, True), (None, True)])
def test_the_summary_says_why_nothing_is_dropped(
    circle_run: Build, tmp_path: Path, threshold: float | None, why: bool
) -> None:
    done = apply_filter(circle_run(threshold), "conrec", write_rows(tmp_path / "in.csv"), tmp_path / "out.csv")
    lines = done.lines()
    assert lines[0].startswith(f"6 rows: {done.dropped} dropped, {done.kept} kept (1 of unknown users, 1 of unknown")
    assert (done.dropped == 0) == why
    assert lines[1:] == (["Nothing can be dropped. as given"] if why else [])
