"""From a question to the bytes of its answer: one call of the filter, one pass over its decisions."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import compress
from typing import Any

import msgspec
import numpy as np

from conrec.filtering.filter import DROPPED, EMPTY_SET, KEPT, REASONS, UNKNOWN_USER, Decisions, NegativeFilter
from conrec.filtering.serving.live import Opened
from conrec.filtering.serving.questions import ExplainQuestion, FilterQuestion

__all__ = ["Tally", "answer_filter"]

WHOLE = (UNKNOWN_USER, EMPTY_SET)
"""Reasons that hold of all candidates of a request, told once."""
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
    decisions = judged(opened.filter, question)
    reasons = decisions.reason
    items = question.item_ids
    counts = np.bincount(reasons, minlength=len(REASONS)).tolist()
    whole = next((code for code in WHOLE if counts[code]), None)
    dropped = counts[DROPPED]
    if counts[KEPT] == len(items) or whole is not None:
        kept, named_dropped, spared = items, [], []
    else:
        out = reasons == DROPPED
        kept = list(compress(items, (~out).tobytes()))
        named_dropped = _named(decisions, items, np.flatnonzero(out))
        spared = (
            _named(decisions, items, np.flatnonzero(~out & (reasons != KEPT)))
            if counts[KEPT] + dropped < len(items)
            else []
        )
    known = known_user(opened.filter, question.user_id, counts)
    answer = FilterAnswer(
        question.user_id,
        known,
        kept,
        named_dropped,
        spared,
        None if whole is None else REASONS[whole],
        opened.described,
    )
    kept_by = tuple((REASONS[code], count) for code, count in enumerate(counts) if count and code != DROPPED)
    return _encode(answer), Tally(len(items), dropped, kept_by, known is False, known is None)


def judged(negative_filter: NegativeFilter, question: ExplainQuestion) -> Decisions:
    """What the filter says of the candidates of a question."""
    return negative_filter.decide([question.user_id] * len(question.item_ids), question.item_ids)


def known_user(negative_filter: NegativeFilter, user_id: str, counts: list[int]) -> bool | None:
    """Whether the user has a predict set, from the reasons of his candidates where he has any."""
    if counts[UNKNOWN_USER]:
        return False
    return True if any(counts) else negative_filter.store.get(user_id) is not None


def _named(decisions: Decisions, items: list[str], rows: Any) -> list[Judged]:
    """Some candidates with similarity and reason."""
    similarity = decisions.similarity[rows].tolist()
    return [
        # NaN is the one number that is not itself.
        Judged(items[row], value if value == value else None, REASONS[reason])  # noqa: PLR0124
        for row, value, reason in zip(rows.tolist(), similarity, decisions.reason[rows].tolist(), strict=True)
    ]
