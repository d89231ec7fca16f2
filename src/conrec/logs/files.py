"""Reading a log's files as they are: text with any separator, JSON lines, Parquet; every row knows its place.

Text comes out as strings, nothing is guessed; what the columns mean is decided in `conrec.logs.validation`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from conrec.errors import DataError, did_you_mean
from conrec.logs.json_lines import json_columns, read_json_lines
from conrec.logs.parquet import no_parquet, open_parquet
from conrec.logs.streams import opened, suffix_of
from conrec.logs.text_records import (
    TextFormat,
    check_line_breaks,
    distinct,
    header_of,
    lines_of,
    raise_ragged,
    records_of,
)

__all__ = ["Raw", "TextFormat", "column_names", "read_raw", "require_columns"]


@dataclass(frozen=True, slots=True)
class Raw:
    """Columns of a file before anything is checked.

    Attributes:
        path: the file.
        table: its columns; strings where the file is text.
        number: from the index of a row (from 0) to its number in the file, counted from 1; in a text file
            that is the line it begins on, the header line included.
        unit: "line" or "row".
    """

    path: Path
    table: pa.Table
    number: Callable[[int], int]
    unit: str

    def at(self, row: int) -> str:
        """ "line 12" or "row 12"."""
        return f"{self.unit} {self.number(row)}"

    def place(self, row: int, column: str = "") -> str:
        """File, line or row, and column, for an error."""
        return f"{self.path}, {self.at(row)}" + (f", column {column!r}" if column else "")

    def with_table(self, table: pa.Table) -> Raw:
        """The same rows with other columns."""
        return replace(self, table=table)


def column_names(path: Path, text: TextFormat, wanted: Sequence[str] = ()) -> list[str]:
    """Names of a file's columns, without reading its rows.

    Args:
        path: as for `read_raw`.
        text: how it is written, where it is text.
        wanted: names to look for; JSON lines are read on until all of them have occurred.

    Raises:
        DataError: the file is missing, empty, or not what its name says.
    """
    kind = _kind(path, text)
    if kind == "parquet":
        return distinct(_parquet(path)[1], str(path))
    if kind == "json":
        return json_columns(path, wanted)
    return list(header_of(path, _resolved(path, text)))


def read_raw(
    path: Path,
    text: TextFormat,
    columns: Sequence[str],
    setting: str = "data.columns",
    schema: pa.Schema | None = None,
) -> Raw:
    """Read the given columns of a file.

    Args:
        path: .parquet, .jsonl, .csv, .tsv, or any text file where ``text`` has a separator; text and JSON lines
            also with .gz behind the name.
        text: how it is written, where it is text.
        columns: names of the columns that are needed.
        setting: the configuration section that maps columns, named in the error about a missing one.
        schema: types of the columns in JSON lines; what else the objects hold is then passed over unread, which
            takes less memory. Where a line does not fit it, types are found as without it.

    Raises:
        DataError: the file is missing, empty, not what its name says, lacks a column, has ragged rows, or quotes
            that may have swallowed rows.
    """
    require_columns(path, text, columns, setting)
    kind = _kind(path, text)
    wanted = list(dict.fromkeys(columns))
    if kind == "parquet":
        try:
            table = _parquet(path)[0].read(columns=wanted)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise no_parquet(path, error) from None
        raw = Raw(path, table, lambda row: row + 1, "row")
    elif kind == "json":
        table, lines = read_json_lines(path, wanted, schema)
        raw = Raw(path, table, lambda row: int(lines[row]), "line")
    else:
        resolved = _resolved(path, text)
        raw = _split_text(path, resolved, wanted) if len(resolved.separator or "") > 1 else _csv(path, resolved, wanted)
    if raw.table.num_rows == 0:
        raise DataError("has no rows", where=str(path), expected="a header and at least one row")
    return raw


def require_columns(path: Path, text: TextFormat, columns: Sequence[str], setting: str = "data.columns") -> None:
    """Check that a file has the given columns; arguments as for `read_raw`.

    Raises:
        DataError: the file is missing, empty, not what its name says, or lacks a column.
    """
    present = column_names(path, text, columns)
    for name in columns:
        if name not in present:
            raise _missing(path, name, present, setting, _kind(path, text))


def _kind(path: Path, text: TextFormat) -> str:
    """ "parquet", "json" or "text", after checking that the file's first bytes agree with its name."""
    if not path.exists():
        beside = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError("this file does not exist", where=str(path), mend=did_you_mean(path.name, beside))
    if path.is_dir():
        raise DataError("this is a folder", where=str(path), expected="a file")
    with opened(path) as handle:
        start = handle.read(4096)
    if not start.strip():
        raise DataError("this file is empty", where=str(path), expected="a header and at least one row")
    suffix = suffix_of(path)
    kind = {".parquet": "parquet", ".pq": "parquet", ".jsonl": "json", ".ndjson": "json", ".json": "json"}.get(
        suffix, "text"
    )
    if kind == "text" and suffix not in (".csv", ".tsv") and text.separator is None:
        raise DataError(
            f"the ending {suffix!r} does not say how the file is written",
            where=str(path),
            expected=".parquet, .csv, .tsv or .jsonl",
            mend="For any other text file set data.separator.",
        )
    holds = _looks_like(start)
    if holds and holds != {"parquet": "Parquet", "json": "JSON"}.get(kind):
        raise DataError(
            f"holds {holds}, not what its name says",
            where=str(path),
            expected={"parquet": "Parquet", "json": "one JSON object a line", "text": "plain text"}[kind],
            mend="Rename it to the ending that fits, or unpack it.",
        )
    if kind == "parquet" and path.suffix.lower() == ".gz":
        raise DataError("is a packed Parquet file", where=str(path), mend="Unpack it: Parquet packs its own columns.")
    if kind == "parquet" and not holds:
        raise DataError("is not a Parquet file", where=str(path), mend="Rename it to the ending that fits.")
    if kind == "json" and not holds:
        raise DataError(f"begins with {_shown(start)}", where=f"{path}, line 1", expected="one JSON object a line")
    return kind


