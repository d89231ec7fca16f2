"""The reward of Progressive GRPO, on embeddings rebuilt from the codebooks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from conrec.arrays import Array

__all__ = ["FutureReward"]


class FutureReward:
    """``r(o) = max_{i in GTS} sim(o, i) - gamma * max_{t in FPS} sim(o, t)`` (CoNRec, Stage 3, the reward).

    ``sim`` is the cosine of the rebuilt embeddings. Where FPS is empty there is no penalty.

    Args:
        rebuilt: float [items, d], unit rows.
        penalty: gamma.
    """

    def __init__(self, rebuilt: Float[Tensor, "items d"], penalty: float) -> None:
        self.rebuilt = rebuilt
        self.penalty = penalty

    def __call__(self, items: Int64[Tensor, "B G"], gts: Sequence[Array], fps: Sequence[Array]) -> Float[Tensor, "B G"]:
        """Reward of each item.

        Args:
            items: rollouts.
            gts: for each row, future negatives and their Swing neighbours; not empty.
            fps: for each row, future positives; may be empty.
        """
        reward = self.nearest(items, gts)
        if self.penalty:
            liked = self.nearest(items, fps)
            reward = reward - self.penalty * liked.masked_fill(liked.isinf(), 0.0)
        return reward

    def nearest(self, items: Int64[Tensor, "B G"], targets: Sequence[Array]) -> Float[Tensor, "B G"]:
        """Largest similarity of each item to its row's targets, -inf where a row has none."""
        width = max([len(row) for row in targets] + [1])
        padded = torch.full((len(targets), width), -1, dtype=torch.long)
        for row, target in enumerate(targets):
            padded[row, : len(target)] = torch.as_tensor(target, dtype=torch.long)
        padded = padded.to(items.device)
        similarity = self.rebuilt[items] @ self.rebuilt[padded.clamp(min=0)].transpose(1, 2)
        return similarity.masked_fill((padded < 0)[:, None], -torch.inf).amax(-1)
