"""The connections of a load: each sends a request, reads its answer, and says how long that took since it was due."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from typing import Any

__all__ = ["Connection", "Crowd"]

VERSION = b'"version":"'


class Connection(asyncio.Protocol):
    """One connection: a request, its answer, and so on."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._due = 0.0
        self._answer = bytearray()
        self._whole = -1
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: Any) -> None:
        """Ready for its first request."""
        self.transport = transport
        self._crowd.connections.add(self)
        self._crowd.free(self)

    def send(self, request: bytes, due: float) -> None:
        """Send one request, whose time runs from ``due``."""
        self._due, self._whole = due, -1
        self._answer.clear()
        assert self.transport is not None
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """A part of an answer."""
        answer = self._answer
        answer += data
        if self._whole < 0:
            end = answer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(answer[:end]).lower()
            length = head.find(b"content-length:")
            self._whole = end + 4 + int(head[length + 15 :].split(b"\r\n", 1)[0])
        if len(answer) >= self._whole:
            due, self._due = self._due, 0.0
            self._crowd.answered(self, due, answer)

    def connection_lost(self, error: Exception | None) -> None:
        """Closed by the other side: with a request on its way, that one has failed."""
        self.transport = None
        self._crowd.connections.discard(self)
        self._crowd.lost(self, self._due > 0)


class Crowd:
    """All connections, and what they are to ask.

    Args:
        port: on 127.0.0.1.
        requests: sent one after another, again from the first.
        closed: whether a connection asks again as soon as it is answered.
    """

    def __init__(self, port: int, requests: list[bytes], *, closed: bool) -> None:
        self._port, self._requests, self._next, self._closed = port, requests, 0, closed
        self._idle: deque[Connection] = deque()
        self._waiting: deque[float] = deque()
        self._ending = False
        self.connections: set[Connection] = set()
        self.done = asyncio.Event()
        self.in_hand = 0
        self.from_time = 0.0
        self.last = 0.0
        self.times: list[float] = []
        self.failed: Counter[str] = Counter()
        self.versions: Counter[str] = Counter()

    def due(self, moment: float) -> None:
        """A request is due."""
        self.in_hand += 1
        while self._idle:
            connection = self._idle.popleft()
            if connection.transport is not None:
                self._send(connection, moment)
                return
        self._waiting.append(moment)

    def free(self, connection: Connection) -> None:
        """A connection has nothing to do."""
        if self._waiting:
            self._send(connection, self._waiting.popleft())
        elif self._closed and self.from_time and not self._ending:
            self.in_hand += 1
            self._send(connection, time.perf_counter())
        else:
            self._idle.append(connection)

    def answered(self, connection: Connection, due: float, answer: bytearray) -> None:
        """An answer is complete."""
        now = time.perf_counter()
        self.in_hand -= 1
        if due >= self.from_time:
            if answer.startswith(b"HTTP/1.1 200"):
                self.times.append(now - due)
                self.last = now
                at = answer.rfind(VERSION)
                self.versions[bytes(answer[at + len(VERSION) :][:16]).decode() if at >= 0 else ""] += 1
            else:
                self.failed[bytes(answer[9:12]).decode()] += 1
        self.free(connection)
        self._look()

    def lost(self, connection: Connection, asked: bool) -> None:
        """A connection was closed; another one takes its place."""
        if asked:
            self.in_hand -= 1
            self.failed["connection closed"] += 1
        if not self._ending:
            task = asyncio.get_running_loop().create_task(self.connect())
            task.add_done_callback(self._connected)
        self._look()

    def _connected(self, task: asyncio.Task[None]) -> None:
        if task.exception() is not None:
            self.failed[type(task.exception()).__name__] += 1

    async def connect(self) -> None:
        """Open one connection."""
        await asyncio.get_running_loop().create_connection(lambda: Connection(self), "127.0.0.1", self._port)

    def start_closed(self) -> None:
        """Let every connection ask, in a closed loop."""
        for connection in list(self._idle):
            self._idle.remove(connection)
            self.free(connection)

    def end(self) -> None:
        """No more requests; wait for those in hand."""
        self._ending = True
        self._look()

    def _look(self) -> None:
        if self._ending and self.in_hand <= 0:
            self.done.set()

    def _send(self, connection: Connection, due: float) -> None:
        connection.send(self._requests[self._next], due)
        self._next = (self._next + 1) % len(self._requests)
