"""The application: paths, the gate before them, the description of it all."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import Receive, Scope

import conrec
from conrec.filtering.serving import endpoints
from conrec.filtering.serving.description import describe
from conrec.filtering.serving.endpoints import Endpoint, Reply
from conrec.filtering.serving.gate import Gate
from conrec.filtering.serving.pages import PAGE_FILES, page_router
from conrec.filtering.serving.problems import PROBLEM, RequestError, problem_body
from conrec.filtering.serving.service import Service

__all__ = ["create_app"]

TITLE = "conrec"


def create_app(service: Service) -> FastAPI:
    """The ASGI application of a service; `Service.close` ends what it started."""
    app = FastAPI(title=TITLE, version=conrec.__version__, docs_url=None, redoc_url=None, redirect_slashes=False)
    for method, path, answering in (
        ("POST", "/v1/filter", endpoints.filter_candidates),
        ("POST", "/v1/explain", endpoints.explain),
        ("GET", "/v1/predict-set", endpoints.predict_set),
        ("GET", "/health", endpoints.health),
        ("GET", "/ready", endpoints.ready),
        ("GET", "/version", endpoints.version),
        ("GET", "/metrics", endpoints.metrics),
        ("POST", "/admin/reload", endpoints.reload),
        ("GET", "/docs", _docs),
    ):
        app.router.routes.append(Route(path, Endpoint(service, answering), methods=[method]))

    app.include_router(page_router(service))

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            # FastAPI describes what was declared with it (the page's data); ours is described by hand, exactly.
            theirs = get_openapi(title=TITLE, version=conrec.__version__, routes=app.routes)
            app.openapi_schema = describe(theirs, service.settings, service.guard.is_set)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _not_valid)
    paths = {"/", "/docs", "/openapi.json", *app.openapi()["paths"]}
    app.add_middleware(Gate, service=service, routes=paths, open_below=(PAGE_FILES,))
    return app


async def _docs(service: Service, scope: Scope, receive: Receive) -> Reply:
    """GET /docs: the description for people, on one page that needs no network."""
    page = files("conrec.filtering.serving").joinpath("docs.html").read_bytes()
    return Reply(page, media=b"text/html; charset=utf-8", headers=PAGE_HEADERS)


PAGE_HEADERS = (
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
     b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
)  # fmt: skip


async def _http_error(request: Request, error: Exception) -> Response:
    """What the router refuses: no such path, another method."""
    if not isinstance(error, HTTPException):
        raise error
    status = error.status_code
    known = {
        404: ("no such path", "one of /openapi.json"),
        413: ("a longer body", "a shorter one"),
        405: (f"the method {request.method}"[:40], (error.headers or {}).get("Allow", "another one")),
    }
    found, expected = known.get(status, (str(error.detail), ""))
    problem = RequestError(status, found, where="request", expected=expected)
    return Response(problem_body(problem), status, headers=error.headers, media_type=PROBLEM.decode())


async def _not_valid(request: Request, error: Exception) -> Response:
    """What FastAPI refuses of parameters that were declared with it."""
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    where = ", ".join(str(part) for part in first["loc"])
    problem = RequestError(422, "a value that does not fit", where=where, expected=str(first["msg"]))
    return Response(problem_body(problem), 422, media_type=PROBLEM.decode())
