"""What is asked in training: each question against a literal loop over the log."""

from __future__ import annotations

import numpy as np
import pytest

from conrec.arrays import Array
from conrec.baselines.signed.lessons import Lesson, lessons_at_anchors, lessons_of_next, opening, together
from conrec.errors import DataError
from conrec.logs.anchors import build_anchors
from conrec.logs.log import Log
from conrec.protocol import DAY, NEGATIVE, POSITIVE, Periods
from tests.conformance import CUT, small_log

Question = tuple[int, tuple[int, ...], tuple[int, ...], frozenset[int], frozenset[int]]
"""User, items and signs that are known, and the dislikes and likes that come then."""


def _questions(lessons: list[Lesson]) -> list[Question]:
    found = []
    for lesson in lessons:
        for row, seen in enumerate(lesson.seen):
            known = tuple(lesson.item[:seen].tolist()), tuple(lesson.feedback[:seen].tolist())
            found.append(
                (lesson.user, *known, frozenset(lesson.dislikes[row].tolist()), frozenset(lesson.likes[row].tolist()))
            )
    return sorted(found, key=repr)


def _known(log: Log, events: Array) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(log.item[events].tolist()), tuple(log.feedback[events].tolist())


def test_at_anchors_everything_of_the_window_is_asked_for_and_only_what_came_strictly_before_is_known() -> None:
    log = small_log()
    periods = Periods(CUT, CUT + 15 * DAY, int(log.timestamp[-1]) + 1)
    train = log.before(CUT)
    expected = set()
    for user in range(log.n_users):
        events = train.events_of(user)
        for one in events[train.feedback[events] == NEGATIVE]:
            at = train.timestamp[one]
            before = events[train.timestamp[events] < at]
            window = events[(train.timestamp[events] >= at) & (train.timestamp[events] < at + 7 * DAY)]
            disliked = set(train.item[window[train.feedback[window] == NEGATIVE]]) - set(train.item[before])
            liked = set(train.item[window[train.feedback[window] == POSITIVE]])
            if len(before) and disliked:
                expected.add((user, *_known(train, before), frozenset(disliked), frozenset(liked)))
    lessons = lessons_at_anchors(train, build_anchors(log, periods, 7 * DAY), max_length=1000)
    assert _questions(lessons) == sorted(expected, key=repr)
    assert len(lessons) == len({one.user for one in lessons})


def test_of_next_every_event_asks_for_the_dislike_that_follows_it() -> None:
    log = small_log().before(CUT)
    expected = []
    for user in range(log.n_users):
        events = log.events_of(user)
        for seen in range(len(events)):
            rest = events[seen:]
            disliked, liked = (log.item[rest[log.feedback[rest] == sign]][:1].tolist() for sign in (NEGATIVE, POSITIVE))
            if disliked:
                expected.append((user, *_known(log, events[:seen]), frozenset(disliked), frozenset(liked)))
    assert _questions(lessons_of_next(log, max_length=1000)) == sorted(expected, key=repr)


def test_windows_open_where_they_would_if_the_training_period_were_tiled() -> None:
    log = small_log().before(CUT)
    anchors = build_anchors(log, Periods(CUT, CUT + DAY, CUT + 2 * DAY), 7 * DAY)
    expected = []
    for user in range(log.n_users):
        times = sorted(anchors.timestamp[(anchors.user == user) & (anchors.split == 0)].tolist())
        end = -1
        for at in times:
            if at >= end:
                expected.append((at, user))
                end = at + 7 * DAY
    found = opening(anchors, 7 * DAY)
    assert list(zip(found.timestamp.tolist(), found.user.tolist(), strict=True)) == sorted(expected)
    assert len(opening(anchors.of_split("test"), 7 * DAY)) == 0


@pytest.mark.parametrize("kind", ["window", "next"])
def test_of_a_long_history_each_question_is_asked_once_and_most_know_half_a_stretch(kind: str) -> None:
    log = small_log(events=200).before(CUT)
    periods = Periods(CUT, CUT + 15 * DAY, CUT + 30 * DAY)

    def lessons(max_length: int) -> list[Lesson]:
        if kind == "next":
            return lessons_of_next(log, max_length)
        return lessons_at_anchors(log, build_anchors(log, periods, 7 * DAY), max_length)

    whole, short = _questions(lessons(1000)), _questions(lessons(9))
    asked = sorted(((one[0], *one[3:]) for one in whole), key=repr)
    assert asked == sorted(((one[0], *one[3:]) for one in short), key=repr)
    for user, items, signs, right, liked in short:
        assert len(items) <= 9
        longer = [one for one in whole if (one[0], *one[3:]) == (user, right, liked)]
        assert any(
            one[1][len(one[1]) - len(items) :] == items
            and one[2][len(one[2]) - len(signs) :] == signs
            and (len(items) == len(one[1]) or len(items) > 4)
            for one in longer
        )


def test_a_batch_keeps_questions_with_their_lessons_and_shares_weights() -> None:
    lessons = lessons_at_anchors(
        log := small_log().before(CUT), build_anchors(log, Periods(CUT, CUT + DAY, CUT + 2 * DAY), 7 * DAY), 20
    )[:4]
    batch = together(lessons)
    assert batch.user.tolist() == [one.user for one in lessons]
    assert len(batch) == sum(len(one.seen) for one in lessons)
    question = 0
    for row, lesson in enumerate(lessons):
        assert batch.item[row].tolist() == lesson.item.tolist() + [-1] * (batch.item.shape[1] - len(lesson))
        for place, seen in enumerate(lesson.seen):
            assert (int(batch.row[question]), int(batch.seen[question])) == (row, seen)
            for pairs, items in ((batch.dislikes, lesson.dislikes[place]), (batch.likes, lesson.likes[place])):
                mine = pairs.question == question
                assert pairs.item[mine].tolist() == items.tolist()
                np.testing.assert_allclose(pairs.weight[mine].numpy(), [1 / len(items) for _ in items], rtol=1e-6)
            question += 1


def test_without_dislikes_there_is_nothing_to_ask() -> None:
    log = small_log().before(CUT)
    liked = Log.from_columns(log.user_ids, log.item_ids, log.user, log.item, log.timestamp, np.ones(len(log)))
    anchors = build_anchors(liked, Periods(CUT, CUT + DAY, CUT + 2 * DAY), 7 * DAY)
    with pytest.raises(DataError, match="no negative events"):
        lessons_of_next(liked, 10)
    with pytest.raises(DataError, match="no negative events"):
        lessons_at_anchors(liked, anchors, 10)
