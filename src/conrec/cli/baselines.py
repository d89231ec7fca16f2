"""``conrec baselines``: the other rows of the table, over several seeds, and the search over their settings."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from conrec.cli.options import Overrides, out, parse_overrides, say, show
from conrec.config import PRESETS, Config, load_config
from conrec.errors import ConfigError
from conrec.tables import metrics_table

__all__ = ["baselines_app"]

baselines_app = typer.Typer(
    help="The other rows of the table: which there are, all of them over several seeds, their best settings.",
    no_args_is_help=True,
)
Preset = Annotated[str, typer.Option(help=f"Size: {', '.join(PRESETS)}.")]
Data = Annotated[str | None, typer.Option(help="Source of the log; see `conrec data list`.")]
Every = Annotated[bool, typer.Option("--all", help="Every row.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Reference = Annotated[
    str | None,
    typer.Option(help="Row that every other one is compared with; CoNRec where it is a row, else the first row."),
]


@baselines_app.command("list")
def baselines_list(
    row: Annotated[str | None, typer.Argument(help="A row, to see its settings.", metavar="[ROW]")] = None,
    overrides: Overrides = None,
) -> None:
    """Show every row; with ROW its settings, and what a search tries of them."""
    from conrec.comparing.describe import every_row, one_row  # noqa: PLC0415

    config = load_config(overrides=parse_overrides(overrides))
    show(every_row() if row is None else one_row(row, config))


@baselines_app.command("run")
def baselines_run(
    config: Annotated[Path | None, typer.Argument(help="TOML file.", metavar="[CONFIG.toml]")] = None,
    every: Every = False,
    rows: Annotated[
        str | None,
        typer.Option(help="Names with commas in between; CoNRec's own stages only where `conrec` is among them."),
    ] = None,
    data: Data = None,
    seeds: Annotated[str, typer.Option(help="One run for each.")] = "0,1,2",
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Folder of the runs; runs/baselines/SOURCE by default.")
    ] = None,
    without_conrec: Annotated[bool, typer.Option("--without-conrec", help="Leave CoNRec's own stages out.")] = False,
    reference: Reference = None,
    preset: Preset = "tiny",
    as_json: AsJson = False,
    overrides: Overrides = None,
) -> None:
    """Train, ask and compare rows over several seeds: OUT/table.md and OUT/table.json.

    What was killed continues with the same command.
    """
    resolved = _resolved(preset, config, data, overrides)
    from conrec.comparing.seeds import parse_seeds  # noqa: PLC0415

    chosen = parse_seeds(seeds)
    from conrec.comparing.compare import choose_rows, compare  # noqa: PLC0415  (torch is loaded only where it is needed)

    resolved = choose_rows(resolved, every=every, rows=rows, conrec=not without_conrec)
    folder = out_folder or Path("runs") / "baselines" / resolved.data.source
    _show(compare(resolved, folder, chosen, reference), folder, as_json)


@baselines_app.command("table")
def baselines_table(
    folder: Annotated[Path, typer.Argument(help="Folder made by `conrec baselines run`.", metavar="OUT")],
    seeds: Annotated[str | None, typer.Option(help="Runs that are averaged; all that are there by default.")] = None,
    reference: Reference = None,
    as_json: AsJson = False,
) -> None:
    """Make the table anew from the files of its runs."""
    from conrec.comparing.seeds import parse_seeds  # noqa: PLC0415
    from conrec.comparing.table import make_table  # noqa: PLC0415

    _show(make_table(folder, None if seeds is None else parse_seeds(seeds), reference), folder, as_json)


@baselines_app.command("search")
def baselines_search(
    rows: Annotated[list[str] | None, typer.Argument(help="Rows to search.", metavar="[ROW]...")] = None,
    every: Every = False,
    config: Annotated[Path | None, typer.Option(help="TOML file with the settings to begin with.")] = None,
    data: Data = None,
    trials: Annotated[
        int | None, typer.Option(help="Settings to try for each row; search.trials by default.", min=1)
    ] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Folder of the search; runs/search/SOURCE by default.")
    ] = None,
    preset: Preset = "tiny",
    as_json: AsJson = False,
    overrides: Overrides = None,
) -> None:
    """Choose each row's settings by validation FHR@20, with the same number of trials for all: OUT/chosen.toml.

    What was killed continues with the same command; a larger --trials adds to what was tried.
    """
    if every == bool(rows):
        raise ConfigError("give rows, or --all for all of them", expected="conrec baselines search ROW, or --all")
    resolved = _resolved(preset, config, data, overrides)
    from conrec.comparing.search import search  # noqa: PLC0415  (torch is loaded only where it is needed)

    folder = out_folder or Path("runs") / "search" / resolved.data.source
    found = search(resolved, None if every else tuple(rows or ()), folder, trials)
    if as_json:
        sys.stdout.write(json.dumps(found.to_json(), indent=2) + "\n")
        return
    show(found.listing())
    say(f"written: {found.chosen}; conrec baselines run {found.chosen} trains with it")


def _resolved(preset: str, file: Path | None, data: str | None, overrides: list[str] | None) -> Config:
    """Preset, file and options as one configuration."""
    if data is not None:
        overrides = [*(overrides or []), f'data.source="{data}"']
    return load_config(preset, file, parse_overrides(overrides))


def _show(table: Mapping[str, Any], folder: Path, as_json: bool) -> None:
    """Print a table of rows."""
    from conrec.comparing.listing import cost_listing, difference_listing, metrics_of  # noqa: PLC0415

    if not table:  # another process of the run prints
        return
    if as_json:
        sys.stdout.write(json.dumps(table, indent=2) + "\n")
        return
    out.print(metrics_table(metrics_of(table), table["top_k"]))
    show(difference_listing(table))
    show(cost_listing(table))
    say(f"written: {folder / 'table.md'}")