def _looks_like(start: bytes) -> str:
    """What the first bytes say; "" for plain text."""
    for magic, name in ((b"PAR1", "Parquet"), (b"\x1f\x8b", "gzip"), (b"PK\x03\x04", "a zip archive")):
        if start.startswith(magic):
            return name
    head = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page"
    if head.startswith(b"{"):
        return "JSON"
    if head.startswith(b"[") and head[1:].lstrip().startswith(b"{"):
        return "a JSON array"
    return "binary data" if b"\0" in start and not start.startswith((b"\xff\xfe", b"\xfe\xff")) else ""


def _shown(start: bytes) -> str:
    return repr(start[:20].decode("utf-8", "replace"))


def _missing(path: Path, name: str, present: Sequence[str], setting: str, kind: str) -> DataError:
    where = f"{path}, line 1" if kind == "text" else str(path)
    found = f"has no column {name!r}; its columns are {', '.join(map(repr, present))}"
    if len(present) == 1 and kind == "text":
        for separator in (";", "\t", "|", "::", ","):
            if separator in present[0]:
                key = "data.items_separator" if "item" in setting else "data.separator"
                return DataError(found, where=where, mend=f"It looks separated by {separator!r}: set {key}.")
    if kind == "text" and all(any(char.isdigit() for char in one) for one in present):
        return DataError(found, where=where, mend="If the first line is data, give the names in data.header.")
    near = did_you_mean(name, present)
    hint = near + " " if near.startswith("Did") else ""
    return DataError(found, where=where, mend=f"{hint}Map your names in [{setting}].")


def _parquet(path: Path) -> tuple[pq.ParquetFile, list[str]]:
    """An open file and the names of its columns."""
    file = open_parquet(path)
    try:
        return file, file.schema_arrow.names
    except (pa.ArrowException, OSError, ValueError) as error:
        raise no_parquet(path, error) from None


def _resolved(path: Path, text: TextFormat) -> TextFormat:
    """The same format with the separator that the file's ending implies."""
    separator = text.separator or ("\t" if suffix_of(path) == ".tsv" else ",")
    return replace(text, separator=separator)


def _csv(path: Path, text: TextFormat, columns: list[str]) -> Raw:
    """A file with a separator of one character, through Arrow."""
    names = header_of(path, text)
    check_line_breaks(path, text, len(names))
    blank = next(records_of(path, text))[0] - 1
    try:
        table = pacsv.read_csv(
            path,
            read_options=pacsv.ReadOptions(
                column_names=list(names),
                skip_rows=blank,
                skip_rows_after_names=0 if text.header else 1,
                encoding=text.encoding,
            ),
            parse_options=pacsv.ParseOptions(
                delimiter=text.separator,
                quote_char='"' if text.quoting else False,
                newlines_in_values=text.quoting,
            ),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                include_columns=columns,
                strings_can_be_null=False,
            ),
        )
    except (pa.ArrowException, UnicodeError, LookupError, OSError) as error:
        raise_ragged(records_of(path, text), path, len(names), text)
        raise DataError(f"cannot be read ({error})", where=str(path)) from None

    def number(row: int) -> int:
        wanted = row + (0 if text.header else 1)
        return next(line for index, (line, _) in enumerate(records_of(path, text)) if index == wanted)

    return Raw(path, table, number, "line")


def _split_text(path: Path, text: TextFormat, columns: list[str]) -> Raw:
    """A file with a separator of several characters."""
    names = header_of(path, text)
    lines = pc.utf8_rtrim(pa.array(list(lines_of(path, text)), pa.large_string()), characters="\r\n")
    filled = np.flatnonzero(np.asarray(pc.not_equal(lines, "")))
    filled = filled if text.header else filled[1:]
    fields = pc.split_pattern(lines.take(pa.array(filled)), text.separator)
    if (np.asarray(pc.list_value_length(fields)) != len(names)).any():
        raise_ragged(records_of(path, text), path, len(names), text)
    grid = {
        name: pc.list_element(fields, names.index(name)).cast(pa.string()) if len(fields) else pa.array([], pa.string())
        for name in columns
    }
    return Raw(path, pa.table(grid), lambda row: int(filled[row]) + 1, "line")
