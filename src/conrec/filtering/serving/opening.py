"""Where the service takes its filter from, and which files it watches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conrec.filtering.catalogue import ITEM_TABLE, FilterCatalogue
from conrec.filtering.filter import NegativeFilter
from conrec.filtering.serving.live import Live, stamp
from conrec.filtering.serving.standing import NothingStored, keeping_everything
from conrec.filtering.stored import chosen_model
from conrec.filtering.stores.address import is_address
from conrec.filtering.stores.files import HEADER
from conrec.items.space import REBUILT, SEMANTIC_IDS_FILE

__all__ = ["Source"]


@dataclass(frozen=True, slots=True)
class Source:
    """A filter by its place.

    Attributes:
        run: folder of a finished run.
        model: a row with a predict-set store; None: the only one, or "conrec".
        store: where its predict sets are instead of ``RUN/filter/MODEL``, for instance ``valkey://host:port/NAME``.
    """

    run: Path
    model: str | None = None
    store: str | None = None

    def load(self, catalogue: FilterCatalogue | None = None) -> NegativeFilter:
        """Open it, checksums and all.

        Args:
            catalogue: of the run, where it has been read already.

        Raises:
            ConrecError: it cannot be opened.
        """
        opened = NegativeFilter.load(self.run, self.model, store=self.store, catalogue=catalogue)
        opened.catalogue.table.warm()  # not in the first request
        return opened

    def live(self, *, whatever_comes: bool = False) -> Live:
        """Open it, to be watched.

        Args:
            whatever_comes: where it cannot be opened, keep everything until it can.

        Raises:
            ConrecError: it cannot be opened.
        """
        model = self.model if whatever_comes and self.model is not None else chosen_model(self.run, self.model)
        folder = self.run / "filter"
        watched = [folder / f"{model}.json", self.run / "config.toml", *_of_items(self.run)]
        place = str(folder / model) if self.store is None else self.store
        if not is_address(place):
            watched.append(Path(place) / HEADER)
        return Live(_Opener(self), watched, instead=(lambda: keeping_everything(model)) if whatever_comes else None)

    def to_json(self) -> dict[str, Any]:
        """As JSON, for a worker."""
        return {"run": str(self.run), "model": self.model, "store": self.store}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Source:
        """What `to_json` gave."""
        return cls(Path(value["run"]), value["model"], value["store"])


class _Opener:
    """Opens a source again and again; items that have not changed are not read again, for they are most of it."""

    def __init__(self, source: Source) -> None:
        self._source, self._seen = source, tuple(stamp(path) for path in _of_items(source.run))

    def __call__(self, before: NegativeFilter | None) -> NegativeFilter:
        now = tuple(stamp(path) for path in _of_items(self._source.run))
        known = None if before is None or isinstance(before.store, NothingStored) else before.catalogue
        opened = self._source.load(known if now == self._seen else None)
        self._seen = now
        return opened


def _of_items(run: Path) -> tuple[Path, ...]:
    """What a catalogue is read from; an append replaces the first one."""
    return (
        run / "catalogue" / "growth.json",
        run / "items" / SEMANTIC_IDS_FILE,
        run / "items" / REBUILT,
        run / "filter" / ITEM_TABLE,
    )
