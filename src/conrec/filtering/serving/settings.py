"""Settings of the service: where it listens, what a request may cost, and who may ask."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from conrec.settings.base import Positive, Rate, Settings

__all__ = ["TOKEN_VARIABLE", "ServeSettings"]

TOKEN_VARIABLE = "CONREC_TOKEN"
"""Environment variable that holds the bearer token where no file does."""


class ServeSettings(Settings):
    """The service. Limits are of one request, or of one worker where that is said."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    """0: one that is free; it is printed."""
    workers: Positive = 1
    """Processes; each has the whole filter."""
    max_body_bytes: Positive = 16 << 20
    max_bytes_in_hand: Positive = 32 << 20
    """Bytes of all bodies that a worker has in hand; more are answered with 503. One body of the longest is always let
    in."""
    max_candidates: Positive = 100_000
    max_explained: Positive = 1_000
    """Candidates of a question to /v1/explain, which costs far more than /v1/filter."""
    max_id_length: Positive = 1_024
    """Characters of a user ID or an item ID."""
    max_concurrent: Positive = 256
    """Requests that a worker has in hand; more are answered with 503 at once."""
    seconds: Rate = 10.0
    """A request may take, from its header to its answer."""
    drain_seconds: Annotated[float, Field(ge=0)] = 2.0
    """After SIGTERM /ready says 503 for so long before the port is closed, for load balancers to see it."""
    check_seconds: Rate = 1.0
    """Between two looks at whether store or threshold changed on disk."""
    token_file: Path | None = None
    """File that holds the bearer token; without one the environment variable CONREC_TOKEN is read."""
    allow_hosts: tuple[str, ...] = ()
    """Names that requests may call the service by, beside those of this machine. Looked at where there is no token and
    either these are given or it listens on this machine alone: else a web page could have its own name lead here."""
    open_metrics: bool = False
    """Whether /metrics is answered without the token."""
    access_log: bool = True
    """Whether each request is one line of the log."""
