"""What the baselines are: in one line each, and one with all its settings and what a search tries of them."""

from __future__ import annotations

from conrec.baselines.registry import REGISTRY
from conrec.comparing.grids import grid_of
from conrec.comparing.origin import section_of, settings_model
from conrec.config import Config
from conrec.errors import ConfigError, did_you_mean
from conrec.items.diagnosis.figures import Listing
from conrec.rows import BASELINES

__all__ = ["every_row", "known_row", "one_row"]


def known_row(name: str, where: str) -> str:
    """The name, where a baseline has it.

    Raises:
        ConfigError: none has; with what was probably meant.
    """
    if name not in REGISTRY:
        raise ConfigError(f"there is no row {name!r}", where=where, mend=did_you_mean(name, BASELINES))
    return name


def every_row() -> Listing:
    """Name, publication, needs, start and section of every baseline."""
    rows = []
    for name in BASELINES:
        entry = REGISTRY[name]
        needs = ", ".join(entry.needs) or "the log"
        rows.append((name, entry.source or "–", needs, entry.start or "–", section_of(name) or "–"))
    heads = ("row", "follows", "reads of items", "starts from", "settings")
    note = "`conrec baselines list ROW` has a row's settings, and what a search tries of them."
    return Listing("Baselines", heads, tuple(rows), note, words=True)


def one_row(name: str, config: Config) -> Listing:
    """Every setting of one baseline with its value, what a search tries of it, and what it says.

    Raises:
        ConfigError: there is no such row.
    """
    known_row(name, "ROW")
    grid = grid_of(config, name)
    model = settings_model(config, name)
    rows = []
    for field, about in ({} if model is None else type(model).model_fields).items():
        tried = ", ".join(map(str, grid.fields[field])) if field in grid.fields else "–"
        rows.append((field, str(getattr(model, field)), tried, " ".join((about.description or "").split())))
    note = f"Settings of {grid.section}; {grid.size} points to search." if rows else "This row has no settings."
    return Listing(name, ("setting", "value", "a search tries", "what it is"), tuple(rows), note, words=True)
