"""Heads of requests: no longer than 64 KiB, and complete in the time that a request may take.

The server library takes a head of any length and waits for its end for ever, before the gate sees anything of it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from conrec.filtering.serving.problems import PROBLEM, RequestError, problem_body
from conrec.filtering.serving.service import Service

__all__ = ["LONGEST_HEAD", "limited"]

LONGEST_HEAD = 64 << 10
"""Bytes of the first line and the headers; also of what stands between two pieces of a body, and after it."""


class _Limited(HttpToolsProtocol):
    """One connection."""

    service: Service

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request, not for ever."""
        super().connection_made(transport)
        self._outside, self._in_head = 0, False
        self._late: asyncio.TimerHandle | None = None
        self._refused: RequestError | None = None
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._wait_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what is no part of a body; callbacks of the parser set the count back."""
        self._outside += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._outside > LONGEST_HEAD:
            self._refuse(_too_long())
        elif self._in_head or self.cycle is None or self.cycle.response_complete:
            self._wait()

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        """A head ends; one that came at once has not been counted yet."""
        self._in_head = False
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > LONGEST_HEAD:
            self._refused = _too_long()
            raise self._refused  # out of the parser, which then has the connection answered and closed
        self._wait_no_more()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """The gate counts bodies."""
        self._outside = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """What follows is of another request."""
        self._outside = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What the server library refuses, or the reason why the parser was left."""
        if self._refused is None:
            super().send_400_response(msg)
        elif not self.transport.is_closing():
            self._refuse(self._refused)

    def _wait(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(self.service.settings.seconds, self._too_late)

    def _wait_no_more(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _too_late(self) -> None:
        self._late = None
        if self.transport.is_closing():
            return
        if self._in_head:
            seconds = f"within {self.service.settings.seconds:g} seconds"
            self._refuse(RequestError(408, "headers without an end", where="headers", expected=seconds))
        else:
            self.transport.close()

    def _refuse(self, problem: RequestError) -> None:
        """Answer, unless an answer is on its way already, and close the connection."""
        self._wait_no_more()
        self.service.metrics.request("other", problem.status, 0.0)
        if self.cycle is None or self.cycle.response_complete:
            body = problem_body(problem)
            self.transport.write(
                STATUS_LINE[problem.status]
                + b"content-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (PROBLEM, len(body))
                + body
            )
        self.transport.close()


def _too_long() -> RequestError:
    return RequestError(431, "longer headers", where="headers", expected=f"at most {LONGEST_HEAD >> 10} KiB")


def limited(of: Service) -> Any:
    """The protocol of a service's connections, for uvicorn."""
    return type("Limited", (_Limited,), {"service": of})
