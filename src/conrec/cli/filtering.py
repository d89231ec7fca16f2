"""``conrec filter``: what a finished run's predict sets are for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from conrec.cli.options import config_of, say

__all__ = ["filter_app"]

filter_app = typer.Typer(help="Use the filter of a finished run.", no_args_is_help=True)


@filter_app.command("apply")
def filter_apply(
    run_folder: Annotated[Path, typer.Option("--run", help="Folder of a finished run.")],
    candidates: Annotated[Path, typer.Option(help="Parquet, CSV or JSON-lines file with user_id and item_id.")],
    out_file: Annotated[Path, typer.Option("--out", help="Where the judged rows go.")],
    model: Annotated[
        str, typer.Option(help="One of the run's filter.models, whose predict sets are stored.")
    ] = "conrec",
) -> None:
    """Judge (user, candidate) pairs: every row comes back with its similarity, and whether it is dropped."""
    from conrec.filtering.apply import apply_filter  # noqa: PLC0415

    done = apply_filter(run_folder, model, candidates, out_file)
    for line in done.lines():
        say(line)
    say(f"written: {done.out_file}")


@filter_app.command("store")
def filter_store(
    run_folder: Annotated[Path, typer.Option("--run", help="Folder of a finished run.")],
    folder: Annotated[Path, typer.Option("--predictions", help="Folder made by `conrec predict`, all shards there.")],
    add: Annotated[bool, typer.Option("--add", help="Keep the sets of users who were not asked.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Let users who were not asked go.")] = False,
) -> None:
    """Put newly predicted sets in the place of those that the run's filter reads; its threshold stays."""
    config = config_of(run_folder)
    from conrec.predicting.store import store_of_shards  # noqa: PLC0415

    stored = store_of_shards(run_folder, folder, config.prediction, add=add, replace=replace)
    for line in stored.lines():
        say(line)
