"""HSTU on dislikes: pointwise SiLU attention with time and position biases, and gating instead of a feed-forward.

Actions Speak Louder than Words: Trillion-Parameter Sequential Transducers for Generative Recommendations (Zhai et al.,
ICML 2024, arXiv 2402.17152), its variant for next-item prediction over one sequence of items, with these departures:

* the loss is the full softmax with inner products and a bias for each item; the original's sampled softmax over
  normalised vectors spares a catalogue of millions, and there is none here;
* the time bias counts, as in the original code, from an event to the moment of the item that is to be predicted; at
  prediction that moment is the query's time;
* a start token opens each sequence, for users without dislikes; it has a time bucket of its own;
* attention is divided by the longest history that the network reads, whatever the padding of a batch, and scores are
  computed in double precision: answers do not depend on the batch;
* a layer norm closes the stack.
"""

from __future__ import annotations

from typing import ClassVar, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from conrec.baselines.sequences.blocks import initialise
from conrec.baselines.sequences.histories import Histories, padded
from conrec.baselines.sequences.learning import learn, seeded, start_at_popularity, validation_fhr
from conrec.baselines.sequences.losses import full_softmax
from conrec.baselines.sequences.scorer import SequenceNetwork, SequenceScorer
from conrec.baselines.sequences.stretches import Stretch, batches_of_dislikes, target_count, target_items
from conrec.baselines.sequential.sasrec import with_start
from conrec.protocol import NEGATIVE
from conrec.settings.baselines.base import TransformerSettings
from conrec.settings.baselines.sequential import HstuConfig
from conrec.workspace import Workspace

__all__ = ["SPACE", "Hstu", "HstuLayer", "HstuNetwork", "time_buckets"]

SPACE: dict[str, tuple[float | int, ...]] = {
    "hidden_size": (32, 64, 128),
    "layers": (1, 2, 4),
    "dropout": (0.2, 0.5),
    "weight_decay": (0.1, 1.0),
}
"""The grid that `conrec baselines search` searches."""
_Hstu = TypeVar("_Hstu", bound="Hstu")
BUCKETS = 80
"""Time buckets; the last one begins at 900 years, beyond the gaps of any log (64 of them end at seven years)."""
BUCKET_WIDTH = 0.301
"""Of a bucket, in natural logarithms of seconds (the original code's)."""
EPSILON = 1e-6
"""Of layer norms without weights; attention is divided by the length, so that its values are small."""


