"""Negatives that are drawn from the catalogue, and losses that use them instead of all of it.

Negatives are drawn once a batch and shared by its positions (as in Jean et al., ACL 2015): one matrix product instead
of a gather of positions times negatives. A drawn item that is a position's own target does not count there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from conrec.arrays import Array
from conrec.baselines.sequences.losses import full_softmax, gbce, gbce_beta, sampled_softmax
from conrec.settings.baselines.base import TrainingSettings
from conrec.settings.baselines.sequential import GbceSettings, SampledSoftmaxSettings

__all__ = ["CatalogueLoss", "Proposal", "candidate_scores", "catalogue_loss"]

CatalogueLoss = Callable[
    [Float[Tensor, "rows d"], Float[Tensor, "items d"], Float[Tensor, " items"], Int64[Tensor, " rows"]],
    Float[Tensor, ""],
]
"""Summed loss of states, given the items' vectors and biases and the target of each state."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What negatives are drawn from.

    Attributes:
        probability: float64 [items], sums to 1.
    """

    probability: Array

    @classmethod
    def mixed(cls, counts: Array, popular: float) -> Proposal:
        """A share ``popular`` by how often items are targets, the rest uniformly over the catalogue.

        Mixed negative sampling (Yang et al., WWW 2020) takes uniform draws beside the targets of the other positions of
        a batch, which follow the targets' frequency. Here that frequency is the one of the whole training period, so
        that the probability of each draw is known exactly.

        Args:
            counts: targets of each item in the training period, [items].
            popular: between 0 and 1.
        """
        uniform = np.full(len(counts), 1.0 / len(counts))
        return cls(uniform if popular == 0 else popular * (counts / max(1, counts.sum())) + (1.0 - popular) * uniform)

    def draw(self, size: int, random: np.random.Generator) -> Int64[Tensor, " drawn"]:
        """``size`` items with replacement."""
        ends = np.cumsum(self.probability)
        drawn = np.searchsorted(ends, random.random(size) * ends[-1], side="right")
        return torch.from_numpy(drawn.astype(np.int64))

    def log(self, items: Int64[Tensor, " drawn"]) -> Float64[Tensor, " drawn"]:
        """Log-probability of items."""
        return torch.from_numpy(np.log(self.probability[items.numpy()]))


def candidate_scores(
    states: Float[Tensor, "rows d"],
    vectors: Float[Tensor, "items d"],
    bias: Float[Tensor, " items"],
    targets: Int64[Tensor, " rows"],
    drawn: Int64[Tensor, " drawn"],
) -> tuple[Float[Tensor, " rows"], Float[Tensor, "rows drawn"]]:
    """Scores of each row's target, and of the drawn items; -inf where a drawn item is the row's target."""
    positive = (states * vectors[targets]).sum(dim=1) + bias[targets]
    negative = states @ vectors[drawn].T + bias[drawn]
    return positive, negative.masked_fill(drawn == targets[:, None], -torch.inf)


def catalogue_loss(settings: TrainingSettings, counts: Array, random: np.random.Generator) -> CatalogueLoss:
    """The loss that a row's settings ask for; the full softmax where they ask for no sampling.

    Args:
        settings: of the row.
        counts: targets of each item in the training period, int [items].
        random: draws the negatives, anew for each batch.
    """
    if isinstance(settings, SampledSoftmaxSettings):
        proposal, size, corrected = Proposal.mixed(counts, settings.popular), settings.negatives, settings.log_q

        def sampled(
            states: Float[Tensor, "rows d"],
            vectors: Float[Tensor, "items d"],
            bias: Float[Tensor, " items"],
            targets: Int64[Tensor, " rows"],
        ) -> Float[Tensor, ""]:
            drawn = proposal.draw(size, random)
            positive, negative = candidate_scores(states, vectors, bias, targets, drawn)
            return sampled_softmax(positive, negative, proposal.log(drawn) if corrected else None)

        return sampled
    if isinstance(settings, GbceSettings):
        uniform, many = Proposal.mixed(counts, 0.0), settings.negatives
        beta = gbce_beta(settings.negatives, len(counts), settings.calibration)
        # The log-odds at which the loss of an average item is stationary. Scores are counted from there: ranks do not
        # change, and neither hundreds of epochs nor a fight against weight decay are spent on getting all biases there.
        usual = math.log(beta / many)

        def generalised(
            states: Float[Tensor, "rows d"],
            vectors: Float[Tensor, "items d"],
            bias: Float[Tensor, " items"],
            targets: Int64[Tensor, " rows"],
        ) -> Float[Tensor, ""]:
            positive, negative = candidate_scores(states, vectors, bias, targets, uniform.draw(many, random))
            return gbce(positive + usual, negative + usual, beta)

        return generalised

    def full(
        states: Float[Tensor, "rows d"],
        vectors: Float[Tensor, "items d"],
        bias: Float[Tensor, " items"],
        targets: Int64[Tensor, " rows"],
    ) -> Float[Tensor, ""]:
        return full_softmax(states @ vectors.T + bias, targets)

    return full
