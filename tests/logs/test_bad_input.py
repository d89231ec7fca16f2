"""Broken logs: each is accepted with counts that add up and ids intact, or refused with one clear error of ours.

A valid log is written as CSV, TSV, JSON lines or Parquet after its cells, columns or bytes have been spoilt; then it
is read as any log of one's own is.
"""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conrec.config import DataConfig, FeedbackRule
from conrec.errors import ConrecError
from conrec.logs.check import check_files
from conrec.logs.sources import Loaded, load

T = 1_600_000_000
NAMES = ("user_id", "item_id", "timestamp", "feedback")
FORMATS = ("csv", "tsv", "jsonl", "parquet")
EVENTS = [
    {"user_id": f"u{n % 3}", "item_id": f"i{n % 4}", "timestamp": T + n, "feedback": (-1, 0, 1)[n % 3]}
    for n in range(9)
]  # fmt: skip
ITEMS = [{"item_id": f"i{n}", "title": f"Title {n}"} for n in range(4)]

NASTY_IDS = [
    str(2**63 - 1), str(2**63), str(2**64), str(2**64 + 1), str(-(2**63) - 1), "9" * 40, "1e5", "007", "+7",
    "0x1f", "-0", "1.0",
    "nan", "null", "None", "true", "Robert'); DROP TABLE converted;--", "' OR 1=1 --", '"', '""', "a\"b",
    "a'b", "a,b", "a\tb",
    "a;b", "a\nb", "a\r\nb", "$1", ":name", "$position", "{reason}", "%s", "\\", "\\N", "../../etc/passwd", "/dev/null",
    "C:\\temp\\x", "*.parquet", "a\0b", "\0", "é", "e\u0301", "日本", "😀", "\u202eabc", "\ufeffx", "x" * 5000,
    "user_id", "=1+1",
]  # fmt: skip
NASTY_TIMES: list[Any] = [
    0, -1, -(2**63), 2**63 - 1, 2**63, 2**64, 10**30, T * 1000, T * 10**6, T * 10**9, 253_402_300_800, T + 0.5,
    float("nan"),
    float("inf"), 1e300, "soon", "", " ", "2020-01-01", "2020-02-30T00:00:00Z", "99999-01-01", "0000-00-00",
    f" {T} ", f"{T}.0",
    "1e9", True, None, [], {}, "1" * 400, "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00",
]  # fmt: skip
NASTY_FEEDBACK: list[Any] = [
    2,
    -2,
    0.5,
    "1",
    "-1.0",
    "1e400",
    "-",
    ".",
    "",
    None,
    True,
    "like",
    [],
    {"a": 1},
    10**30,
    float("nan"),
]

ids = st.one_of(st.sampled_from(NASTY_IDS), st.text(max_size=6))
whatever = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from(NASTY_TIMES),
    st.just([1, 2]),
)


