"""Opening a file as bytes: as it is, or unpacked on the way where its name ends in .gz."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from conrec.errors import DataError

__all__ = ["opened", "suffix_of"]


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file for reading, unpacked on the way where it is gzip by its name; nothing is written to disk.

    Raises:
        DataError: the gzip file is damaged or breaks off, found where it is read.
    """
    try:
        with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as handle:
            yield cast(BinaryIO, handle)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"is not a whole gzip file ({error})", where=str(path), mend="Fetch it again.") from None


def suffix_of(path: Path) -> str:
    """The ending that says how a file is written, in lower case; .gz says nothing of that.

    >>> suffix_of(Path("ratings.CSV")), suffix_of(Path("meta.jsonl.gz"))
    ('.csv', '.jsonl')
    """
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()
