"""``conrec items``: what the semantic IDs of a run are worth."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from conrec.cli.options import Overrides, RunFolder, config_of, parse_overrides, say, show
from conrec.folders import held
from conrec.items.diagnosis.figures import diagnostics_listings, stability_listings
from conrec.items.diagnosis.purity import TITLES
from conrec.seeds import derive

__all__ = ["items_app"]

items_app = typer.Typer(help="Semantic IDs of a run.", no_args_is_help=True)


@items_app.command("diagnose")
def items_diagnose(
    run_folder: RunFolder,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    stability: Annotated[
        bool,
        typer.Option(
            "--stability", help="Also say what codes keep under noise, other words and training again; takes minutes."
        ),
    ] = False,
    titles: Annotated[int, typer.Option(help="Titles in an example of a prefix; 0 for no examples.", min=0)] = TITLES,
) -> None:
    """Say how evenly the codes are used, what collides, and what the codes keep of the embeddings."""
    config = config_of(run_folder)
    from conrec.items.diagnosis.diagnose import diagnose  # noqa: PLC0415
    from conrec.items.diagnosis.diagnose import stability as stability_of  # noqa: PLC0415
    from conrec.items.growing.growth import current_catalogue  # noqa: PLC0415
    from conrec.logs.prepare import read_prepared  # noqa: PLC0415

    prepared, folder, seed = read_prepared(run_folder), run_folder / "items", derive(config.run.seed, "items")
    trained = prepared.trained_items()
    found = diagnose(folder, prepared.items, trained, seed, titles)
    listings = diagnostics_listings(found)
    if stability:
        from conrec.workspace import device_of  # noqa: PLC0415  (loads every model's code)

        with held(run_folder):
            stable = stability_of(folder, prepared.items, trained, config, seed, device_of(config))
        found, listings = {**found, "stability": stable}, [*listings, *stability_listings(stable)]
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    for listing in listings:
        show(listing)
    appended = current_catalogue(run_folder).appended
    if appended:
        say(f"These figures are of the run's own items; {appended:,} were appended since (conrec items append).")


@items_app.command("append")
def items_append(
    run_folder: RunFolder,
    new_items: Annotated[Path, typer.Argument(help="Items file, written as the items of a `table` source are.")],
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """Give new items semantic IDs beside those of a run, and say whether its codebooks still fit them.

    No item that is there moves; `conrec predict` and `conrec filter` know the new ones at once. The verdict does not
    change the exit status: programs read `state` of --json.
    """
    config_of(run_folder)
    from conrec.items.growing.append import append_items  # noqa: PLC0415  (torch is loaded only where it is needed)
    from conrec.logs.prepare import read_prepared  # noqa: PLC0415
    from conrec.predicting.job import PredictJob, resolved  # noqa: PLC0415
    from conrec.workspace import device_of  # noqa: PLC0415

    config = resolved(PredictJob(run_folder, overrides=parse_overrides(overrides)))
    done = append_items(
        run_folder, new_items, config, lambda: read_prepared(run_folder).trained_items(), device_of(config)
    )
    if as_json:
        sys.stdout.write(json.dumps(done.to_json(), indent=2) + "\n")
        return
    for line in done.lines():
        say(line)
