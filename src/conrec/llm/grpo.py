"""Group relative policy optimisation on the token tree.

For every prompt G items are drawn from the policy. Their advantage is the reward less the group's mean,
divided by the group's standard deviation (CoNRec, Stage 3; GRPO of DeepSeekMath, arXiv 2402.03300, eq. 3).
Departures from the formula, each for a reason:

* the standard deviation is floored (a dense reward of low spread would explode), and groups without
  spread carry no gradient;
* probabilities are renormalised over the allowed codes in rollout, policy and reference alike;
* items of the user's history are not allowed in a rollout, because they are not eligible at prediction.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

__all__ = ["advantages", "grpo_loss"]


def advantages(rewards: Float[Tensor, "B G"], std_floor: float, flat: float) -> Float[Tensor, "B G"]:
    """``A_i = (r_i - mean r) / max(std r, std_floor)``; 0 in groups whose std is below ``flat``."""
    centred = rewards - rewards.mean(1, keepdim=True)
    spread = rewards.std(1, keepdim=True, correction=0)
    return (centred / spread.clamp(min=max(std_floor, 1e-8))).masked_fill(spread < flat, 0.0)


def grpo_loss(
    policy: Float[Tensor, "B G 3"],
    rollout: Float[Tensor, "B G 3"],
    reference: Float[Tensor, "B G 3"],
    advantage: Float[Tensor, "B G"],
    clip: float,
    kl_weight: float,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The clipped objective with KL, as a loss; every code of a rollout is one token.

    ``- mean( min(ratio A, clip(ratio, 1 - eps, 1 + eps) A) - beta KL )`` with
    ``ratio = exp(policy - rollout)`` and ``KL = exp(reference - policy) - (reference - policy) - 1``,
    the unbiased, never negative estimate.

    Args:
        policy: log-probabilities with gradient.
        rollout: log-probabilities when the rollouts were drawn.
        reference: log-probabilities of the reference model.
        advantage: one per rollout.
        clip: epsilon.
        kl_weight: beta.

    Returns:
        The loss and the mean KL.
    """
    ratio = (policy - rollout).exp()
    weight = advantage[..., None]
    surrogate = (ratio * weight).minimum(ratio.clamp(1 - clip, 1 + clip) * weight)
    difference = reference - policy
    kl = difference.exp() - difference - 1
    return -(surrogate - kl_weight * kl).mean(), kl.mean().detach()
