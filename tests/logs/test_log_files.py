"""Reading files: formats, separators, places of rows, and what is wrong with a broken file."""

from __future__ import annotations

import csv
import io
import itertools
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conrec.errors import DataError
from conrec.logs.files import TextFormat, column_names, read_raw

COLUMNS = ("user_id", "item_id")


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.csv", "user_id,item_id\nu1,i1\nu2,i2\n", TextFormat()),
        ("a.csv", "\ufeffuser_id,item_id\r\nu1,i1\r\nu2,i2", TextFormat()),
        ("a.csv", "\n\nuser_id,extra,item_id\nu1,x,i1\n\nu2,y,i2\n", TextFormat()),
        ("a.csv", "user_id;item_id\nu1;i1\nu2;i2\n", TextFormat(";")),
        ("a.csv", "u1,i1\nu2,i2\n", TextFormat(header=COLUMNS)),
        ("a.csv", '"user_id","item_id"\n"u1","i1"\n"u2","i2"\n', TextFormat()),
        ("a.tsv", "user_id\titem_id\nu1\ti1\nu2\ti2\n", TextFormat()),
        ("a.dat", "u1::i1\nu2::i2\n", TextFormat("::", COLUMNS)),
        ("a.dat", "user_id::item_id\r\n\r\nu1::i1\r\nu2::i2", TextFormat("::")),
        ("a.jsonl", '{"user_id": "u1", "item_id": "i1"}\n\n{"item_id": "i2", "user_id": "u2"}\n', TextFormat()),
    ],
)
def test_the_same_rows_from_every_format(tmp_path: Path, name: str, content: str, text: TextFormat) -> None:
    path = write(tmp_path, name, content)
    assert set(COLUMNS) <= set(column_names(path, text))
    raw = read_raw(path, text, COLUMNS)
    assert raw.table.to_pylist() == [{"user_id": "u1", "item_id": "i1"}, {"user_id": "u2", "item_id": "i2"}]


def test_parquet_keeps_types_and_counts_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user_id": [1, 2], "item_id": ["a", "b"], "x": [0.5, 1.5]}), tmp_path / "a.parquet")
    raw = read_raw(tmp_path / "a.parquet", TextFormat(), COLUMNS)
    assert raw.table.schema.names == list(COLUMNS)
    assert raw.table["user_id"].to_pylist() == [1, 2]
    assert raw.place(1, "user_id") == f"{tmp_path / 'a.parquet'}, row 2, column 'user_id'"


@given(
    st.lists(st.tuples(*[st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=8)] * 2), max_size=8)
)
def test_csv_gives_back_what_was_written_and_the_line_it_stood_on(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)
    lines = []
    writer.writerow(["a", "b"])
    for row in [*rows, ("end", "")]:
        lines.append(out.getvalue().count("\n") + 1)
        writer.writerow(row)
    path = write(tmp_path_factory.mktemp("csv"), "a.csv", out.getvalue())
    for begin, end in itertools.pairwise([*lines, out.getvalue().count("\n") + 1]):
        record = [line for line in out.getvalue().split("\n")[begin - 1 : end - 1] if line]
        if end > begin + 1 and all(line.count(",") == 1 for line in record):
            with pytest.raises(DataError, match=rf"line {begin}: a value in quotes runs over {end - begin} lines"):
                read_raw(path, TextFormat(), ("a", "b"))
            return
    raw = read_raw(path, TextFormat(), ("a", "b"))
    assert [tuple(row.values()) for row in raw.table.to_pylist()] == [*rows, ("end", "")]
    assert [raw.number(row) for row in range(len(lines))] == lines


def test_lines_are_counted_with_header_and_blank_lines(tmp_path: Path) -> None:
    raw = read_raw(write(tmp_path, "a.csv", "user_id,item_id\nu1,i1\n\nu2,i2\n"), TextFormat(), COLUMNS)
    assert [raw.number(row) for row in (0, 1)] == [2, 4]
    raw = read_raw(write(tmp_path, "a.dat", "\nu1::i1\n\nu2::i2\n"), TextFormat("::", COLUMNS), COLUMNS)
    assert [raw.number(row) for row in (0, 1)] == [2, 4]
    raw = read_raw(
        write(tmp_path, "a.jsonl", '{"user_id":1,"item_id":2}\n\n{"user_id":1,"item_id":2}'), TextFormat(), COLUMNS
    )
    assert [raw.number(row) for row in (0, 1)] == [1, 3]


