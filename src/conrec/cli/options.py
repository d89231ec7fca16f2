"""What the commands share: where results are printed, common options, and the configuration of a run."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from conrec.config import Config, load_config
from conrec.errors import ConfigError, ConrecError, did_you_mean
from conrec.items.diagnosis.figures import Listing
from conrec.progress import speaks

__all__ = ["Overrides", "RunFolder", "config_of", "out", "parse_overrides", "say", "show"]

out = Console(width=None if sys.stdout.isatty() else 130, quiet=not speaks())

RunFolder = Annotated[Path, typer.Argument(help="Folder of a run.", metavar="RUN")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Override one key, for instance --set run.seed=1 (values as in TOML).", metavar="KEY=VALUE"
    ),
]


def say(line: str) -> None:
    """Print one line as it is: no markup, no colours, no line breaks."""
    out.print(line, markup=False, highlight=False, soft_wrap=True)


def show(listing: Listing) -> None:
    """Print one table with its note."""
    table = Table(title=listing.title, title_justify="left", caption=listing.note or None, caption_justify="left")
    for place, heading in enumerate(listing.columns):
        words = place == 0 or (listing.words and place in (2, len(listing.columns) - 1))
        table.add_column(escape(heading), justify="left" if words else "right")
    for row in listing.rows:
        table.add_row(*map(escape, row))
    out.print(table)


def parse_overrides(pairs: list[str] | None) -> dict[str, Any]:
    """``a.b=value`` pairs as nested mappings."""
    result: dict[str, Any] = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConrecError(f"--set {pair!r} has no value", expected="KEY=VALUE, for instance run.seed=1")
        try:
            parsed = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed = value
        section = result
        *parents, last = key.strip().split(".")
        for parent in parents:
            section = section.setdefault(parent, {})
            if not isinstance(section, dict):
                raise ConfigError(f"--set {pair!r} sets a key below {parent!r}, which another --set gave a value")
        section[last] = parsed
    return result


def config_of(run_folder: Path) -> Config:
    """The configuration that a run was made with."""
    if not run_folder.is_dir():
        near = did_you_mean(run_folder.name, [one.name for one in run_folder.parent.glob("*") if one.is_dir()])
        raise ConrecError(
            "there is no run here", where=str(run_folder), expected="a folder made by `conrec run`", mend=near
        )
    return load_config(file=run_folder / "config.toml")
