"""How many codes a level has. No torch needed."""

from __future__ import annotations

import math

from conrec.config import RqVaeConfig
from conrec.errors import ConfigError

__all__ = ["LARGEST_CODEBOOK", "codebook_size_for", "larger_codebook", "resolve_codebook_size"]

LARGEST_CODEBOOK = 8192
"""Codes per level of the paper; no codebook that is sized here has more."""


def codebook_size_for(n_items: int) -> int:
    """Codes per level for so many items: the power of two at or above the square root, from 16 to 8192."""
    return min(max(1 << (math.isqrt(max(n_items, 1) - 1)).bit_length(), 16), LARGEST_CODEBOOK)


def resolve_codebook_size(config: RqVaeConfig, n_rows: int) -> int:
    """Codes per level: as configured, else by `codebook_size_for`, lowered to what ``n_rows`` rows can start.

    Args:
        config: the section.
        n_rows: rows that are trained on, the items of the training period.

    Raises:
        ConfigError: the configured size exceeds ``n_rows``.
    """
    if config.codebook_size is None:
        return min(codebook_size_for(n_rows), 1 << (n_rows.bit_length() - 1))
    if config.codebook_size > n_rows:
        raise ConfigError(
            f"{config.codebook_size} codes a level for {n_rows} items of the training period",
            where="rqvae.codebook_size",
            expected=f"at most {n_rows}, since the k-means start needs one item a code",
            mend="Lower it, or leave it out: it then follows the number of those items.",
        )
    return config.codebook_size


def larger_codebook(size: int, n_rows: int) -> int | None:
    """Twice as many codes per level, or None where ``n_rows`` rows cannot start them or 8192 is exceeded."""
    return 2 * size if 2 * size <= min(n_rows, LARGEST_CODEBOOK) else None
