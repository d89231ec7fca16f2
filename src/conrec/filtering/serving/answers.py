"""From a question to the bytes of its answer: one call of the filter, one pass over its decisions."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import compress
from typing import Any

import msgspec
import numpy as np

from conrec.filtering.decisions import (
    DROPPED,
    EMPTY_SET,
    KEPT,
    NO_STORE,
    REASONS,
    UNKNOWN_ITEM,
    UNKNOWN_USER,
    Decisions,
)
from conrec.filtering.filter import NegativeFilter
from conrec.filtering.serving.live import Opened
from conrec.filtering.serving.questions import ExplainQuestion, FilterQuestion
from conrec.filtering.stores.base import StoreUnavailableError

__all__ = ["Tally", "answer_explain", "answer_filter", "answer_predict_set"]

WHOLE = (UNKNOWN_USER, EMPTY_SET, NO_STORE)
"""Reasons that hold of all candidates of a request, told once."""
PAST_DISLIKES = 3
"""Past dislikes that are told of each candidate."""
SECONDS = 5.0
"""That looking for them in the log may take: as long as a question of the page."""
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Tally:
    """What one answer of /v1/filter adds to the counters."""

    candidates: int
    dropped: int
    kept: tuple[tuple[str, int], ...]
    unknown_user: bool
    unreachable: bool


class Judged(msgspec.Struct, gc=False):
    """A candidate that is named with its similarity and reason."""

    item_id: str
    similarity: float | None
    reason: str


class FilterAnswer(msgspec.Struct, gc=False):
    """Answer of /v1/filter, as `conrec.filtering.serving.description` describes it."""

    user_id: str
    known_user: bool | None
    kept: list[str]
    dropped: list[Judged]
    spared: list[Judged]
    reason: str | None
    store: msgspec.Raw


def answer_filter(opened: Opened, question: FilterQuestion) -> tuple[bytes, Tally]:
    """Judge the candidates of a request; the answer as JSON, and what it adds to the counters."""
    decisions = _judged(opened, question)
    reasons, items = decisions.reason, question.item_ids
    counts = np.bincount(reasons, minlength=len(REASONS)).tolist()
    whole = next((code for code in WHOLE if counts[code]), None) if items else _without_candidates(opened, question)
    kept, dropped, spared = items, [], []
    if whole is None and counts[KEPT] < len(items):
        out = reasons == DROPPED
        kept = list(compress(items, (~out).tobytes()))
        dropped = _named(decisions, items, np.flatnonzero(out))
        if len(kept) > counts[KEPT]:
            spared = _named(decisions, items, np.flatnonzero(~out & (reasons != KEPT)))
    known = None if whole == NO_STORE else whole != UNKNOWN_USER
    answer = FilterAnswer(
        question.user_id, known, kept, dropped, spared, None if whole is None else REASONS[whole], opened.described
    )
    kept_by = tuple((REASONS[code], count) for code, count in enumerate(counts) if count and code != DROPPED)
    return _encode(answer), Tally(len(items), len(dropped), kept_by, known is False, known is None)


def answer_explain(opened: Opened, question: ExplainQuestion) -> bytes:
    """Why each candidate is kept or dropped, as JSON."""
    negative_filter, user_id = opened.filter, question.user_id
    whole = _without_candidates(opened, question)
    judged = negative_filter.explain(user_id, question.item_ids, count=PAST_DISLIKES, seconds=SECONDS)
    title = _titles(negative_filter)
    candidates = [
        {
            "item_id": one.item_id,
            "title": title(one.item_id),
            "dropped": one.dropped,
            "similarity": one.similarity,
            "reason": one.reason,
            "predicted": None
            if one.nearest_sid is None
            else {"sid": one.nearest_sid, "item_id": one.nearest_item, "title": title(one.nearest_item)},
            "past_dislikes": [
                {
                    "item_id": past.item_id,
                    "title": title(past.item_id),
                    "similarity": past.similarity,
                    "timestamp": past.timestamp,
                }
                for past in one.past_dislikes
            ],
        }
        for one in judged
    ]
    known = None if whole == NO_STORE else whole != UNKNOWN_USER
    return _encode({"user_id": user_id, "known_user": known, "candidates": candidates, "store": opened.described})


def answer_predict_set(opened: Opened, user_id: str) -> bytes:
    """What a user is predicted to dislike, as JSON.

    Raises:
        StoreUnavailableError: the store does not answer.
    """
    negative_filter = opened.filter
    found = negative_filter.predict_set(user_id)
    predictions: list[dict[str, Any]] = []
    if found is not None:
        title, catalogue = _titles(negative_filter), negative_filter.catalogue
        rows = zip(found.texts(), found.scores.tolist(), catalogue.items_of(found.codes).tolist(), strict=True)
        for sid, score, item in rows:
            item_id = None if item < 0 else catalogue.item_ids[item]
            finite = score if abs(score) < float("inf") else None
            predictions.append({"sid": sid, "score": finite, "item_id": item_id, "title": title(item_id)})
    answer = {
        "user_id": user_id,
        "known_user": found is not None,
        "predicted_at": None if found is None else int(found.predicted_at),
        "predictions": predictions,
        "store": opened.described,
    }
    return _encode(answer)


def _judged(opened: Opened, question: FilterQuestion) -> Decisions:
    """What the filter says of the candidates of a question; similarities only of those that need one.

    `NegativeFilter.judge` computes every similarity. Where nothing but the threshold decides and the store is on this
    machine, `NegativeFilter.mask` finds what is dropped many times faster, and the few dropped are then judged.
    """
    negative_filter, policy = opened.filter, opened.filter.policy
    user_id, item_ids = question.user_id, question.item_ids
    dry = policy.dry_run if question.dry_run is None else question.dry_run
    special = question.threshold is not None or question.allow or dry or policy.allow or policy.keep_at_least
    if special or opened.remote:
        return negative_filter.judge(
            user_id, item_ids, threshold=question.threshold, allow=question.allow or (), dry_run=dry
        )
    similarity = np.full(len(item_ids), np.nan, dtype=np.float32)
    nearest = np.full(len(item_ids), -1, dtype=np.int32)
    reason = np.full(len(item_ids), KEPT, dtype=np.int8)
    try:
        known = negative_filter.predict_set(user_id)
    except StoreUnavailableError:
        reason[:] = NO_STORE
        return Decisions(similarity, nearest, reason)
    if known is None or not len(known):
        reason[:] = UNKNOWN_USER if known is None else EMPTY_SET
        return Decisions(similarity, nearest, reason)
    items, now = negative_filter.indices(item_ids), time.time()
    dropped = np.flatnonzero(negative_filter.mask(user_id, items, now=now))
    reason[items < 0] = UNKNOWN_ITEM
    if len(dropped):
        again = negative_filter.decide_rows([user_id], np.zeros(len(dropped), dtype=np.int64), items[dropped], now=now)
        similarity[dropped], nearest[dropped], reason[dropped] = again.similarity, again.nearest, again.reason
    return Decisions(similarity, nearest, reason)


def _without_candidates(opened: Opened, question: ExplainQuestion) -> int | None:
    """What would hold of any candidate of the user, as a code of `REASONS`; None where it depends on the candidate."""
    try:
        known = opened.filter.predict_set(question.user_id)
    except StoreUnavailableError:
        return NO_STORE
    if known is None:
        return UNKNOWN_USER
    return None if len(known) else EMPTY_SET


def _titles(negative_filter: NegativeFilter) -> Callable[[str | None], str | None]:
    """Title of an item ID; None of an unknown one."""
    catalogue = negative_filter.catalogue
    titles = catalogue.details.titles

    def title(item_id: str | None) -> str | None:
        row = int(catalogue.indices([item_id])[0])
        return None if row < 0 else titles[row]

    return title


def _named(decisions: Decisions, items: list[str], rows: Any) -> list[Judged]:
    """Some candidates with similarity and reason."""
    similarity = decisions.similarity[rows].tolist()
    return [
        # NaN is the one number that is not itself.
        Judged(items[row], value if value == value else None, REASONS[reason])  # noqa: PLR0124
        for row, value, reason in zip(rows.tolist(), similarity, decisions.reason[rows].tolist(), strict=True)
    ]
