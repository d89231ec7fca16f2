"""Similarity to what the user will dislike, less that to what he will like: rewards (a) to (d) of CoNRec's Table 4."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from conrec.arrays import Array
from conrec.llm.rewards.similarity import Similarity

__all__ = ["FutureReward"]


class FutureReward:
    """``r(o) = max_{i in GTS} sim(o, i) - gamma * max_{t in FPS} sim(o, t)`` (CoNRec, Stage 3, the reward).

    That is (c) of Table 4; with gamma = 0 it is (a). Where FPS is empty there is no penalty. With a cut-off each of the
    two largest similarities counts as it is where it exceeds the cut-off and as 0 elsewhere, the penalty's too: (b)
    where gamma is 0, (d) elsewhere. (The paper does not say what stands below; 0 is what "only where" leaves.)

    Where ``sim`` is corrected for hubs, so are both parts, and the cut-off is compared with the corrected one: r(o)
    then loses ``(1 - gamma) m(o)``, since with gamma = 1 a hub gains nothing in the first place.

    Args:
        similarity: ``sim``.
        penalty: gamma.
        cutoff: what a similarity must exceed to count, at least 0; None: every one counts.
    """

    def __init__(self, similarity: Similarity, penalty: float, cutoff: float | None = None) -> None:
        self.similarity = similarity
        self.penalty = penalty
        self.cutoff = cutoff

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
        reward = self._cut(self.similarity.nearest(items, gts))
        if self.penalty:
            liked = self.similarity.nearest(items, fps)
            reward = reward - self.penalty * self._cut(liked.masked_fill(liked.isinf(), 0.0))
        return reward

    def _cut(self, nearest: Float[Tensor, "B G"]) -> Float[Tensor, "B G"]:
        # The largest of the similarities that count is the largest one, if that counts.
        return nearest if self.cutoff is None else torch.where(nearest > self.cutoff, nearest, 0.0)
