"""LC-Rec's alignment tasks beside next-item prediction (arXiv 2311.09049, section on alignment tuning).

What each asks, and what it becomes here:

* explicit index-language alignment: titles and descriptions with semantic IDs, in both directions. Titles are the
  translation pairs of `conrec.llm.samples`; here are descriptions, alone and behind the title;
* asymmetric item prediction: a history of semantic IDs, the *title* of the next item; a history of titles, its
  semantic ID;
* item prediction from an intention: the paper lets GPT write what the user looks for. Here it is the next item's
  description, with the user's history or without;
* personalised preference inference: the paper lets GPT write the user's preference from the history. Here it is the
  kinds (categories) that he disliked beyond their share in everybody's dislikes.

Descriptions are what the item's text has behind its title: categories first, then whatever the source tells. Items
without one, and logs without categories, leave the tasks out that need them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from conrec.arrays import Array
from conrec.baselines.language.titles import has_titles
from conrec.config import Context
from conrec.llm.prompts import NEXT, PromptBuilder, Stretch, answered
from conrec.logs.log import Log
from conrec.protocol import NEGATIVE
from conrec.settings.baselines.language import LcRecConfig
from conrec.workspace import Workspace

__all__ = ["AlignmentTasks", "descriptions_of"]

NEXT_TITLE = "What is the title of what this user will not want next?"
DESCRIBED = "Which item is described as"
CALLED = "described as"
DESCRIBE = "What describes"
INTENDED = "What of this kind will this user not want next?"
PREFERENCE = "What does this user not want?"
KINDS = 3
"""Kinds that a preference names."""


def descriptions_of(titles: Sequence[str], texts: Sequence[str | None]) -> list[str]:
    """What each text has behind the title with which it may begin; empty where there is nothing.

    >>> descriptions_of(["Heat (1995)", "Jaws"], ["Heat (1995). Crime, Drama.", None])
    ['Crime, Drama.', '']
    """
    rest = [(text or "").strip().removeprefix(title) for title, text in zip(titles, texts, strict=True)]
    return [one.lstrip(" .:,;-") for one in rest]


@dataclass(frozen=True)
class AlignmentTasks:
    """Draws samples of the tasks for one row.

    Attributes:
        space: the run.
        prompts: builds prompts over semantic IDs.
        context: what of a history is shown.
        signs: feedback values whose items are predicted.
        settings: shares of the tasks, and caps.
    """

    space: Workspace
    prompts: PromptBuilder
    context: Context
    signs: tuple[int, ...]
    settings: LcRecConfig

    def samples(self, sequences: int, rng: np.random.Generator) -> list[Stretch]:
        """One epoch of all tasks, beside ``sequences`` stretches of the main one."""
        settings = self.settings
        found = self.descriptions(round(settings.description_share * sequences), rng)
        found += self.asymmetric(round(settings.asymmetric_share * sequences), rng)
        found += self.intentions(round(settings.intention_share * sequences), rng)
        found += self.preferences(round(settings.preference_share * sequences), rng)
        return found

    def descriptions(self, n: int, rng: np.random.Generator) -> list[Stretch]:
        """n of: a description to its semantic ID, the same behind the title, and a semantic ID to its description."""
        items = np.flatnonzero(self.space.trained_items & self._described)
        found = []
        for item in rng.choice(items, n).tolist() if len(items) else []:
            sid, text, end = self.prompts.sid(item), self._description(item), self._end
            match int(rng.integers(3)):
                case 0:
                    found.append(answered([*self._text(DESCRIBED), *text, *end], sid))
                case 1:
                    title = self.prompts.to_sid(self.space.titles[item])[:-1]
                    found.append(answered([*title, *self._text(" " + CALLED), *text, *end], sid))
                case _:
                    found.append(answered([*self._text(DESCRIBE), *sid, *end], [*text, *end]))
        return found

    def asymmetric(self, n: int, rng: np.random.Generator) -> list[Stretch]:
        """n of: semantic IDs to the next title, and titles to the next semantic ID; always behind a history."""

        def write(event: int) -> Stretch | None:
            past = self._past(event)
            if not len(past):
                return None
            item, cue = int(self._log.item[event]), self._sign(event)
            if rng.random() < 0.5:
                title = self.prompts.title_answer(self.space.titles[item])
                return answered([*self._text(NEXT_TITLE), *self._signed(past), cue], title)
            shown = [one for e in past.tolist() for one in (self._sign(e), *self._title(int(self._log.item[e])))]
            return answered([*self._text(NEXT), *shown, cue], self.prompts.sid(item))

        return _written(n, self._targets, write, rng) if has_titles(self.space) else []

    def intentions(self, n: int, rng: np.random.Generator) -> list[Stretch]:
        """n descriptions of a next item to its semantic ID, every other one behind the history, if there is one."""

        def write(event: int) -> Stretch:
            item = int(self._log.item[event])
            shown = self._signed(self._past(event)) if rng.random() < 0.5 else []
            prompt = [*self._text(INTENDED), *self._description(item), *self._end, *shown, self._sign(event)]
            return answered(prompt, self.prompts.sid(item))

        return _written(n, self._targets[self._described[self._log.item[self._targets]]], write, rng)

    def preferences(self, n: int, rng: np.random.Generator) -> list[Stretch]:
        """n histories to the kinds that were disliked most in them."""
        names = self.space.categories.names

        def write(event: int) -> Stretch | None:
            past = self._past(event)
            kinds = self._most_disliked(past)
            if not kinds:
                return None
            answer = self._cut(" " + ", ".join(names[kind] for kind in kinds))
            return answered([*self._text(PREFERENCE), *self._signed(past), *self._end], [*answer, *self._end])

        return _written(n, self._targets, write, rng) if names else []

    def _most_disliked(self, past: Array) -> list[int]:
        """At most `KINDS` categories of the dislikes among some events, the most above their usual share first."""
        log, of = self._log, self.space.categories.of
        items = log.item[past[log.feedback[past] == NEGATIVE]]
        counts = np.bincount(of.take(items).values, minlength=len(self.space.categories.names))
        above = counts - counts.sum() * self._usual
        order = np.argsort(-above, kind="stable")[:KINDS]
        return [int(kind) for kind in order if counts[kind] and above[kind] > 0]

    def _past(self, event: int) -> Int[Array, " shown"]:
        """The events that a prompt at the time of an event shows."""
        user, time = int(self._log.user[event]), int(self._log.timestamp[event])
        past: Array = self.prompts.select(self._log, user, time, self.context)[-self.settings.task_events :]
        return past

    def _signed(self, events: Array) -> list[int]:
        """Events as signed semantic IDs."""
        items = self._log.item[events].tolist()
        pairs = zip(events.tolist(), items, strict=True)
        return [one for event, item in pairs for one in (self._sign(event), *self.prompts.sid(item))]

    def _sign(self, event: int) -> int:
        backbone = self.prompts.backbone
        return backbone.disliked if self._log.feedback[event] == NEGATIVE else backbone.liked

    def _title(self, item: int) -> list[int]:
        return self.prompts.title_answer(self.space.titles[item])[:-1]

    def _description(self, item: int) -> list[int]:
        return self._cut(" " + self._descriptions[item])

    def _cut(self, text: str) -> list[int]:
        return self._text(text)[: self.settings.description_tokens]

    def _text(self, text: str) -> list[int]:
        return self.prompts.backbone.text_ids(text)

    @property
    def _end(self) -> list[int]:
        return [self.prompts.backbone.end]

    @property
    def _log(self) -> Log:
        return self.space.training_log

    @cached_property
    def _targets(self) -> Int[Array, " n"]:
        """Positions of the events whose items are predicted."""
        return np.flatnonzero(np.isin(self._log.feedback, self.signs))

    @cached_property
    def _descriptions(self) -> list[str]:
        return descriptions_of(self.space.titles, self.space.prepared.items["text"].to_pylist())

    @cached_property
    def _described(self) -> Bool[Array, " items"]:
        """Items that have a description."""
        return np.asarray([bool(one) for one in self._descriptions], dtype=np.bool_)

    @cached_property
    def _usual(self) -> Float[Array, " categories"]:
        """Share of each category among those of everybody's dislikes."""
        items = self._log.item[self._log.feedback == NEGATIVE]
        names = self.space.categories.names
        counts = np.bincount(self.space.categories.of.take(items).values, minlength=len(names)).astype(np.float64)
        usual: Array = counts / max(1.0, counts.sum())
        return usual


def _written(
    n: int, events: Int[Array, " events"], write: Callable[[int], Stretch | None], rng: np.random.Generator
) -> list[Stretch]:
    """n samples of events in random order, passing over those of which none can be written.

    Where the others are fewer than n they come again; there are no samples where there are no others.

    Args:
        n: samples.
        events: to choose from.
        write: a sample of an event; None where the event has none, which hangs on the event alone.
        rng: of the order.
    """
    found: list[Stretch] = []
    usable: list[int] = []
    for event in rng.permutation(events).tolist():
        if len(found) == n:
            return found
        sample = write(event)
        if sample is not None:
            found.append(sample)
            usable.append(event)
    again = rng.choice(usable, n - len(found)).tolist() if usable else []
    return found + [sample for event in again if (sample := write(event)) is not None]
