"""One of several processes: ``python -m conrec.filtering.serving.worker ORDER``, started by the supervisor alone."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading

from conrec.errors import ConrecError
from conrec.filtering.serving.logs import EventLog
from conrec.filtering.serving.opening import Source
from conrec.filtering.serving.server import serve
from conrec.filtering.serving.settings import ServeSettings

__all__ = ["main"]


def main(order: str) -> None:
    """Serve as ordered: source, settings, the numbers of the socket and of the pipe that hears when it is ready."""
    read = json.loads(order)
    settings = ServeSettings.model_validate(read["settings"])
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    try:
        serve(
            Source.from_json(read["source"]),
            settings,
            socket.socket(fileno=read["socket"]),
            lambda service: _say_ready(read["ready"]),
        )
    except ConrecError as error:
        EventLog(sys.stderr.buffer).write("not started", "error", error=str(error))
        sys.exit(1)


def _say_ready(pipe: int) -> None:
    os.write(pipe, b".")
    os.close(pipe)


def _end_with_supervisor() -> None:
    """Standard input ends when the supervisor does, however it ended."""
    while os.read(sys.stdin.fileno(), 1):  # not through the buffer, whose lock this thread would hold at the end
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main(sys.argv[1])
