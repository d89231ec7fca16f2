"""Progress bars for whatever takes longer than a moment, and plain lines where no terminal listens."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["Meter", "console", "meter", "speaks"]


def speaks() -> bool:
    """Whether this process prints: of several that a launcher started, only the first does."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


console = Console(stderr=True, quiet=not speaks())
"""Where progress and notes go; results go to standard output."""


@runtime_checkable
class Meter(Protocol):
    """What a running bar is told."""

    def __call__(self, advance: int = 1, note: str = "") -> None: ...


@contextmanager
def meter(description: str, total: int) -> Iterator[Meter]:
    """A progress bar of ``total`` steps; the yielded function advances it and shows a short note."""
    columns = (
        TextColumn("  {task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal or console.quiet
    ) as progress:
        task = progress.add_task(description, total=total, note="")

        def step(advance: int = 1, note: str = "") -> None:
            progress.update(task, advance=advance, note=note)

        yield step
