"""What a search may choose from: each baseline's small grid, and the configured settings as one more point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from itertools import product
from math import prod
from typing import Any

from conrec.artefacts import hash_json
from conrec.baselines.registry import REGISTRY
from conrec.comparing.origin import section_of, settings_of
from conrec.config import Config
from conrec.errors import ConfigError

__all__ = ["Grid", "Point", "grid_of", "with_settings"]

Point = Mapping[str, Any]
"""A value for every field of a grid."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The settings that may be chosen for a row.

    Attributes:
        section: of the configuration, as a dotted name; empty for a row without settings of its own.
        fields: the values of each field, in the order of the module's ``SPACE``.
        first: the configured settings, which every search tries first; they need not lie on the grid.
    """

    section: str
    fields: Mapping[str, tuple[Any, ...]]
    first: Point

    @property
    def size(self) -> int:
        """Different points, the configured one included."""
        on_grid = all(self.first[name] in values for name, values in self.fields.items())
        return prod(len(values) for values in self.fields.values()) + (not on_grid)

    def untried(self, tried: set[str]) -> list[Point]:
        """The points on the grid whose `identity` is not in ``tried``, in order."""
        every = (dict(zip(self.fields, one, strict=True)) for one in product(*self.fields.values()))
        return [one for one in every if identity(one) not in tried]


def identity(point: Point) -> str:
    """One word for the values of a point; 1 and 1.0 are the same value."""
    numbers = {name: float(one) for name, one in point.items() if isinstance(one, int) and not isinstance(one, bool)}
    return hash_json({**point, **numbers})


def _json(value: Any) -> Any:
    """A value as it comes back from a journal."""
    return list(value) if isinstance(value, tuple) else value


def grid_of(config: Config, row: str) -> Grid:
    """The grid that a row's module documents as ``SPACE``; fields that only a sister row's section has are left out.

    >>> grid_of(Config(), "most-disliked").size
    1
    """
    section = section_of(row)
    if not section:
        return Grid("", {}, {})
    module = import_module(f"conrec.baselines.{REGISTRY[row].place.partition(':')[0]}")
    now = settings_of(config, row)
    fields = {name: tuple(_json(one) for one in values) for name, values in module.SPACE.items() if name in now}
    return Grid(section, fields, {name: now[name] for name in fields})


def with_settings(config: Config, section: str, point: Point) -> Config:
    """The configuration with a point's values in a section.

    Raises:
        ConfigError: the values do not fit each other.
    """
    if not point:
        return config
    values = config.model_dump(mode="python")
    inner = values
    for part in section.split("."):
        inner = inner[part]
    inner.update(point)
    try:
        return Config.model_validate(values)
    except ValueError as error:
        named = ", ".join(f"{name} = {value}" for name, value in point.items())
        raise ConfigError(f"{named} does not fit ({error})", where=section) from None
