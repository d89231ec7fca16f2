"""Training stretches of the users' events, and the order in which batches of them are seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Int64
from torch import Tensor

from conrec.arrays import Array
from conrec.baselines.sequences.histories import padded
from conrec.errors import DataError
from conrec.logs.log import Log
from conrec.protocol import NEGATIVE
from conrec.seeds import generator
from conrec.settings.baselines.base import TransformerSettings

__all__ = ["Stretch", "batches_by_length", "batches_of_dislikes", "stretches_of", "target_count", "target_items"]

POOL = 16
"""Batches that are sorted by length together."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of one user's events.

    Attributes:
        events: int64 [n], positions in the log, in time order.
        target: bool [n], which of them are to be predicted from those before them in the stretch.
    """

    events: Array
    target: Array

    def __len__(self) -> int:
        return len(self.events)


def stretches_of(
    log: Log, max_length: int, signs: Sequence[int], random: np.random.Generator | None = None
) -> list[Stretch]:
    """The users' events of the given signs in stretches of at most ``max_length``, for one pass over them.

    A longer history is cut into stretches that overlap by half, so that most positions have seen at least
    half of ``max_length`` events before them, as they will at query time. An event is a target in the first stretch
    that holds it and in no other. Where events of a user share a timestamp, only the first of them is a target, as
    the others would be predicted from events that a question at that time does not see; which one comes first is drawn
    anew for each pass. (`conrec.llm.samples.history_stretches` does the same for the language models.)

    Args:
        log: of the training period.
        max_length: events of a stretch.
        signs: of the feedback that counts.
        random: draws the order of events of the same time; None: as in the log.

    Raises:
        DataError: nobody has such an event.
    """
    kept = np.flatnonzero(np.isin(log.feedback, signs))
    if len(kept) == 0:
        raise DataError("the training period has no negative events", expected="at least one to learn from")
    chance = np.arange(len(kept)) if random is None else random.random(len(kept))
    kept = kept[np.lexsort((chance, log.timestamp[kept], log.user[kept]))]
    another = np.diff(log.user[kept]) != 0
    first = np.r_[True, another | (np.diff(log.timestamp[kept]) != 0)]
    bounds = np.r_[0, np.flatnonzero(another) + 1, len(kept)]
    found = []
    for begin, end in pairwise(bounds.tolist()):
        last = max(begin, end - max_length)
        reached = begin
        for place in (*range(begin, last, max(1, max_length // 2)), last):
            stop = min(end, place + max_length)
            found.append(Stretch(kept[place:stop], first[place:stop] & (np.arange(place, stop) >= reached)))
            reached = stop
    return found


def batches_of_dislikes(log: Log, settings: TransformerSettings, seed: int, epoch: int) -> list[list[Stretch]]:
    """The batches of an epoch over the dislikes of a training period, see `stretches_of` and `batches_by_length`.

    Raises:
        DataError: nobody disliked anything.
    """
    stretches = stretches_of(log, settings.max_length, (NEGATIVE,), generator(seed, "ties", epoch))
    return batches_by_length(stretches, settings.batch_size, generator(seed, "order", epoch))


def target_count(stretches: Sequence[Stretch]) -> int:
    """How many targets some stretches have."""
    return sum(int(one.target.sum()) for one in stretches)


def target_items(log: Log, stretches: Sequence[Stretch]) -> Int64[Tensor, "B T"]:
    """Item at each place of some stretches that is a target there, -1 elsewhere and behind their ends."""
    return padded([np.where(one.target, log.item[one.events], -1) for one in stretches], -1)


def batches_by_length(stretches: Sequence[Any], size: int, random: np.random.Generator) -> list[list[Any]]:
    """All stretches in random batches of similar lengths: most users have few negatives, and padding costs time.

    Args:
        stretches: anything with a length.
        size: of a batch; the last of a pool may be smaller.
        random: draws the order.
    """
    order = random.permutation(len(stretches))
    batches = []
    for begin in range(0, len(order), POOL * size):
        pool = sorted((stretches[one] for one in order[begin : begin + POOL * size]), key=len)
        batches += [pool[first : first + size] for first in range(0, len(pool), size)]
    return [batches[one] for one in random.permutation(len(batches))]
