"""Shapes of what the page is answered, and what the service says of itself there."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from conrec.filtering.calibrating.threshold import Threshold
from conrec.filtering.filter import NegativeFilter
from conrec.filtering.serving.page_data import PageData
from conrec.filtering.serving.service import Service

__all__ = [
    "CandidateAnswer",
    "CandidateItem",
    "Card",
    "CardsAnswer",
    "CardsQuestion",
    "HistoryAnswer",
    "Past",
    "PastEvent",
    "Rates",
    "Summary",
    "UserLine",
    "UsersAnswer",
    "summary_of",
]

MOST_ITEMS = 1_000
"""Items of one question for their cards."""


class Rates(BaseModel):
    """A threshold, and what it would have cost and brought on validation data; null where nothing was to be counted."""

    threshold: float
    false_filter_rate: float | None
    caught: float | None


class Has(BaseModel):
    """Which files of the run are there."""

    log: bool
    anchors: bool
    items: bool


class Summary(BaseModel):
    """The model that answers. ``rate`` says whose share ``false_filter_rate`` is: "user": of a user's likes, averaged
    over users; "pair": of all likes."""

    model: str
    written_at: int
    users: int
    items: int
    threshold: float | None
    keeps_everything: bool
    by_category: bool
    rate: Literal["user", "pair"]
    calibrated: Rates | None
    curve: list[Rates]
    statement: str
    note: str
    has: Has
    most: int


class UserLine(BaseModel):
    """A user with the number of events of either sign; null where there is no log."""

    user_id: str
    disliked: int | None
    liked: int | None


class UsersAnswer(BaseModel):
    """Some users."""

    users: list[UserLine]


class Past(BaseModel):
    """What a user said of an item last, -1 or 1, and when (unix seconds)."""

    feedback: Literal[-1, 1]
    timestamp: int


class Card(BaseModel):
    """An item as people know it. ``picture``: whether there may be one."""

    item_id: str
    title: str | None
    categories: list[str]
    picture: bool
    past: Past | None = None


class CardsAnswer(BaseModel):
    """Some items."""

    items: list[Card]


class CardsQuestion(BaseModel, extra="forbid"):
    """Whose titles are wanted; with a user, what he said of them, too."""

    item_ids: Annotated[list[str], Field(max_length=MOST_ITEMS)]
    user_id: str | None = None


class PastEvent(Card):
    """An item of a user's history."""

    timestamp: int


class HistoryAnswer(BaseModel):
    """What a user liked and disliked. ``known``: whether the log has any event of him."""

    known: bool
    liked: list[PastEvent]
    disliked: list[PastEvent]
    liked_count: int
    disliked_count: int


class CandidateItem(BaseModel):
    """A candidate, and what became of it in the window of the anchor that it was drawn for."""

    item_id: str
    later: Literal["liked", "disliked"] | None


class CandidateAnswer(BaseModel):
    """Items to judge. ``timestamp``: of the anchor, where they were drawn for one."""

    source: Literal["anchor", "popular", "catalogue"]
    timestamp: int | None
    items: list[CandidateItem]


def summary_of(service: Service, data: PageData) -> Summary:
    """What the service says of itself to people."""
    negative_filter = service.live.current.filter
    meta = negative_filter.store.meta
    calibration = negative_filter.calibration
    threshold = negative_filter.threshold
    rate: Literal["user", "pair"] = "pair" if calibration is None or calibration.rate != "user" else "user"
    return Summary(
        model=meta.model,
        written_at=meta.written_at,
        users=meta.count,
        items=len(negative_filter.catalogue),
        threshold=threshold,
        keeps_everything=(threshold is None or threshold >= 1) if calibration is None else calibration.keeps_everything,
        by_category=calibration is not None and bool(calibration.by_category),
        rate=rate,
        calibrated=None if calibration is None else _as_calibrated(calibration),
        curve=[] if calibration is None else _curve(calibration),
        statement="" if calibration is None else calibration.statement,
        note=_note(negative_filter, calibration),
        has=Has(
            log=data.log.has_events, anchors=data.log.has_anchors, items=data.cards.are_there(negative_filter.catalogue)
        ),
        most=min(service.settings.max_explained, MOST_ITEMS),
    )


def _curve(calibration: Threshold) -> list[Rates]:
    user = calibration.rate == "user"
    return [
        Rates(
            threshold=point.threshold,
            false_filter_rate=point.user_rate if user else point.false_filter_rate,
            caught=point.caught,
        )
        for point in calibration.curve
    ]


def _as_calibrated(calibration: Threshold) -> Rates:
    """What the calibrated threshold, or those of all categories together, did on validation data."""
    pairs = calibration.false_filters / calibration.positives if calibration.positives else None
    return Rates(
        threshold=1.0 if calibration.threshold is None else calibration.threshold,
        false_filter_rate=calibration.user_rate if calibration.rate == "user" else pairs,
        caught=calibration.caught / calibration.negatives if calibration.negatives else None,
    )


def _note(negative_filter: NegativeFilter, calibration: Threshold | None) -> str:
    """What else decides beside one threshold, in words; empty where nothing does."""
    policy = negative_filter.policy
    notes = []
    if calibration is None:
        notes.append("There is no trade-off curve: the threshold was given as a number.")
    elif calibration.keeps_everything:
        notes.append("As calibrated, nothing is dropped; the slider shows what would be.")
    elif calibration.by_category:
        notes.append("As calibrated, each category has its own threshold; the slider sets one for all of them.")
    if policy.keep_at_least:
        notes.append(f"Of each request at least {policy.keep_at_least:,} candidates are kept.")
    if policy.allow:
        notes.append(f"{len(policy.allow):,} items are never dropped.")
    if policy.dry_run:
        notes.append("Dry run: the service marks candidates and keeps them all.")
    return " ".join(notes)
