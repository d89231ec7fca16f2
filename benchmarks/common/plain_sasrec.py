"""SASRec as one writes it with `torch.nn`: a padded row for every prefix of a history, its last state scores the items.

Of each interaction of the training log the row holds the events before it, the latest `length` of them, padded behind
their ends: that is how RecBole and most textbook code make their samples. The first interaction of a user has nothing
before it and is no sample.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from conrec.logs.log import Log

__all__ = ["PlainSasrec"]


class _Network(nn.Module):
    """Item and position embeddings, `nn.TransformerEncoder`, scores by the tied item embedding; item 0 is padding."""

    def __init__(self, n_items: int, width: int, layers: int, heads: int, length: int, dropout: float) -> None:
        super().__init__()
        self.item = nn.Embedding(n_items + 1, width, padding_idx=0)
        self.position = nn.Embedding(length, width)
        self.dropout = nn.Dropout(dropout)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length))

    def forward(self, rows: Tensor, ends: Tensor) -> Tensor:
        """Scores of all items, float [B, 1 + items], from rows int64 [B, length] and the place of their last events."""
        x = self.dropout(self.item(rows) + self.position.weight)
        x = self.encoder(x, mask=self.mask, is_causal=True)
        return x[torch.arange(len(rows)), ends] @ self.item.weight.T


class PlainSasrec:
    """Rows, network and optimiser.

    Args:
        training: the log to learn from.
        whole: the log whose last event of each user is asked for.
        width, layers, heads, length, dropout: of the network.
        batch: rows in a step.
    """

    def __init__(
        self, training: Log, whole: Log, width: int, layers: int, heads: int, length: int, dropout: float, batch: int
    ) -> None:
        self.batch = batch
        events = [training.item[training.events_of(user)] for user in range(training.n_users)]
        self.rows, self.ends = _padded([own[:end][-length:] for own in events for end in range(1, len(own))], length)
        self.targets = torch.from_numpy(np.concatenate([own[1:] for own in events]).astype(np.int64)) + 1
        last = [whole.item[whole.events_of(user)][:-1][-length:] for user in range(whole.n_users)]
        self.asked = _padded(last, length)
        torch.manual_seed(0)
        self.network = _Network(training.n_items, width, layers, heads, length, dropout)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3)

    def epoch(self) -> None:
        """One pass over all rows in a random order."""
        self.network.train()
        for chosen in torch.randperm(len(self.rows)).split(self.batch):
            logits = self.network(self.rows[chosen], self.ends[chosen])
            self.optimizer.zero_grad()
            nn.functional.cross_entropy(logits, self.targets[chosen]).backward()
            self.optimizer.step()

    @torch.no_grad()
    def score(self) -> Tensor:
        """The 20 best items of every user, int64 [users, 20]."""
        self.network.eval()
        scores = self.network(*self.asked)
        scores[:, 0] = -torch.inf
        return torch.topk(scores, 20).indices - 1


def _padded(rows: list[np.ndarray], length: int) -> tuple[Tensor, Tensor]:
    """Item numbers from 1, padded with 0 behind the ends, int64 [rows, length], and the place of each last event."""
    result = np.zeros((len(rows), length), dtype=np.int64)
    for place, row in enumerate(rows):
        result[place, : len(row)] = row + 1
    return torch.from_numpy(result), torch.tensor([len(row) - 1 for row in rows])
