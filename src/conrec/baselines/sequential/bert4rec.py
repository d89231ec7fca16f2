"""BERT4Rec on dislikes: a bidirectional transformer that fills in masked items, asked for one behind the last.

BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from Transformer (Sun et al., CIKM 2019,
arXiv 1904.06690), trained until validation stops improving, which takes many more epochs than SASRec's: with the
original code's schedule it is a straw man (Petrov and Macdonald, RecSys 2022, arXiv 2207.07483). Departures:

* a sequence is masked at random in one share of its showings; in the rest it is cut behind a random item, and only that
  last one is masked, as at prediction. The original does the latter with the whole sequence alone, so that most items
  are never asked for as they will be;
* positions are counted from the end, so that the mask at prediction always stands where it stood in training;
* normalisation stands before attention and feed-forward, and masked items are read off by an inner product with their
  embeddings and a bias, without a further hidden layer;
* a start token, and scores in double precision, as in `conrec.baselines.sequential.sasrec`.
"""

from __future__ import annotations

from typing import ClassVar, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from conrec.arrays import Array
from conrec.baselines.sequences.blocks import Block, initialise
from conrec.baselines.sequences.histories import Histories, padded
from conrec.baselines.sequences.learning import learn, seeded, start_at_popularity, validation_fhr
from conrec.baselines.sequences.losses import full_softmax
from conrec.baselines.sequences.scorer import SequenceNetwork, SequenceScorer
from conrec.baselines.sequences.stretches import batches_by_length, stretches_of
from conrec.logs.log import Log
from conrec.protocol import NEGATIVE
from conrec.seeds import generator
from conrec.settings.baselines.base import TransformerSettings
from conrec.settings.baselines.sequential import Bert4RecConfig
from conrec.workspace import Workspace

__all__ = ["SPACE", "Bert4Rec", "Bert4RecNetwork", "Masked", "masked", "showings_of"]

SPACE: dict[str, tuple[float | int, ...]] = {
    "hidden_size": (32, 64, 128),
    "layers": (1, 2),
    "dropout": (0.2, 0.5),
    "mask_share": (0.2, 0.5),
    "showings": (1, 8),
    "weight_decay": (0.1, 1.0),
}
"""The grid that `conrec baselines search` searches."""
_Bert4Rec = TypeVar("_Bert4Rec", bound="Bert4Rec")


class Bert4RecNetwork(SequenceNetwork):
    """From items, some of them masked, to a score for every item at each position.

    Token ``n_items`` is the start of a sequence, ``n_items + 1`` the mask.
    """

    signs = (NEGATIVE,)

    def __init__(self, n_items: int, settings: TransformerSettings) -> None:
        super().__init__()
        self.n_items, self.dropout = n_items, settings.dropout
        self.max_length = settings.max_length - 2  # between the start token and the mask
        self.item = nn.Embedding(n_items + 2, settings.hidden_size)
        self.position = nn.Embedding(settings.max_length, settings.hidden_size)
        self.bias = nn.Parameter(torch.zeros(n_items))
        self.blocks = nn.ModuleList(
            Block(settings.hidden_size, settings.heads, settings.dropout, causal=False) for _ in range(settings.layers)
        )
        self.norm = nn.LayerNorm(settings.hidden_size)
        initialise(self)

    def states(self, tokens: Int64[Tensor, "B T"], length: Int64[Tensor, " B"]) -> Float[Tensor, "B T d"]:
        """The state of each position; ``length`` tokens of a row are there, what is behind them may be any token."""
        place = torch.arange(tokens.shape[1])
        seen = place < length[:, None]
        from_end = (length[:, None] - 1 - place).clamp(min=0)
        x = F.dropout(self.item(tokens) + self.position(from_end), self.dropout, self.training)
        for block in self.blocks:
            x = block(x, seen)
        normed: Tensor = self.norm(x)
        return normed

    def logits(self, states: Float[Tensor, "rows d"]) -> Float[Tensor, "rows items"]:
        """Score of every item for each state: inner product with its embedding, plus its bias."""
        return states @ self.item.weight[: self.n_items].T + self.bias

    def answer(self, histories: Histories) -> Float[Tensor, "B items"]:
        """Scores of a mask behind the last event."""
        start, mask, rows = self.n_items, self.n_items + 1, torch.arange(len(histories.length))
        tokens = F.pad(histories.item, (1, 1), value=start)
        tokens = tokens.masked_fill(tokens < 0, start)
        tokens[rows, histories.length + 1] = mask
        return self.logits(self.states(tokens, histories.length + 2)[rows, histories.length + 1])


