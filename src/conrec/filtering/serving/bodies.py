"""The body of a request, all of it."""

from __future__ import annotations

from starlette.types import Receive, Scope

from conrec.filtering.serving.gate import ClientGoneError
from conrec.filtering.serving.problems import RequestError

__all__ = ["read_json_body"]


async def read_json_body(scope: Scope, receive: Receive) -> bytes:
    """A body that says it is JSON, or says nothing; its length is the gate's concern.

    Raises:
        RequestError: 415, another media type, or compressed.
        ClientGoneError: the client closed the connection first.
    """
    headers = dict(scope["headers"])
    media = headers.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()
    if media != b"application/json":
        raise RequestError(415, "another media type", where="header Content-Type", expected="application/json")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise RequestError(415, "a compressed body", where="header Content-Encoding", expected="none")
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body", False):
        parts = [body]
        while message.get("more_body", False):
            message = await receive()
            parts.append(message.get("body", b""))
        body = b"".join(parts)
    if message["type"] == "http.disconnect":
        raise ClientGoneError
    return body