def test_json_lines_with_mixed_types_and_missing_keys(tmp_path: Path) -> None:
    rows = [{"user_id": 1, "item_id": "a"}, {"user_id": "two"}, {"user_id": None, "item_id": "c"}]
    raw = read_raw(write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows))), TextFormat(), COLUMNS)
    assert raw.table["user_id"].to_pylist() == ["1", "two", None]
    assert raw.table["item_id"].to_pylist() == ["a", None, "c"]


GZIP, ZIP = b"\x1f\x8b\x08\x00", b"PK\x03\x04more"


@pytest.mark.parametrize(
    ("name", "content", "text", "says"),
    [
        ("a.csv", "", TextFormat(), ["a.csv", "empty"]),
        ("a.csv", " \n\n", TextFormat(), ["a.csv", "empty"]),
        ("a.csv", "user_id,item_id\n", TextFormat(), ["a.csv", "no rows"]),
        ("a.dat", "user_id::item_id\n", TextFormat("::"), ["a.dat", "no rows"]),
        ("a.csv", "user_id,item\nu,i\n", TextFormat(), ["line 1", "'item_id'", "Did you mean 'item'", "data.columns"]),
        ("a.csv", "user_id;item_id\nu;i\n", TextFormat(), ["separated by ';'", "data.separator"]),
        ("a.csv", "196,242\n186,302\n", TextFormat(), ["data.header"]),
        ("a.csv", "user_id,item_id\nu,i\nu,i,x\n", TextFormat(), ["line 3", "3 fields", "expected 2", "quotes"]),
        ("a.csv", "user_id,item_id\n\nu\n", TextFormat(), ["line 3", "1 fields", "expected 2"]),
        ("a.dat", "1::2\n1::2::3\n", TextFormat("::", COLUMNS), ["line 2", "3 fields"]),
        ("a.csv", "a,b,c\n", TextFormat(header=COLUMNS), ["line 1", "3 fields", "2 names"]),
        ("a.csv", "user_id,user_id,item_id\n1,2,3\n", TextFormat(), ["two columns", "'user_id'"]),
        ("a.csv", b"user_id,item_id\n1,caf\xe9\n", TextFormat(), ["line 2", "0xe9", "data.encoding"]),
        ("a.dat", b"1::caf\xe9\n", TextFormat("::", COLUMNS), ["0xe9", "data.encoding"]),
        ("a.csv", "user_id,item_id\n1,2\n", TextFormat(encoding="klingon"), ["klingon", "data.encoding"]),
        ("a.csv", b"PAR1....", TextFormat(), ["holds Parquet", "not what its name says"]),
        ("a.csv", GZIP, TextFormat(), ["gzip"]),
        ("a.csv", ZIP, TextFormat(), ["zip"]),
        ("a.csv", '{"user_id": 1}\n', TextFormat(), ["holds JSON"]),
        ("a.csv", "<!DOCTYPE html><html>", TextFormat(), ["a web page"]),
        ("a.csv", b"user_id,item_id\n\0\0", TextFormat(), ["binary data"]),
        ("a.parquet", "user_id,item_id\n", TextFormat(), ["not a Parquet file"]),
        ("a.parquet", b"PAR1nonsense", TextFormat(), ["cannot be read as Parquet"]),
        ("a.jsonl", "user_id,item_id\n1,2\n", TextFormat(), ["line 1", "one JSON object a line"]),
        ("a.jsonl", '[{"user_id": 1}]', TextFormat(), ["a JSON array"]),
        ("a.jsonl", '{"user_id": 1, "item_id": 2}\n{"user_id": 1,\n', TextFormat(), ["line 2", "is not JSON"]),
        ("a.jsonl", '{"user_id": 1, "item_id": 2}\n[1]\n', TextFormat(), ["line 2", "list"]),
        ("a.dat", "1::2\n", TextFormat(), [".dat", "data.separator"]),
    ],
)
def test_a_broken_file_gets_one_clear_error(
    tmp_path: Path, name: str, content: str | bytes, text: TextFormat, says: list[str]
) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(DataError) as caught:
        read_raw(path, text, COLUMNS)
    for part in [name, *says] if "data.encoding" not in says else says:
        assert part in str(caught.value)


def test_a_missing_file_names_what_is_near(tmp_path: Path) -> None:
    write(tmp_path, "events.csv", "x")
    with pytest.raises(DataError, match=r"does not exist.*'events.csv'"):
        read_raw(tmp_path / "event.csv", TextFormat(), COLUMNS)
    with pytest.raises(DataError, match="folder"):
        read_raw(tmp_path, TextFormat(), COLUMNS)


