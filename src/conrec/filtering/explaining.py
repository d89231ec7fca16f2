"""Why a candidate is near: which of the user's own past dislikes are nearest to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int

from conrec.arrays import Array
from conrec.errors import ArtefactError
from conrec.filtering.catalogue import FilterCatalogue
from conrec.filtering.decisions import PastDislike
from conrec.protocol import NEGATIVE

__all__ = ["PastDislikes"]


class PastDislikes:
    """What users of a run disliked, read from its log for one user at a time: nothing is held in memory.

    Args:
        run_folder: the run, whose ``data/events.parquet`` is read; without that file nobody disliked anything.
    """

    def __init__(self, run_folder: Path) -> None:
        self.path = run_folder / "data" / "events.parquet"

    def of(self, user_id: str) -> dict[str, int]:
        """Items that a user disliked, with the last time (unix seconds).

        Raises:
            ArtefactError: the log is damaged.
        """
        if not self.path.is_file():
            return {}
        try:
            found = pq.read_table(
                self.path,
                columns=["item_id", "timestamp"],
                filters=[("user_id", "=", user_id), ("feedback", "=", NEGATIVE)],
            )
        except (pa.ArrowException, OSError, UnicodeEncodeError) as error:
            if isinstance(error, UnicodeEncodeError):  # a lone surrogate: no log has such a user
                return {}
            raise ArtefactError(f"cannot be read as Parquet ({error})", where=str(self.path)) from None
        last: dict[str, int] = {}
        for item_id, timestamp in zip(found["item_id"].to_pylist(), found["timestamp"].to_pylist(), strict=True):
            last[item_id] = max(timestamp, last.get(item_id, timestamp))
        return last

    def nearest(
        self, catalogue: FilterCatalogue, user_id: str, items: Int[Array, " n"], count: int
    ) -> list[tuple[PastDislike, ...]]:
        """For each candidate the past dislikes of the user nearest to it, nearest first; of equal ones the latest.

        Args:
            catalogue: the run's items.
            user_id: the user.
            items: catalogue indices of the candidates; -1: unknown, which nothing is near to.
            count: at most so many for each.

        Raises:
            ArtefactError: the log is damaged.
        """
        past = sorted(self.of(user_id).items(), key=lambda one: (-one[1], one[0]))
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
