"""The body of a request, read within its limits."""

from __future__ import annotations

from starlette.types import Receive, Scope

from conrec.filtering.serving.gate import ClientGoneError
from conrec.filtering.serving.problems import RequestError

__all__ = ["read_json_body"]


async def read_json_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """A body that says it is JSON, or says nothing.

    Raises:
        RequestError: 413, longer than ``limit`` bytes; 415, another media type, or compressed.
        ClientGoneError: the client closed the connection first.
    """
    headers = dict(scope["headers"])
    media = headers.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()
    if media != b"application/json":
        raise RequestError(415, "another media type", where="header Content-Type", expected="application/json")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise RequestError(415, "a compressed body", where="header Content-Encoding", expected="none")
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and int(length[:20]) > limit:
        raise _too_long(limit)
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body", False):
        parts, size = [body], len(body)
        while message.get("more_body", False):
            message = await receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > limit:
                raise _too_long(limit)
        body = b"".join(parts)
    if message["type"] == "http.disconnect":
        raise ClientGoneError
    if len(body) > limit:
        raise _too_long(limit)
    return body


def _too_long(limit: int) -> RequestError:
    return RequestError(413, "a longer body", where="body", expected=f"at most {limit:,} bytes")
