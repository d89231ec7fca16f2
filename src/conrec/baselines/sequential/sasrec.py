"""SASRec on dislikes: a causal transformer over each user's negatives, trained with the full softmax.

Self-Attentive Sequential Recommendation (Kang and McAuley, ICDM 2018, arXiv 1808.09781), with these departures:

* the loss is the cross-entropy over the whole catalogue at every position, not binary cross-entropy against one
  sampled negative: with the original loss the model is a straw man (Klenitskiy and Vasilev, RecSys 2023,
  arXiv 2309.07602);
* normalisation stands before attention and feed-forward, and the activation is GELU;
* a start token opens each sequence, so that the first dislike is learned as well and a user without any gets a
  prediction: the one that the start token leads to;
* each item has a learned bias beside its (tied) embedding, which starts at the logarithm of its popularity and does not
  decay: popularity then costs no directions of the embedding;
* of events of the same time only the first is a target, see `conrec.baselines.sequences.stretches`;
* scores are computed in double precision, so that a query's answer does not depend on the queries in its batch.
"""

from __future__ import annotations

from typing import ClassVar, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from conrec.baselines.sequences.blocks import Block, initialise, through
from conrec.baselines.sequences.histories import Histories, padded
from conrec.baselines.sequences.learning import learn, seeded, start_at_popularity, validation_fhr
from conrec.baselines.sequences.sampling import catalogue_loss
from conrec.baselines.sequences.scorer import SequenceNetwork, SequenceScorer
from conrec.baselines.sequences.stretches import Stretch, batches_of_dislikes, target_count, target_items
from conrec.protocol import NEGATIVE
from conrec.seeds import generator
from conrec.settings.baselines.base import TransformerSettings
from conrec.workspace import Workspace

__all__ = ["SPACE", "Sasrec", "SasrecNetwork"]

SPACE: dict[str, tuple[float | int, ...]] = {
    "hidden_size": (32, 64, 128),
    "layers": (1, 2),
    "dropout": (0.2, 0.5),
    "weight_decay": (0.1, 1.0),
}
"""The grid that `conrec baselines search` searches."""

_Sasrec = TypeVar("_Sasrec", bound="Sasrec")


class SasrecNetwork(SequenceNetwork):
    """From a sequence of item indices to a score for every item after each position.

    Token ``n_items`` is the start of a sequence; padding may be any token and stands at the end.
    """

    signs = (NEGATIVE,)

    def __init__(self, n_items: int, settings: TransformerSettings) -> None:
        super().__init__()
        self.n_items, self.dropout = n_items, settings.dropout
        self.max_length = settings.max_length - 1  # the start token stands before them
        self.item = nn.Embedding(n_items + 1, settings.hidden_size)
        self.position = nn.Embedding(settings.max_length, settings.hidden_size)
        self.bias = nn.Parameter(torch.zeros(n_items))
        self.blocks = nn.ModuleList(
            Block(settings.hidden_size, settings.heads, settings.dropout) for _ in range(settings.layers)
        )
        self.norm = nn.LayerNorm(settings.hidden_size)
        initialise(self)

    def states(
        self, tokens: Int64[Tensor, "B T"], place: Int64[Tensor, " B"] | None = None
    ) -> Float[Tensor, "*places d"]:
        """The state after each position, [B, T, d]; with ``place`` after that one of each row alone, [B, d]."""
        x = self.item(tokens) + self.position.weight[: tokens.shape[1]]
        x = through(self.blocks, F.dropout(x, self.dropout, self.training), place)
        normed: Tensor = self.norm(x)
        return normed

    @property
    def vectors(self) -> Float[Tensor, "items d"]:
        """The items' embeddings, without the start token's."""
        return self.item.weight[: self.n_items]

    def logits(self, states: Float[Tensor, "rows d"]) -> Float[Tensor, "rows items"]:
        """Score of every item after each state: inner product with its embedding, plus its bias."""
        return states @ self.vectors.T + self.bias

    def answer(self, histories: Histories) -> Float[Tensor, "B items"]:
        """Scores after the last event; after the start token for a user without any."""
        return self.logits(self.states(with_start(histories.item, self.n_items), histories.length))


def with_start(items: Int64[Tensor, "B T"], start: int) -> Int64[Tensor, "B T+1"]:
    """The start token before each row; padding (-1) becomes that token too."""
    opened = F.pad(items, (1, 0), value=start)
    return opened.masked_fill(opened < 0, start)


class Sasrec(SequenceScorer):
    """A fitted SASRec."""

    kind: ClassVar[str] = "sasrec"

    @classmethod
    def build(cls, space: Workspace, settings: TransformerSettings) -> SasrecNetwork:
        """An untrained network."""
        return SasrecNetwork(space.prepared.log.n_items, settings)

    @classmethod
    def fit(cls: type[_Sasrec], space: Workspace, name: str) -> _Sasrec:
        """Train on the negatives of the training period and keep the state with the best validation FHR@20.

        Raises:
            DataError: nobody disliked anything in the training period.
        """
        with seeded(space.seed(name, "weights")):
            return cls.tune(cls.build(space, cls.settings_of(space, name)), space, name)

    @classmethod
    def tune(cls: type[_Sasrec], network: SasrecNetwork, space: Workspace, name: str) -> _Sasrec:
        """Train a network from the weights it has; dropout draws from torch's global generator.

        Raises:
            DataError: nobody disliked anything in the training period.
        """
        settings: TransformerSettings = cls.settings_of(space, name)
        seed, log = space.seed(name), space.training_log
        counts = log.negative_counts()[1]
        loss = catalogue_loss(settings, counts, generator(seed, "negatives"))
        start_at_popularity(network.bias, counts)

        def loss_of(batch: list[Stretch]) -> Float[Tensor, ""]:
            targets = target_items(log, batch)
            inputs = with_start(padded([log.item[one.events[:-1]] for one in batch], -1), network.n_items)
            real = targets >= 0
            return loss(network.states(inputs)[real], network.vectors, network.bias, targets[real])

        best, curve = learn(
            network,
            lambda epoch: batches_of_dislikes(log, settings, seed, epoch),
            loss_of,
            target_count,
            settings,
            lambda state: validation_fhr(cls(state, settings), space),
            name,
        )
        return cls(best, settings, curve)
