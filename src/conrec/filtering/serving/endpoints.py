"""The service's own endpoints, each a function of the request; `conrec.filtering.serving.app` binds them to paths."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from starlette.types import Receive, Scope, Send

import conrec
from conrec.filtering.serving.answers import answer_explain, answer_filter, answer_predict_set
from conrec.filtering.serving.bodies import read_json_body
from conrec.filtering.serving.gate import FACTS
from conrec.filtering.serving.metrics import MEDIA_TYPE
from conrec.filtering.serving.problems import Header, RequestError
from conrec.filtering.serving.questions import query_value
from conrec.filtering.serving.service import Service

__all__ = [
    "Endpoint",
    "Reply",
    "explain",
    "filter_candidates",
    "health",
    "metrics",
    "predict_set",
    "ready",
    "reload",
    "version",
]

T = TypeVar("T")
JSON = b"application/json"
READ_AT_ONCE = 256 << 10
"""Bytes of a body that is parsed in the event loop, half a millisecond; larger ones go to a thread."""
JUDGED_AT_ONCE = 2_000
"""Candidates, and items that are allowed, of a request that is answered in the event loop, some milliseconds."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: body, status, media type and further headers."""

    body: bytes
    status: int = 200
    media: bytes = JSON
    headers: tuple[Header, ...] = ()


Answering = Callable[[Service, Scope, Receive], Awaitable[Reply]]


class Endpoint:
    """One function as an ASGI application."""

    def __init__(self, service: Service, answering: Answering) -> None:
        self._service, self._answering = service, answering

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        reply = await self._answering(self._service, scope, receive)
        headers = [
            (b"content-type", reply.media),
            (b"content-length", str(len(reply.body)).encode()),
            *reply.headers,
        ]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})


async def filter_candidates(service: Service, scope: Scope, receive: Receive) -> Reply:
    """POST /v1/filter."""
    body = await read_json_body(scope, receive)
    opened = service.live.current

    if len(body) <= READ_AT_ONCE:
        question = service.questions.filter(body)
    else:
        question = await _in_thread(service.pool, lambda: service.questions.filter(body))
    if len(question.item_ids) + len(question.allow or ()) <= JUDGED_AT_ONCE and not opened.remote:
        content, tally = answer_filter(opened, question)
    else:
        content, tally = await _in_thread(service.pool, lambda: answer_filter(opened, question))
    scope[FACTS] |= {"candidates": tally.candidates, "dropped": tally.dropped}
    counters = service.metrics
    counters.candidates.inc(tally.candidates)
    counters.dropped.inc(tally.dropped)
    for reason, count in tally.kept:
        counters.kept(reason, count)
    if tally.unknown_user:
        counters.unknown_users.inc()
    if tally.unreachable:
        service.live.reachable = False
    return Reply(content)


async def explain(service: Service, scope: Scope, receive: Receive) -> Reply:
    """POST /v1/explain."""
    body = await read_json_body(scope, receive)
    opened, question = service.live.current, service.questions.explain(body)
    scope[FACTS] |= {"candidates": len(question.item_ids)}
    return Reply(await _in_thread(service.people, lambda: answer_explain(opened, question)))


async def predict_set(service: Service, scope: Scope, receive: Receive) -> Reply:
    """GET /v1/predict-set."""
    user_id = query_value(scope["query_string"], "user_id", service.settings.max_id_length)
    opened = service.live.current
    return Reply(await _in_thread(service.pool, lambda: answer_predict_set(opened, user_id)))


async def health(service: Service, scope: Scope, receive: Receive) -> Reply:
    """GET /health: the process runs and answers."""
    return Reply(b'{"status":"alive"}')


async def ready(service: Service, scope: Scope, receive: Receive) -> Reply:
    """GET /ready: whether requests should be sent here, and whether less is done than should be."""
    state = service.live.state()
    body = {"ready": not service.stopping, **state, "store": service.live.current.described}
    return Reply(msgspec.json.encode(body), 503 if service.stopping else 200)


async def version(service: Service, scope: Scope, receive: Receive) -> Reply:
    """GET /version: what runs, and what it answers from."""
    opened = service.live.current
    meta = opened.filter.store.meta
    body: dict[str, Any] = {
        "conrec": conrec.__version__,
        "store": opened.described,
        "users": meta.count,
        "slots": meta.slots,
        "items": len(opened.filter.catalogue),
        "sid_hash": meta.sid_hash,
        "opened_at": int(opened.opened_at),
        "started_at": int(service.started_at),
    }
    return Reply(msgspec.json.encode(body))


async def metrics(service: Service, scope: Scope, receive: Receive) -> Reply:
    """GET /metrics, in Prometheus' text format."""
    return Reply(service.metrics.text(), media=MEDIA_TYPE)


async def reload(service: Service, scope: Scope, receive: Receive) -> Reply:
    """POST /admin/reload: read store and threshold anew."""
    if not service.guard.is_set:
        raise RequestError(
            403,
            "a service without a token",
            expected="one with a token, which this request then has to carry",
            mend="Start it with a token, or send SIGHUP to the process. A changed store is read by itself.",
        )
    done = await _in_thread(service.pool, service.reload)
    if done.error is not None:
        raise RequestError(
            409,
            done.error.found,
            where=done.error.where,
            expected=done.error.expected,
            mend=f"{done.error.mend} The store from before goes on.".strip(),
        )
    body = {"result": done.result, "seconds": round(done.seconds, 3), "store": service.live.current.described}
    return Reply(msgspec.json.encode(body))


async def _in_thread(pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    """What takes long must not keep others waiting; a request that runs out of time leaves its thread behind."""
    return await asyncio.get_running_loop().run_in_executor(pool, work)
