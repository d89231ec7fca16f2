"""Where the settings of a row come from: the defaults, a search, or a hand."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from conrec.baselines.registry import REGISTRY
from conrec.comparing.seeds import flat
from conrec.config import Config
from conrec.settings.base import NONE, Settings

__all__ = ["origin", "section_of", "settings_model", "settings_of"]

SHOWN = 3
"""Settings that are named one by one; of more, only how many."""


def section_of(row: str) -> str:
    """The section of a baseline's own settings, as a dotted name; empty where it has none.

    >>> section_of("sasrec")
    'baselines.sasrec'
    >>> section_of("most-disliked")
    ''
    """
    own = [name for name in REGISTRY[row].sections if name.startswith("baselines.")]
    return own[0] if own else ""


def settings_model(config: Config, row: str) -> Settings | None:
    """The section of a baseline's own settings; None where it has none."""
    section = section_of(row)
    found: Settings | None = attrgetter(section)(config) if section else None
    return found


def settings_of(config: Config, row: str) -> dict[str, Any]:
    """The settings of a baseline by field, as JSON values."""
    section = settings_model(config, row)
    return {} if section is None else dict(section.model_dump(mode="json"))


def origin(config: Config, row: str) -> str:
    """Where a row's settings come from, in words; empty for a row without settings of its own.

    A search counts as the origin as long as the section still holds what it chose. Settings of other sections that the
    row is trained with, such as ``sft`` or the popularity behind a rule, are named with their section.
    """
    if row not in REGISTRY or not section_of(row):
        return ""
    now, usual = settings_of(config, row), settings_of(Config(), row)
    chosen = config.search.chosen.get(row)
    searched: dict[str, Any] = {}
    if chosen is not None:
        of_search = {
            name: None if one == NONE and now.get(name) is None else one for name, one in chosen.settings.items()
        }
        searched = of_search if all(now.get(name) == value for name, value in of_search.items()) else {}
    changed = {name: value for name, value in now.items() if value != usual[name] and name not in searched}
    for section in REGISTRY[row].sections:
        if section != section_of(row):
            usual = _flat_section(Config(), section)
            found = _flat_section(config, section).items()
            changed.update({f"{section}.{key}": value for key, value in found if value != usual.get(key)})
    parts = []
    if chosen is not None and (searched or not chosen.settings):
        parts.append(f"search, {chosen.trials} trials on {chosen.data}")
    if changed:
        named = ", ".join(f"{name} = {value}" for name, value in changed.items())
        parts.append(named if len(changed) <= SHOWN else f"{len(changed)} settings changed")
    return "; ".join(parts) or "defaults"


def _flat_section(config: Config, section: str) -> dict[str, Any]:
    """The values of a section by dotted key, as JSON values."""
    return dict(flat(attrgetter(section)(config).model_dump(mode="json")))
