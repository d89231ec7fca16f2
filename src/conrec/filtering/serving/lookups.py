"""Point queries over the Parquet files of a run: nothing is loaded, memory and time are bounded, one at a time."""

from __future__ import annotations

import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from conrec.errors import ArtefactError, ConrecError

__all__ = ["LookupTimeoutError", "Lookups"]

MEMORY = "512MB"
SECONDS = 5.0
BATCH = 2_048


class LookupTimeoutError(ConrecError):
    """A log is too large for a question to be answered in time."""


class Lookups:
    """DuckDB on one thread, in memory, for one question after another.

    People look at one user at a time, and whoever filters meanwhile must not feel it: questions wait for each other,
    use one core, and are stopped after ``seconds``.

    Args:
        seconds: that a question may take.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self._turn = threading.Lock()
        self._connection = duckdb.connect(":memory:")
        # DuckDB makes this folder when something spills; it would take one below the current folder.
        spilled = Path(tempfile.gettempdir()) / f"conrec-page-{uuid.uuid4().hex}"
        for setting, value in (
            ("threads", 1),
            ("memory_limit", MEMORY),
            ("temp_directory", str(spilled)),
            ("autoinstall_known_extensions", False),
            ("autoload_known_extensions", False),
            ("lock_configuration", True),
        ):
            self._connection.execute(f"SET {setting} = $value", {"value": value})

    def rows(self, path: Path, query: str, /, **values: Any) -> list[tuple[Any, ...]]:
        """All rows of a query that limits itself.

        Args:
            path: the file, ``read_parquet($file)`` of the query.
            query: SQL; what is asked for is bound, never written into it.
            values: ``$name`` of the query.

        Raises:
            ArtefactError: the file is missing or damaged.
            LookupTimeoutError: it took too long.
        """
        with self.stream(path, query, **values) as batches:
            return [row for batch in batches for row in batch]

    @contextmanager
    def stream(self, path: Path, query: str, /, **values: Any) -> Iterator[Iterator[list[tuple[Any, ...]]]]:
        """The rows of a query in batches, none of them held: who has seen enough leaves the block.

        Arguments and errors as for `rows`.
        """
        if not path.is_file():
            raise ArtefactError("this file is missing", where=str(path))
        with self._turn:
            cursor = self._connection.cursor()
            late = threading.Event()

            def stop() -> None:
                late.set()
                cursor.interrupt()

            timer = threading.Timer(self.seconds, stop)
            timer.daemon = True
            timer.start()
            try:
                cursor.execute(query, {"file": str(path), **values})
                yield iter(lambda: cursor.fetchmany(BATCH), [])
            except duckdb.Error as error:
                if late.is_set():
                    raise LookupTimeoutError(
                        f"was not read through in {self.seconds:g} seconds",
                        where=str(path),
                        mend="The log is too large to look into while the service runs.",
                    ) from None
                line = str(error).partition("\n")[0]
                raise ArtefactError(f"cannot be read as Parquet ({line})", where=str(path)) from None
            finally:
                timer.cancel()
                cursor.close()

    def close(self) -> None:
        """Let go of the database, after the question that is being answered."""
        with self._turn:
            self._connection.close()
