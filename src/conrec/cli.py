"""The command line: reads options, calls the rooms, prints. No logic lives here."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from conrec import __version__
from conrec.artefacts import disk_full, read_json
from conrec.config import PRESETS, Config, load_config
from conrec.errors import ConfigError, ConrecError, MissingExtraError, did_you_mean
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
data_app = typer.Typer(help="Logs: which there are, fetching and checking them.", no_args_is_help=True)
filter_app = typer.Typer(help="Use the filter of a finished run.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(filter_app, name="filter")

out = Console(width=None if sys.stdout.isatty() else 130)
EXTRA_OF = {
    "torch": "train",
    "transformers": "train",
    "tokenizers": "train",
    "sentence_transformers": "encode",
    "jinja2": "report",
    "matplotlib": "report",
}
"""Which extra brings a package that a command needs."""

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""
MISTAKES = (errno.EACCES, errno.EROFS, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENOENT)
"""System errors on a named file that the user can mend."""

RunFolder = Annotated[Path, typer.Argument(help="Folder of a run.", metavar="RUN")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Override one key, for instance --set run.seed=1 (values as in TOML).", metavar="KEY=VALUE"
    ),
]


def _overrides(pairs: list[str] | None) -> dict[str, Any]:
    """``a.b=value`` pairs as nested mappings."""
    import tomllib  # noqa: PLC0415

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
    resolved = load_config(preset, config, _overrides(overrides))
    folder = out_folder or Path("runs") / resolved.data.source
    from conrec.run import execute  # noqa: PLC0415  (torch is loaded only where it is needed)

    report = execute(resolved, folder)
    out.print(stage_table(read_json(folder / "timings.json")))
    out.print(metrics_table(read_json(folder / "results" / "metrics.json"), resolved.evaluation.top_k))
    out.print(f"report: {report}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def evaluate(
    run_folder: RunFolder,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Compute all metrics of a run anew from its files."""
    from conrec.evaluation.evaluate import evaluate as compute  # noqa: PLC0415

    config = _config_of(run_folder)
    metrics = compute(run_folder, config)
    if as_json:
        sys.stdout.write(json.dumps(metrics, indent=2) + "\n")
    else:
        out.print(metrics_table(metrics, config.evaluation.top_k))


@app.command()
def report(run_folder: RunFolder) -> None:
    """Write RUN/report.html anew."""
    from conrec.report.build import build_report  # noqa: PLC0415

    out.print(f"report: {build_report(run_folder)}", markup=False, highlight=False, soft_wrap=True)


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

    out.print(
        f"{name}: {fetch(name, load_config(overrides=_overrides(overrides)).data)}", highlight=False, soft_wrap=True
    )


@data_app.command("check")
def data_check(
    files: Annotated[
        list[Path], typer.Argument(help="An events file and an items file, or one configuration (.toml).")
    ],
    overrides: Overrides = None,
) -> None:
    """Say what is in a log before anything is trained on it: rows kept and refused, users, anchors."""
    from conrec.logs.check import check, check_files  # noqa: PLC0415

    values = _overrides(overrides)
    if len(files) == 1 and files[0].suffix == ".toml":
        found = check(load_config(file=files[0], overrides=values))
    else:
        config = load_config(overrides=values)
        found = check_files(files, config.data, config.protocol)
    for line in found.lines():
        out.print(line, markup=False, highlight=False, soft_wrap=True)


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
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    out.print(f"written: {done.out_file}", markup=False, highlight=False, soft_wrap=True)


def _config_of(run_folder: Path) -> Config:
    """The configuration that a run was made with."""
    if not run_folder.is_dir():
        near = did_you_mean(run_folder.name, [one.name for one in run_folder.parent.glob("*") if one.is_dir()])
        raise ConrecError(
            "there is no run here", where=str(run_folder), expected="a folder made by `conrec run`", mend=near
        )
    return load_config(file=run_folder / "config.toml")


def main() -> None:
    """Entry point: mistakes of the user end with one clear line and status 1, never with a traceback."""
    try:
        app()
    except SystemExit as ended:
        # The command-line library turns Ctrl-C into this status, without a word.
        if ended.code == INTERRUPTED:
            sys.stderr.write("interrupted: the same command continues after the last finished stage.\n")
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
            _fail(
                "the disk is full. The last finished stage is intact: free some space and give the same command again."
            )
        if isinstance(error, OSError) and error.filename and error.errno in MISTAKES:
            _fail(f"{error.filename}: {error.strerror}.")
        raise


def _fail(message: str) -> None:
    sys.stderr.write(f"error: {message}\n")
    sys.exit(1)


if __name__ == "__main__":
    main()