class HstuLayer(nn.Module):
    """One sequential transduction unit (equations 1 to 3 of the paper).

    Args:
        width: d.
        heads: of the attention; must divide ``width``.
        length: most positions of a sequence.
        dropout: of the gated values.
    """

    def __init__(self, width: int, heads: int, length: int, dropout: float) -> None:
        super().__init__()
        self.width, self.heads, self.length, self.dropout = width, heads, length, dropout
        self.mix = nn.Linear(width, 4 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.position_bias = nn.Embedding(length, 1)
        self.time_bias = nn.Embedding(BUCKETS + 1, 1)

    def forward(self, x: Float[Tensor, "B T d"], buckets: Int64[Tensor, "B T T"]) -> Float[Tensor, "B T d"]:
        """One step of the residual stream.

        Args:
            x: states; padding stands behind the last event, where nobody looks.
            buckets: see `time_buckets`.
        """
        batch, length, width = x.shape
        normed = F.layer_norm(x, (width,), eps=EPSILON)
        gate, value, query, key = F.silu(self.mix(normed)).chunk(4, dim=-1)
        split = (batch, length, self.heads, width // self.heads)
        scores = torch.einsum("bnhc,bmhc->bhnm", query.reshape(split), key.reshape(split))
        back = torch.arange(length)[:, None] - torch.arange(length)
        bias = self.position_bias(back.clamp(min=0)).squeeze(-1) + self.time_bias(buckets).squeeze(-1)
        weights = F.silu(scores + bias[:, None]) / self.length * (back >= 0)
        pooled = torch.einsum("bhnm,bmhc->bnhc", weights, value.reshape(split)).reshape(batch, length, width)
        gated = gate * F.layer_norm(pooled, (width,), eps=EPSILON)
        mixed: Tensor = self.out(F.dropout(gated, self.dropout, self.training))
        return x + mixed


def time_buckets(happened: Int64[Tensor, "B T"], asked: Int64[Tensor, "B T+1"]) -> Int64[Tensor, "B T+1 T+1"]:
    """Bucket of the time from each event to each question: ``floor(ln(max(1, seconds)) / 0.301)``.

    Args:
        happened: when each event was, without the start token.
        asked: when the item after each position was, or is, asked for; the first position is the start token.

    Returns:
        [question, event]; the start token, as an event, has the last bucket. What lies behind a question counts as
        no time at all; it is masked.
    """
    seconds = (asked[:, :, None] - happened[:, None, :]).clamp(min=1)
    found = (torch.log(seconds.double()) / BUCKET_WIDTH).long().clamp(max=BUCKETS - 1)
    return F.pad(found, (1, 0), value=BUCKETS)


class HstuNetwork(SequenceNetwork):
    """From items and times to a score for every item after each position; token ``n_items`` is the start."""

    signs = (NEGATIVE,)

    def __init__(self, n_items: int, settings: TransformerSettings) -> None:
        super().__init__()
        self.n_items, self.dropout = n_items, settings.dropout
        self.max_length = settings.max_length - 1  # the start token stands before them
        self.item = nn.Embedding(n_items + 1, settings.hidden_size)
        self.position = nn.Embedding(settings.max_length, settings.hidden_size)
        self.bias = nn.Parameter(torch.zeros(n_items))
        self.layers = nn.ModuleList(
            HstuLayer(settings.hidden_size, settings.heads, settings.max_length, settings.dropout)
            for _ in range(settings.layers)
        )
        self.norm = nn.LayerNorm(settings.hidden_size)
        initialise(self)

    def states(
        self, items: Int64[Tensor, "B T"], happened: Int64[Tensor, "B T"], asked: Int64[Tensor, "B T+1"]
    ) -> Float[Tensor, "B T+1 d"]:
        """The state after the start token and after each event.

        Args:
            items: of the events, -1 where padded.
            happened: when they were.
            asked: when the item after the start token and after each event was asked for.
        """
        tokens = with_start(items, self.n_items)
        x = self.item(tokens) + self.position.weight[: tokens.shape[1]]
        x = F.dropout(x, self.dropout, self.training)
        buckets = time_buckets(happened, asked)
        for layer in self.layers:
            x = layer(x, buckets)
        normed: Tensor = self.norm(x)
        return normed

    def logits(self, states: Float[Tensor, "rows d"]) -> Float[Tensor, "rows items"]:
        """Score of every item after each state: inner product with its embedding, plus its bias."""
        return states @ self.item.weight[: self.n_items].T + self.bias

    def answer(self, histories: Histories) -> Float[Tensor, "B items"]:
        """Scores at the time of the question, after the last event."""
        rows, last = torch.arange(len(histories.length)), histories.length
        asked = F.pad(histories.timestamp, (0, 1))
        asked[rows, last] = histories.asked
        return self.logits(self.states(histories.item, histories.timestamp, asked)[rows, last])


class Hstu(SequenceScorer):
    """A fitted HSTU."""

    kind: ClassVar[str] = "hstu"

    @classmethod
    def build(cls, space: Workspace, settings: TransformerSettings) -> HstuNetwork:
        """An untrained network."""
        return HstuNetwork(space.prepared.log.n_items, settings)

    @classmethod
    def fit(cls: type[_Hstu], space: Workspace, name: str) -> _Hstu:
        """Train on the negatives of the training period and keep the state with the best validation FHR@20.

        Raises:
            DataError: nobody disliked anything in the training period.
        """
        settings: HstuConfig = cls.settings_of(space, name)
        seed, log = space.seed(name), space.training_log

        with seeded(space.seed(name, "weights")):
            network = cls.build(space, settings)
            start_at_popularity(network.bias, log.negative_counts()[1])

            def loss_of(batch: list[Stretch]) -> Float[Tensor, ""]:
                items = padded([log.item[one.events] for one in batch], -1)
                times = padded([log.timestamp[one.events] for one in batch], 0)
                targets = target_items(log, batch)
                real = targets >= 0
                states = network.states(items[:, :-1], times[:, :-1], times)
                return full_softmax(network.logits(states[real]), targets[real])

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
