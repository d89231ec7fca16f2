"""``conrec filter``: what a finished run's predict sets are for."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from conrec.cli.options import Overrides, RunFolder, config_of, parse_overrides, say, show
from conrec.config import load_config

__all__ = ["filter_app"]

filter_app = typer.Typer(help="Use the filter of a finished run.", no_args_is_help=True)


@filter_app.command("apply")
def filter_apply(
    run_folder: Annotated[Path, typer.Option("--run", help="Folder of a finished run.")],
    candidates: Annotated[
        Path, typer.Option(help="Parquet (a file or a folder), CSV or JSON lines, with user_id and item_id.")
    ],
    out_file: Annotated[Path, typer.Option("--out", help="Where the judged rows go; on Spark a folder.")],
    model: Annotated[
        str, typer.Option(help="One of the run's filter.models, whose predict sets are stored.")
    ] = "conrec",
    store: Annotated[
        str | None,
        typer.Option(help="Where the predict sets are, if not in the run: a folder, valkey://HOST:PORT/NAME."),
    ] = None,
    request_column: Annotated[
        str | None,
        typer.Option(help="Column that says which rows of a user are one request, for filter.keep_at_least."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be dropped.")] = False,
    sort: Annotated[
        bool,
        typer.Option("--sort", help="On DuckDB: bring each user's rows together first; faster for files in no order."),
    ] = False,
    engine: Annotated[str, typer.Option(help="duckdb (this machine), or spark (extra).")] = "duckdb",
    overrides: Overrides = None,
) -> None:
    """Judge (user, candidate) pairs: every row comes back with its similarity, and whether it is dropped."""
    from conrec.filtering.bulk.apply import apply_filter  # noqa: PLC0415
    from conrec.filtering.bulk.pairs import FilterJob  # noqa: PLC0415
    from conrec.filtering.policy import Policy  # noqa: PLC0415

    settings = run_folder / "config.toml"
    asked = [*(overrides or []), f'engine.name="{engine}"', *(["filter.dry_run=true"] if dry_run else [])]
    config = load_config(file=settings if settings.is_file() else None, overrides=parse_overrides(asked))
    policy = Policy.of(config.filter)
    if config.engine.name == "spark":
        from conrec.filtering.bulk.spark import apply_on_spark  # noqa: PLC0415

        job = FilterJob(run_folder.resolve(), model, store, policy, request_column)
        done = apply_on_spark(job, candidates, out_file, config.engine)
    else:
        done = apply_filter(
            run_folder,
            model,
            candidates,
            out_file,
            store=store,
            policy=policy,
            request_column=request_column,
            sort=sort,
            engine=config.engine,
        )
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


@filter_app.command("publish")
def filter_publish(
    run_folder: Annotated[Path, typer.Option("--run", help="Folder of a finished run.")],
    to: Annotated[str, typer.Option("--to", help="Where: valkey://[user:password@]host[:port]/NAME.")],
    model: Annotated[
        str, typer.Option(help="One of the run's filter.models, whose predict sets are stored.")
    ] = "conrec",
    grace: Annotated[int, typer.Option(help="Seconds that the version before stays readable.")] = 300,
) -> None:
    """Put a row's predict sets onto a Valkey or Redis server, whole, and switch readers to them."""
    from conrec.filtering.stores.publishing import publish  # noqa: PLC0415

    for line in publish(run_folder / "filter" / model, to, grace=grace).lines():
        say(line)


@filter_app.command("analyse")
def filter_analyse(
    run_folder: RunFolder,
    models: Annotated[
        list[str] | None,
        typer.Option("--models", help="A row with predictions, repeated; those of filter.models by default."),
    ] = None,
    attributes: Annotated[
        list[str] | None,
        typer.Option(
            "--attribute",
            help="A column of data/items.parquet that a platform would block by, repeated; shop by default.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Say what filters cost and bring on test anchors, beside the rules that platforms use.

    Writes results/filter_analysis.json; `conrec report` then shows it.
    """
    config = config_of(run_folder)
    from conrec.filtering.analysis.analyse import ANALYSIS, analyse_filter  # noqa: PLC0415
    from conrec.filtering.analysis.listings import analysis_listings  # noqa: PLC0415
    from conrec.filtering.analysis.methods import SHOP  # noqa: PLC0415

    found = analyse_filter(run_folder, config, models or None, attributes or [SHOP])
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    for listing in analysis_listings(found):
        show(listing)
    for name, why in found["missing"].items():
        say(f"without “{name}”: {why}")
    say(f"written: {run_folder / ANALYSIS}")
