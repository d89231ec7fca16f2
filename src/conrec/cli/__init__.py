"""The command line: reads options, calls the rooms, prints. No logic lives here. One module a group of commands."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from conrec import __version__
from conrec.artefacts import disk_full, read_json
from conrec.cli.baselines import baselines_app
from conrec.cli.data import data_app
from conrec.cli.filtering import filter_app
from conrec.cli.items import items_app
from conrec.cli.options import Overrides, RunFolder, config_of, out, parse_overrides, say
from conrec.cli.predicting import predict
from conrec.cli.serving import serve
from conrec.config import PRESETS, load_config
from conrec.errors import ConrecError, MissingExtraError
from conrec.progress import speaks
from conrec.tables import metrics_table, stage_table

__all__ = ["app", "main"]

app = typer.Typer(
    name="conrec",
    help="Negative recommendation: learn what each user will dislike next, and filter it out before it is shown.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    suggest_commands=True,
)
app.command()(predict)
app.command()(serve)
app.add_typer(data_app, name="data")
app.add_typer(baselines_app, name="baselines")
app.add_typer(filter_app, name="filter")
app.add_typer(items_app, name="items")

EXTRA_OF = {
    "torch": "train",
    "transformers": "train",
    "tokenizers": "train",
    "sentence_transformers": "encode",
    "optuna": "search",
    "jinja2": "report",
    "matplotlib": "report",
    "fastapi": "serve",
    "httptools": "serve",
    "msgspec": "serve",
    "prometheus_client": "serve",
    "uvicorn": "serve",
}
"""Which extra brings a package that a command needs."""

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""
MISTAKES = (errno.EACCES, errno.EROFS, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENOENT)
"""System errors on a named file that the user can mend."""


@app.command()
def run(
    config: Annotated[Path | None, typer.Argument(help="TOML file.", metavar="[CONFIG.toml]")] = None,
    preset: Annotated[str, typer.Option(help=f"Size: {', '.join(PRESETS)}.")] = "tiny",
    data: Annotated[str | None, typer.Option(help="Source of the log; see `conrec data list`.")] = None,
    out_folder: Annotated[Path | None, typer.Option("--out", help="Folder of the run; runs/SOURCE by default.")] = None,
    overrides: Overrides = None,
) -> None:
    """Run the chain: log, semantic IDs, language model, predictions, filter, metrics, report.

    A run that was killed continues with the same command.
    """
    if data is not None:
        overrides = [*(overrides or []), f'data.source="{data}"']
    resolved = load_config(preset, config, parse_overrides(overrides))
    folder = out_folder or Path("runs") / resolved.data.source
    from conrec.items.growing.growth import what_does_not_fit  # noqa: PLC0415
    from conrec.run import execute  # noqa: PLC0415  (torch is loaded only where it is needed)

    report = execute(resolved, folder)
    out.print(stage_table(read_json(folder / "timings.json")))
    out.print(metrics_table(read_json(folder / "results" / "metrics.json"), resolved.evaluation.top_k))
    if wrong := what_does_not_fit(folder):
        say(f"note: items that were appended to this run cannot be read any more: {wrong}")
    say(f"report: {report}")


@app.command()
def evaluate(
    run_folder: RunFolder,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Compute all metrics of a run anew from its files."""
    from conrec.evaluation.evaluate import evaluate as compute  # noqa: PLC0415

    config = config_of(run_folder)
    metrics = compute(run_folder, config)
    if as_json:
        sys.stdout.write(json.dumps(metrics, indent=2) + "\n")
    else:
        out.print(metrics_table(metrics, config.evaluation.top_k))


@app.command()
def report(run_folder: RunFolder) -> None:
    """Write RUN/report.html anew."""
    from conrec.report.build import build_report  # noqa: PLC0415

    say(f"report: {build_report(run_folder)}")


@app.command()
def doctor() -> None:
    """Say what is installed, what is missing, and how to mend it."""
    from conrec.doctor import examine  # noqa: PLC0415

    facts, healthy = examine()
    table = Table(show_header=False, title=f"conrec {__version__}")
    for name, finding in facts:
        table.add_row(name, escape(finding))
    out.print(table)
    if not healthy:
        raise typer.Exit(1)


def main() -> None:
    """Entry point: mistakes of the user end with one clear line and status 1, never with a traceback."""
    try:
        app()
    except SystemExit as ended:
        # The command-line library turns Ctrl-C into this status, without a word.
        if ended.code == INTERRUPTED and speaks():
            sys.stderr.write("interrupted: the same command continues; what was finished stays.\n")
        raise
    except ConrecError as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRA_OF:
            raise
        _fail(str(MissingExtraError(package, EXTRA_OF[package])))
    except Exception as error:
        if disk_full(error):
            _fail("the disk is full. What was finished is intact: free some space and give the same command again.")
        if isinstance(error, OSError) and error.filename and error.errno in MISTAKES:
            _fail(f"{error.filename}: {error.strerror}.")
        raise


def _fail(message: str) -> None:
    sys.stderr.write(f"error: {message}\n")
    sys.exit(1)
