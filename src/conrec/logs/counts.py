"""How many rows of a file were read, kept and refused, and why; nothing is dropped in silence."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Counts", "FileCounts", "RuleCounts"]


@dataclass(frozen=True, slots=True)
class RuleCounts:
    """What one rule of cleaning did.

    Attributes:
        rule: its name, see `conrec.logs.rules`.
        kept: rows that went on to the next rule, those that it changed included.
        changed: rows that stayed to the end otherwise than they stand in the source.
        refused: rows that ended here.
    """

    rule: str
    kept: int
    changed: int
    refused: int


@dataclass(frozen=True, slots=True)
class FileCounts:
    """Rows of one file. ``rows == kept + sum(refused.values())`` always.

    Attributes:
        file: name of the file.
        rows: rows read, the header not counted.
        kept: rows that went on.
        refused: rows that did not, by reason; reasons that never occurred are left out.
        noted: rows that were kept but are worth knowing of, by what was noted.
        examples: the first row of each reason or note, as "line 12: what stood there".
        rules: what each rule did, in the order of the rules; empty for a file that is not cleaned by rules.
    """

    file: str
    rows: int
    kept: int
    refused: dict[str, int] = field(default_factory=dict)
    noted: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)
    rules: tuple[RuleCounts, ...] = ()

    def __post_init__(self) -> None:
        if self.rows != self.kept + sum(self.refused.values()):
            raise ValueError(f"{self.file}: {self.rows} rows are not {self.kept} kept and {self.refused} refused")

    def lines(self) -> list[str]:
        """For people: one line with the sums, one for each reason and note, one for each rule that did something."""
        head = f"{self.file}: {self.rows:,} rows = {self.kept:,} kept + {self.rows - self.kept:,} refused"
        reasons = [f"  refused {n:,}: {why} (first: {self.examples[why]})" for why, n in self.refused.items()]
        notes = [f"  noted {n:,}: {why} (first: {self.examples[why]})" for why, n in self.noted.items()]
        acted = [one for one in self.rules if one.changed or one.refused]
        rules = [
            f"  rule {one.rule}: {one.kept:,} kept, {one.changed:,} of them changed, {one.refused:,} refused"
            for one in acted
        ]
        idle = ", ".join(one.rule for one in self.rules if one not in acted)
        return [head, *reasons, *notes, *rules, *([f"  rules that changed and refused no row: {idle}"] if idle else [])]

    def to_json(self) -> dict[str, Any]:
        """As written to data/counts.json."""
        return {
            "file": self.file,
            "rows": self.rows,
            "kept": self.kept,
            "refused": dict(self.refused),
            "noted": dict(self.noted),
            "examples": dict(self.examples),
            "rules": [asdict(one) for one in self.rules],
        }


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of the two files of a log."""

    events: FileCounts
    items: FileCounts

    def lines(self) -> list[str]:
        """For people."""
        return [*self.events.lines(), *self.items.lines()]

    def to_json(self) -> dict[str, Any]:
        """As written to data/counts.json."""
        return {"events": self.events.to_json(), "items": self.items.to_json()}
