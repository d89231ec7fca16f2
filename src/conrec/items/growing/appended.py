"""What an append did, for a reader and for a program. No torch needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conrec.logs.counts import FileCounts

__all__ = ["Appended"]


@dataclass(frozen=True, slots=True)
class Appended:
    """What `append_items` did.

    Attributes:
        folder: of the catalogue.
        counts: rows of the file, kept or refused, and why.
        growth: what ``growth.json`` says; empty where nothing was ever appended.
        new: items that were appended now; 0 where the file has none, and then nothing was written.
    """

    folder: Path
    counts: FileCounts
    growth: dict[str, Any]
    new: int

    def lines(self) -> list[str]:
        """What was done, for a reader; the verdict is the last line."""
        if not self.new:
            last = _verdict_line(self.growth) if self.growth else "nothing was appended before either"
            return [*self.counts.lines(), f"nothing new: {self.folder} stays as it is", last]
        new, every = self.growth["appends"][-1]["drift"], self.growth["drift"]
        lines = [*self.counts.lines(), *_figures("new items", new)]
        if every["items"] > new["items"]:
            lines += _figures("all appended items", every)
        fullest = self.growth["fullest_first_code"]
        room = "" if fullest["room"] is None else f" of at most {fullest['room']:,}"
        written = f"{self.growth['items']:,} items, {self.growth['appended']:,} of them appended"
        return [
            *lines,
            f"fullest first code: {fullest['items']:,} items{room}",
            f"written: {self.folder}, {written}",
            _verdict_line(self.growth),
        ]

    def to_json(self) -> dict[str, Any]:
        """The same for a program: ``state`` ("fits", "retrain", "too few to tell"; null where nothing was ever
        appended), ``new``, ``folder``, ``counts`` and ``growth``."""
        state = self.growth["verdict"]["state"] if self.growth else None
        return {
            "state": state,
            "new": self.new,
            "folder": str(self.folder),
            "counts": self.counts.to_json(),
            "growth": self.growth,
        }


def _verdict_line(growth: dict[str, Any]) -> str:
    """The verdict and whom it is about, for a reader."""
    one = growth["verdict"]
    about = (
        f"{one['items']:,} {one['about']}" if one["about"] == "new items" else f"all {one['items']:,} appended items"
    )
    return f"{one['state']} ({about}): {one['reason']}"


def _figures(name: str, drift: dict[str, Any]) -> list[str]:
    """The figures of some new items, for a reader."""
    error, cosine, over, first = (drift[key] for key in ("error", "cosine", "another_second_code", "first_codes"))
    reference, moved = drift["reference"], drift["moved"]
    ratio, difference = f"ratio {error['ratio']:.2f}", f"difference {cosine['difference']:+.3f}"
    if error["low"] is not None:
        ratio += f" ({error['low']:.2f} to {error['high']:.2f})"
        difference += f" ({cosine['low']:+.3f} to {cosine['high']:+.3f})"
    which = "training items" if reference["trained"] else "items not trained on"
    return [
        f"{name}: {drift['items']:,}; beside {reference['items']:,} {which} of the run",
        f"  reconstruction error {error['mean']:.3f}, theirs {reference['error']:.3f}: {ratio}",
        f"  cosine {cosine['mean']:.3f}, theirs {reference['cosine']:.3f}: {difference}",
        f"  moved from their raw codes: {moved['items']:,} ({moved['share']:.1%}); to another second code: "
        f"{over['items']:,} ({over['share']:.1%}), theirs {over['reference']:.1%}",
        f"  first codes: Jensen-Shannon divergence {first['divergence']:.3f} bits, by chance {first['expected']:.3f} "
        f"(p = {first['p']:.3f})",
    ]
