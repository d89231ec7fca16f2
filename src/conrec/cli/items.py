"""``conrec items``: what the semantic IDs of a run are worth."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from conrec.cli.options import RunFolder, config_of, out
from conrec.items.figures import Listing, diagnostics_listings
from conrec.items.purity import TITLES

__all__ = ["items_app"]

items_app = typer.Typer(help="Semantic IDs of a run.", no_args_is_help=True)


@items_app.callback()
def _group() -> None:
    """Semantic IDs of a run."""


@items_app.command("diagnose")
def items_diagnose(
    run_folder: RunFolder,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    titles: Annotated[int, typer.Option(help="Titles in an example of a prefix; 0 for no examples.", min=0)] = TITLES,
) -> None:
    """Say how evenly the codes are used, what collides, and what the codes keep of the embeddings."""
    config = config_of(run_folder)
    from conrec.items.diagnose import diagnose  # noqa: PLC0415  (torch is loaded only where it is needed)
    from conrec.workspace import Workspace  # noqa: PLC0415

    space = Workspace(run_folder, config)
    found = diagnose(run_folder / "items", space.prepared.items, space.trained_items, config.run.seed, titles)
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    for listing in diagnostics_listings(found):
        _show(listing)


def _show(listing: Listing) -> None:
    """Print one table with its note."""
    table = Table(title=listing.title, title_justify="left", caption=listing.note or None, caption_justify="left")
    for place, heading in enumerate(listing.columns):
        words = place == 0 or (listing.words and place in (2, len(listing.columns) - 1))
        table.add_column(escape(heading), justify="left" if words else "right")
    for row in listing.rows:
        table.add_row(*map(escape, row))
    out.print(table)