def test_quotes_can_be_ordinary_characters(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", 'user_id\titem_id\n1\t"Weird Al\n2\tx\n')
    raw = read_raw(path, TextFormat(quoting=False), COLUMNS)
    assert raw.table["item_id"].to_pylist() == ['"Weird Al', "x"]
    assert raw.number(1) == 3


SIX = 'item_id,title\n1,Lear\n2,"Tis Pity\n3,Othello\n4,Emma\n5,Heat\n6,Alien\n'


@pytest.mark.parametrize(
    ("content", "line", "says"),
    [
        (SIX, 3, "opened and not closed"),  # to the end of the file
        (
            SIX.replace("Alien", '"Alien"'),
            3,
            "opened and not closed before the next one",
        ),  # to the next quote, which opens one
        (SIX.replace("Heat", '7"'), 3, "runs over 4 lines, each of which is a whole row of 2 fields"),
        (SIX.replace("Heat", '7"').replace("\n", "\r\n"), 3, "runs over 4 lines"),
        (SIX.replace("Pity", 'Pity"'), 3, ""),
        (SIX.replace('"Tis Pity', '"Tis" Pity'), 3, "text follows a closing quote"),
        (SIX.replace('"Tis', "Tis").replace("Alien\n", '"Alien'), 7, "opened and not closed"),
        (SIX.replace('"Tis', "Tis").replace("title", '"title'), 1, "opened and not closed"),
        (SIX + "7," + "x" * 200_000 + "\n", 3, "opened and not closed"),
        ('user_id,note,item_id\n1,"a,x\n2,b",y\n3,c,z\n', 2, "runs over 2 lines, each of which is a whole row"),
    ],
)
def test_a_stray_quote_never_swallows_rows(tmp_path: Path, content: str, line: int, says: str) -> None:
    path = write(tmp_path, "a.csv", content)
    if not says:
        assert read_raw(path, TextFormat(), ("title",)).table["title"].to_pylist()[1] == "Tis Pity"
        return
    with pytest.raises(DataError) as caught:
        read_raw(path, TextFormat(), ("item_id",))
    for part in (f"{path}, line {line}: ", says, "data.quoting = false"):
        assert part in str(caught.value)
    ordinary = read_raw(path, TextFormat(quoting=False), ("item_id",))
    assert ordinary.table.num_rows == content.count("\n") - content.endswith("\n")


def test_line_breaks_that_are_surely_part_of_a_value_stay(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", 'item_id,title,note\n1,Lamp,"Bright, warm.\n\nTwo ""E27"" bulbs."\n2,"Chair",""\n')
    raw = read_raw(path, TextFormat(), ("item_id", "note"))
    assert raw.table["note"].to_pylist() == ['Bright, warm.\n\nTwo "E27" bulbs.', ""]
    assert [raw.number(row) for row in (0, 1)] == [2, 5]


def test_a_key_that_occurs_late_is_found(tmp_path: Path) -> None:
    rows = [{"user_id": n} for n in range(1500)] + [{"user_id": 1500, "item_id": "late"}]
    path = write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert column_names(path, TextFormat()) == ["user_id"]  # nobody asked for more
    assert column_names(path, TextFormat(), COLUMNS) == list(COLUMNS)
    assert read_raw(path, TextFormat(), COLUMNS).table["item_id"].to_pylist() == [None] * 1500 + ["late"]
    with pytest.raises(DataError, match="has no column 'title'; its columns are 'user_id', 'item_id'"):
        read_raw(path, TextFormat(), ("title",))


def test_json_strings_that_look_like_dates_stay_strings(tmp_path: Path) -> None:
    rows = [{"item_id": "2020-01-01", "kinds": ["2021-02-03"], "n": 1}, {"item_id": "2020-01-02 10:00:00", "kinds": []}]
    path = write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)))
    raw = read_raw(path, TextFormat(), ("item_id", "kinds", "n"))
    assert raw.table["item_id"].to_pylist() == ["2020-01-01", "2020-01-02 10:00:00"]
    assert raw.table["kinds"].to_pylist() == [["2021-02-03"], []]
    assert raw.table["n"].to_pylist() == [1, None]


def test_text_in_two_bytes_a_letter(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "user_id,item_id\nu1,é\n".encode("utf-16"))
    raw = read_raw(path, TextFormat(encoding="utf-16"), COLUMNS)
    assert raw.table.to_pylist() == [{"user_id": "u1", "item_id": "é"}]
