"""One function builds each prompt, for supervised training, rollouts and generation alike.

A history is written as signed semantic IDs in time order; the cue ``<disliked>`` ends the prompt and
its answer is the three codes of an item (four, where a fourth level tells apart those that collide):

    What will this user not want next? <liked><a_5><b_2><c_9><disliked><a_1><b_7><c_3> … <disliked>

Because the cue is the sign that stands before every disliked item, the answer to one prompt is the
continuation of the history, and a stretch of history trains every disliked item in it at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from conrec.arrays import Array
from conrec.config import Context, PromptConfig
from conrec.llm.backbone import Backbone
from conrec.logs.log import Log
from conrec.protocol import DAY, NEGATIVE, NEUTRAL

__all__ = ["INSTRUCTIONS", "PromptBuilder", "Stretch"]

NEXT = "What will this user not want next?"
CHOICE = "Which of these four did the user not want?"
TO_SID = "Which item has the title"
TO_TITLE = "What is the title of"
INSTRUCTIONS = (NEXT, CHOICE, TO_SID, TO_TITLE)
"""The fixed sentences of all prompts."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Token ids, and which of them are trained.

    Attributes:
        ids: tokens.
        target: for each token, whether predicting it from what stands before it is part of the loss.
    """

    ids: list[int]
    target: list[bool]


class PromptBuilder:
    """Builds every prompt of a run.

    Args:
        backbone: for its tokens.
        codes: int [items, levels], the resolved codes of each item.
        config: caps on what a prompt shows.
    """

    def __init__(self, backbone: Backbone, codes: Int[Array, "items levels"], config: PromptConfig) -> None:
        self.config = config
        self.backbone = backbone
        self._sid: Array = (codes + np.asarray(backbone.code_offset)).astype(np.int64)
        self._levels = len(backbone.sizes)
        self._instruction = {text: backbone.text_ids(text) for text in INSTRUCTIONS}

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt about a history."""
        return len(self._instruction[NEXT]) + (1 + self._levels) * self.config.max_events + 1

    def sid(self, item: int) -> list[int]:
        """The tokens of an item's semantic ID."""
        ids: list[int] = self._sid[item].tolist()
        return ids

    def select(self, log: Log, user: int, timestamp: int, context: Context) -> Array:
        """The events that a prompt at this time shows, as positions in the log, in time order.

        ``recent``: negatives of the last `recent_days`; ``negative``: all negatives; ``both``: all
        negatives and positives. Neutral events are not shown. Of more than `max_events`, the latest.
        """
        events = log.history(user, timestamp)
        feedback = log.feedback[events]
        if context == "both":
            keep = feedback != NEUTRAL
        else:
            keep = feedback == NEGATIVE
            if context == "recent":
                keep &= log.timestamp[events] >= timestamp - self.config.recent_days * DAY
        shown: Array = events[keep][-self.config.max_events :]
        return shown

    def next_negative(self, log: Log, user: int, timestamp: int, context: Context) -> list[int]:
        """Prompt that asks for the next disliked item of a user at a time."""
        return [*self.history(log, self.select(log, user, timestamp, context)).ids, self.backbone.disliked]

    def history(self, log: Log, events: Array, trained_from: int = 0, signs: Sequence[int] = (NEGATIVE,)) -> Stretch:
        """The instruction and the given events as signed semantic IDs.

        Args:
            log: the log.
            events: positions in the log, in time order.
            trained_from: codes of events from this one on are targets, except behind another event of the
                same second, which a prompt would not show.
            signs: feedback values whose items are targets.
        """
        ids = list(self._instruction[NEXT])
        target = [False] * len(ids)
        for position, event in enumerate(events):
            feedback = int(log.feedback[event])
            sign = self.backbone.disliked if feedback == NEGATIVE else self.backbone.liked
            ids += [sign, *self._sid[log.item[event]].tolist()]
            alone = position == 0 or log.timestamp[events[position - 1]] < log.timestamp[event]
            target += [False] + [position >= trained_from and feedback in signs and bool(alone)] * self._levels
        return Stretch(ids, target)

    def choice(self, options: Sequence[int]) -> list[int]:
        """Prompt of the item-level alignment task: four items, one of which was disliked."""
        ids = list(self._instruction[CHOICE])
        for item in options:
            ids += self.sid(item)
        return [*ids, self.backbone.disliked]

    def to_sid(self, title: str) -> list[int]:
        """Prompt whose answer is the semantic ID of the item with this title."""
        return [*self._instruction[TO_SID], *self._title(title), self.backbone.end]

    def to_title(self, item: int) -> list[int]:
        """Prompt whose answer is the title of an item (and the end token)."""
        return [*self._instruction[TO_TITLE], *self.sid(item), self.backbone.end]

    def title_answer(self, title: str) -> list[int]:
        """The answer to `to_title`."""
        return [*self._title(title), self.backbone.end]

    def _title(self, title: str) -> list[int]:
        return self.backbone.text_ids(" " + title)[: self.config.title_tokens]


def answered(prompt: list[int], answer: list[int]) -> Stretch:
    """A prompt followed by its answer, of which only the answer is trained."""
    return Stretch([*prompt, *answer], [False] * len(prompt) + [True] * len(answer))
