"""``conrec data``: which logs there are, fetching and checking them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from conrec.cli.options import Overrides, out, parse_overrides, say
from conrec.config import load_config

__all__ = ["data_app"]

data_app = typer.Typer(help="Logs: which there are, fetching and checking them.", no_args_is_help=True)


@data_app.command("list")
def data_list() -> None:
    """Show the sources."""
    from conrec.logs.sources import describe  # noqa: PLC0415

    for one in describe():
        table = Table(show_header=False, title=one.name, title_justify="left", box=None)
        for name in ("what", "size", "rule", "licence", "origin", "settings"):
            table.add_row(f"[dim]{name}[/dim]", escape(getattr(one, name)))
        out.print(table)


@data_app.command("fetch")
def data_fetch(name: Annotated[str, typer.Argument(help="Name of a source.")], overrides: Overrides = None) -> None:
    """Bring a source's files into the cache."""
    from conrec.logs.sources import fetch  # noqa: PLC0415

    say(f"{name}: {fetch(name, load_config(overrides=parse_overrides(overrides)).data)}")


@data_app.command("check")
def data_check(
    files: Annotated[
        list[Path], typer.Argument(help="An events file and an items file, or one configuration (.toml).")
    ],
    overrides: Overrides = None,
) -> None:
    """Say what is in a log before anything is trained on it: rows kept and refused, users, anchors."""
    from conrec.logs.check import check, check_files  # noqa: PLC0415

    values = parse_overrides(overrides)
    if len(files) == 1 and files[0].suffix == ".toml":
        found = check(load_config(file=files[0], overrides=values))
    else:
        config = load_config(overrides=values)
        found = check_files(files, config.data, config.protocol)
    for line in found.lines():
        say(line)


@data_app.command("simulate")
def data_simulate(
    out_folder: Annotated[Path, typer.Argument(help="Folder for the log and its truth.", metavar="OUT")],
    users: Annotated[int | None, typer.Option(help="Users of the platform.")] = None,
    items: Annotated[int | None, typer.Option(help="Items of its catalogue.")] = None,
    events: Annotated[int | None, typer.Option(help="Exposures, each with its reaction.")] = None,
    days: Annotated[int | None, typer.Option(help="Days of the log.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed; the same one gives the same log.")] = None,
    ratio: Annotated[float | None, typer.Option(help="Positives for each negative.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other key, for instance --set suppression=0.", metavar="KEY=VALUE"),
    ] = None,
) -> None:
    """Make up a platform: a log with the true negative interests of its users beside it."""
    from conrec.logs.simulation import simulate, simulation_config  # noqa: PLC0415

    named = {"users": users, "items": items, "events": events, "days": days, "seed": seed}
    given = {**named, "positives_per_negative": ratio}
    values = {key: value for key, value in given.items() if value is not None}
    for line in simulate(simulation_config({**parse_overrides(overrides), **values}), out_folder).lines():
        say(line)
    say(f"written: {out_folder}; read it with `conrec data check {out_folder / 'config.toml'}`")
