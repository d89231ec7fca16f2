"""The transformer blocks of the rows over histories: what they share, the ordinary one, and how weights start."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

__all__ = ["AttentionBlock", "Block", "initialise", "through"]


class AttentionBlock(nn.Module, ABC):
    """Pre-norm attention; a subclass says how its result joins the residual stream and what follows at each position.

    Args:
        width: d.
        heads: of the attention; must divide ``width``.
        dropout: of attention weights, and of what the subclass drops.
        causal: whether a position sees only itself and those before it.
    """

    def __init__(self, width: int, heads: int, dropout: float, *, causal: bool = True) -> None:
        super().__init__()
        self.heads, self.dropout, self.causal = heads, dropout, causal
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)

    @abstractmethod
    def join(self, x: Float[Tensor, "*places d"], mixed: Float[Tensor, "*places d"]) -> Float[Tensor, "*places d"]:
        """The residual stream ``x`` with the attention's result and the feed-forward, each position by itself."""

    def forward(self, x: Float[Tensor, "B T d"], seen: Bool[Tensor, "B T"] | None = None) -> Float[Tensor, "B T d"]:
        """One step of the residual stream.

        Args:
            x: states.
            seen: which positions may be looked at; None: all. A causal block needs none where padding stands behind the
                last event, because attention never looks there.
        """
        if seen is not None and self.causal:
            raise ValueError("a causal block takes no mask: padding stands behind the last event")
        batch, length, width = x.shape
        heads = self.query_key_value(self.attention_norm(x)).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        drop = self.dropout if self.training else 0.0
        mask = None if seen is None else seen[:, None, None, :]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=self.causal, dropout_p=drop)
        return self.join(x, self.attention_out(mixed.transpose(1, 2).reshape(batch, length, width)))

    def at(self, x: Float[Tensor, "B T d"], place: Int64[Tensor, " B"]) -> Float[Tensor, "B d"]:
        """What a causal block's `forward` gives at one position of each row, without computing the others.

        For answering: attention weights are not dropped.
        """
        if not self.causal or self.training:
            raise ValueError("one position alone is computed by causal blocks that are not being trained")
        batch, length, width = x.shape
        rows = torch.arange(batch)
        normed, weight, bias = self.attention_norm(x), self.query_key_value.weight, self.query_key_value.bias
        query = F.linear(normed[rows, place], weight[:width], bias[:width]).view(batch, 1, self.heads, -1)
        seen = F.linear(normed, weight[width:], bias[width:]).view(batch, length, 2, self.heads, -1)
        key, value = seen.permute(2, 0, 3, 1, 4)
        mask = (torch.arange(length) <= place[:, None])[:, None, None, :]
        mixed = F.scaled_dot_product_attention(query.transpose(1, 2), key, value, attn_mask=mask)
        return self.join(x[rows, place], self.attention_out(mixed.reshape(batch, width)))


class Block(AttentionBlock):
    """One pre-norm transformer block: residual branches with dropout, and a GELU feed-forward of width 4 d."""

    def __init__(self, width: int, heads: int, dropout: float, *, causal: bool = True) -> None:
        super().__init__(width, heads, dropout, causal=causal)
        self.feed_norm = nn.LayerNorm(width)
        self.feed_in = nn.Linear(width, 4 * width)
        self.feed_out = nn.Linear(4 * width, width)

    def join(self, x: Float[Tensor, "*places d"], mixed: Float[Tensor, "*places d"]) -> Float[Tensor, "*places d"]:
        """See `AttentionBlock.join`."""
        x = x + F.dropout(mixed, self.dropout, self.training)
        fed = self.feed_out(F.gelu(self.feed_in(self.feed_norm(x))))
        return x + F.dropout(fed, self.dropout, self.training)


def through(
    blocks: Iterable[nn.Module], x: Float[Tensor, "B T d"], place: Int64[Tensor, " B"] | None = None
) -> Float[Tensor, "*places d"]:
    """The states behind a stack of causal blocks.

    Args:
        blocks: each an `AttentionBlock`; one at least.
        x: the states before the first.
        place: one position of each row, the only one that is asked for; None: all.

    Returns:
        [B, T, d]; with ``place`` [B, d].
    """
    stack = list(blocks)
    for block in stack[:-1]:
        x = block(x)
    top = stack[-1]
    assert isinstance(top, AttentionBlock)
    return top(x) if place is None else top.at(x, place)


def initialise(network: nn.Module) -> None:
    """Normal weights of standard deviation 0.02 for linear maps and embeddings, biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
