"""The page for people: ``GET /``, its files, and the data that it alone asks for.

What comes from data reaches the page as JSON and becomes text there, never markup; the page's policy lets no script
run but its own files, which are part of this package.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Annotated, Literal, TypeVar

from anyio.to_thread import current_default_thread_limiter
from fastapi import APIRouter, FastAPI, Query
from fastapi.responses import Response

from conrec.filtering.serving.description import problems
from conrec.filtering.serving.item_cards import ItemCard
from conrec.filtering.serving.lookups import LookupTimeoutError
from conrec.filtering.serving.page_answers import (
    CandidateAnswer,
    CandidateItem,
    Card,
    CardsAnswer,
    CardsQuestion,
    HistoryAnswer,
    Past,
    PastEvent,
    Summary,
    UserLine,
    UsersAnswer,
    summary_of,
)
from conrec.filtering.serving.page_data import PageData
from conrec.filtering.serving.problems import RequestError
from conrec.filtering.serving.run_log import Event, LoggedUser
from conrec.filtering.serving.service import Service

__all__ = ["PAGE_FILES", "page_router"]

PAGE_FILES = "/page/"
"""Path below which the page's own files lie; they hold nothing of any user."""
_MEDIA = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}
_PICTURE_HEADERS = {
    "content-security-policy": "default-src 'none'; sandbox",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "private, max-age=3600",
}
Found = TypeVar("Found")
Limit = Annotated[int, Query(ge=1, le=500)]
Source = Literal["any", "anchor", "popular"]
Later = Literal["liked", "disliked"]


def page_router(service: Service) -> APIRouter:
    """The page's routes, for `conrec.filtering.serving.app.create_app`; they end with the application's lifespan."""
    data = PageData(service.run_folder)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # One after another, in a thread of their own: whoever filters does not wait for them.
        current_default_thread_limiter().total_tokens = 1
        yield
        data.close()

    router = APIRouter(lifespan=lifespan)
    for path, name in _files().items():
        router.add_api_route(path, _static(name), methods=["GET"], include_in_schema=False)
    page = APIRouter(prefix="/v1/page", tags=["page"], responses=problems(422, 503))

    def checked(value: str, where: str) -> str:
        """An ID or a search within the limits.

        Raises:
            RequestError: 422, it is longer, or no text: JSON can write half a character.
        """
        try:
            value.encode()
        except UnicodeEncodeError:
            raise RequestError(422, "a lone surrogate", where=where, expected="text in Unicode") from None
        longest = service.settings.max_id_length
        if len(value) > longest:
            raise RequestError(422, f"{len(value):,} characters", where=where, expected=f"at most {longest:,}")
        return value

    def asked(question: Callable[[], Found]) -> Found:
        try:
            return question()
        except LookupTimeoutError as error:
            raise RequestError(503, "the log is too large to look into within a request", mend=error.mend) from None

    @page.get("/summary", summary="The model, its threshold and what that costs")
    def summary() -> Summary:
        return summary_of(service, data)

    @page.get("/users", summary="Users with a part of an ID, or some")
    def users(query: str = "", limit: Limit = 20) -> UsersAnswer:
        found = asked(lambda: data.users(service.live.current.filter, checked(query, "query"), limit))
        return UsersAnswer(users=[_line(one) for one in found])

    @page.get("/random-user", summary="One user, drawn by his events; none where there is none")
    def random_user() -> UsersAnswer:
        found = asked(lambda: data.random_user(service.live.current.filter))
        return UsersAnswer(users=[] if found is None else [_line(found)])

    @page.get("/history", summary="What a user liked and disliked, newest first")
    def history(user_id: str, limit: Limit = 20) -> HistoryAnswer:
        found = asked(lambda: data.history(checked(user_id, "user_id"), limit))
        wanted = [one.item_id for one in (*found.liked, *found.disliked)]
        cards = {one.item_id: one for one in data.items(service.live.current.filter, wanted)}

        def side(events: tuple[Event, ...]) -> list[PastEvent]:
            return [
                PastEvent(**_card(cards.get(one.item_id), one.item_id).model_dump(), timestamp=one.timestamp)
                for one in events
            ]

        return HistoryAnswer(
            known=found.known,
            liked=side(found.liked),
            disliked=side(found.disliked),
            liked_count=found.liked_count,
            disliked_count=found.disliked_count,
        )

    @page.get("/candidates", summary="Items that a user might be shown")
    def candidates(user_id: str, source: Source = "any", limit: Limit = 40) -> CandidateAnswer:
        current = service.live.current.filter
        found = asked(lambda: data.candidates(current, checked(user_id, "user_id"), source, limit))
        later: dict[str, Later] = dict.fromkeys(found.future_positives, "liked")
        later |= dict.fromkeys(found.future_negatives, "disliked")
        return CandidateAnswer(
            source=found.source,
            timestamp=found.timestamp,
            items=[CandidateItem(item_id=one, later=later.get(one)) for one in found.item_ids],
        )

    @page.get("/titles", summary="Items with all words of a query in their title, or with it as their ID")
    def titles(query: str, limit: Limit = 40) -> CardsAnswer:
        found = asked(lambda: data.titled(service.live.current.filter, checked(query, "query"), limit))
        return CardsAnswer(items=[_card(one, one.item_id) for one in found])

    @page.post("/items", summary="Titles of items, and what a user said of them")
    def items(question: CardsQuestion) -> CardsAnswer:
        user = question.user_id
        wanted = [checked(one, "item_ids") for one in question.item_ids]
        try:
            past = {} if user is None else data.rated(checked(user, "user_id"), wanted)
        except LookupTimeoutError:
            past = {}  # a label is not worth the list
        cards = [_card(one, one.item_id) for one in data.items(service.live.current.filter, wanted)]
        known = {one.item_id for one in cards}
        cards += [_card(None, one) for one in past if one not in known]
        for card in cards:
            if card.item_id in past:
                card.past = Past(feedback=past[card.item_id].feedback, timestamp=past[card.item_id].timestamp)
        return CardsAnswer(items=cards)

    @page.get(
        "/picture",
        summary="An item's picture",
        response_class=Response,
        responses={**problems(404), 200: {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}},
    )
    def picture(item_id: str) -> Response:
        found = data.picture(service.live.current.filter, checked(item_id, "item_id"))
        if found is None:
            raise RequestError(404, "no picture that can be shown", where="item_id")
        return Response(found.data, media_type=found.kind, headers=_PICTURE_HEADERS)

    router.include_router(page)
    return router


def _files() -> dict[str, str]:
    """The page's files by their paths."""
    folder = files("conrec.filtering.serving").joinpath("page")
    names = sorted(one.name for one in folder.iterdir() if PurePosixPath(one.name).suffix in _MEDIA)
    return {"/" if name == "index.html" else f"{PAGE_FILES}{name}": name for name in names}


def _static(name: str) -> Callable[[], Awaitable[Response]]:
    content = files("conrec.filtering.serving").joinpath("page", name).read_bytes()
    media = _MEDIA[PurePosixPath(name).suffix]

    async def answer() -> Response:
        return Response(content, media_type=media, headers=_HEADERS)

    return answer


def _line(user: LoggedUser) -> UserLine:
    return UserLine(user_id=user.user_id, disliked=user.disliked, liked=user.liked)


def _card(card: ItemCard | None, item_id: str) -> Card:
    """A card as it is answered; the ID alone where the item table does not know the item."""
    if card is None:
        return Card(item_id=item_id, title=None, categories=[], picture=False)
    return Card(item_id=item_id, title=card.title, categories=list(card.categories), picture=card.picture)
