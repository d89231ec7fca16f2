"""One process that serves: it opens the filter, then listens; ends without a request lost; reads anew on SIGHUP."""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

import uvicorn

from conrec.errors import ConfigError
from conrec.filtering.serving.app import create_app
from conrec.filtering.serving.heads import limited
from conrec.filtering.serving.logs import EventLog, take_over_logging
from conrec.filtering.serving.opening import Source
from conrec.filtering.serving.service import Service
from conrec.filtering.serving.settings import ServeSettings

__all__ = ["Server", "bind", "serve"]

KEEP_ALIVE = 75
"""Seconds that an idle connection stays open: longer than load balancers keep theirs, so that they close first."""
BACKLOG = 2048


def bind(host: str, port: int) -> socket.socket:
    """A socket with an address that does not listen yet; nobody can connect before the filter is open.

    Raises:
        ConfigError: there is no such address, or something else has it.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"no address ({error})", where=f"{host}:{port}", expected="a host of this machine") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise ConfigError(
            f"cannot be listened at ({error.strerror})", where=f"{host}:{port}", mend="Give another --host or --port."
        ) from None
    return bound


class Server(uvicorn.Server):
    """uvicorn, but a stop is announced before it happens.

    After SIGTERM it goes on to take requests for ``drain_seconds``, says at /ready that it is not, and closes each
    connection with its answer; then it takes no more and ends when those in hand are answered. SIGINT, and a second
    signal, skip the announcement. Its exit status is then 0.
    """

    def __init__(self, config: uvicorn.Config, service: Service, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._service, self._announce = service, started
        self._close_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note that the process is to end."""
        again = self._service.stopping
        self._service.stopping = True
        if again or sig == signal.SIGINT:
            self.should_exit = True
        else:
            self._close_at = time.monotonic() + self._service.settings.drain_seconds

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to end now."""
        if self._close_at is not None and time.monotonic() >= self._close_at:
            self.should_exit = True
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        self._announce()


def serve(
    source: Source,
    settings: ServeSettings,
    bound: socket.socket,
    started: Callable[[Service], None] | None = None,
    *,
    whatever_comes: bool = False,
) -> None:
    """Serve in this process until a signal ends it.

    Args:
        source: where the filter is.
        settings: limits and the like.
        bound: from `bind`.
        started: told once requests are taken.
        whatever_comes: where the filter cannot be opened, keep everything until it can.

    Raises:
        ConrecError: the filter cannot be opened, or the token cannot be used.
    """
    log = EventLog(sys.stderr.buffer)
    service = Service(source.live(whatever_comes=whatever_comes), settings, source.run, log)
    if service.live.failure is not None:
        log.write("keeps everything", "error", error=str(service.live.failure))
    take_over_logging(log)
    app = create_app(service)

    def announce() -> None:
        opened = service.live.current
        log.write("started", store=opened.version, workers=settings.workers)
        if started is not None:
            started(service)

    config = uvicorn.Config(
        app,
        http=limited(service),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=int(settings.seconds) + 2,
    )
    if hasattr(signal, "SIGHUP"):
        # A handler runs between two lines of whatever is going on; what takes long is not done in it.
        signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=service.reload, daemon=True).start())
    service.live.watch(settings.check_seconds)
    try:
        Server(config, service, announce).run(sockets=[bound])
    finally:
        service.close()
        log.write("stopped")
