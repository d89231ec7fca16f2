"""Residual k-means: each level's codewords are the k-means centres of what the levels before left over.

The plain alternative to the RQ-VAE: no network, no gradient, minutes instead of hours on millions of items.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from conrec.config import RqVaeConfig
from conrec.items.quantisers.assignment import best_path
from conrec.items.quantisers.base import Quantiser
from conrec.items.quantisers.kmeans import kmeans
from conrec.progress import meter

__all__ = ["ResidualKmeans", "residual_centres"]


class ResidualKmeans(Quantiser):
    """Codewords in the space of the standardised embeddings themselves."""

    def __init__(self, dim: int, config: RqVaeConfig) -> None:
        super().__init__(dim, dim, config)

    def to_latent(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return x

    def from_latent(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return z

    def fit(self, x: Float[Tensor, "n d"], generator: torch.Generator) -> None:
        """Find the codewords of standardised rows."""
        centres, _ = residual_centres(x, self.config, generator)
        self.codebooks.copy_(centres)


def residual_centres(
    points: Float[Tensor, "n latent"], config: RqVaeConfig, generator: torch.Generator
) -> tuple[Float[Tensor, "levels codebook latent"], Float[Tensor, "levels codebook"]]:
    """K-means of each level on what the best paths through the levels before leave over.

    Returns:
        Centres of each level, and how many points had them when they were found.
    """
    assert config.codebook_size is not None
    books: list[Tensor] = []
    counts: list[Tensor] = []
    residual = points
    with meter("k-means of the codebooks", config.levels) as step:
        for level in range(config.levels):
            centres, count = kmeans(residual, config.codebook_size, generator)
            books.append(centres)
            counts.append(count)
            if level < config.levels - 1:
                codes = best_path(points, torch.stack(books), config.beam)
                residual = points.clone()
                for book, own in zip(books, codes.T, strict=True):
                    residual -= book[own]
            step()
    return torch.stack(books), torch.stack(counts)
