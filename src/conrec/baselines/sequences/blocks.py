"""The transformer block of the rows over histories, and how their weights start."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

__all__ = ["Block", "initialise"]


class Block(nn.Module):
    """One pre-norm transformer block.

    Args:
        width: d.
        heads: of the attention; must divide ``width``.
        dropout: of attention weights and of both residual branches.
        causal: whether a position sees only itself and those before it.
    """

    def __init__(self, width: int, heads: int, dropout: float, *, causal: bool = True) -> None:
        super().__init__()
        self.heads, self.dropout, self.causal = heads, dropout, causal
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.feed_norm = nn.LayerNorm(width)
        self.feed_in = nn.Linear(width, 4 * width)
        self.feed_out = nn.Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "B T d"], seen: Bool[Tensor, "B T"] | None = None) -> Float[Tensor, "B T d"]:
        """One step of the residual stream.

        Args:
            x: states.
            seen: which positions may be looked at; None: all. A causal block needs none where padding stands behind the
                last event, because attention never looks there.
        """
        batch, length, width = x.shape
        heads = self.query_key_value(self.attention_norm(x)).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        drop = self.dropout if self.training else 0.0
        mask = None if seen is None else seen[:, None, None, :]
        if mask is not None and self.causal:
            raise ValueError("a causal block takes no mask: padding stands behind the last event")
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=self.causal, dropout_p=drop)
        mixed = self.attention_out(mixed.transpose(1, 2).reshape(batch, length, width))
        x = x + F.dropout(mixed, self.dropout, self.training)
        fed = self.feed_out(F.gelu(self.feed_in(self.feed_norm(x))))
        return x + F.dropout(fed, self.dropout, self.training)


def initialise(network: nn.Module) -> None:
    """Normal weights of standard deviation 0.02 for linear maps and embeddings, biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
