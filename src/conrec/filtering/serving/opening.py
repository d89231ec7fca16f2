"""Where the service takes its filter from, and which files it watches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conrec.filtering import kernels
from conrec.filtering.filter import NegativeFilter
from conrec.filtering.serving.live import Live

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

    def load(self, before: NegativeFilter | None = None) -> NegativeFilter:
        """Open it, checksums and all.

        Args:
            before: the filter that answers now.

        Raises:
            ConrecError: it cannot be opened.
        """
        opened = NegativeFilter.load(self.run, self.model, store=self.store)
        kernels.warm(opened.catalogue.table)  # not in the first request
        return opened

    def live(self) -> Live:
        """Open it, to be watched."""
        first = self.load()
        folder = self.run / "filter"
        watched = (folder / f"{first.store.meta.model}.json", self.run / "catalogue" / "growth.json")
        opened: list[NegativeFilter] = [first]
        # What was opened to know its model is what answers first.
        return Live(lambda before: opened.pop() if opened else self.load(before), watched)

    def to_json(self) -> dict[str, Any]:
        """As JSON, for a worker."""
        return {"run": str(self.run), "model": self.model, "store": self.store}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Source:
        """What `to_json` gave."""
        return cls(Path(value["run"]), value["model"], value["store"])
