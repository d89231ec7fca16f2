"""SASRec over events of both signs: each event is its item plus its sign, and likes are pushed down.

Self-Attentive Sequential Recommendation (Kang and McAuley, ICDM 2018) with the departures of
`conrec.baselines.sequential.sasrec` (full softmax, pre-norm blocks, start token, item bias, double precision when it
answers), and these:

* all events are read, with a learned embedding of their sign (-1, 0, +1) added to that of their item;
* it is asked at the training anchors for all dislikes of their windows, from what came strictly before, or after every
  event for the next dislike (`conrec.baselines.signed.lessons`), not at each event for the event after it;
* the likes of the same time are pushed down, by the unlikelihood of Wang et al. (RecSys 2023, arXiv 2308.12256: their
  loss on dislikes, with the signs turned round) or by BPR between dislikes and likes;
* scores start from the logarithm of each item's number of dislikes, to which its bias is added;
* the start token stands before the latest events of a long history too, so that a stretch from the middle of a
  history looks as a long one does when it is asked.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from conrec.baselines.sequences.blocks import Block, initialise
from conrec.baselines.signed.lessons import Asked
from conrec.baselines.signed.losses import OPPOSITE, softmax_loss
from conrec.baselines.signed.scorer import SignedNetwork, SignedScorer
from conrec.logs.log import Log
from conrec.settings.baselines.signed import SignedSasrecConfig
from conrec.workspace import Workspace

__all__ = ["SPACE", "SignedSasrec", "SignedSasrecNetwork"]

SPACE: dict[str, tuple[float | int | str, ...]] = {
    "opposite_weight": (0.0, 0.1, 0.5),
    "targets": ("windows", "anchors", "next"),
    "dropout": (0.2, 0.5),
}
"""The grid that `conrec baselines search` searches."""


class SignedSasrecNetwork(SignedNetwork):
    """From events with signs to a score for every item after each of them; token ``n_items`` is the start."""

    def __init__(self, log: Log, settings: SignedSasrecConfig) -> None:
        super().__init__(log, settings.max_length)
        self.settings = settings
        self.item = nn.Embedding(self.n_items + 1, settings.hidden_size)
        self.sign = nn.Embedding(3, settings.hidden_size)
        self.position = nn.Embedding(settings.max_length + 1, settings.hidden_size)
        self.blocks = nn.ModuleList(
            Block(settings.hidden_size, settings.heads, settings.dropout) for _ in range(settings.layers)
        )
        self.norm = nn.LayerNorm(settings.hidden_size)
        initialise(self)

    def states(self, item: Int64[Tensor, "B T"], feedback: Int64[Tensor, "B T"]) -> Float[Tensor, "B T+1 d"]:
        """The state after the start token, and after each event."""
        x: Tensor = self.item(F.pad(item.clamp(min=0), (1, 0), value=self.n_items))
        x = x + F.pad(self.sign(feedback + 1), (0, 0, 1, 0)) + self.position.weight[: x.shape[1]]
        x = F.dropout(x, self.settings.dropout, self.training)
        for block in self.blocks:
            x = block(x)
        normed: Tensor = self.norm(x)
        return normed

    def logits(self, states: Float[Tensor, "rows d"]) -> Float[Tensor, "rows items"]:
        """Inner product of each state with each item's embedding, plus the item's popularity and bias."""
        return states @ self.item.weight[: self.n_items].T + self.prior + self.bias

    def loss(self, asked: Asked) -> Float[Tensor, ""]:
        """Softmax over the catalogue on dislikes, plus the weighted loss on likes."""
        logits = self.logits(self.states(asked.item, asked.feedback)[asked.row, asked.seen])
        loss = softmax_loss(logits, asked.dislikes)
        if self.settings.opposite_weight:
            opposite = OPPOSITE[self.settings.opposite](logits, asked.dislikes, asked.likes)
            loss = loss + self.settings.opposite_weight * opposite
        return loss


class SignedSasrec(SignedScorer):
    """The row ``sasrec-signed``."""

    kind: ClassVar[str] = "signed SASRec"

    @classmethod
    def build(cls, space: Workspace, settings: SignedSasrecConfig) -> SignedSasrecNetwork:
        """An untrained network."""
        return SignedSasrecNetwork(space.training_log, settings)
