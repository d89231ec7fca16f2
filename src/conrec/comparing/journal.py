"""The files of a search: every trial of a row as it ends, and the best settings as a configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from conrec.artefacts import read_json, write_json
from conrec.errors import ArtefactError

__all__ = ["Journal", "Trial", "keep_aside", "parts_that_differ", "read_journal"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One fit with one point of a grid.

    Attributes:
        settings: a value for every field.
        value: FHR@K on the validation anchors (candidate accuracy of a row that ranks nothing); None where it failed.
        error: why it failed; empty where it did not.
        seconds: wall clock of fit and judgement.
    """

    settings: Mapping[str, Any]
    value: float | None
    error: str = ""
    seconds: float = 0.0


@dataclass(slots=True)
class Journal:
    """The trials of one row, ``FOLDER/ROW.json``.

    Attributes:
        row: its name.
        depends: JSON of all that the trials depend on besides their settings.
        trials: in order; the first has the configured settings.
        not_applicable: why the row cannot run on this data; empty where it can.
    """

    row: str
    depends: Mapping[str, Any]
    trials: list[Trial] = field(default_factory=list)
    not_applicable: str = ""

    def write(self, path: Path) -> None:
        """Replace the file by what is known now."""
        best = self.best(len(self.trials))
        chosen = None if best is None else {"settings": dict(best.settings), "value": best.value}
        write_json(
            path,
            {
                "row": self.row,
                "chosen": chosen,
                "not_applicable": self.not_applicable,
                "trials": [asdict(one) for one in self.trials],
                "depends": dict(self.depends),
            },
        )

    def best(self, budget: int) -> Trial | None:
        """The best of the first ``budget`` trials, the earliest of equal ones; None where none was judged."""
        judged = [one for one in self.trials[:budget] if one.value is not None]
        return max(judged, key=lambda one: -1.0 if one.value is None else one.value, default=None)


def read_journal(path: Path, row: str, depends: Mapping[str, Any] | None = None) -> Journal:
    """The trials so far; none where the file is not there.

    Args:
        path: of the file.
        row: that it is of.
        depends: what its trials must depend on; None: whatever they do.

    Raises:
        ArtefactError: the file is damaged, or its trials were made on other data or with other settings.
    """
    if not path.is_file():
        return Journal(row, depends or {})
    found = read_json(path)
    try:
        trials = [
            Trial(
                dict(one["settings"]),
                None if one["value"] is None else float(one["value"]),
                str(one["error"]),
                float(one["seconds"]),
            )
            for one in found["trials"]
        ]
        before: Mapping[str, Any] = dict(found["depends"])
        journal = Journal(str(found["row"]), before, trials, str(found["not_applicable"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(
            f"cannot be read as the trials of a row ({type(error).__name__}: {error})",
            where=str(path),
            mend="Remove it, and its trials are made again.",
        ) from None
    different = [] if depends is None else parts_that_differ(before, depends)
    if journal.row != row or different:
        raise ArtefactError(
            f"its trials are of other {' and '.join(different) or 'rows'}",
            where=str(path),
            mend="Give another --out, or remove the file to search again.",
        )
    return journal


def keep_aside(path: Path) -> Path:
    """Give a journal another name, ``ROW.before-1.json`` or the next number, so that its row begins anew."""
    number = 1
    while (kept := path.with_name(f"{path.stem}.before-{number}.json")).exists():
        number += 1
    path.rename(kept)
    return kept


def parts_that_differ(before: Mapping[str, Any], now: Mapping[str, Any]) -> Sequence[str]:
    """The names of what two searches do not have in common, of `Journal.depends`."""
    return [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
