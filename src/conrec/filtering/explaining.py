"""Why a candidate is near: which of the user's own past dislikes are nearest to it."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from conrec.arrays import Array
from conrec.errors import ArtefactError, ConrecError
from conrec.filtering.catalogue import FilterCatalogue
from conrec.filtering.decisions import PastDislike
from conrec.protocol import NEGATIVE

__all__ = ["LogTooLargeError", "PastDislikes"]

ROWS = 65_536
"""Of a batch of the log; between two of them the time is looked at."""


class LogTooLargeError(ConrecError):
    """A log was not read through in the time given."""


class PastDislikes:
    """What users of a run disliked, read from its log for one user at a time: nothing is held in memory.

    Args:
        run_folder: the run, whose ``data/events.parquet`` is read; without that file nobody disliked anything.
    """

    def __init__(self, run_folder: Path) -> None:
        self.path = run_folder / "data" / "events.parquet"

    def of(self, user_id: str, seconds: float | None = None) -> dict[str, int]:
        """Items that a user disliked, with the last time (unix seconds).

        Args:
            user_id: the user.
            seconds: that it may take, on one core; None: as long as it takes.

        Raises:
            ArtefactError: the log is damaged.
            LogTooLargeError: it took too long.
        """
        if not self.path.is_file():
            return {}
        import pyarrow.compute as pc  # noqa: PLC0415
        import pyarrow.dataset as ds  # noqa: PLC0415  (it brings pandas where that is installed; most never ask)

        end = None if seconds is None else time.monotonic() + seconds
        last: dict[str, int] = {}
        try:
            wanted = (pc.field("user_id") == user_id) & (pc.field("feedback") == NEGATIVE)
            scanner = ds.dataset(self.path, format="parquet").scanner(
                columns=["item_id", "timestamp"],
                filter=wanted,
                batch_size=ROWS,
                batch_readahead=1,
                fragment_readahead=1,
                use_threads=end is None,
            )
            for batch in scanner.to_batches():  # those in which nothing was found are empty, and come, too
                if end is not None and time.monotonic() > end:
                    raise LogTooLargeError(
                        f"was not read through in {seconds:g} seconds",
                        where=str(self.path),
                        mend="The log is too large to look into while the service runs.",
                    )
                for item_id, timestamp in zip(batch[0].to_pylist(), batch[1].to_pylist(), strict=True):
                    last[item_id] = max(timestamp, last.get(item_id, timestamp))
        except (pa.ArrowException, OSError, UnicodeEncodeError) as error:
            if isinstance(error, UnicodeEncodeError):  # a lone surrogate: no log has such a user
                return {}
            raise ArtefactError(f"cannot be read as Parquet ({error})", where=str(self.path)) from None
        return last

    def nearest(
        self,
        catalogue: FilterCatalogue,
        user_id: str,
        items: Int[Array, " n"],
        count: int,
        seconds: float | None = None,
    ) -> list[tuple[PastDislike, ...]]:
        """For each candidate the past dislikes of the user nearest to it, nearest first; of equal ones the latest.

        Args:
            catalogue: the run's items.
            user_id: the user.
            items: catalogue indices of the candidates; -1: unknown, which nothing is near to.
            count: at most so many for each.
            seconds: as of `of`.

        Raises:
            ArtefactError: the log is damaged.
            LogTooLargeError: it took too long.
        """
        past = sorted(self.of(user_id, seconds).items(), key=lambda one: (-one[1], one[0]))
        index = catalogue.indices([item_id for item_id, _ in past])
        past = [one for one, row in zip(past, index.tolist(), strict=True) if row >= 0]
        if not past or count < 1:
            return [()] * len(items)
        known = items >= 0
        cosine = np.full((len(items), len(past)), np.nan)
        cosine[known] = catalogue.table.similarities(items[known], index[index >= 0])
        order = np.argsort(-cosine, axis=1, kind="stable")[:, :count]
        return [
            tuple(PastDislike(past[at][0], float(row[at]), past[at][1]) for at in first.tolist()) if here else ()
            for row, first, here in zip(cosine, order, known.tolist(), strict=True)
        ]
