"""What both compiled questions share: how they are compiled, the scale of the rows, a product of two."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from conrec.arrays import Array

try:
    from numba import njit
except ImportError:  # the extra `serve` brings it; without it NumPy gives the same answers
    COMPILED = False
else:
    COMPILED = True

__all__ = ["COMPILED", "SCALE", "compiled", "product"]

SCALE = 32_000
"""A feature of 1 as a whole number; a little below what 16 bits hold, for lengths are rounded up."""


def compiled(function: Any) -> Any:
    """A function compiled by numba when it is first called, and kept beside its file for the next process if may be."""
    # contract: a product and a sum may become one instruction; the screens have room for that, the full rows are whole
    # numbers. nnan: no row holds NaN.
    plain = inspect.unwrap(function)  # without the checks of types that tests wrap around every function
    if not COMPILED:
        return plain
    try:
        return njit(nogil=True, cache=True, fastmath={"contract", "nnan"})(plain)
    except RuntimeError:  # nowhere to keep what was compiled: a read-only system without a home
        return njit(nogil=True, fastmath={"contract", "nnan"})(plain)


@compiled
def product(left: Array, right: Array, features: int) -> np.int32:
    """Dot product of the first features of two rows; no partial sum passes 2^31 (Cauchy and Schwarz)."""
    total = np.int32(0)
    for feature in range(features):
        total = np.int32(total + np.int32(np.int32(left[feature]) * np.int32(right[feature])))
    return total
