"""Chance by counter: the numbers that a request draws depend on its own seed alone, not on who stands beside it."""

from __future__ import annotations

from jaxtyping import Float, Int64
from torch import Tensor

__all__ = ["gumbel", "uniform"]

# Constants of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), as signed numbers.
_STEP = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)
_BITS = 52
"""Random bits of a number; with half a step added, every number lies strictly between 0 and 1."""


def uniform(seeds: Int64[Tensor, " B"], stream: int, counter: Int64[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
    """Numbers in (0, 1).

    Args:
        seeds: one for each row.
        stream: number of the purpose; different streams of a seed are independent.
        counter: which numbers of the stream, from 0.

    Returns:
        float64, the same for a seed, stream and counter whatever else is asked for, on every device.
    """
    start = _mixed(_mixed(seeds) + _signed(_STEP * (stream + 1)))
    bits = (_mixed(start.view(-1, *[1] * (counter.ndim - 1)) + _STEP * (counter + 1)) >> (64 - _BITS)) & (
        (1 << _BITS) - 1
    )
    return (bits.double() + 0.5) * 2.0**-_BITS


def gumbel(seeds: Int64[Tensor, " B"], stream: int, counter: Int64[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
    """Standard Gumbel noise, float64; see `uniform`."""
    return -(-uniform(seeds, stream, counter).log()).log()


def _signed(number: int) -> int:
    """A number modulo 2^64, as int64 holds it."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def _mixed(state: Int64[Tensor, "*n"]) -> Int64[Tensor, "*n"]:
    """The output function of SplitMix64; multiplication wraps around."""
    state = (state ^ _shifted(state, 30)) * _FIRST
    state = (state ^ _shifted(state, 27)) * _SECOND
    return state ^ _shifted(state, 31)


def _shifted(state: Int64[Tensor, "*n"], by: int) -> Int64[Tensor, "*n"]:
    """Shift to the right that fills up with zeros, as on unsigned numbers."""
    return (state >> by) & ((1 << (64 - by)) - 1)
