"""The nearest codeword that is free, exact and fast: one matrix product for many points, doubts settled one by one.

Distances of a block of points to all codewords come from one float32 product. It decides wherever its rounding cannot
matter; the few codes that it leaves in doubt are compared by the sum of squared differences in float64. So the answers
are those of that sum alone, to the bit, whatever machine makes the product.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Float32, Float64, Int

from conrec.arrays import Array

__all__ = ["NearestCodes", "squared_distances"]

BLOCK = 512
"""Points of one product."""
UNIT = 2.0**-24
"""Largest relative error of rounding to float32."""


class NearestCodes:
    """Nearest codewords of one codebook.

    Args:
        codebook: codewords, float64.
    """

    def __init__(self, codebook: Float64[Array, "codes latent"]) -> None:
        self.codebook = codebook
        self.wide = codebook.astype(np.float32)
        self.square = (codebook**2).sum(axis=1).astype(np.float32)
        self.longest = float(np.sqrt((codebook**2).sum(axis=1).max(initial=0)))

    def blocks(self, points: Float64[Array, "n latent"]) -> Iterator[tuple[slice, Float32[Array, "b codes"]]]:
        """Rows of points, and what orders the codes by their distance to each: see `rows`."""
        for begin in range(0, len(points), BLOCK):
            some = slice(begin, begin + BLOCK)
            yield some, self.rows(points[some])

    def rows(self, points: Float64[Array, "b latent"]) -> Float32[Array, "b codes"]:
        """Squared distances less the square of the point, rounded; `slack` says how far."""
        product: Array = points.astype(np.float32) @ self.wide.T
        product *= -2
        product += self.square
        return product

    def slack(self, lengths: Float64[Array, "*n"]) -> Float64[Array, "*n"]:
        """Two codes whose values in a row differ by more are in this order; from the lengths of the points.

        The bound of a dot product of n terms (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1),
        for both of them, with the rounding of what is multiplied and added.
        """
        terms = self.codebook.shape[1] + 8
        return np.asarray(4 * terms * UNIT * (self.longest**2 + 2 * lengths * self.longest))

    def nearest(
        self, point: Float64[Array, " latent"], row: Float32[Array, " codes"], slack: float, gone: Int[Array, " gone"]
    ) -> int:
        """The nearest code that is not among ``gone``; ties go to the lower code.

        Args:
            point: as it is.
            row: its row, in which the codes that are gone are overwritten.
            slack: of the point.
            gone: codes that are not to be had; not all of them.
        """
        row[gone] = np.inf
        near = (row <= row[row.argmin()] + slack).nonzero()[0]
        if len(near) == 1:
            return int(near[0])
        distance = squared_distances(point, self.codebook[near])
        distance[np.isin(near, gone)] = np.inf  # where the bound itself is not finite
        return int(near[distance.argmin()])

    def nearer(
        self,
        point: Float64[Array, " latent"],
        values: Float32[Array, " others"],
        others: Int[Array, " others"],
        value: float,
        code: int,
        slack: float,
    ) -> int:
        """How many of ``others`` are nearer than ``code`` (lower codes of the same distance count), from their values
        in the point's row."""
        sure = values < value - slack
        doubtful = others[~sure & ~(values > value + slack)]
        count = int(sure.sum())
        if len(doubtful):
            distance = squared_distances(point, self.codebook[doubtful])
            own = squared_distances(point, self.codebook[code : code + 1])[0]
            count += int(((distance < own) | ((distance == own) & (doubtful < code))).sum())
        return count


def squared_distances(point: Float[Array, " latent"], codewords: Float[Array, "codes latent"]) -> Array:
    """Squared distance of one point to each codeword, summed as it stands."""
    return np.asarray(((codewords - point) ** 2).sum(axis=1))
