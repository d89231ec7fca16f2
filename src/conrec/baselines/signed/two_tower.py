"""Two towers: a user's likes, dislikes and neutral events, read apart and brought together, against item vectors.

In the manner of the Deep Feedback Network (DFN; Xie et al., IJCAI 2020) and of FeedRec (Wu et al.,
2022, arXiv 2102.04903). As there, each kind of feedback has a transformer of its own (internal interaction), and what
is known from the few strong kinds, likes and dislikes, asks the many weak events, neutral ones here, for what agrees
with it (external interaction, strong-to-weak attention). Departures:

* the target is the next dislikes, with the softmax over the whole catalogue, not clicks with a binary loss;
* so that the whole catalogue can be scored, no candidate stands in the sequences: the user is one vector, an item is
  another, and a score is their inner product plus the logarithm of the item's number of dislikes and its bias;
* transformers are causal, with a start token each, and give the state after every event at once; a tower's output is
  the state after its last event, not the mean over all; positions are those among events of all signs;
* attention from strong to weak feedback is scaled dot-product attention (as in FeedRec), not DFN's small network on
  pairs of vectors;
* an item's vector is a learned one plus linear maps of its categories (mean over them) and of what the encoder gave
  of its text and image; the same vector is read in histories and scored.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn

from conrec.baselines.sequences.blocks import initialise
from conrec.baselines.sequential.fdsa import said_of
from conrec.baselines.signed.lessons import Asked
from conrec.baselines.signed.losses import softmax_loss
from conrec.baselines.signed.scorer import SignedNetwork, SignedScorer
from conrec.baselines.signed.towers import FromElsewhere, ItemTower, SignTower, of_sign
from conrec.logs.log import Log
from conrec.protocol import NEGATIVE, NEUTRAL, POSITIVE
from conrec.settings.baselines.signed import TwoTowerConfig
from conrec.workspace import Workspace

__all__ = ["SPACE", "TwoTower", "TwoTowerNetwork"]

SPACE: dict[str, tuple[float | int | str, ...]] = {
    "hidden_size": (32, 64, 128),
    "targets": ("windows", "anchors", "next"),
    "dropout": (0.2, 0.5),
}
"""The grid that `conrec baselines search` searches."""


class TwoTowerNetwork(SignedNetwork):
    """From events with signs to a user's vector after each of them, and its inner product with every item's."""

    def __init__(self, log: Log, content: Float32[Tensor, "items features"], settings: TwoTowerConfig) -> None:
        super().__init__(log, settings.max_length)
        width, self.settings = settings.hidden_size, settings
        self.items = ItemTower(content, width)
        self.dislikes, self.neutral, self.likes = (
            SignTower(width, settings.layers, settings.heads, settings.max_length, settings.dropout) for _ in range(3)
        )
        self.dislikes_ask = FromElsewhere(width, settings.heads, settings.dropout)
        self.likes_ask = FromElsewhere(width, settings.heads, settings.dropout)
        self.hidden = nn.Linear(5 * width, 2 * width)
        self.user = nn.Linear(2 * width, width)
        self.norm = nn.LayerNorm(width)
        initialise(self)

    def users(
        self, vectors: Float[Tensor, "items d"], item: Int64[Tensor, "B T"], feedback: Int64[Tensor, "B T"]
    ) -> Float[Tensor, "B T+1 d"]:
        """The user's vector before the first event and after each one, from vectors of all items."""
        each, counts = {}, {}
        for sign, tower in ((NEGATIVE, self.dislikes), (NEUTRAL, self.neutral), (POSITIVE, self.likes)):
            own, place, counts[sign] = of_sign(item, feedback, sign)
            each[sign] = tower(F.embedding(own.clamp(min=0), vectors), place)
        last = {sign: _at(each[sign], counts[sign]) for sign in self.signs}
        places = torch.arange(each[NEUTRAL].shape[1])
        known = places <= counts[NEUTRAL][:, :, None]  # place 0 is the start token
        parts = [
            *last.values(),
            self.dislikes_ask(last[NEGATIVE], each[NEUTRAL], known),
            self.likes_ask(last[POSITIVE], each[NEUTRAL], known),
        ]
        x = F.gelu(self.hidden(torch.cat(parts, dim=2)))
        user: Tensor = self.norm(self.user(F.dropout(x, self.settings.dropout, self.training)))
        return user

    def states(self, item: Int64[Tensor, "B T"], feedback: Int64[Tensor, "B T"]) -> Float[Tensor, "B T+1 d"]:
        """The user's vector before the first event, and after each one."""
        return self.users(self.items(), item, feedback)

    def logits(self, states: Float[Tensor, "rows d"]) -> Float[Tensor, "rows items"]:
        """Inner product of each user's vector with each item's, plus the item's popularity and bias."""
        return self.scores(self.items(), states)

    def scores(self, vectors: Float[Tensor, "items d"], users: Float[Tensor, "rows d"]) -> Float[Tensor, "rows items"]:
        """The same from vectors of all items."""
        return users @ vectors.T + self.prior + self.bias

    def loss(self, asked: Asked) -> Float[Tensor, ""]:
        """Softmax over the catalogue on dislikes."""
        vectors = self.items()
        users = self.users(vectors, asked.item, asked.feedback)[asked.row, asked.seen]
        return softmax_loss(self.scores(vectors, users), asked.dislikes)


class TwoTower(SignedScorer):
    """The row ``two-tower``."""

    kind: ClassVar[str] = "two-tower"

    @classmethod
    def build(cls, space: Workspace, settings: TwoTowerConfig) -> TwoTowerNetwork:
        """An untrained network."""
        return TwoTowerNetwork(space.training_log, content_of(space), settings)


def content_of(space: Workspace) -> Float32[Tensor, "items features"]:
    """Shares of an item's categories (each one over their number) and beside them its embedding, where it has any."""
    categories = space.categories
    shares = np.zeros((len(categories.of), len(categories.names)), dtype=np.float32)
    item = np.repeat(np.arange(len(categories.of)), categories.of.lengths)
    shares[item, categories.of.values] = (1 / categories.of.lengths[item]).astype(np.float32)
    said = said_of(space)
    return torch.from_numpy(shares if said is None else np.concatenate([shares, said], axis=1))


def _at(states: Float[Tensor, "B n d"], place: Int64[Tensor, "B T"]) -> Float[Tensor, "B T d"]:
    """States at the given places of each row."""
    return states.gather(1, place[:, :, None].expand(-1, -1, states.shape[2]))
