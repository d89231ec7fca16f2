"""What the rows over both signs are asked in training: after how many of a user's events, and for which items.

A lesson is a stretch of one user's events of all signs, and questions about it. A question is asked when some number of
the stretch's events have been seen; its answers are the dislikes that come then, and beside them stand the likes that
come then instead. Two kinds of questions:

* at training anchors (`conrec.protocol`), all of them or those that open a window: all distinct dislikes of its window
  are right. Only events strictly before the anchor's time are seen, as in the test: on logs where many events share a
  second (ratings of one page, months as time) the event at the place before has not happened yet;
* after every event: the next dislike in the order of the log is right, as SASRec is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from conrec.arrays import Array, Ragged
from conrec.baselines.sequences.histories import padded
from conrec.errors import DataError
from conrec.logs.anchors import Anchors
from conrec.logs.log import Log
from conrec.protocol import NEGATIVE, POSITIVE, tile_windows

__all__ = ["Answers", "Asked", "Lesson", "lessons_at_anchors", "lessons_of_next", "opening", "together"]


@dataclass(frozen=True, slots=True)
class Lesson:
    """A stretch of one user's events and the questions asked of it.

    Attributes:
        user: index into the log's users.
        item: int64 [n], in time order.
        feedback: int64 [n], -1, 0 or +1.
        seen: int64 [questions], how many of the n events are known, 0 to n.
        dislikes: for each question its right answers, at least one.
        likes: for each question the likes that come then; may be none.
    """

    user: int
    item: Array
    feedback: Array
    seen: Array
    dislikes: Ragged
    likes: Ragged

    def __len__(self) -> int:
        return len(self.item)


@dataclass(frozen=True, slots=True)
class Answers:
    """Items of the questions of a batch, as pairs.

    Attributes:
        question: int64 [pairs], index into the batch's questions, not falling.
        item: int64 [pairs].
        weight: float32 [pairs], one over the items of the question: those of one question sum to 1.
    """

    question: Int64[Tensor, " pairs"]
    item: Int64[Tensor, " pairs"]
    weight: Float32[Tensor, " pairs"]

    @classmethod
    def of(cls, items: Ragged) -> Answers:
        """One row a question; a row without items gives no pair."""
        lengths = torch.from_numpy(items.lengths)
        question = torch.repeat_interleave(torch.arange(len(items)), lengths)
        return cls(question, torch.from_numpy(items.values.astype(np.int64)), 1 / lengths[question].float())


@dataclass(frozen=True, slots=True)
class Asked:
    """A batch of lessons.

    Attributes:
        user: int64 [B], index into the log's users.
        item: int64 [B, T], -1 where padded.
        feedback: int64 [B, T], 0 where padded.
        row: int64 [questions], the lesson of each question.
        seen: int64 [questions], how many events of that row are known.
        dislikes: right answers, at least one for each question.
        likes: what is liked then; a question may have none.
    """

    user: Int64[Tensor, " B"]
    item: Int64[Tensor, "B T"]
    feedback: Int64[Tensor, "B T"]
    row: Int64[Tensor, " questions"]
    seen: Int64[Tensor, " questions"]
    dislikes: Answers
    likes: Answers

    def __len__(self) -> int:
        return len(self.row)


def together(lessons: Sequence[Lesson]) -> Asked:
    """Lessons as one batch."""
    return Asked(
        torch.tensor([one.user for one in lessons]),
        padded([one.item for one in lessons], -1),
        padded([one.feedback for one in lessons], 0),
        torch.repeat_interleave(torch.arange(len(lessons)), torch.tensor([len(one.seen) for one in lessons])),
        torch.from_numpy(np.concatenate([one.seen for one in lessons])),
        Answers.of(_stacked([one.dislikes for one in lessons])),
        Answers.of(_stacked([one.likes for one in lessons])),
    )


def lessons_at_anchors(log: Log, anchors: Anchors, max_length: int) -> list[Lesson]:
    """Questions at anchors, one for each moment at which a user has training anchors.

    Args:
        log: of the training period.
        anchors: of all splits; those of training are read.
        max_length: events of a stretch at most.

    Raises:
        DataError: there is no training anchor.
    """
    anchors = anchors.of_split("train")
    order = np.lexsort((anchors.timestamp, anchors.user))
    user, moment = anchors.user[order], anchors.timestamp[order]
    first = np.r_[True, (user[1:] != user[:-1]) | (moment[1:] != moment[:-1])] if len(order) else np.empty(0, bool)
    order = order[first]  # several dislikes of one second are one question
    starts = np.flatnonzero(np.r_[True, np.diff(user[first]) > 0, True]) if len(order) else np.empty(0, np.int64)
    lessons = []
    for begin, end in pairwise(starts):
        rows = order[begin:end]
        events = log.events_of(int(anchors.user[rows[0]]))
        seen = np.searchsorted(log.timestamp[events], anchors.timestamp[rows], side="left")
        answers = anchors.future_negatives.take(rows), anchors.future_positives.take(rows)
        lessons += _stretches(log, int(anchors.user[rows[0]]), events, seen, *answers, max_length)
    return _some(lessons)


def opening(anchors: Anchors, horizon: int) -> Anchors:
    """The training anchors that open a window, were the training period tiled as validation and test periods are.

    A user's other training anchors lie within the windows that these open: far more of them where many dislikes fall
    into few days, and with histories such as no test anchor has.

    Args:
        anchors: of all splits.
        horizon: H, seconds.
    """
    anchors = anchors.of_split("train")
    order = np.lexsort((anchors.timestamp, anchors.user))
    begins = np.flatnonzero(np.diff(anchors.user[order], prepend=-1))
    parts = np.split(order, begins[1:])
    return anchors.select(
        np.sort(np.concatenate([part[tile_windows(anchors.timestamp[part], horizon)] for part in parts]))
    )


def lessons_of_next(log: Log, max_length: int) -> list[Lesson]:
    """Questions after every event of the log that a dislike of the same user follows.

    Args:
        log: of the training period.
        max_length: events of a stretch at most.

    Raises:
        DataError: nobody disliked anything.
    """
    lessons = []
    for user in range(log.n_users):
        events = log.events_of(user)
        item, feedback = log.item[events], log.feedback[events]
        dislike, like = (_next(item, feedback == sign) for sign in (NEGATIVE, POSITIVE))
        seen = np.flatnonzero(dislike >= 0)
        if len(seen):
            likes = Ragged.from_rows([one] if one >= 0 else [] for one in like[seen])
            answers = Ragged.from_rows(dislike[seen, None]), likes
            lessons += _stretches(log, user, events, seen, *answers, max_length)
    return _some(lessons)


def _next(item: Array, wanted: Array) -> Array:
    """For each number of events seen, 0 to n - 1, the item of the first wanted event that is not; -1 for none."""
    places = np.append(np.flatnonzero(wanted), -1)
    after = np.searchsorted(places[:-1], np.arange(len(item)), side="left")
    return np.where(places[after] >= 0, item[places[after]], -1)


def _stretches(
    log: Log, user: int, events: Array, seen: Array, dislikes: Ragged, likes: Ragged, max_length: int
) -> list[Lesson]:
    """The questions about a user's events, each in the first stretch that reaches it; stretches overlap by half."""
    last = max(0, len(events) - max_length)
    lessons, before = [], -1
    for begin in (*range(0, last, max(1, max_length // 2)), last):
        end = min(begin + max_length, len(events))
        here = np.flatnonzero((seen > before) & (seen <= end))
        if len(here):
            known = events[begin : int(seen[here].max())]
            lessons.append(
                Lesson(
                    user,
                    log.item[known].astype(np.int64),
                    log.feedback[known].astype(np.int64),
                    (seen[here] - begin).astype(np.int64),
                    dislikes.take(here),
                    likes.take(here),
                )
            )
        before = end
    return lessons


def _some(lessons: list[Lesson]) -> list[Lesson]:
    if not lessons:
        raise DataError("the training period has no negative events", expected="at least one to learn from")
    return lessons


def _stacked(parts: Sequence[Ragged]) -> Ragged:
    """The rows of several ragged arrays, one after another."""
    lengths = np.concatenate([part.lengths for part in parts])
    return Ragged(np.r_[0, np.cumsum(lengths)].astype(np.int64), np.concatenate([part.values for part in parts]))
