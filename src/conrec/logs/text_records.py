"""Text files as records: decoding, quotes and line breaks in them, headers, and rows of another length.

The rules of quoting are strict, because a stray quote would otherwise swallow rows or lose letters in silence: a value
that begins with a quote ends with one, right before the separator or the end of its line; quotes within it are doubled.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from conrec.errors import DataError
from conrec.logs.streams import opened

__all__ = ["TextFormat", "check_line_breaks", "distinct", "header_of", "lines_of", "raise_ragged", "records_of"]

ORDINARY = "If quotes are ordinary characters here, set data.quoting = false."


@dataclass(frozen=True, slots=True)
class TextFormat:
    """How a text file is written.

    Attributes:
        separator: between fields, one or more characters; None: a comma in .csv, a tab in .tsv.
            A separator of several characters has no quoting.
        header: column names of a file without a header line.
        encoding: of the text.
        quoting: whether fields may stand in double quotes; a value in quotes may hold line breaks, unless each of
            its lines would be a whole row without the quotes (see `check_line_breaks`).
    """

    separator: str | None = None
    header: tuple[str, ...] | None = None
    encoding: str = "utf-8"
    quoting: bool = True


def lines_of(path: Path, text: TextFormat) -> Iterator[str]:
    """Decoded lines with their ends, byte order mark removed.

    Raises:
        DataError: there is no such encoding, or the file is not written in it.
    """
    encoding = "utf-8-sig" if text.encoding.lower().replace("_", "-") in ("utf-8", "utf8") else text.encoding
    try:
        with opened(path) as handle, io.TextIOWrapper(handle, encoding=encoding, newline="\n") as lines:
            yield from lines
    except LookupError:
        raise DataError(f"there is no encoding {text.encoding!r}", where="data.encoding") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"the byte 0x{error.object[error.start]:02x} is not {text.encoding}",
            where=f"{path}, line {_undecodable(path, encoding)}",
            mend="Set data.encoding, for instance to 'latin-1'.",
        ) from None
    except UnicodeError as error:  # such as UTF-16 without the mark that says which of its two orders
        raise DataError(f"is not {text.encoding} ({error})", where=str(path), mend="Set data.encoding.") from None


def _undecodable(path: Path, encoding: str) -> int:
    """The first line whose bytes are not text in ``encoding``."""
    with opened(path) as handle:
        for number, line in enumerate(handle, start=1):
            try:
                line.decode(encoding)
            except UnicodeDecodeError:
                return number
    return 1  # only together with other lines, in encodings of several bytes a letter


def records_of(path: Path, text: TextFormat) -> Iterator[tuple[int, list[str]]]:
    """(line it begins on, fields) of each record, blank lines skipped; slow, for headers and for errors.

    Raises:
        DataError: a quote is never closed, or text follows a closing quote.
    """
    for number, fields, _ in _spans(path, text):
        yield number, fields


def _spans(path: Path, text: TextFormat) -> Iterator[tuple[int, list[str], list[str]]]:
    """(line it begins on, fields, its lines) of each record, blank lines skipped."""
    assert text.separator is not None
    if len(text.separator) > 1:
        for number, line in enumerate(lines_of(path, text), start=1):
            if stripped := line.rstrip("\r\n"):
                yield number, stripped.split(text.separator), [line]
        return
    taken: list[str] = []

    def lines() -> Iterator[str]:
        for line in lines_of(path, text):
            taken.append(line)
            yield line

    reader = csv.reader(
        lines(),
        delimiter=text.separator,
        quoting=csv.QUOTE_MINIMAL if text.quoting else csv.QUOTE_NONE,
        strict=True,
    )
    before = 0
    try:
        for fields in reader:
            if fields:
                yield before + 1, fields, taken.copy()
            taken.clear()
            before = reader.line_num
    except csv.Error as error:
        raise _unsplit(error, f"{path}, line {before + 1}", "".join(taken), text) from None


def _unsplit(error: csv.Error, where: str, record: str, text: TextFormat) -> DataError:
    """What the reader stumbled over, in our words."""
    shown = repr(record.partition("\n")[0][:60].rstrip("\r"))
    if text.quoting and '"' in record:
        if "expected after" in str(error) and "\n" in record.rstrip("\r\n"):
            found = f"a quote is opened and not closed before the next one in the record that begins {shown}"
        elif "expected after" in str(error):
            found = f"text follows a closing quote in the record that begins {shown}"
        else:  # the end of the file, or a field beyond the reader's limit of length
            found = f"a quote is opened and not closed in the record that begins {shown}"
        mend = f"{ORDINARY} Else close the quote, and double those within a value."
        return DataError(found, where=where, expected="values in pairs of double quotes", mend=mend)
    return DataError(f"cannot be split into fields ({error})", where=where)


def check_line_breaks(path: Path, text: TextFormat, width: int) -> None:
    """Refuse quotes that swallow rows.

    A value in quotes may hold line breaks: descriptions do. But where every line of such a record has the right number
    of fields when quotes are ordinary characters, it is as well a row whose title begins with a quote, and the rows
    after it up to the next quote; that cannot be told from the file, and one of the two readings loses rows.

    Args:
        path: of the file.
        text: with its separator.
        width: number of columns.

    Raises:
        DataError: a record of several lines can be read as several rows; a quote is never closed, or text follows a
            closing quote.
    """
    if not text.quoting or len(text.separator or "") != 1 or not _holds_quotes(path):
        return
    for number, _, lines in _spans(path, text):
        if len(lines) == 1:
            continue
        rows = [one for line in lines if (one := line.rstrip("\r\n"))]
        if all(row.count(text.separator or "") == width - 1 for row in rows):
            raise DataError(
                f"a value in quotes runs over {len(lines)} lines, each of which is a whole row of {width} fields "
                f"without the quotes ({rows[0][:60]!r}, {rows[-1][:60]!r})",
                where=f"{path}, line {number}",
                expected="quotes that close on their line, where their lines can be taken for rows",
                mend=f"{ORDINARY} If the line breaks belong to the value, bring the file as Parquet or JSON lines.",
            )


def _holds_quotes(path: Path) -> bool:
    """Whether there is any double quote in a file."""
    with opened(path) as handle:
        while block := handle.read(1 << 20):
            if b'"' in block:
                return True
    return False


def header_of(path: Path, text: TextFormat) -> tuple[str, ...]:
    """Column names; where they are given, the first record must have as many fields."""
    number, first = next(records_of(path, text), (1, []))
    names = text.header or tuple(name.strip() for name in first)
    if len(names) != len(first):
        raise DataError(
            f"the line has {len(first)} fields, data.header {len(names)} names",
            where=f"{path}, line {number}",
            expected="as many names as fields",
        )
    return tuple(distinct(names, f"{path}, line {number}"))


def distinct(names: Sequence[str], where: str) -> list[str]:
    """The names of a file's columns.

    Raises:
        DataError: two are the same.
    """
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(f"two columns are called {twice[0]!r}", where=where)
    return list(names)


def raise_ragged(records: Iterable[tuple[int, list[str]]], path: Path, width: int, text: TextFormat) -> None:
    """Raise for the first record with another number of fields; return where there is none."""
    for number, fields in records:
        if len(fields) != width:
            shown = (text.separator or "").join(fields)
            raise DataError(
                f"the line has {len(fields)} fields ({shown[:80]!r})",
                where=f"{path}, line {number}",
                expected=f"{width}, as in the first line",
                mend="A field that holds the separator must stand in double quotes"
                + ("; if quotes are ordinary characters here, set data.quoting = false." if text.quoting else "."),
            )
