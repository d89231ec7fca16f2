"""How much noise an RQ-VAE should learn under: as much as plain codebooks overfit."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from conrec.config import RqVaeConfig
from conrec.items.quantisers.assignment import best_path
from conrec.items.quantisers.residual_kmeans import residual_centres

__all__ = ["LARGEST_NOISE", "PER_GAP", "noise_for", "overfit"]

PER_GAP = 10.0
"""Noise by gap. With the bound below it gives 1.5 on 810 board games and 1,513 films, 0.45 on 11,349 films and 0.1 on
40,000 made-up rows, each near the best of those tried by the error on rows held out (docs/log.md)."""
LARGEST_NOISE = 1.5
_HELD_OUT = 0.1


def noise_for(x: Float[Tensor, "n d"], config: RqVaeConfig, generator: torch.Generator) -> float:
    """Standard deviation of the training noise for these rows, in that of an average feature."""
    return min(LARGEST_NOISE, PER_GAP * overfit(x, config, generator))


def overfit(x: Float[Tensor, "n d"], config: RqVaeConfig, generator: torch.Generator) -> float:
    """By how much residual k-means rebuilds rows worse that it was not fitted on, as a share of their variance.

    A tenth of the rows is held out; infinite where the others are too few to start the codebooks.

    Args:
        x: standardised rows.
        config: with the codebook size resolved.
        generator: source of the draw and of the k-means, on the CPU.
    """
    assert config.codebook_size is not None
    order = torch.randperm(len(x), generator=generator).to(x.device)
    held = int(_HELD_OUT * len(x))
    if not held or len(x) - held < config.codebook_size:
        return float("inf")
    centres, _ = residual_centres(x[order[held:]], config, generator)
    errors = []
    for rows in (order[:held], order[held:]):
        error, length = 0.0, 0.0
        for part in x[rows].split(65_536):
            codes = best_path(part, centres, config.beam)
            left = part - torch.stack([centre[own] for centre, own in zip(centres, codes.T, strict=True)]).sum(0)
            error += float(left.square().sum())
            length += float(part.square().sum())
        errors.append(error / max(length, 1e-12))
    return max(0.0, errors[0] - errors[1])
