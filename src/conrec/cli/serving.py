"""``conrec serve``: the filter of a finished run as an HTTP service."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from conrec.cli.options import say
from conrec.errors import ConfigError

__all__ = ["serve"]


def serve(
    run_folder: Annotated[Path, typer.Option("--run", help="Folder of a finished run.")],
    model: Annotated[
        str | None, typer.Option(help="One of the run's filter.models; the only one, or conrec, if it is left out.")
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="Where the predict sets are instead of in the run: valkey://HOST:PORT/NAME.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 is every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0: a free one, which is printed.")] = 8080,
    workers: Annotated[int, typer.Option(help="Processes; each has the whole filter.")] = 1,
    token_file: Annotated[
        Path | None,
        typer.Option(
            envvar="CONREC_TOKEN_FILE",
            help="File with a bearer token; else the environment variable CONREC_TOKEN is read.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Without a token: a name that requests may ask by beside localhost; may be given several times."
        ),
    ] = None,
    open_metrics: Annotated[bool, typer.Option("--open-metrics", help="/metrics without the token.")] = False,
    access_log: Annotated[bool, typer.Option(help="One line of the log for each request.")] = True,
    max_body_bytes: Annotated[int | None, typer.Option(help="Longest body of a request.")] = None,
    max_bytes_in_hand: Annotated[
        int | None, typer.Option(help="Bytes of all bodies that a worker has in hand.")
    ] = None,
    max_candidates: Annotated[int | None, typer.Option(help="Candidates of one request.")] = None,
    max_id_length: Annotated[int | None, typer.Option(help="Characters of a user or item ID.")] = None,
    max_concurrent: Annotated[int | None, typer.Option(help="Requests that a worker has in hand.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Time of one request.")] = None,
    drain_seconds: Annotated[float | None, typer.Option(help="From SIGTERM to the closing of the port.")] = None,
) -> None:
    """Serve the filter over HTTP: POST /v1/filter, an OpenAPI page at /docs, a page for people at /.

    Stores and thresholds that change on disk are read by themselves; SIGHUP reads them at once; SIGTERM ends it
    when the requests in hand are answered. The log goes to standard error, one JSON object a line.
    """
    import uvicorn  # noqa: F401, PLC0415  (a missing extra is named before anything else)
    from pydantic import ValidationError  # noqa: PLC0415

    from conrec.filtering.serving.guard import read_token  # noqa: PLC0415
    from conrec.filtering.serving.logs import EventLog  # noqa: PLC0415
    from conrec.filtering.serving.opening import Source  # noqa: PLC0415
    from conrec.filtering.serving.server import bind  # noqa: PLC0415
    from conrec.filtering.serving.settings import ServeSettings  # noqa: PLC0415
    from conrec.filtering.serving.supervisor import Supervisor  # noqa: PLC0415

    given = {
        "host": host, "port": port, "workers": workers, "token_file": token_file, "open_metrics": open_metrics,
        "access_log": access_log, "max_body_bytes": max_body_bytes, "max_candidates": max_candidates,
        "max_id_length": max_id_length, "max_concurrent": max_concurrent, "seconds": seconds,
        "drain_seconds": drain_seconds, "allow_hosts": allow_host, "max_bytes_in_hand": max_bytes_in_hand,
    }  # fmt: skip
    try:
        settings = ServeSettings.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise ConfigError(f"{first['input']!r}", where=option, expected=str(first["msg"])) from None
    guarded = read_token(settings.token_file) is not None
    source = Source(run_folder.resolve(), model, store)
    bound = bind(settings.host, settings.port)
    address = bound.getsockname()
    shown = f"[{address[0]}]" if ":" in address[0] else address[0]

    def tell(served: dict[str, Any]) -> None:
        for line in _lines(f"http://{shown}:{address[1]}", served, settings.workers, guarded):
            say(line)
        sys.stdout.flush()

    with bound:
        Supervisor(source, settings, bound, EventLog(sys.stderr.buffer), tell).run()


def _lines(address: str, served: dict[str, Any], workers: int, guarded: bool) -> list[str]:
    """Where it listens, what it answers from, how to stop it."""
    threshold = served["threshold"]
    written = datetime.fromtimestamp(served["written_at"], UTC).strftime("%Y-%m-%d %H:%M UTC")
    kept = "none, so that everything is kept" if threshold is None else f"{threshold:.4f}"
    token = "" if guarded else "; no token: whoever reaches the port may ask"
    return [
        f"listening at {address} ({workers} {'process' if workers == 1 else 'processes'}{token})",
        f"  model {served['model']}, store {served['version']} of {written}, {served['users']:,} users, "
        f"threshold {kept}",
        f"  page {address}/, description {address}/docs, metrics {address}/metrics",
        "  stop: Ctrl-C or SIGTERM; read store and threshold anew: SIGHUP (changes on disk are read by themselves)",
    ]
