"""Losses of next-item prediction over a catalogue.

All are sums over rows, in nats; what they are divided by is the business of the training loop.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

__all__ = ["full_softmax", "gbce", "gbce_beta", "sampled_softmax"]


def full_softmax(logits: Float[Tensor, "rows items"], targets: Int64[Tensor, " rows"]) -> Float[Tensor, ""]:
    """Sum over rows of the cross-entropy against the whole catalogue."""
    return F.cross_entropy(logits, targets, reduction="sum")


def sampled_softmax(
    positive: Float[Tensor, " rows"],
    negative: Float[Tensor, "rows drawn"],
    log_probability: Float[Tensor, " drawn"] | None,
) -> Float[Tensor, ""]:
    """Sum over rows of the cross-entropy of the target among itself and the drawn items.

    With ``log_probability`` the partition function is estimated without bias, by the logQ correction:
    ``Z = exp(s+) + 1/n * sum_j exp(s_j) / q_j``. The target's own score stays as it is, since it is always in the sum
    and never drawn: the gradient then has the factor ``1 - P(target)`` that the original correction lacks (Khrylchenko
    et al., RecSys 2025, arXiv 2507.09331). As the draws grow in number, it becomes the full softmax.

    Args:
        positive: scores of the targets.
        negative: scores of the n drawn items, -inf where one does not count.
        log_probability: log q of each drawn item; None: no correction, and items that are drawn often are pushed down.
    """
    if log_probability is not None:
        negative = negative - log_probability.to(negative.dtype) - math.log(negative.shape[1])
    return (torch.logsumexp(torch.cat([positive[:, None], negative], dim=1), dim=1) - positive).sum()


def gbce_beta(negatives: int, items: int, calibration: float) -> float:
    """The power of the target's probability in `gbce`.

    gSASRec (Petrov and Macdonald, RecSys 2023, arXiv 2308.07192): with the sampling rate
    ``alpha = negatives / (items - 1)``, at most 1, it is ``alpha * (t * (1 - 1 / alpha) + 1 / alpha)``.

    Args:
        negatives: drawn for a target.
        items: of the catalogue.
        calibration: t; at 0 the loss is the plain binary cross-entropy, at 1 probabilities are those of the data.

    >>> gbce_beta(256, 257, 0.75), gbce_beta(10, 1001, 0.0)
    (1.0, 1.0)
    >>> round(gbce_beta(10, 1001, 1.0), 6)
    0.01
    """
    alpha = min(1.0, negatives / max(1, items - 1))
    return alpha * (calibration * (1.0 - 1.0 / alpha) + 1.0 / alpha)


def gbce(positive: Float[Tensor, " rows"], negative: Float[Tensor, "rows drawn"], beta: float) -> Float[Tensor, ""]:
    """Sum over rows of the generalised binary cross-entropy.

    gSASRec (arXiv 2308.07192): ``-1 / (n + 1) * (log(sigmoid(s+) ** beta) + sum_j log(1 - sigmoid(s_j)))``.

    Args:
        positive: scores of the targets.
        negative: scores of the drawn items, -inf where one does not count; n is how many do, row by row.
        beta: see `gbce_beta`.
    """
    count = torch.isfinite(negative).sum(dim=1) + 1
    return ((beta * F.softplus(-positive) + F.softplus(negative).sum(dim=1)) / count).sum()
