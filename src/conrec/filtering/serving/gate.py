"""What every request passes first: token, number of requests in hand, time, counters, one line of the log."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from time import perf_counter
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from conrec.errors import ConrecError
from conrec.filtering.explaining import LogTooLargeError
from conrec.filtering.serving.hosts import allowed_hosts
from conrec.filtering.serving.logs import frames_of
from conrec.filtering.serving.problems import PROBLEM, RequestError, problem_body
from conrec.filtering.serving.service import Service
from conrec.filtering.stores.base import StoreUnavailableError

__all__ = ["FACTS", "ClientGoneError", "Gate"]

FACTS = "conrec.facts"
"""Key of the scope under which an endpoint leaves numbers for the log line."""
OPEN = frozenset({"/health", "/ready", "/docs", "/openapi.json", "/"})
"""Answered without a token: they hold nothing of any user. (The page asks for the token itself.)"""
UNLIMITED = frozenset({"/health", "/ready", "/metrics"})
"""Answered however many requests are in hand: a busy worker is alive."""
GONE = 499
"""Status in log and counters where the client went away before it was answered."""


class ClientGoneError(Exception):
    """The client closed its connection in the middle of its request."""


class Gate:
    """ASGI middleware.

    Args:
        app: what answers.
        service: limits, log and counters.
        routes: paths that are known; all others are "other" in log and counters.
        open_below: paths below these prefixes are answered without a token.
    """

    def __init__(
        self, app: ASGIApp, service: Service, routes: Collection[str], open_below: tuple[str, ...] = ()
    ) -> None:
        self._app, self._service, self._routes = app, service, frozenset(routes)
        self._open = OPEN | ({"/metrics"} if service.settings.open_metrics else set())
        self._open_below = open_below
        self._hosts = allowed_hosts(service.settings)
        self._most_bytes = max(service.settings.max_bytes_in_hand, service.settings.max_body_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        service = self._service
        begin = perf_counter()
        route = scope["path"] if scope["path"] in self._routes else "other"
        facts: dict[str, Any] = {}
        scope[FACTS] = facts
        number = service.request_number()
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), (b"x-request-id", number.encode())]
                if service.stopping:
                    headers.append((b"connection", b"close"))
                message["headers"] = headers
            await send(message)

        left = service.settings.max_body_bytes

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            came = len(message.get("body", b""))
            left -= came
            service.bytes_in_hand += came
            # FastAPI lets this kind pass where it reads a body, and no other.
            if left < 0:
                raise HTTPException(413, "a longer body")
            if service.bytes_in_hand > self._most_bytes:
                raise HTTPException(503, "too many bytes in hand", headers={"retry-after": "1"})
            return message

        service.in_flight += 1
        try:
            self._admit(scope, route)
            async with asyncio.timeout(service.settings.seconds):
                await self._app(scope, counted, answer)
        except ClientGoneError:
            status = GONE
        except Exception as error:
            if status:  # the answer had begun: all that is left is to break it off
                raise
            problem = self._problem(error, number)
            body = problem_body(problem)
            headers = [
                (b"content-type", PROBLEM),
                (b"content-length", str(len(body)).encode()),
                *problem.headers,
            ]
            await answer({"type": "http.response.start", "status": problem.status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        finally:
            service.in_flight -= 1
            service.bytes_in_hand -= service.settings.max_body_bytes - left
            seconds = perf_counter() - begin
            service.metrics.request(route, status or GONE, seconds)
            if service.settings.access_log:
                service.log.write(
                    "request",
                    number=number,
                    method=scope["method"] if scope["method"] in METHODS else "other",
                    route=route,
                    status=status or GONE,
                    seconds=round(seconds, 6),
                    **facts,
                )

    def _admit(self, scope: Scope, route: str) -> None:
        """Let a request in, or refuse it before anything of it is read.

        Raises:
            RequestError: 401, no token; 413, a body that is too long; 421, asked by another name; 503, too many
                requests in hand.
        """
        service = self._service
        headers = dict(scope["headers"])
        if self._hosts is not None and not service.guard.is_set and route not in UNLIMITED:
            self._hosts.check(headers.get(b"host"))
        if service.guard.is_set and not (route in self._open or scope["path"].startswith(self._open_below)):
            service.guard.check(headers.get(b"authorization"))
        length = headers.get(b"content-length", b"0")
        # What is no number, or counts differently, is the server library's to refuse.
        if length.isdigit() and int(length[:20]) > service.settings.max_body_bytes:
            raise RequestError(
                413, "a longer body", where="body", expected=f"at most {service.settings.max_body_bytes:,} bytes"
            )
        if service.in_flight > service.settings.max_concurrent and route not in UNLIMITED:
            raise RequestError(
                503,
                f"{service.in_flight - 1:,} requests in hand",
                expected=f"at most {service.settings.max_concurrent:,}",
                mend="Ask again a little later.",
                headers=[(b"retry-after", b"1")],
            )

    def _problem(self, error: Exception, number: str) -> RequestError:
        """What is said of an error; what nobody foresaw goes to the log, by its places in the code."""
        if isinstance(error, RequestError):
            return error
        if isinstance(error, TimeoutError):
            return RequestError(
                503,
                "not answered in time",
                expected=f"within {self._service.settings.seconds:g} seconds",
                mend="Ask for fewer candidates at a time.",
                headers=[(b"retry-after", b"1")],
            )
        if isinstance(error, LogTooLargeError):
            return RequestError(503, "the log is too large to look into within a request", mend=error.mend)
        self._service.log.write("error", "error", number=number, error=type(error).__name__, frames=frames_of(error))
        if isinstance(error, StoreUnavailableError):
            return RequestError(503, "the store cannot be reached now", mend="Ask again a little later.")
        if isinstance(error, ConrecError):
            return RequestError(503, "a file of the run cannot be read now", mend="The log of the service has where.")
        return RequestError(500, "an error of the service", mend=f"Its log has more under the number {number}.")


METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
