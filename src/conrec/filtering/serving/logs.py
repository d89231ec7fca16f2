"""The service's log: one JSON object a line, about requests and never about what is in them.

No user ID, no item ID, no path or query as it came, no body and no header gets into a line: routes are named by
their template, errors by their type and the places in the code that they passed.
"""

from __future__ import annotations

import logging
import time
import traceback
from datetime import UTC, datetime
from typing import Any, Protocol, runtime_checkable

import msgspec

__all__ = ["EventLog", "frames_of", "take_over_logging"]

FRAMES = 12


@runtime_checkable
class Stream(Protocol):
    """A binary stream."""

    def write(self, content: bytes, /) -> int: ...

    def flush(self) -> None: ...


class EventLog:
    """Writes lines to a stream; a stream that takes no more (a full disk, a closed pipe) loses lines, not requests.

    Args:
        stream: binary; None writes nothing.

    Attributes:
        lost: lines that could not be written.
    """

    def __init__(self, stream: Stream | None) -> None:
        self._stream = stream
        self._encoder = msgspec.json.Encoder()
        self.lost = 0

    def write(self, event: str, level: str = "info", **fields: Any) -> None:
        """One line: time, level, event and the fields given."""
        if self._stream is None:
            return
        moment = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")
        line = self._encoder.encode({"time": moment, "level": level, "event": event, **fields})
        try:
            self._stream.write(line + b"\n")
            self._stream.flush()
        except (OSError, ValueError):
            self.lost += 1


def frames_of(error: BaseException) -> list[str]:
    """The innermost places in the code that an error passed, ``file:line function``; no values."""
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    return [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames]


class _Bridge(logging.Handler):
    """Takes what the server library logs: its templates, never what it puts into them."""

    def __init__(self, log: EventLog) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        fields: dict[str, Any] = {"message": str(record.msg).strip()}
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            fields |= {"error": type(error).__name__, "frames": frames_of(error)}
        self._log.write("server", record.levelname.lower(), **fields)


def take_over_logging(log: EventLog) -> None:
    """Let warnings and errors of the server library, and of asyncio, become lines of the log."""
    for name in ("uvicorn", "uvicorn.error", "uvicorn.asgi", "asyncio", "fastapi"):
        logger = logging.getLogger(name)
        logger.handlers = [_Bridge(log)] if name in ("uvicorn", "asyncio", "fastapi") else []
        logger.propagate = name not in ("uvicorn", "asyncio", "fastapi")
        logger.setLevel(logging.WARNING)
    access = logging.getLogger("uvicorn.access")
    access.handlers, access.propagate = [], False
