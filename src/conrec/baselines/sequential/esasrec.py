"""eSASRec on dislikes: SASRec's shifted sequences through LiGR layers, with a sampled softmax and mixed negatives.

eSASRec: Enhancing Transformer-based Recommendations in a Modular Fashion (Tikhonovich et al., RecSys 2025,
arXiv 2508.06450); its layers are those of LiGR (Borisyuk et al., arXiv 2502.03417): pre-norm branches, each let into
the residual stream through a learned gate, and SwiGLU. Departures:

* the share of negatives that follows the items' popularity is drawn from the frequency of the training period, not from
  the batch, and their probability is accounted for (logQ correction), see `conrec.baselines.sequences.sampling`;
* a start token, a bias for each item, a layer norm behind the stack and scores in double precision, as in
  `conrec.baselines.sequential.sasrec`.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from conrec.baselines.sequences.blocks import AttentionBlock, initialise
from conrec.baselines.sequential.sasrec import Sasrec, SasrecNetwork
from conrec.settings.baselines.base import TransformerSettings
from conrec.workspace import Workspace

__all__ = ["SPACE", "ESasrec", "ESasrecNetwork", "LigrBlock"]

SPACE: dict[str, tuple[float | int, ...]] = {
    "hidden_size": (32, 64, 128),
    "layers": (1, 2),
    "dropout": (0.2, 0.5),
    "popular": (0.0, 0.5),
    "weight_decay": (0.1, 1.0),
}
"""The grid that `conrec baselines search` searches."""


class LigrBlock(AttentionBlock):
    """One causal LiGR layer: ``x + sigmoid(W x) * attention(norm(x))``, and the same with a SwiGLU feed-forward."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__(width, heads, dropout)
        self.attention_gate = nn.Linear(width, width)
        self.feed_norm = nn.LayerNorm(width)
        self.feed_in = nn.Linear(width, 8 * width, bias=False)
        self.feed_out = nn.Linear(4 * width, width, bias=False)
        self.feed_gate = nn.Linear(width, width)

    def join(self, x: Float[Tensor, "*places d"], mixed: Float[Tensor, "*places d"]) -> Float[Tensor, "*places d"]:
        """See `AttentionBlock.join`; both branches pass a gate."""
        x = x + torch.sigmoid(self.attention_gate(x)) * F.dropout(mixed, self.dropout, self.training)
        gate, fed = self.feed_in(self.feed_norm(x)).chunk(2, dim=-1)
        fed = self.feed_out(F.dropout(F.silu(gate) * fed, self.dropout, self.training))
        return x + torch.sigmoid(self.feed_gate(x)) * F.dropout(fed, self.dropout, self.training)


class ESasrecNetwork(SasrecNetwork):
    """SASRec's network with LiGR layers."""

    def __init__(self, n_items: int, settings: TransformerSettings) -> None:
        super().__init__(n_items, settings)
        self.blocks = nn.ModuleList(
            LigrBlock(settings.hidden_size, settings.heads, settings.dropout) for _ in range(settings.layers)
        )
        initialise(self)


class ESasrec(Sasrec):
    """A fitted eSASRec."""

    kind: ClassVar[str] = "esasrec"

    @classmethod
    def build(cls, space: Workspace, settings: TransformerSettings) -> ESasrecNetwork:
        """An untrained network."""
        return ESasrecNetwork(space.prepared.log.n_items, settings)