class Masked:
    """A sequence to be filled in.

    Attributes:
        tokens: int64 [T], start token first, masks among them.
        targets: int64 [T], the item under each mask, -1 elsewhere.
    """

    __slots__ = ("targets", "tokens")

    def __init__(self, tokens: Array, targets: Array) -> None:
        self.tokens, self.targets = tokens, targets

    def __len__(self) -> int:
        return len(self.tokens)


def masked(
    items: Array, target: Array, n_items: int, last_share: float, mask_share: float, random: np.random.Generator
) -> Masked:
    """One showing of a stretch of items.

    Args:
        items: int [n], at least one.
        target: bool [n], which of them may stand last and be asked for; where none may, items are masked at random.
        n_items: size of the catalogue; it is the start token, and one more is the mask.
        last_share: how often the stretch is cut behind a random target and that item alone is masked.
        mask_share: probability of a mask for each item otherwise; one at least is masked.
        random: draws.
    """
    if random.random() < last_share and target.any():
        items = items[: random.choice(np.flatnonzero(target)) + 1]
        hidden = np.arange(len(items)) == len(items) - 1
    else:
        hidden = random.random(len(items)) < mask_share
        if not hidden.any():
            hidden[random.integers(len(items))] = True
    tokens, targets = np.where(hidden, n_items + 1, items), np.where(hidden, items, -1)
    return Masked(np.r_[n_items, tokens], np.r_[-1, targets])


def showings_of(log: Log, settings: Bert4RecConfig, seed: int, epoch: int) -> list[Masked]:
    """All that an epoch shows: each stretch of the log's dislikes as often as ``settings.showings`` says, masked anew.

    Raises:
        DataError: nobody disliked anything.
    """
    random = generator(seed, "masks", epoch)
    stretches = stretches_of(log, settings.max_length - 1, (NEGATIVE,), generator(seed, "ties", epoch))
    return [
        masked(log.item[one.events], one.target, log.n_items, settings.last_share, settings.mask_share, random)
        for _ in range(settings.showings)
        for one in stretches
    ]


class Bert4Rec(SequenceScorer):
    """A fitted BERT4Rec."""

    kind: ClassVar[str] = "bert4rec"

    @classmethod
    def build(cls, space: Workspace, settings: TransformerSettings) -> Bert4RecNetwork:
        """An untrained network."""
        return Bert4RecNetwork(space.prepared.log.n_items, settings)

    @classmethod
    def fit(cls: type[_Bert4Rec], space: Workspace, name: str) -> _Bert4Rec:
        """Train on the negatives of the training period and keep the state with the best validation FHR@20.

        Raises:
            DataError: nobody disliked anything in the training period.
        """
        settings: Bert4RecConfig = cls.settings_of(space, name)
        seed, log = space.seed(name), space.training_log

        def batches(epoch: int) -> list[list[Masked]]:
            order = generator(seed, "order", epoch)
            return batches_by_length(showings_of(log, settings, seed, epoch), settings.batch_size, order)

        with seeded(space.seed(name, "weights")):
            network = cls.build(space, settings)
            start_at_popularity(network.bias, log.negative_counts()[1])

            def loss_of(batch: list[Masked]) -> Float[Tensor, ""]:
                tokens, targets = padded([one.tokens for one in batch], 0), padded([one.targets for one in batch], -1)
                states = network.states(tokens, torch.tensor([len(one) for one in batch]))
                asked = targets >= 0
                return full_softmax(network.logits(states[asked]), targets[asked])

            best, curve = learn(
                network,
                batches,
                loss_of,
                lambda batch: sum(int((one.targets >= 0).sum()) for one in batch),
                settings,
                lambda state: validation_fhr(cls(state, settings), space),
                name,
            )
        return cls(best, settings, curve)
