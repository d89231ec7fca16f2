"""Seeds derived per purpose (and user), so that neither order nor sharding changes a result."""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["derive", "generator"]


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed that depends on ``seed`` and on every part of ``purpose``, and on nothing else."""
    text = "\x1f".join([str(seed), *(f"{type(part).__name__}:{part}" for part in purpose)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """A NumPy generator for one purpose; see `derive`."""
    return np.random.default_rng(derive(seed, *purpose))
