"""Where logs come from; one module a source."""

from __future__ import annotations

from pathlib import Path

from conrec.config import DataConfig
from conrec.errors import ConfigError, did_you_mean
from conrec.logs.sources import (
    amazon,
    boardgames,
    kuairand,
    mind,
    ml100k,
    movielens,
    movietweetings,
    steam,
    table,
    yambda,
)
from conrec.logs.sources.base import Description, Loaded, Source, hash_files
from conrec.logs.sources.sampling import sample_users

__all__ = ["SOURCES", "Description", "Loaded", "Source", "describe", "fetch", "hash_files", "load", "source_files"]

SOURCES = {
    one.description.name: one
    for one in (
        ml100k.SOURCE,
        *movielens.SOURCES,
        movietweetings.SOURCE,
        boardgames.BOARD_GAMES,
        boardgames.CIAO,
        kuairand.SOURCE,
        yambda.SOURCE,
        amazon.SOURCE,
        steam.SOURCE,
        mind.SOURCE,
        table.SOURCE,
    )
}


def load(config: DataConfig) -> Loaded:
    """Read and clean the log that the configuration names, fetching it first where that is needed, and draw the sample
    of users where one is asked for.

    Raises:
        ConfigError: there is no such source, or its settings do not fit.
        DataError: its files cannot be fetched or used.
    """
    loaded = _source(config.source).load(config)
    return loaded if config.sample_users is None else sample_users(loaded, config.sample_users, config.sample_seed)


def fetch(name: str, config: DataConfig) -> Path:
    """Bring the files of a public source into the cache.

    Returns:
        The folder that holds them.

    Raises:
        ConfigError: there is no such source, or it has nothing to fetch.
        DataError: no origin could be reached.
    """
    source = _source(name)
    if source.fetch is None and name == "table":
        raise ConfigError(f"the source {name!r} is your own data, there is nothing to fetch", where="data.source")
    if source.fetch is None:
        raise ConfigError(
            f"the source {name!r} has no address that its files could be fetched from",
            where=f"data.folder{'' if config.folder is None else f' = {config.folder}'}",
            expected=f"a folder with its files, from {source.description.origin}",
        )
    return source.fetch(config)


def source_files(config: DataConfig) -> list[Path]:
    """The files that `load` would read, in a fixed order, without reading or fetching them.

    Returns:
        Those of ``config.folder``, of the cache, or ``config.events`` and ``config.items``; empty before they are
        fetched, and without those that are missing.

    Raises:
        ConfigError: there is no such source.
    """
    return _source(config.source).files(config)


def describe() -> tuple[Description, ...]:
    """All sources in words."""
    return tuple(one.description for one in SOURCES.values())


def _source(name: str) -> Source:
    if name not in SOURCES:
        raise ConfigError(f"there is no source {name!r}", where="data.source", mend=did_you_mean(name, SOURCES))
    return SOURCES[name]
