"""Parts of the two-tower row: events taken apart by sign, attention from one sign to another, items with content."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from conrec.baselines.sequences.blocks import Block

__all__ = ["FromElsewhere", "ItemTower", "SignTower", "of_sign"]


def of_sign(
    item: Int64[Tensor, "B T"], feedback: Int64[Tensor, "B T"], sign: int
) -> tuple[Int64[Tensor, "B n"], Int64[Tensor, "B n"], Int64[Tensor, "B T+1"]]:
    """The events of one sign on their own.

    Args:
        item: -1 where padded.
        feedback: -1, 0 or +1.
        sign: that is wanted.

    Returns:
        Their items in order, -1 behind the last; where each stood among all events; and how many there are among the
        first 0, 1, …, T events.

    >>> [one.tolist() for one in of_sign(torch.tensor([[4, 5, 6]]), torch.tensor([[1, -1, 1]]), 1)]
    [[[4, 6]], [[0, 2]], [[0, 1, 1, 2]]]
    """
    wanted = (feedback == sign) & (item >= 0)
    count = F.pad(wanted.long().cumsum(dim=1), (1, 0))
    longest = int(count[:, -1].max()) if len(item) else 0
    order = torch.argsort((~wanted).long(), dim=1, stable=True)[:, :longest]
    there = torch.arange(longest) < count[:, -1:]
    return item.gather(1, order).masked_fill(~there, -1), order, count


class SignTower(nn.Module):
    """A causal transformer over the events of one sign.

    Args:
        width: d.
        layers: blocks.
        heads: of the attention.
        max_length: events of all signs at most.
        dropout: of the input and the blocks.
    """

    def __init__(self, width: int, layers: int, heads: int, max_length: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.start = nn.Parameter(torch.randn(width) * 0.02)
        self.position = nn.Embedding(max_length, width)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, items: Float[Tensor, "B n d"], place: Int64[Tensor, "B n"]) -> Float[Tensor, "B n+1 d"]:
        """The state before the first event of the sign, and after each one.

        Args:
            items: vectors of the events' items; padding stands behind the last.
            place: of each event among those of all signs, so that towers can tell whose last event is the later one.
        """
        x = torch.cat([self.start.expand(len(items), 1, -1), items + self.position(place)], dim=1)
        x = F.dropout(x, self.dropout, self.training)
        for block in self.blocks:
            x = block(x)
        normed: Tensor = self.norm(x)
        return normed


class FromElsewhere(nn.Module):
    """Attention from the state of one sign to the events of another (the external interaction of DFN).

    Args:
        width: d.
        heads: of the attention.
        dropout: of its weights.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        asking: Float[Tensor, "B Q d"],
        events: Float[Tensor, "B n d"],
        known: Bool[Tensor, "B Q n"],
    ) -> Float[Tensor, "B Q d"]:
        """What each asking state finds among the events that are known to it, at least one."""
        batch, asked, width = asking.shape
        query = self.query(asking).view(batch, asked, self.heads, -1).transpose(1, 2)
        key, value = self.key_value(events).view(batch, -1, 2, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        drop = self.dropout if self.training else 0.0
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=known[:, None], dropout_p=drop)
        mixed: Tensor = self.out(found.transpose(1, 2).reshape(batch, asked, width))
        return mixed


class ItemTower(nn.Module):
    """Item vectors: a learned one of each item, plus a linear map of its content.

    Args:
        content: float32 [items, features], no features where nothing is known of items; not saved with the network.
        width: d.
    """

    content: Tensor

    def __init__(self, content: Float[Tensor, "items features"], width: int) -> None:
        super().__init__()
        self.item = nn.Embedding(len(content), width)
        self.project = nn.Linear(content.shape[1], width, bias=False) if content.shape[1] else None
        self.register_buffer("content", content, persistent=False)
        self._answering: Tensor | None = None

    def forward(self) -> Float[Tensor, "items d"]:
        """The vector of every item; those of a network that answers are kept."""
        if self._answering is not None:
            return self._answering
        vectors: Tensor = self.item.weight
        if self.project is not None:
            vectors = vectors + self.project(self.content)
        if not self.training:
            self._answering = vectors
        return vectors
