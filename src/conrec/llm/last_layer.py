"""The last layer of a prompt, computed where it is read.

Of what the decoder's last layer says about a prompt only the last token is read: it predicts the first code. The other
tokens are needed in that layer for their keys and values alone. So its feed-forward block and its output projection,
most of the layer's work, are given the last token and nothing else; the result, and its gradient, are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor, nn

__all__ = ["reading_only"]


@contextmanager
def reading_only(decoder: nn.Module, last: Int64[Tensor, " B"], length: int) -> Iterator[None]:
    """Within the block, the decoder's last hidden states are right at one position of each row, meaningless elsewhere.

    Args:
        decoder: of a causal LM. Where its last layer is not built as Llama, Qwen and SmolLM have it (``mlp.down_proj``
            and ``self_attn.o_proj``), nothing is spared and all positions are right.
        last: that position.
        length: tokens of a row in the block's passes.
    """
    row = torch.arange(len(last), device=last.device)

    def shrink(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return (given[0][row, last][:, None], *given[1:])

    def spread(_: nn.Module, given: tuple[Any, ...], found: Tensor) -> Tensor:
        return found.new_zeros(len(last), length, found.shape[-1]).index_put((row, last), found[:, 0])

    hooks = []
    for block in _blocks(decoder):
        hooks += [block.register_forward_pre_hook(shrink), block.register_forward_hook(spread)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _blocks(decoder: nn.Module) -> list[nn.Module]:
    """What of the last layer works on each position by itself and is only added to the residual stream."""
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList) or not len(layers):
        return []
    mlp, attention = getattr(layers[-1], "mlp", None), getattr(layers[-1], "self_attn", None)
    projection = getattr(attention, "o_proj", None)
    found = [mlp if hasattr(mlp, "down_proj") else None, projection]
    return [one for one in found if isinstance(one, nn.Module)]