def write(rows: list[dict[str, Any]], columns: list[str], path: Path, encoding: str = "utf-8") -> None:
    """Write rows in the format that the ending names; raises what the writer raises for what it cannot write."""
    kind = path.suffix[1:]
    if kind == "parquet":
        arrays = {}
        for name in columns:
            values = [row.get(name) for row in rows]
            try:
                arrays[name] = pa.array(values)
            except (pa.ArrowException, OverflowError, UnicodeError, ValueError, TypeError):
                arrays[name] = pa.array([None if one is None else str(one) for one in values], pa.string())
        pq.write_table(pa.table(arrays), path)
    elif kind == "jsonl":
        text = "".join(json.dumps({name: row[name] for name in columns if name in row}) + "\n" for row in rows)
        path.write_text(text, encoding=encoding)
    else:
        out = io.StringIO()
        writer = csv.writer(out, delimiter="\t" if kind == "tsv" else ",", lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([["" if row.get(name) is None else row[name] for name in columns] for row in rows])
        path.write_bytes(out.getvalue().encode(encoding, "surrogatepass"))


def read(events: Path, items: Path, **values: Any) -> Loaded | None:
    """The log, where its counts add up; None where it is refused with an error that says something."""
    config = DataConfig.model_validate(
        {"source": "table", "events": events, "items": items, "max_refused": 1, **values}
    )
    try:
        loaded = load(config)
    except ConrecError as error:
        refusal = str(error)
    else:
        return adds_up(loaded)
    assert len(refusal) < 5000
    assert refusal[-1] in ".?!"
    return None


def adds_up(loaded: Loaded) -> Loaded:
    """The same log; fails where a row is lost or an event is none."""
    for counts, table in ((loaded.counts.events, loaded.events), (loaded.counts.items, loaded.items)):
        assert counts.rows == counts.kept + sum(counts.refused.values())
        assert counts.kept == table.num_rows
        assert all(len(one) < 5000 for one in counts.lines())
    known = set(loaded.items["item_id"].to_pylist())
    for row in loaded.events.to_pylist():
        assert row["user_id"].strip() == row["user_id"] != ""
        assert row["item_id"] in known
        assert 631_152_000 <= row["timestamp"] < 2**33
        assert row["feedback"] in (-1, 0, 1)
    return loaded


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose name a shell or a query would stumble over."""
    made: Path = tmp_path_factory.mktemp('it\'s a; "log" $1 --')
    for kind in FORMATS:
        write(ITEMS, ["item_id", "title"], made / f"items.{kind}")
        write(EVENTS, list(NAMES), made / f"events.{kind}")
    return made


cells = st.lists(
    st.tuples(
        st.integers(0, len(EVENTS) - 1),
        st.one_of(
            st.tuples(st.sampled_from(["user_id", "item_id"]), st.one_of(ids, whatever)),
            st.tuples(st.just("timestamp"), st.one_of(st.sampled_from(NASTY_TIMES), whatever)),
            st.tuples(st.just("feedback"), st.one_of(st.sampled_from(NASTY_FEEDBACK), whatever)),
        ),
    ),
    max_size=6,
)


@settings(deadline=None, max_examples=60)
@given(
    cells,
    st.lists(st.integers(0, len(EVENTS) - 1), max_size=3),
    st.sampled_from(FORMATS),
    st.permutations(NAMES),
    st.sampled_from(["s", "auto", "iso"]),
)
def test_spoilt_cells(
    folder: Path, spoilt: list[tuple[int, tuple[str, Any]]], again: list[int], kind: str, order: list[str], unit: str
) -> None:
    rows = [dict(one) for one in EVENTS]
    for row, (name, value) in spoilt:
        rows[row][name] = value
    rows += [rows[row] for row in again]
    path = folder / f"events, spoilt 'here' ; --.{kind}"
    write(rows, order, path)
    loaded = read(path, folder / f"items.{kind}", timestamp_unit=unit)
    if loaded is not None:
        assert loaded.counts.events.rows == len(rows)
    if unit != "iso" and not spoilt:
        assert loaded is not None
        assert loaded.events.num_rows == len(EVENTS)
        assert sum(loaded.counts.events.refused.values()) == len(again)


item_cells = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from(["item_id", "title", "category", "text"]), st.one_of(ids, whatever)),
    max_size=5,
)


@settings(deadline=None, max_examples=40)
@given(item_cells, st.lists(st.integers(0, 3), max_size=2), st.sampled_from(FORMATS))
def test_spoilt_items(folder: Path, spoilt: list[tuple[int, str, Any]], again: list[int], kind: str) -> None:
    rows = [{**one, "category": "a|b", "text": "Words."} for one in ITEMS]
    for row, name, value in spoilt:
        rows[row][name] = value
    rows += [rows[row] for row in again]
    items = folder / f"items, spoilt 'here' ; --.{kind}"
    write(rows, ["text", "title", "item_id", "category"], items)
    loaded = read(folder / f"events.{kind}", items, item_columns={"category": "category", "text": "text"})
    if loaded is not None:
        assert loaded.counts.items.rows == len(rows)


def survives(text: str, kind: str) -> bool:
    """Whether a format can hold an ID: line breaks within quotes may look like rows, and NUL may look like no text."""
    return kind in ("jsonl", "parquet") or not set(text) & set('\r\n\0\t,"')


@settings(deadline=None, max_examples=60)
@given(st.lists(ids, min_size=1, max_size=6, unique_by=str.strip), st.sampled_from(FORMATS))
def test_ids_come_back_as_they_were(folder: Path, names: list[str], kind: str) -> None:
    rows = [{"user_id": name, "item_id": name, "timestamp": T, "feedback": 1} for name in names]
    events, items = folder / f"ids.{kind}", folder / f"names.{kind}"
    write(rows, list(NAMES), events)
    write([{"item_id": name, "title": "A title"} for name in names], ["item_id", "title"], items)
    loaded = read(events, items)
    there = [one for name in names if (one := name.strip())]
    if loaded is not None:
        for column in ("user_id", "item_id"):
            assert loaded.events[column].to_pylist() == there
    elif there:
        assert not all(survives(name, kind) for name in names)


@pytest.mark.parametrize("kind", FORMATS)
def test_ids_that_look_like_something_else(folder: Path, kind: str) -> None:
    alone = [name for name in NASTY_IDS if not survives(name, kind)]
    together = [name for name in NASTY_IDS if survives(name, kind)]
    for names in (together, *([one] for one in alone)):
        rows = [{**EVENTS[1], "user_id": name, "item_id": name} for name in names]
        write([*rows, EVENTS[0]], list(NAMES), folder / f"one.{kind}")
        titled = [{"item_id": name, "title": name} for name in names]
        write([*titled, *ITEMS], ["item_id", "title"], folder / f"its.{kind}")
        loaded = read(folder / f"one.{kind}", folder / f"its.{kind}")
        if loaded is not None:
            stripped = [name.strip() for name in names]
            assert loaded.events["user_id"].to_pylist() == [*stripped, "u0"]
            assert loaded.events["item_id"].to_pylist() == [*stripped, "i0"]
        else:
            assert names == [alone[alone.index(names[0])]]


def test_numbers_too_large_for_a_machine_word_stay_apart(folder: Path) -> None:
    large = [2**53 + 1, 2**53 + 2, 2**63, 2**63 + 1, 2**64, 10**30, 7]
    rows = [{"user_id": one, "item_id": one, "timestamp": T, "feedback": 1} for one in large]
    items = [{"item_id": one, "title": "A title"} for one in large]
    for part in (slice(None), slice(0, 2), slice(2, 4), slice(4, 6)):
        write(rows[part], list(NAMES), folder / "large.jsonl")
        write(items[part], ["item_id", "title"], folder / "large items.jsonl")
        loaded = read(folder / "large.jsonl", folder / "large items.jsonl")
        assert loaded is not None
        assert loaded.events["user_id"].to_pylist() == [str(one) for one in large[part]]
    decimals = pa.array([Decimal(one) for one in large], pa.decimal128(31, 0))
    for values in (decimals, pa.array(large[:4], pa.uint64()), pa.array(large[:2], pa.int64())):
        events = {"user_id": values, "item_id": values, "timestamp": [T] * len(values), "feedback": [1] * len(values)}
        pq.write_table(pa.table(events), folder / "large.parquet")
        pq.write_table(pa.table({"item_id": values, "title": ["x"] * len(values)}), folder / "large items.parquet")
        loaded = read(folder / "large.parquet", folder / "large items.parquet")
        assert loaded is not None
        assert loaded.events["item_id"].to_pylist() == [str(one) for one in large[: len(values)]]


MOMENTS = [datetime(2020, 9, 13, 12, 26, 40), None, datetime(1, 1, 1), datetime(9999, 12, 31)]
TYPED = {
    "lists": pa.array([[1], [2], None, []]),
    "structs": pa.array([{"a": 1}] * 4),
    "truth values": pa.array([True, False, None, True]),
    "bytes": pa.array([b"a", b"\xff", None, b""]),
    "half floats": pa.array([1.0, 2.5, None, float("nan")], pa.float16()),
    "floats": pa.array([1.0, -0.0, 1e300, float("-inf")]),
    "decimals": pa.array([Decimal("1.50"), None, Decimal("-2.00"), Decimal(0)]),
    "nulls": pa.nulls(4),
    "unsigned": pa.array([2**64 - 1, 0, None, T], pa.uint64()),
    "dates": pa.array(MOMENTS[:1] * 4).cast(pa.date32()),
    "far dates": pa.array([2**31 - 1, -(2**31), 0, None], pa.int32()).cast(pa.date32()),
    "microseconds": pa.array(MOMENTS, pa.timestamp("us")),
    "far microseconds": pa.array([2**62, -(2**62), 0, None], pa.int64()).cast(pa.timestamp("us")),
    "nanoseconds in Rome": pa.array([T * 10**9 + 1, 1, None, 2**62], pa.timestamp("ns", "Europe/Rome")),
    "far seconds": pa.array([T, None, 2**33, -(2**33)], pa.int64()).cast(pa.timestamp("s")),
    "no such zone": pa.array([T] * 4, pa.int64()).cast(pa.timestamp("us", "Mars/Phobos")),
    "times of day": pa.array([0, 1, None, 2], pa.int32()).cast(pa.time32("s")),
    "durations": pa.array([0, 1, None, 2], pa.int64()).cast(pa.duration("s")),
    "a dictionary": pa.array(["u1", None, "u1", ""]).dictionary_encode(),
    "numbers by dictionary": pa.array([T, None, T, 1]).dictionary_encode(),
    "far times by dictionary": pa.array([2**62, 0, 0, None], pa.timestamp("us")).dictionary_encode(),
    "large text": pa.array(["i0", "i1", None, "soon"], pa.large_string()),
    "views": pa.array(["i0", "i1", None, "soon"]).cast(pa.string_view()),
    "text that is not UTF-8": pa.array([b"i0", b"caf\xe9", b"i1", None]).view(pa.string()),
}  # fmt: skip


@pytest.mark.parametrize("kind", TYPED)
def test_columns_of_any_type(folder: Path, kind: str) -> None:
    path = folder / "typed.parquet"
    for name in (*NAMES, "reason"):
        columns: dict[str, Any] = {one: [row[one] for row in EVENTS[:4]] for one in NAMES}
        columns |= {"reason": ["fake"] * 4, name: TYPED[kind]}
        try:
            pq.write_table(pa.table(columns), path)
        except pa.ArrowException:
            pytest.skip("Parquet cannot hold it")
        for extra in ({}, {"timezone": "Europe/Berlin", "timestamp_unit": "auto"}):
            mapped = {"columns": {"reason": "reason"}} if name == "reason" else {}
            loaded = read(path, folder / "items.parquet", **mapped, **extra)
            if loaded is not None:
                assert loaded.counts.events.rows == 4


def test_names_of_columns_in_parquet(folder: Path) -> None:
    values = [[row[name] for row in EVENTS] for name in NAMES]
    path = folder / "names.parquet"
    for names in ((*NAMES, "user_id"), (*NAMES, "x.y"), (*NAMES, ""), (*NAMES, "rating")):
        pq.write_table(pa.table([*values, values[0]], names=names), path)
        assert (read(path, folder / "items.parquet") is None) == (names[-1] in ("user_id", "rating"))
    dotted = ("user.id", 'item"id', "time stamp", "feed;back")
    pq.write_table(pa.table(values, names=dotted), path)
    mapped = dict(zip(NAMES, dotted, strict=True))
    loaded = read(path, folder / "items.parquet", columns=mapped)
    assert loaded is not None
    assert loaded.events.num_rows == len(EVENTS)


@settings(deadline=None, max_examples=40)
@given(st.binary(min_size=1, max_size=4), st.integers(0, 10**6), st.sampled_from(FORMATS), st.booleans())
def test_spoilt_bytes(folder: Path, noise: bytes, at: int, kind: str, insert: bool) -> None:
    write(EVENTS, list(NAMES), folder / f"whole.{kind}")
    content = (folder / f"whole.{kind}").read_bytes()
    place = at % (len(content) + 1)
    spoilt = content[:place] + noise + content[place + (0 if insert else len(noise)) :]
    (folder / f"spoilt.{kind}").write_bytes(spoilt)
    read(folder / f"spoilt.{kind}", folder / f"items.{kind}")
    (folder / f"spoilt.{kind}").write_bytes(content[:place])
    read(folder / f"spoilt.{kind}", folder / f"items.{kind}")


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize("written", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp1252", "shift_jis"])
@pytest.mark.parametrize("said", ["utf-8", "utf-16", "latin-1", "ascii", "no-such", "rot13", "", "hex", "idna"])
def test_encodings(folder: Path, kind: str, written: str, said: str) -> None:
    rows = [{**EVENTS[0], "user_id": "caf\xe9" if written != "shift_jis" else "\u65e5"}, *EVENTS[1:]]
    path = folder / f"encoded.{kind}"
    if kind == "jsonl":
        lines = (json.dumps(row, ensure_ascii=False) for row in rows)
        path.write_bytes("\n".join(lines).encode(written))
    else:
        write(rows, list(NAMES), path, written)
    loaded = read(path, folder / "items.parquet", encoding=said)
    really = "utf-8" if kind == "jsonl" else said  # JSON is always that
    if written in (really, f"{really}-sig"):
        assert loaded is not None
        assert loaded.events["user_id"][0].as_py() == rows[0]["user_id"]


NASTY_NAMES = [
    "it's",
    'a "log"',
    "a b",
    "a;b",
    "--",
    "%s",
    "$1",
    "*",
    "[x]",
    "{a}",
    "\u65e5",
    "a\nb",
    ":name",
    "~",
    "a#b?c=d",
]


@pytest.mark.parametrize("name", NASTY_NAMES)
def test_file_names(folder: Path, name: str) -> None:
    for kind in FORMATS:
        events, items = folder / f"{name}.{kind}", folder / f"{name} items.{kind}"
        write(EVENTS, list(NAMES), events)
        write(ITEMS, ["item_id", "title"], items)
        loaded = read(events, items)
        assert loaded is not None
        assert loaded.events.num_rows == len(EVENTS)
        assert read(folder / f"{name} missing.{kind}", items) is None


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("where", [*NAMES, "title"])
def test_ten_megabytes_in_one_place(folder: Path, kind: str, where: str) -> None:
    long = "x" * 10_000_000
    rows = [{**EVENTS[0], where: long}, *EVENTS[1:]] if where in NAMES else EVENTS
    items = [{**ITEMS[0], where: long}, *ITEMS[1:]] if where in ("item_id", "title") else ITEMS
    write(rows, list(NAMES), folder / f"long.{kind}")
    write(items, ["item_id", "title"], folder / f"long items.{kind}")
    loaded = read(folder / f"long.{kind}", folder / f"long items.{kind}")
    if kind == "parquet":
        assert loaded is not None
        if where in ("user_id", "item_id"):
            assert loaded.events[where][0].as_py() == long


LINES = [
    '{"user_id": "u", "user_id": "v", "item_id": "i0", "timestamp": 1600000000, "feedback": 1}',
    '{"user_id": "\\ud800", "item_id": "i0", "timestamp": 1600000000, "feedback": 1}',
    '{"user_id": "a\\u0000b", "item_id": "i0", "timestamp": 1600000000, "feedback": 1}',
    '{"user_id": 1e400, "item_id": "i0", "timestamp": 1600000000, "feedback": 1}',
    '{"user_id": NaN, "item_id": "i0", "timestamp": Infinity, "feedback": -Infinity}',
    '{"user_id": {"a": [1, 2]}, "item_id": ["i0"], "timestamp": {}, "feedback": []}',
    '{"user_id": "u", "item_id": "i0", "timestamp": 1600000000, "feedback": ' + "[" * 3000 + "]" * 3000 + "}",
    '{"user_id": "u", "item_id": "i0", "timestamp": 1600000000, "feedback": ' + "[" * 400 + "]" * 400 + "}",
    '{"user_id": "u", "item_id": "i0", "timestamp": 1600000000, "feedback": ' + "[" * 200_000 + "]" * 200_000 + "}",
    '{"user_id": ' + "9" * 5000 + ', "item_id": "i0", "timestamp": 1600000000, "feedback": 1}',
    '{"user_id": "u", "item_id": "i0", "timestamp": 1600000000, "feedback": 1} {"user_id": "v"}',
    '{"user_id": "u", "item_id": "i0", "timestamp": 1600000000, "feedback": 1,}',
    "{}",
    "null",
    "[]",
    "{",
]


@pytest.mark.parametrize("line", LINES, ids=range(len(LINES)))
def test_odd_lines_of_json(folder: Path, line: str) -> None:
    good = [json.dumps(row) for row in EVENTS]
    for lines in ([*good, line], [line, *good], [line]):
        (folder / "odd.jsonl").write_text("\n".join(lines))
        loaded = read(folder / "odd.jsonl", folder / "items.jsonl")
        if loaded is not None:
            assert loaded.counts.events.rows == len(lines)


HEADERS = ["", ",", "user_id", "user_id,item_id,timestamp", "USER_ID,item_id,timestamp,feedback",
           "user_id,user_id,item_id,timestamp,feedback", "user_id,item_id,timestamp,feedback,rating",
           '"user_id","item_id","timestamp","feedback"', " user_id , item_id,timestamp,feedback",
           "user_id;item_id;timestamp;feedback",
           '"user_id,item_id,timestamp,feedback', "user_id,item_id,timestamp,feedback,", "\0",
           "user_id\titem_id\ttimestamp\tfeedback",
           "x,feedback,timestamp,item_id,user_id"]  # fmt: skip


@pytest.mark.parametrize("header", HEADERS, ids=range(len(HEADERS)))
def test_odd_headers(folder: Path, header: str) -> None:
    for body in ("u0,i0,1600000000,1\n", "u0,i0,1600000000,1,\n", "0,1,1600000000,i0,u0\n", "u0\n", "\n\n", ""):
        (folder / "head.csv").write_text(f"{header}\n{body}")
        read(folder / "head.csv", folder / "items.csv")


@settings(deadline=None, max_examples=20)
@given(cells, st.sampled_from(FORMATS))
def test_the_check_says_the_same(folder: Path, spoilt: list[tuple[int, tuple[str, Any]]], kind: str) -> None:
    rows = [dict(one) for one in EVENTS]
    for row, (name, value) in spoilt:
        rows[row][name] = value
    events, items = folder / f"checked.{kind}", folder / f"items.{kind}"
    write(rows, list(NAMES), events)
    loaded = read(events, items)
    config = DataConfig(source="table", max_refused=1)
    if loaded is None:
        with pytest.raises(ConrecError):
            check_files([events, items], config)
    else:
        assert check_files([events, items], config).files[0] == loaded.counts.events


@pytest.mark.parametrize(
    "zone", ["Mars/Phobos", "", "../../etc/passwd", "/etc/passwd", "Europe", "a\0b", "europe/berlin; --"]
)
def test_zones_that_do_not_exist(folder: Path, zone: str) -> None:
    rows = [{**EVENTS[0], "timestamp": "2020-03-29 02:30:00"}]
    write(rows, list(NAMES), folder / "zoned.csv")
    assert read(folder / "zoned.csv", folder / "items.csv", timestamp_unit="iso", timezone=zone) is None


def test_a_rule_that_says_two_things_of_one_reason() -> None:
    with pytest.raises(ValueError, match=r"'Already-Bought' stands in data\.feedback\.reasons twice"):
        FeedbackRule(reasons={"already bought": "keep", "Already-Bought": "drop"})
