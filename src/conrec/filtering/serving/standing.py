"""What answers where nothing can be opened: it knows no user and no item, so that everything is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType

import numpy as np

from conrec.filtering.catalogue import FilterCatalogue
from conrec.filtering.filter import NegativeFilter
from conrec.filtering.stores.base import PredictSet, StoredSets, StoreMeta, StoreUnavailableError
from conrec.items.semantic_ids import SemanticIds

__all__ = ["NothingStored", "keeping_everything"]


class NothingStored:
    """A store that cannot be asked, in the place of one that cannot be opened."""

    def __init__(self, model: str) -> None:
        self.meta = StoreMeta(model, "", "", "", (1, 1, 1), written_at=0, newest=0, count=0, slots=0)
        self.version = ""

    def get(self, user_id: str) -> PredictSet | None:
        """Nothing is known of anybody, nor that he is unknown.

        Raises:
            StoreUnavailableError: always.
        """
        raise StoreUnavailableError("the store cannot be opened")

    def get_many(self, user_ids: Sequence[str]) -> StoredSets:
        """As `get`."""
        raise StoreUnavailableError("the store cannot be opened")

    def user_ids(self) -> Iterator[str]:
        """As `get`."""
        raise StoreUnavailableError("the store cannot be opened")

    def changed(self) -> bool:
        """Never by itself."""
        return False

    def close(self) -> None:
        """There is nothing to let go of."""

    def __len__(self) -> int:
        return 0

    def __enter__(self) -> NothingStored:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to let go of."""


def keeping_everything(model: str) -> NegativeFilter:
    """A filter that keeps every candidate of every user, and says that its store cannot be reached."""
    no_codes = np.empty((0, 3), dtype=np.int32)
    nothing = FilterCatalogue.build((), SemanticIds(no_codes, no_codes, 1), np.empty((0, 1), dtype=np.float32))
    return NegativeFilter(nothing, NothingStored(model), None)
