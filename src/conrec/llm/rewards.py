"""What a rollout is worth: the reward of Progressive GRPO on rebuilt embeddings, and that of plain hits with ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from conrec.arrays import Array
from conrec.items.trie import Trie

__all__ = ["FutureReward", "HitRankReward", "Reward"]


@runtime_checkable
class Reward(Protocol):
    """What a stage of GRPO asks about its rollouts."""

    def __call__(
        self,
        items: Int64[Tensor, "B G"],
        gts: Sequence[Array],
        fps: Sequence[Array],
        log_probability: Float[Tensor, "B G"] | None = None,
    ) -> Float[Tensor, "B G"]:
        """Reward of each rollout, finite.

        Args:
            items: rollouts; any item where nothing was drawn.
            gts: for each row, what is wanted; not empty.
            fps: for each row, what is not wanted; may be empty.
            log_probability: of each rollout when it was drawn, -inf where nothing was.
        """
        ...


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

    def __call__(
        self,
        items: Int64[Tensor, "B G"],
        gts: Sequence[Array],
        fps: Sequence[Array],
        log_probability: Float[Tensor, "B G"] | None = None,
    ) -> Float[Tensor, "B G"]:
        """Reward of each item.

        Args:
            items: rollouts.
            gts: for each row, future negatives and their Swing neighbours; not empty.
            fps: for each row, future positives; may be empty.
            log_probability: not asked.
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


class HitRankReward:
    """``R = R_rule + R_rank`` of MiniOneRec (arXiv 2510.24431, section on rewards) and ReRe (arXiv 2510.12211).

    With e_t the next item and rho_k the rank of rollout e_k in its group by the policy's probability, from 1::

        R_rule(e_k) = 1 if e_k = e_t else 0
        W(e_k)      = 0 if e_k = e_t else -1 / log(rho_k + 1)
        R_rank(e_k) = -W(e_k) / sum_j W(e_j)

    so that the wrong items of a group share a penalty of 1, and the more probable a wrong item, the larger its part.
    As in the authors' code a group without the next item has no penalties: all its rewards are 0, it teaches nothing.

    Rank is 1 plus the number of rollouts of higher probability; what was drawn twice has one rank. Items are the same
    where their semantic IDs are.

    Args:
        trie: says which items share a semantic ID.
    """

    def __init__(self, trie: Trie) -> None:
        self.trie = trie

    def __call__(
        self,
        items: Int64[Tensor, "B G"],
        gts: Sequence[Array],
        fps: Sequence[Array],
        log_probability: Float[Tensor, "B G"] | None = None,
    ) -> Float[Tensor, "B G"]:
        """Reward of each item.

        Args:
            items: rollouts.
            gts: for each row, the next item alone.
            fps: not asked.
            log_probability: of each rollout, -inf where nothing was drawn. Without it there are no ranks, and the
                reward is R_rule.
        """
        wanted = torch.tensor([int(row[0]) for row in gts], dtype=torch.int64, device=items.device)
        hit = self.trie.first_of(items) == self.trie.first_of(wanted)[:, None]
        if log_probability is None:
            return hit.float()
        drawn = ~log_probability.isneginf()
        hit &= drawn
        rank = 1 + (log_probability[:, None, :] > log_probability[:, :, None]).sum(-1)
        part = (1 / (rank + 1).log()).masked_fill(hit | ~drawn, 0.0)
        penalty = part / part.sum(1, keepdim=True).clamp(min=SMALLEST)
        return hit.float() - penalty.masked_fill(~hit.any(1, keepdim=True), 0.0)


SMALLEST = 1e-12
"""No division by less."""
