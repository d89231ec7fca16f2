"""``conrec predict``: predict sets of all users, in shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from conrec.cli.options import Overrides, RunFolder, config_of, parse_overrides, say

__all__ = ["predict"]


def predict(
    run_folder: RunFolder,
    folder: Annotated[Path, typer.Option("--out", help="Folder of the shards; a finished shard in it is kept.")],
    model: Annotated[str, typer.Option(help="A row of the run's table.")] = "conrec",
    users: Annotated[
        Path | None, typer.Option(help="File with user_id and perhaps timestamp; by default all users of the log.")
    ] = None,
    events: Annotated[
        Path | None,
        typer.Option(help="Newer events, added to the run's; --set data.… where they are written otherwise."),
    ] = None,
    items: Annotated[
        Path | None,
        typer.Option(help="File with item_id and perhaps prior: what may be predicted; by default the catalogue."),
    ] = None,
    at: Annotated[
        str | None, typer.Option(help="Time of all questions, seconds or ISO 8601; by default the end of the log.")
    ] = None,
    k: Annotated[int, typer.Option("--k", help="Items of each predict set.")] = 50,
    shards: Annotated[int | None, typer.Option(help="Number of files; by default one for 4,096 users.")] = None,
    shard: Annotated[int | None, typer.Option(help="Do only this one, counted from 0.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Prompts read at a time; by default the run's.")] = None,
    engine: Annotated[str, typer.Option(help="transformers, or vllm (extra).")] = "transformers",
    overrides: Overrides = None,
) -> None:
    """Write the predict set of every user into Parquet files, with the model of a run.

    A prediction that was killed continues with the same command. Under torchrun the processes share the files.
    """
    config_of(run_folder)
    from conrec.predicting.job import PredictJob  # noqa: PLC0415  (torch is loaded only where needed)
    from conrec.predicting.run import predict_users  # noqa: PLC0415
    from conrec.predicting.times import moment  # noqa: PLC0415

    job = PredictJob(
        run_folder.resolve(),
        model,
        k,
        None if at is None else moment(at),
        events,
        items,
        parse_overrides(overrides),
        batch_size,
        engine,
    )
    for line in predict_users(job, folder, users, shards, shard).lines():
        say(line)
