"""What the rows over both signs share: how they are trained on lessons, and how they answer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from conrec.baselines.sequences.histories import Histories
from conrec.baselines.sequences.learning import learn, seeded, validation_fhr
from conrec.baselines.sequences.scorer import SequenceNetwork, SequenceScorer
from conrec.baselines.sequences.stretches import batches_by_length
from conrec.baselines.signed.lessons import Asked, Lesson, lessons_at_anchors, lessons_of_next, opening, together
from conrec.logs.log import Log
from conrec.protocol import DAY, NEGATIVE, NEUTRAL, POSITIVE
from conrec.seeds import generator
from conrec.settings.baselines.signed import SignedSettings
from conrec.workspace import Workspace

__all__ = ["SignedNetwork", "SignedScorer"]

_Signed = TypeVar("_Signed", bound="SignedScorer")


class SignedNetwork(SequenceNetwork):
    """A network over events of all signs, whose scores start from how often each item was disliked.

    Training starts where counting ends: an item's learned bias, from 0, is added to the logarithm of its number of
    dislikes, which stays as it is. Rows over dislikes alone have one bias that starts there
    (`conrec.baselines.sequences.learning.start_at_popularity`); it comes to the same, as biases do not decay. Here the
    two are apart, so that what is saved is what was learned beyond counting; the counts are read from the log again.

    Args:
        log: of the training period.
        max_length: events of a history that are read.
    """

    signs = (NEGATIVE, NEUTRAL, POSITIVE)
    prior: Tensor
    """float32 [items], log(1 + dislikes); not saved with the network."""

    def __init__(self, log: Log, max_length: int) -> None:
        super().__init__()
        self.n_items, self.max_length = log.n_items, max_length
        counts = log.negative_counts()[1]
        self.register_buffer("prior", torch.from_numpy(np.log1p(counts).astype(np.float32)), persistent=False)
        self.bias = nn.Parameter(torch.zeros(log.n_items))

    @abstractmethod
    def states(self, item: Int64[Tensor, "B T"], feedback: Int64[Tensor, "B T"]) -> Float[Tensor, "B T+1 d"]:
        """What is known of each user before the first event, and after each one.

        Args:
            item: -1 where padded; padding stands behind the last event.
            feedback: -1, 0 or +1; 0 where padded.
        """

    @abstractmethod
    def logits(self, states: Float[Tensor, "rows d"]) -> Float[Tensor, "rows items"]:
        """Score of every item for each state, higher for a more likely dislike."""

    @abstractmethod
    def loss(self, asked: Asked) -> Float[Tensor, ""]:
        """The loss of a batch, summed over its questions."""

    def batches(self, lessons: Sequence[Lesson], size: int, random: np.random.Generator) -> list[list[Lesson]]:
        """The batches of one epoch."""
        return batches_by_length(lessons, size, random)

    def answer(self, histories: Histories) -> Float[Tensor, "B items"]:
        """Scores after the last event of each history."""
        states = self.states(histories.item, histories.feedback)
        return self.logits(states[torch.arange(len(states)), histories.length])


class SignedScorer(SequenceScorer):
    """A fitted network over events of all signs."""

    kind: ClassVar[str]
    query_batch: ClassVar[int] = 256
    """Many, for what the items are is computed anew for each batch."""

    @classmethod
    @abstractmethod
    def build(cls, space: Workspace, settings: Any) -> SignedNetwork:
        """An untrained network."""

    @classmethod
    def fit(cls: type[_Signed], space: Workspace, name: str) -> _Signed:
        """Train on the lessons of the training period and keep the state with the best validation FHR@20.

        Raises:
            DataError: nobody disliked anything in the training period.
        """
        settings: SignedSettings = cls.settings_of(space, name)
        seed, log, anchors = space.seed(name), space.training_log, space.prepared.anchors
        if settings.targets == "next":
            lessons = lessons_of_next(log, settings.max_length)
        else:
            if settings.targets == "windows":
                anchors = opening(anchors, space.config.protocol.horizon_days * DAY)
            lessons = lessons_at_anchors(log, anchors, settings.max_length)
        with seeded(space.seed(name, "weights")):
            network = cls.build(space, settings)
            best, curve = learn(
                network,
                lambda epoch: network.batches(lessons, settings.batch_size, generator(seed, "order", epoch)),
                lambda batch: network.loss(together(batch)),
                lambda batch: sum(len(one.seen) for one in batch),
                settings,
                lambda state: validation_fhr(cls(state, settings), space),
                name,
            )
        return cls(best, settings, curve)
