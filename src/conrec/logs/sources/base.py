"""What a source is, and what loading one gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from conrec.artefacts import hash_file
from conrec.config import DataConfig, FeedbackRule
from conrec.errors import ConfigError, DataError
from conrec.logs.counts import Counts

__all__ = [
    "Description",
    "Loaded",
    "Source",
    "file_names",
    "files_there",
    "find_files",
    "hash_files",
    "own_folder",
    "require_files",
    "rule_or",
]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A clean log in memory.

    Attributes:
        name: of the source.
        events: schema EVENTS, in the order of the source; every item is in ``items``.
        items: schema ITEMS, in the order of the source; distinct item ids.
        counts: rows read, kept and refused by reason, per file.
        hashes: SHA-256 of each file that was read, by its name (see `file_names`).
    """

    name: str
    events: pa.Table
    items: pa.Table
    counts: Counts
    hashes: dict[str, str]


@dataclass(frozen=True, slots=True)
class Description:
    """A source in words, for ``conrec data list``."""

    name: str
    what: str
    size: str
    rule: str
    licence: str
    origin: str
    settings: str
    """Protocol settings that suit it."""


@dataclass(frozen=True, slots=True)
class Source:
    """One way to get a log.

    Attributes:
        description: in words.
        load: reads and cleans it, fetching it first where that is needed and possible.
        fetch: brings its files into the cache and returns their folder; None where there is nothing to fetch.
        files: the files that ``load`` would read now; empty before they are fetched or where they are missing.
        rule: its own rule from ratings or event names to feedback, for what is not configured; None where it has
            none.
    """

    description: Description
    load: Callable[[DataConfig], Loaded]
    fetch: Callable[[DataConfig], Path] | None
    files: Callable[[DataConfig], list[Path]]
    rule: FeedbackRule | None = None


def rule_or(config: DataConfig, default: FeedbackRule) -> FeedbackRule:
    """The configured rule, with the source's own threshold or event name in place of each that is not configured."""
    rule = config.feedback
    thresholds = ("negative_at_most", "positive_at_least")
    own = {name: getattr(default, name) for name in thresholds if getattr(rule, name) is None}
    return rule.model_copy(update={**own, "events": {**default.events, **rule.events}})


def own_folder(config: DataConfig, name: str, holds: str) -> Path:
    """The folder of a source that is not fetched.

    Args:
        config: with ``folder``.
        name: of the source.
        holds: what has to be in the folder.

    Raises:
        ConfigError: no folder is configured.
    """
    if config.folder is None:
        raise ConfigError(
            f"the source {name!r} is read from a folder of yours, and none is named",
            where="data.folder",
            expected=f"a folder with {holds}",
        )
    return config.folder.expanduser()


def find_files(folder: Path, names: tuple[tuple[str, ...], ...]) -> tuple[Path, ...] | None:
    """The first group of files that a folder holds completely; each may have .gz behind its name.

    Raises:
        DataError: the folder does not exist.
    """
    if not folder.is_dir():
        raise DataError("this folder does not exist", where=f"data.folder = {folder}")
    for group in names:
        paths = tuple(folder / name if (folder / name).is_file() else folder / f"{name}.gz" for name in group)
        if all(path.is_file() for path in paths):
            return paths
    return None


def require_files(folder: Path, names: tuple[tuple[str, ...], ...]) -> tuple[Path, ...]:
    """What `find_files` finds.

    Raises:
        DataError: the folder does not exist, or holds no group completely.
    """
    found = find_files(folder, names)
    if found is None:
        raise DataError(
            "this folder lacks one of the files",
            where=str(folder),
            expected=", or ".join(" and ".join(group) for group in names),
        )
    return found


def files_there(folder: Path | None, names: tuple[tuple[str, ...], ...]) -> list[Path]:
    """What `find_files` finds; empty where the folder is not named, does not exist or holds no whole group."""
    if folder is None or not folder.expanduser().is_dir():
        return []
    return list(find_files(folder.expanduser(), names) or ())


def file_names(paths: Sequence[Path]) -> list[str]:
    """A name of each file: its own, or with its folder's before it where two files have the same."""
    own = [path.name for path in paths]
    return [
        name if own.count(name) == 1 else f"{path.parent.name}/{name}" for path, name in zip(paths, own, strict=True)
    ]


def hash_files(paths: Sequence[Path]) -> dict[str, str]:
    """SHA-256 of each file, by its name as `file_names` gives it."""
    return {name: hash_file(path) for name, path in zip(file_names(paths), paths, strict=True)}
