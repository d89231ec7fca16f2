"""Small files that come with a prediction: fixed column names, plain text or Parquet, and hints that fit them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from conrec.errors import DataError
from conrec.logs.files import Raw, TextFormat, column_names, read_raw

__all__ = ["own_hints", "read_columns"]

_TEXT = TextFormat(None, None, "utf-8", True)


def read_columns(path: Path, needed: str, optional: Sequence[str] = ()) -> Raw:
    """A file's column ``needed`` and those of ``optional`` that it has.

    Args:
        path: .parquet, .csv (commas), .tsv (tabs) or .jsonl, UTF-8, with a header where it is text.
        needed: name of a column.
        optional: names of others.

    Raises:
        DataError: the file cannot be used, or lacks the column.
    """
    names = " and perhaps ".join((needed, *optional))
    with own_hints(
        f"A text file needs a first line with the names {names}, commas (.csv) or tabs (.tsv), UTF-8, and quotes in "
        "pairs; .parquet and .jsonl fit too."
    ):
        there = column_names(path, _TEXT, [needed, *optional])
        return read_raw(path, _TEXT, [needed, *(name for name in optional if name in there)])


@contextmanager
def own_hints(mend: str) -> Iterator[None]:
    """Put ``mend`` in the place of hints to settings of a log, which do not hold for these files."""
    try:
        yield
    except DataError as error:
        if "data." not in error.mend:
            raise
        raise DataError(error.found, where=error.where, expected=error.expected, mend=mend) from None
