"""Hits: rewards that ask which semantic ID a rollout is, (e) of CoNRec's Table 4 and that of MiniOneRec."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from conrec.arrays import Array
from conrec.items.semantic_ids import LEVELS
from conrec.items.trie import Trie
from conrec.llm.rewards.similarity import padded

__all__ = ["HitRankReward", "PrefixReward"]


class PrefixReward:
    """Codes in common with the nearest of GTS: 1 for three, 0.1 for two, 0.01 for one, else 0 (CoNRec, Table 4, (e)).

    Codes count from the first one on, as the model says them: the resolved ones, so that an item that was moved to a
    free code has no hit by the code that it left. The paper's semantic IDs have three levels. A fourth, which tells
    colliding items apart, is not asked: whoever gets the three right has 1, as those items have one embedding in the
    other rewards. FPS are not asked either.

    Args:
        trie: the semantic IDs.
    """

    def __init__(self, trie: Trie) -> None:
        self.codes = trie.codes[:, :LEVELS]

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
            gts: for each row, what is wanted.
            fps: not asked.
            log_probability: not asked.
        """
        targets = padded(gts, items.device)
        equal = self.codes[items][:, :, None] == self.codes[targets.clamp(min=0)][:, None]
        common = equal.int().cumprod(-1).sum(-1).masked_fill((targets < 0)[:, None], 0).amax(-1)
        return torch.tensor(WORTH, device=items.device)[common]


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

WORTH = (0.0, 0.01, 0.1, 1.0)
"""Of so many codes in common."""
