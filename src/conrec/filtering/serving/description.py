"""The OpenAPI description of the service's own endpoints, exact enough to be fuzzed against."""

from __future__ import annotations

from typing import Any

from conrec.filtering.decisions import REASONS
from conrec.filtering.serving.settings import ServeSettings

__all__ = ["describe", "problems"]

Schema = dict[str, Any]
SAYS = {
    400: "It is not JSON in UTF-8, or a parameter is given twice.",
    401: "No token, or another one.",
    403: "The service was started without a token, so nobody may do this.",
    404: "There is none.",
    405: "Another method.",
    409: "What is there now cannot be opened; the filter from before goes on.",
    413: "The body is too long.",
    415: "Another media type, or a compressed body.",
    422: "A value that does not fit, with its place.",
    503: "Too many requests in hand, not answered in time, or the store cannot be reached.",
}
TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
FLAG: Schema = {"type": "boolean"}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """``responses`` of an endpoint that may refuse a request with these statuses."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {str(status): {"description": SAYS[status], "content": content} for status in statuses}


def describe(theirs: dict[str, Any], settings: ServeSettings, token: bool) -> dict[str, Any]:
    """The whole description: ours beside what FastAPI says of endpoints that were declared with it.

    Args:
        theirs: FastAPI's description.
        settings: whose limits are told.
        token: whether a token is asked for.
    """
    components = theirs.setdefault("components", {})
    components["schemas"] = {
        name: schema
        for name, schema in components.get("schemas", {}).items()
        if name not in ("HTTPValidationError", "ValidationError")
    } | _schemas(settings)
    for operations in theirs["paths"].values():
        for operation in operations.values():
            if "requestBody" in operation:
                operation["responses"] |= problems(400, 413)
    paths = {**_paths(settings), **theirs["paths"]}
    if token:
        components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
        open_paths = {"/health", "/ready"} | ({"/metrics"} if settings.open_metrics else set())
        for path, operations in paths.items():
            for operation in operations.values():
                if path not in open_paths:
                    operation["security"] = [{"bearer": []}]
                    operation["responses"] |= problems(401)
    theirs["info"]["description"] = (
        "Drops the candidates that a user is going to dislike. Whatever it does not know, it keeps. IDs are any text; "
        "they are matched character by character."
    )
    return {**theirs, "paths": paths}


def _object(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


def _list(items: Schema, **limits: Any) -> Schema:
    return {"type": "array", "items": items, **limits}


def _or_null(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _question(settings: ServeSettings, candidates: int, options: bool) -> Schema:
    identifier = {**TEXT, "maxLength": settings.max_id_length}
    return _object(
        {
            "user_id": {**identifier, "description": "An unknown user is no error: everything is kept."},
            "item_ids": _list(identifier, maxItems=candidates, description="Candidates in their order; may repeat."),
        },
        {}
        if not options
        else {
            "threshold": {
                "type": ["number", "null"],
                "minimum": -1,
                "maximum": 1,
                "description": "Candidates more similar than this are dropped; the calibrated one if left out.",
            },
            "allow": _or_null(
                _list(identifier, maxItems=settings.max_candidates, description="Items that are never dropped.")
            ),
            "dry_run": _or_null({**FLAG, "description": "Keep everything, and say what would have been dropped."}),
        },
    )


def _schemas(settings: ServeSettings) -> dict[str, Schema]:
    reason: Schema = {**TEXT, "enum": list(REASONS)}
    similarity = _or_null({**NUMBER, "description": "Cosine to the nearest prediction; null where it is not known."})
    known = _or_null({**FLAG, "description": "Whether the user has a predict set; null: the store cannot be reached."})
    item = _or_null({**TEXT, "description": "An item of this semantic ID; null where none has it."})
    title = _or_null(TEXT)
    return {
        "FilterQuestion": _question(settings, settings.max_candidates, options=True),
        "ExplainQuestion": _question(settings, settings.max_explained, options=False),
        "Problem": _object({"error": _object(dict.fromkeys(("found", "where", "expected", "mend"), TEXT))}),
        "Store": _object(
            {
                "model": {**TEXT, "description": "The row whose predictions these are."},
                "model_version": {**TEXT, "description": "Of the hash of its weights; empty: not known."},
                "version": {**TEXT, "description": "Of the checksum of the store."},
                "written_at": {**WHOLE, "description": "Unix seconds."},
                "threshold": _or_null({**NUMBER, "description": "The calibrated one; null keeps everything."}),
            }
        ),
        "Judged": _object({"item_id": TEXT, "similarity": similarity, "reason": reason}),
        "FilterAnswer": _object(
            {
                "user_id": TEXT,
                "known_user": known,
                "kept": _list(TEXT, description="In the order given."),
                "dropped": _list(_ref("Judged"), description="In the order given."),
                "spared": _list(
                    _ref("Judged"),
                    description="Those of the kept that were kept for another reason than a low similarity.",
                ),
                "reason": _or_null({**TEXT, "description": "Where nothing could be judged, why; else null."}),
                "store": _ref("Store"),
            }
        ),
        "Ready": _object(
            {
                "ready": {**FLAG, "description": "False while it is stopping."},
                "degraded": {**FLAG, "description": "True: it answers, and does less than it should."},
                "why": _list({**TEXT, "enum": ["reload failed", "store unreachable"]}),
                "store": _ref("Store"),
            }
        ),
        "Version": _object(
            {
                "conrec": TEXT,
                "store": _ref("Store"),
                "users": WHOLE,
                "slots": {**WHOLE, "description": "Predictions that a user has at most."},
                "items": WHOLE,
                "sid_hash": {**TEXT, "description": "Hash of the SID table."},
                "opened_at": {**WHOLE, "description": "When this store was opened, unix seconds."},
                "started_at": {**WHOLE, "description": "Unix seconds."},
            }
        ),
        "Reloaded": _object({"result": TEXT, "seconds": NUMBER, "store": _ref("Store")}),
        "PastDislike": _object(
            {"item_id": TEXT, "title": title, "similarity": NUMBER, "timestamp": {**WHOLE, "description": "Seconds."}}
        ),
        "Explained": _object(
            {
                "item_id": TEXT,
                "title": title,
                "dropped": FLAG,
                "similarity": similarity,
                "reason": reason,
                "predicted": {
                    "anyOf": [_object({"sid": TEXT, "item_id": item, "title": title}), {"type": "null"}],
                    "description": "What it is most similar to of what was predicted.",
                },
                "past_dislikes": _list(
                    _ref("PastDislike"), description="What the user disliked that is nearest to it."
                ),
            }
        ),
        "ExplainAnswer": _object(
            {
                "user_id": TEXT,
                "known_user": known,
                "candidates": _list(_ref("Explained"), description="In the order given."),
                "store": _ref("Store"),
            }
        ),
        "PredictSet": _object(
            {
                "user_id": TEXT,
                "known_user": FLAG,
                "predicted_at": _or_null({**WHOLE, "description": "Unix seconds, to the hour."}),
                "predictions": _list(
                    _object(
                        {"sid": TEXT, "score": _or_null(NUMBER), "item_id": item, "title": title},
                    ),
                    description="Best first.",
                ),
                "store": _ref("Store"),
            }
        ),
    }


def _paths(settings: ServeSettings) -> dict[str, Any]:
    asked = (400, 413, 415, 422, 503)
    return {
        "/v1/filter": {
            "post": _operation(
                "filter",
                "Which candidates of a user are kept and which are dropped",
                "FilterAnswer",
                problems(*asked),
                body="FilterQuestion",
            )
        },
        "/v1/explain": {
            "post": _operation(
                "explain",
                "Why each candidate is kept or dropped",
                "ExplainAnswer",
                problems(*asked),
                body="ExplainQuestion",
            )
        },
        "/v1/predict-set": {
            "get": _operation(
                "predict_set",
                "What a user is predicted to dislike",
                "PredictSet",
                problems(400, 422, 503),
                parameters=[
                    {
                        "name": "user_id",
                        "in": "query",
                        "required": True,
                        "schema": {**TEXT, "maxLength": settings.max_id_length},
                    }
                ],
            )
        },
        "/health": {
            "get": _operation("health", "Whether the process answers", _object({"status": {"const": "alive"}}), {})
        },
        "/ready": {
            "get": _operation(
                "ready",
                "Whether requests should be sent here",
                "Ready",
                {"503": {"description": "It is stopping.", "content": {"application/json": {"schema": _ref("Ready")}}}},
            )
        },
        "/version": {"get": _operation("version", "What runs, and from which store", "Version", problems(503))},
        "/metrics": {
            "get": {
                "operationId": "metrics",
                "summary": "Counters and state for Prometheus",
                "responses": {
                    "200": {"description": "Prometheus' text format.", "content": {"text/plain": {"schema": TEXT}}}
                },
            }
        },
        "/admin/reload": {
            "post": _operation(
                "reload", "Read store and threshold anew", "Reloaded", problems(403, 409, 503)
            )
        },
    }  # fmt: skip


def _operation(
    name: str,
    summary: str,
    answer: str | Schema,
    refusals: dict[int | str, Any],
    *,
    body: str | None = None,
    parameters: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    schema = _ref(answer) if isinstance(answer, str) else answer
    responses = {"200": {"description": "The answer.", "content": {"application/json": {"schema": schema}}}, **refusals}
    operation: dict[str, Any] = {"operationId": name, "summary": summary, "responses": responses}
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(body)}}}
    if parameters is not None:
        operation["parameters"] = parameters
    return operation
