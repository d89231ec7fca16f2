"""Packed files: read as if they were not, and refused where they are damaged."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conrec.errors import DataError
from conrec.logs.files import TextFormat, column_names, read_raw

FILES = {
    "a.csv": ('x,y\n1,"two\nlines"\n\n3,é\n', TextFormat()),
    "a.tsv": ("x\ty\n1\t2\n3\t4\n", TextFormat()),
    "a.dat": ("1::2\n3::4\n", TextFormat("::", ("x", "y"))),
    "a.jsonl": ('{"x": 1, "y": "b"}\n\n{"x": 2, "y": null}\n', TextFormat()),
}


@pytest.mark.parametrize("name", FILES)
def test_packed_and_plain_are_the_same(tmp_path: Path, name: str) -> None:
    content, text = FILES[name]
    plain, packed = tmp_path / name, tmp_path / f"{name}.gz"
    plain.write_text(content, encoding="utf-8")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert column_names(packed, text) == column_names(plain, text) == ["x", "y"]
    one, other = read_raw(plain, text, ("x", "y")), read_raw(packed, text, ("x", "y"))
    assert one.table.equals(other.table)
    assert [one.number(row) for row in range(2)] == [other.number(row) for row in range(2)]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", ["cut", "not packed", "bits"])
def test_damaged_files_are_refused(tmp_path: Path, name: str, harm: str) -> None:
    content, text = FILES[name]
    rows = content if name == "a.dat" else content[content.index("\n") + 1 :]
    whole = gzip.compress((content + rows * 20_000).encode(), mtime=0)
    damaged = {
        "cut": whole[: len(whole) // 2],
        "not packed": content.encode(),
        "bits": whole[:-8] + bytes(8),
    }[harm]
    path = tmp_path / f"{name}.gz"
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"a\.\w+\.gz.*(is not a whole gzip file|cannot be read)"):
        read_raw(path, text, ("x", "y"))


def test_a_packed_parquet_file_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    path = tmp_path / "a.parquet.gz"
    path.write_bytes(gzip.compress((tmp_path / "a.parquet").read_bytes()))
    with pytest.raises(DataError, match=r"packed Parquet file.*Unpack it"):
        read_raw(path, TextFormat(), ("x",))


def test_a_name_says_how_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"x,y\n1,2\n"))
    with pytest.raises(DataError, match="the ending '' does not say"):
        read_raw(path, TextFormat(), ("x",))
    plain = tmp_path / "a.csv"
    plain.write_bytes(gzip.compress(b"x,y\n1,2\n"))
    with pytest.raises(DataError, match="holds gzip, not what its name says"):
        read_raw(plain, TextFormat(), ("x",))
