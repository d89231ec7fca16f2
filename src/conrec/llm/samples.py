"""Training samples of the supervised tasks: translation, item-level alignment, next negative."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from conrec.arrays import Array
from conrec.config import Context
from conrec.llm.prompts import PromptBuilder, Stretch, answered
from conrec.logs.log import Log
from conrec.protocol import NEGATIVE, NEUTRAL, POSITIVE

__all__ = [
    "Choices",
    "alignment_choices",
    "alignment_stretches",
    "high_confidence",
    "history_stretches",
    "translation_stretches",
]


@dataclass(frozen=True, slots=True)
class Choices:
    """Four-way choices of the item-level alignment task.

    Attributes:
        user: int32 [n], whose feedback it is; the prompt does not show it.
        options: int32 [n, 4], items in shuffled order.
        answer: int32 [n], position of the disliked item among the four.
    """

    user: Array
    options: Array
    answer: Array

    def __len__(self) -> int:
        return len(self.user)


def translation_stretches(prompts: PromptBuilder, titles: Sequence[str], items: Array) -> list[Stretch]:
    """Both directions, semantic ID to title and title to semantic ID, of the given items."""
    pairs: list[Stretch] = []
    for item in items.tolist():
        pairs.append(answered(prompts.to_sid(titles[item]), prompts.sid(item)))
        pairs.append(answered(prompts.to_title(item), prompts.title_answer(titles[item])))
    return pairs


def high_confidence(train_log: Log, more_than: int) -> Callable[[Array], Array]:
    """Which of a user's dislikes (an item for each event) may be the answer of a choice, as a function.

    Where an item can repeat, an answer is one that the user himself disliked more than ``more_than`` times
    (CoNRec, Stage 2). Where no user of the training period dislikes anything that often, as with ratings, it is
    one that more than ``more_than`` users disliked.
    """
    negative = train_log.feedback == NEGATIVE
    pairs = train_log.user[negative].astype(np.int64) * train_log.n_items + train_log.item[negative]
    distinct, times = np.unique(pairs, return_counts=True)
    if (times > more_than).any():
        return lambda dislikes: _more_often(dislikes, more_than)
    users = np.bincount(distinct % train_log.n_items, minlength=train_log.n_items)
    return lambda dislikes: np.unique(dislikes[users[dislikes] > more_than])


def _more_often(items: Array, more_than: int) -> Array:
    """The distinct items that occur more than ``more_than`` times."""
    distinct, times = np.unique(items, return_counts=True)
    often: Array = distinct[times > more_than]
    return often


def alignment_choices(
    log: Log, begin: int | None, end: int, sure: Callable[[Array], Array], n: int, rng: np.random.Generator
) -> Choices:
    """Draw n choices "a user did not want A and liked B, C, D: which of these four is A?".

    The user is drawn among those who have an answer and three likes in the period, the answer among his
    high-confidence negatives, the others among his likes of the period, all uniformly.

    Args:
        log: the log.
        begin, end: period from which negatives and likes are taken, in seconds.
        sure: which of a user's dislikes may be an answer, see `high_confidence`.
        n: how many choices.
        rng: source of chance.

    Returns:
        n choices; none where no user has an answer and three likes.
    """
    users: list[int] = []
    material: list[tuple[Array, Array]] = []
    for user in range(log.n_users):
        events = log.events_of(user, begin, end)
        items, feedback = log.item[events], log.feedback[events]
        disliked = items[feedback == NEGATIVE]
        liked = np.setdiff1d(items[feedback == POSITIVE], disliked)
        answers = sure(disliked)
        if len(answers) and len(liked) >= 3:
            users.append(user)
            material.append((answers, liked))
    n = n if users else 0
    drawn = rng.integers(len(users), size=n) if users else np.empty(0, dtype=np.int64)
    options = np.empty((n, 4), dtype=np.int32)
    answer = rng.integers(4, size=n).astype(np.int32)
    for row, pick in enumerate(drawn):
        answers, liked = material[pick]
        others = rng.choice(liked, size=3, replace=False)
        options[row] = np.insert(others, answer[row], rng.choice(answers))
    return Choices(np.asarray(users, dtype=np.int32)[drawn], options, answer)


def alignment_stretches(prompts: PromptBuilder, choices: Choices) -> list[Stretch]:
    """The choices as prompts with the disliked item's semantic ID as the answer."""
    return [
        answered(prompts.choice(options), prompts.sid(int(options[answer])))
        for options, answer in zip(choices.options.tolist(), choices.answer.tolist(), strict=True)
    ]


def history_stretches(
    prompts: PromptBuilder,
    log: Log,
    end: int,
    context: Context,
    rng: np.random.Generator,
    signs: Sequence[int] = (NEGATIVE,),
) -> list[Stretch]:
    """One pass over the next-item samples before ``end``; a stretch of history trains many of them at once.

    A user's shown events are cut into stretches of at most ``max_events``, each beginning half a stretch
    after the one before. What the two share is trained in the earlier stretch and only read in the
    later one, so that no sample is trained twice, and each with at least half the history a prompt may show.

    A prompt shows strictly earlier events only. Of events of the same second, therefore, just the first in the
    stretch is a target, and their order is drawn anew in every pass, so that each has its turn.

    Args:
        prompts: builds them.
        log: the log.
        end: T_val.
        context: "negative", or "both" for likes in between.
        rng: draws the order within a second.
        signs: feedback values whose items are targets.
    """
    size = prompts.config.max_events
    stride = max(1, size // 2)
    stretches = []
    for user in range(log.n_users):
        events = log.history(user, end)
        feedback = log.feedback[events]
        events = events[feedback != NEUTRAL if context == "both" else feedback == NEGATIVE]
        events = events[np.lexsort((rng.random(len(events)), log.timestamp[events]))]
        trained = 0
        for begin in range(0, len(events), stride):
            part = events[begin : begin + size]
            stretch = prompts.history(log, part, trained - begin, signs)
            trained = begin + len(part)
            if any(stretch.target):
                stretches.append(stretch)
            if trained == len(events):
                break
    return stretches
