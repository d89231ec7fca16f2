"""Bodies of requests: parsed and checked in one pass, with every limit, and refused with the place of what is wrong."""

from __future__ import annotations

from typing import Annotated, Any, Protocol, cast, runtime_checkable
from urllib.parse import parse_qsl

import msgspec

from conrec.filtering.serving.problems import RequestError
from conrec.filtering.serving.settings import ServeSettings

__all__ = ["ExplainQuestion", "FilterQuestion", "Questions", "query_value"]


@runtime_checkable
class ExplainQuestion(Protocol):
    """Body of /v1/explain."""

    user_id: str
    item_ids: list[str]


@runtime_checkable
class FilterQuestion(ExplainQuestion, Protocol):
    """Body of /v1/filter; null is the same as left out."""

    threshold: float | None
    allow: list[str] | None
    dry_run: bool | None


class Questions:
    """Reads bodies within the limits of the settings.

    >>> questions = Questions(ServeSettings(max_candidates=2))
    >>> questions.filter(b'{"user_id": "ann", "item_ids": ["a", "b"]}').item_ids
    ['a', 'b']
    >>> questions.filter(b'{"user_id": "ann", "item_ids": ["a", 7]}')
    Traceback (most recent call last):
        ...
    conrec.filtering.serving.problems.RequestError: body, $.item_ids[1]: `int`; expected `str`.
    """

    def __init__(self, settings: ServeSettings) -> None:
        identifier = Annotated[str, msgspec.Meta(max_length=settings.max_id_length)]
        self._filter = _decoder(
            "FilterQuestion",
            ("user_id", identifier),
            ("item_ids", _list_of(identifier, settings.max_candidates)),
            ("threshold", Annotated[float, msgspec.Meta(ge=-1, le=1)] | None, None),
            ("allow", _list_of(identifier, settings.max_candidates) | None, None),
            ("dry_run", bool | None, None),
        )
        self._explain = _decoder(
            "ExplainQuestion",
            ("user_id", identifier),
            ("item_ids", _list_of(identifier, settings.max_explained)),
        )

    def filter(self, body: bytes) -> FilterQuestion:
        """A body of /v1/filter.

        Raises:
            RequestError: 400, it is not JSON; 422, it is not what it should be.
        """
        return cast(FilterQuestion, _decoded(self._filter, body))

    def explain(self, body: bytes) -> ExplainQuestion:
        """A body of /v1/explain; raises as `filter` does."""
        return cast(ExplainQuestion, _decoded(self._explain, body))


def _decoder(name: str, *fields: Any) -> msgspec.json.Decoder[Any]:
    """Of a struct whose limits are those of the settings; they are checked where the text is parsed."""
    return msgspec.json.Decoder(msgspec.defstruct(name, fields, forbid_unknown_fields=True, gc=False))


def _list_of(identifier: Any, longest: int) -> Any:
    return Annotated[list[identifier], msgspec.Meta(max_length=longest)]


def _decoded(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `")
        found, expected = message, ""
        if message.startswith("Expected "):
            expected, _, found = message.removeprefix("Expected ").partition(", got ")
        raise RequestError(
            422, found or "another value", where=f"body, {place[:-1]}" if place else "body", expected=expected
        ) from None
    except UnicodeDecodeError as error:
        raise RequestError(400, "text that is not UTF-8", where=f"body, near byte {error.start}") from None
    except msgspec.DecodeError as error:
        raise RequestError(400, str(error), where="body", expected="JSON in UTF-8") from None
    except RecursionError:
        raise RequestError(400, "JSON that is nested too deeply", where="body") from None


def query_value(query: bytes, name: str, longest: int) -> str:
    """The one value of a parameter of the query.

    Raises:
        RequestError: 400, the query is not UTF-8 or gives it twice; 422, it is missing or too long.
    """
    where = f"query parameter {name}"
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise RequestError(400, "bytes that are not percent-encoded UTF-8", where="query") from None
    except ValueError:
        raise RequestError(400, "too many parameters", where="query") from None
    values = [value for key, value in pairs if key == name]
    if not values:
        raise RequestError(422, "nothing", where=where, expected="a value")
    if len(values) > 1:
        raise RequestError(400, f"{len(values)} values", where=where, expected="one value")
    if len(values[0]) > longest:
        raise RequestError(
            422, f"{len(values[0]):,} characters", where=where, expected=f"at most {longest:,} characters"
        )
    return values[0]
