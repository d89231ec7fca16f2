"""What a source is, and what loading one gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from conrec.config import DataConfig, FeedbackRule
from conrec.errors import DataError
from conrec.logs.counts import Counts

__all__ = ["Description", "Loaded", "Source", "files_there", "find_files", "rule_or"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A clean log in memory.

    Attributes:
        name: of the source.
        events: schema EVENTS, in the order of the source; every item is in ``items``.
        items: schema ITEMS, in the order of the source; distinct item ids.
        counts: rows read, kept and refused by reason, per file.
        hashes: SHA-256 of each file that was read, by its name.
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
        rule: its own rule from ratings to feedback, for what is not configured; None where it has none.
    """

    description: Description
    load: Callable[[DataConfig], Loaded]
    fetch: Callable[[DataConfig], Path] | None
    files: Callable[[DataConfig], list[Path]]
    rule: FeedbackRule | None = None


def rule_or(config: DataConfig, default: FeedbackRule) -> FeedbackRule:
    """The configured rule, with the source's own threshold in place of each one that is not configured."""
    rule = config.feedback
    thresholds = ("negative_at_most", "positive_at_least")
    return rule.model_copy(update={name: getattr(default, name) for name in thresholds if getattr(rule, name) is None})


def find_files(folder: Path, names: tuple[tuple[str, ...], ...]) -> tuple[Path, ...] | None:
    """The first group of files that a folder holds completely.

    Raises:
        DataError: the folder does not exist.
    """
    if not folder.is_dir():
        raise DataError("this folder does not exist", where=f"data.folder = {folder}")
    for group in names:
        paths = tuple(folder / name for name in group)
        if all(path.is_file() for path in paths):
            return paths
    return None


def files_there(folder: Path, names: tuple[tuple[str, ...], ...]) -> list[Path]:
    """What `find_files` finds; empty where the folder does not exist or holds no whole group."""
    return list(find_files(folder, names) or ()) if folder.is_dir() else []
