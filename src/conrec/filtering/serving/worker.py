"""A process that serves: ``python -m conrec.filtering.serving.worker ORDER``, started by the supervisor alone."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from typing import Any

from conrec.errors import ConrecError
from conrec.filtering.serving.logs import EventLog
from conrec.filtering.serving.opening import Source
from conrec.filtering.serving.server import serve
from conrec.filtering.serving.service import Service
from conrec.filtering.serving.settings import ServeSettings

__all__ = ["main"]

LONGEST = 800
"""Characters of each part of an error that the supervisor is told: what is written to a pipe at once must be short."""


def main(order: str) -> None:
    """Serve as ordered.

    Args:
        order: JSON of source, settings, the numbers of the socket and of the pipe that hears what is served or why
            nothing is, and whether it takes the place of one that ended: then it keeps everything until it can do more.
    """
    read = json.loads(order)
    pipe: int = read["tell"]
    settings = ServeSettings.model_validate(read["settings"])
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    try:
        serve(
            Source.from_json(read["source"]),
            settings,
            socket.socket(fileno=read["socket"]),
            lambda service: _tell(pipe, served=_served(service)),
            whatever_comes=read["again"],
        )
    except ConrecError as error:
        if read["again"]:
            EventLog(sys.stderr.buffer).write("not started", "error", error=str(error))
        else:
            parts = (error.found, error.where, error.expected, error.mend)
            _tell(pipe, error=[type(error).__name__, *(part[:LONGEST] for part in parts)])
        sys.exit(1)


def _served(service: Service) -> dict[str, Any]:
    """What answers, in the words of the log."""
    opened = service.live.current
    return {**json.loads(bytes(opened.described)), "users": opened.filter.store.meta.count}


def _tell(pipe: int, **message: Any) -> None:
    """One line for the supervisor."""
    os.write(pipe, json.dumps(message, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
    os.close(pipe)


def _end_with_supervisor() -> None:
    """Standard input ends when the supervisor does, however it ended."""
    while os.read(sys.stdin.fileno(), 1):  # not through the buffer, whose lock this thread would hold at the end
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main(sys.argv[1])
