"""Catalogues of made-up semantic IDs, clustered as trained codebooks give them or uniform, and histories to block."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["draw_blocked", "draw_codes"]

FIRST, DEEPER = 0.4, 1.0
"""Exponents of the code frequencies (rank to the power of minus this): the most frequent first code has 2 to 4 per
cent of the items, and a prefix of two codes 1.3 to 2 items, as in RQ-VAE codes of MovieLens-100K and MovieTweetings."""


def draw_codes(n: int, codebook_size: int, seed: int, *, clustered: bool = True) -> Tensor:
    """Distinct semantic IDs.

    Args:
        n: items.
        codebook_size: codes per level.
        seed: of the draw.
        clustered: whether some codes are frequent, and others follow a prefix rarely.

    Returns:
        int64 [n, 3], rows in random order.
    """
    chance = np.random.default_rng(seed)
    size = codebook_size
    exponents = (FIRST, DEEPER, DEEPER) if clustered else (0.0, 0.0, 0.0)
    bounds = [np.cumsum(np.arange(1, size + 1) ** -exponent) for exponent in exponents]
    keys = np.zeros(0, dtype=np.int64)
    while len(keys) < n:
        missing = n - len(keys)
        drawn = chance.random((int(1.3 * missing) + 64, 3))
        one, two, three = (
            np.searchsorted(bound, drawn[:, level] * bound[-1], side="right") for level, bound in enumerate(bounds)
        )
        # Which codes are frequent differs from prefix to prefix.
        two = (two + one * 7919) % size
        three = (three + two * 104_729 + one * 31) % size
        keys = np.unique(np.concatenate([keys, (one * size + two) * size + three]))
    keys = chance.permutation(keys)[:n]
    return torch.from_numpy(np.stack([keys // size**2, keys // size % size, keys % size], axis=1))


def draw_blocked(rows: int, items: int, blocked: int) -> Tensor:
    """Items that each request must not return, as a user's history is: int64 [rows, blocked], distinct in a row."""
    chance = torch.Generator().manual_seed(11)
    return torch.stack([torch.randperm(items, generator=chance)[:blocked] for _ in range(rows)])
