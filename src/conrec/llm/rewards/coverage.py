"""A reward for the set: what each rollout adds to its group's coverage of what the user will dislike.

A reward of single rollouts is largest where all of them are the one best item, and so the top 20 narrows. Here every
group is a set S too, worth how well it covers GTS, and a rollout is paid what would be lost without it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from conrec.arrays import Array
from conrec.llm.rewards.protocol import Reward
from conrec.llm.rewards.similarity import Similarity, padded

__all__ = ["CoverageReward", "coverage_gain"]


class CoverageReward:
    """``r(o) + weight * gain(o)``, see `coverage_gain`.

    Args:
        reward: r.
        similarity: ``sim`` of the coverage.
        weight: of the gain, above 0.
    """

    def __init__(self, reward: Reward, similarity: Similarity, weight: float) -> None:
        self.reward = reward
        self.similarity = similarity
        self.weight = weight

    def __call__(
        self,
        items: Int64[Tensor, "B G"],
        gts: Sequence[Array],
        fps: Sequence[Array],
        log_probability: Float[Tensor, "B G"] | None = None,
    ) -> Float[Tensor, "B G"]:
        """Reward of each rollout in its group.

        Args:
            items: rollouts; any item where nothing was drawn.
            gts: for each row, what is to be covered; not empty.
            fps: for each row, what r asks for.
            log_probability: -inf where nothing was drawn; what was not drawn covers nothing and gains nothing.
        """
        gain = coverage_gain(self.similarity, items, gts, log_probability)
        return self.reward(items, gts, fps, log_probability) + self.weight * gain


def coverage_gain(
    similarity: Similarity,
    items: Int64[Tensor, "B G"],
    gts: Sequence[Array],
    log_probability: Float[Tensor, "B G"] | None = None,
) -> Float[Tensor, "B G"]:
    """What each rollout adds to the coverage of GTS by the rest of its group: ``F(S) - F(S without o)``.

    F is the facility location ``F(S) = mean over i in GTS of max(0, max_{o in S} sim(o, i))``, S the rollouts that were
    drawn; the 0 makes the empty set worth 0 and gains non-negative (F is monotone and submodular). Only the one rollout
    that is strictly nearest to a target gains by it, namely its lead over the second, so that what was drawn
    twice gains nothing: both could be left out, each alone.

    Leave-one-out and no Shapley share, because for independent draws it is the gradient of the expected coverage:
    F(S without o) does not hang on o, so that ``sum_o grad log p(o) (F(S) - F(S without o))`` has the expectation
    ``grad E[F(S)]``. A Shapley share would still pay for the tenth copy of an item.

    Returns:
        Gains, at least 0, at most 1 for plain cosines; 0 where nothing was drawn. O(B G |GTS| d) for the similarities.
    """
    targets = padded(gts, items.device)
    near = similarity.to_all(items, targets).clamp(min=0)
    # Copies of an item must tie to the last bit, which a product of matrices does not promise.
    copy_of = (items[:, :, None] == items[:, None, :]).int().argmax(-1)
    near = near.gather(1, copy_of.unsqueeze(-1).expand_as(near))
    if log_probability is not None:
        near = near.masked_fill(log_probability.isneginf().unsqueeze(-1), 0.0)
    # A rollout of similarity 0 to everything, so that a group of one has a second.
    best = torch.cat([near, torch.zeros_like(near[:, :1])], dim=1).topk(2, dim=1).values
    lead = (near - best[:, 1:]).clamp(min=0)
    return lead.sum(-1) / (targets >= 0).sum(-1, keepdim=True).clamp(min=1)
