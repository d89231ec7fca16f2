"""The objective of group relative policy optimisation: what a group of rollouts says about each of them.

For every context G items are drawn from the policy. An item's advantage is its reward less the mean of its group;
the policy raises the log-probability of its codes in proportion, within a clipped ratio, and is held back by KL.
Three variants, by `conrec.config.GrpoConfig.loss`:

* ``grpo`` (DeepSeekMath, arXiv 2402.03300, eq. 3, as CoNRec has it in Stage 3): the advantage is divided by the group's
  standard deviation; the ratio is clipped on both sides alike; mean over the codes of a rollout, then over rollouts.
* ``dr_grpo`` (arXiv 2503.20783): no division by the standard deviation, and a constant instead of a rollout's length
  under the sum over codes.
* ``dapo`` (arXiv 2503.14476, eq. 8): `clip_high` above 1, one mean over all codes of all rollouts, and groups of one
  reward are no part of the average. The paper draws new prompts in their place; here the average is over fewer.

Every completion has the same number of codes T, three or four, so that the mean over a rollout's codes, the mean over
all codes and the sum over a constant of T are one and the same: ``dr_grpo`` differs from ``grpo`` in the standard
deviation alone, and ``dapo`` in the upper bound and in flat groups alone; with one update a rollout the ratio is 1, no
bound acts, and ``dapo`` differs in flat groups alone. Both papers drop KL; here its weight is the stage's in any
variant.

Departures from the formulas, each for a reason:

* the standard deviation is floored, because a dense reward of low spread would explode;
* groups without spread (`flat`) have no advantages;
* rollouts may be weighted, for those drawn without replacement, see `judge`;
* probabilities are renormalised over the allowed codes in rollout, policy and reference alike;
* items of the user's history are not allowed in a rollout, because they are not eligible at prediction.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from conrec.config import GrpoConfig

__all__ = ["Judgement", "grpo_loss", "judge"]

SMALLEST = 1e-8
"""No division by less."""
ROUNDING = 8
"""A spread of at most so many units of rounding of the rewards is none, whatever `flat` allows."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the rewards of B groups say.

    Attributes:
        share: float64 [B, G], what each rollout counts for in its group, from 0 to 1; rows sum to 1, or to 0 where
            nothing was drawn.
        advantage: float64 [B, G].
        mean: float64 [B], of the group's rewards; 0 where nothing was drawn, as is all below.
        spread: float64 [B], their standard deviation.
        flat: bool [B], groups whose spread says nothing.
        drawn: bool [B], groups that hold a rollout at all; one without eligible items holds none.
        counted: bool [B], groups that are part of the average over contexts.
    """

    share: Tensor
    advantage: Tensor
    mean: Tensor
    spread: Tensor
    flat: Tensor
    drawn: Tensor
    counted: Tensor


def judge(rewards: Float[Tensor, "B G"], weight: Float[Tensor, "B G"], config: GrpoConfig) -> Judgement:
    """Advantages: ``A_i = (r_i - mean) / max(std, std_floor)``, undivided in ``dr_grpo``, 0 in flat groups.

    Mean, standard deviation and loss weigh rollout i by ``w_i / sum w``. For independent draws every weight is 1. For
    draws without replacement ``w_i = p_i / q_i``, the policy's probability over the probability of being drawn (Kool et
    al., Buy 4 REINFORCE Samples, Get a Baseline for Free!, 2019; arXiv 2002.06043). Dividing by the sum leaves a
    bias: the gradient is a ratio of two estimates and its baseline holds the rollout itself, so that it differs from
    that of the expected reward by O(1/G) (for independent draws it is (G - 1)/G of it). The bias is gone when all
    items are drawn: then ``q_i = 1``, and the sums are the exact expectations.

    All is computed in float64, because the mean of equal float32 numbers may differ from them, and a floor of 0 would
    make full advantages of that. Rewards that differ by no more than their own rounding are flat for the same reason.

    Args:
        rewards: of each rollout, in the dtype in which they were computed; any finite value where the weight is 0.
        weight: not negative; 0 marks rollouts that were not drawn. A row of nothing else is not counted.
        config: ``loss``, ``std_floor`` and ``flat``.
    """
    rounding = ROUNDING * torch.finfo(rewards.dtype).eps
    absent = weight == 0
    rewards, weight = rewards.double().masked_fill(absent, 0.0), weight.double()
    total = weight.sum(1, keepdim=True)
    drawn = total[:, 0] > 0
    share = weight / total.masked_fill(total == 0, 1.0)
    mean = (share * rewards).sum(1)
    centred = (rewards - mean[:, None]).masked_fill(absent, 0.0)
    spread = (share * centred.square()).sum(1).sqrt()
    level = spread <= rounding * (share * rewards.abs()).sum(1)
    flat = drawn & (level | (spread < config.flat))
    scale = 1.0 if config.loss == "dr_grpo" else spread.clamp(min=max(config.std_floor, SMALLEST))[:, None]
    advantage = (centred / scale).masked_fill(flat[:, None], 0.0)
    counted = drawn & ~flat if config.loss == "dapo" else drawn
    return Judgement(share, advantage, mean, spread, flat, drawn, counted)


def grpo_loss(
    policy: Float[Tensor, "B G levels"],
    rollout: Float[Tensor, "B G levels"],
    reference: Float[Tensor, "B G levels"],
    judgement: Judgement,
    config: GrpoConfig,
    kl_weight: float,
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """The clipped objective with KL of each context, as a loss; every code of a rollout is one token.

    ``- sum_i share_i 1/T sum_t ( min(ratio A_i, clip(ratio, 1 - low, 1 + high) A_i) - beta KL )`` with
    ``ratio = exp(policy - rollout)`` and ``KL = exp(reference - policy) - (reference - policy) - 1``, an estimate of
    KL(policy || reference) per code that is never negative. The loss of a step is the sum over its contexts divided by
    the number of those that are ``counted``; contexts that are not have loss 0. Nothing else binds two contexts, so
    that a step can be cut into micro-batches and over processes at will.

    What the estimate is, and is not. For independent draws from the policy it is without bias; for draws without
    replacement it is self-normalised as the rest is, see `judge`. Its gradient is not that of KL(policy || reference):
    the draws do not move with the weights, and what remains is, in the mean over draws, the gradient of the other
    direction, KL(reference || policy) of the next code after the prefixes that the policy draws. Both are 0 where the
    models agree, and equal to first order near there. That is the term as the paper has it.

    Args:
        policy: log-probabilities with gradient.
        rollout: log-probabilities when the rollouts were drawn.
        reference: log-probabilities of the reference model.
        judgement: advantages and shares; what a rollout without a share holds is never looked at.
        config: ``loss``, ``clip`` and ``clip_high``.
        kl_weight: beta.

    Returns:
        The loss of each context, float64, and its KL without gradient.
    """
    missing = (judgement.share == 0)[..., None]
    policy, rollout, reference = (one.masked_fill(missing, 0.0) for one in (policy, rollout, reference))
    high = config.clip_high if config.loss == "dapo" else config.clip
    advantage = judgement.advantage[..., None]
    ratio = (policy - rollout).exp()
    surrogate = (ratio * advantage).minimum(ratio.clamp(1 - config.clip, 1 + high) * advantage)
    difference = reference - policy
    divergence = torch.expm1(difference) - difference  # exp(x) - x - 1 would round below 0
    loss = -(judgement.share * (surrogate - kl_weight * divergence).mean(-1)).sum(1)
    kl = (judgement.share * divergence.detach().mean(-1)).sum(1)
    return loss.masked_fill(~judgement.counted, 0.0), kl
