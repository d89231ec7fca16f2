"""Codebooks of a residual quantiser: nearest codewords, k-means start, moving averages, dead-code restart.

Codewords are moved by exponential moving averages of the residuals that chose them (van den Oord et al.,
arXiv 1711.00937, appendix A.1), never by a gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

__all__ = ["MovingCodebook", "kmeans", "nearest", "sums_by_code"]

_CHUNK = 4096
"""Rows whose distances to all codewords are held in memory at once."""
_LAPLACE = 1e-5
"""Added to the count of every code before dividing by it."""


def nearest(points: Float[Tensor, "n d"], codewords: Float[Tensor, "codebook d"]) -> Int64[Tensor, " n"]:
    """Index of the codeword nearest to each point (Euclidean); ties go to the lower index."""
    half_norm = codewords.square().sum(1) / 2
    parts = [torch.argmin(half_norm - part @ codewords.T, dim=1) for part in points.split(_CHUNK)]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64, device=points.device)


def sums_by_code(
    points: Float[Tensor, "n d"], codes: Int64[Tensor, " n"], size: int
) -> tuple[Float[Tensor, " codebook"], Float[Tensor, "codebook d"]]:
    """How many points each code has, and their sum.

    A product with the one-hot matrix, because scattered additions run in no fixed order on a GPU.
    """
    counts = torch.bincount(codes, minlength=size).to(points.dtype)
    sums = torch.zeros(size, points.shape[1], dtype=points.dtype, device=points.device)
    every = torch.arange(size, device=points.device).unsqueeze(1)
    for part, own in zip(points.split(_CHUNK), codes.split(_CHUNK), strict=True):
        sums += (every == own).to(points.dtype) @ part
    return counts, sums


def kmeans(
    points: Float[Tensor, "n d"], size: int, generator: torch.Generator, rounds: int = 20
) -> tuple[Float[Tensor, "codebook d"], Float[Tensor, " codebook"]]:
    """Lloyd's k-means from ``size`` rows drawn as k-means++ draws them (Arthur and Vassilvitskii, 2007).

    A centre without points moves to the point that lies farthest from its own centre.

    Args:
        points: at least ``size`` rows.
        size: number of centres.
        generator: source of the draw, on the CPU.
        rounds: how many times centres are moved.

    Returns:
        Centres, and how many points each has.

    Raises:
        ValueError: fewer rows than centres.
    """
    if len(points) < size:
        raise ValueError(f"k-means needs at least as many rows as centres: {len(points)} rows, {size} centres")
    centres = points[_spread_rows(points, size, generator)].clone()
    for _ in range(rounds):
        codes = nearest(points, centres)
        counts, sums = sums_by_code(points, codes, size)
        empty = torch.nonzero(counts == 0).squeeze(1)
        centres = torch.where(counts.unsqueeze(1) > 0, sums / counts.clamp(min=1).unsqueeze(1), centres)
        if len(empty):
            distance = (points - centres[codes]).square().sum(1)
            farthest = torch.sort(distance, descending=True, stable=True).indices[: len(empty)]
            centres[empty] = points[farthest]
    counts, _ = sums_by_code(points, nearest(points, centres), size)
    return centres, counts


def _spread_rows(points: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """``size`` rows, each drawn with probability proportional to its squared distance to those before it."""
    order = torch.randperm(len(points), generator=generator)
    draws = torch.rand(size, generator=generator, dtype=torch.float64).to(points.device)
    rows = [order[0].to(points.device)]
    distance = torch.full((len(points),), float("inf"), dtype=torch.float64, device=points.device)
    for draw in draws[1:]:
        distance = torch.minimum(distance, (points - points[rows[-1]]).square().sum(1).to(torch.float64))
        upto = torch.cumsum(distance, 0)
        # Where all rows lie on a centre already the sum is 0, and any row is as good as another: take the last.
        drawn = torch.searchsorted(upto, draw * upto[-1], right=True)
        rows.append(drawn.clamp(max=len(points) - 1))
    return torch.stack(rows)


@dataclass(slots=True)
class MovingCodebook:
    """One level's codewords with the moving averages behind them; all tensors are changed in place.

    Attributes:
        codewords: float32 [codebook, d].
        count: float32 [codebook], moving average of how many rows of a batch chose each code.
        total: float32 [codebook, d], moving average of the sum of those rows.
        used: float32 [codebook], how many rows chose each code since the epoch began.
        idle: int64 [codebook], how many epochs each code has gone without a row.
    """

    codewords: Tensor
    count: Tensor
    total: Tensor
    used: Tensor
    idle: Tensor

    @classmethod
    def start(cls, codewords: Float[Tensor, "codebook d"], count: Float[Tensor, " codebook"]) -> MovingCodebook:
        """From the centres of k-means and the number of rows of an average batch that each one has."""
        count = count.clone()
        return cls(
            codewords,
            count,
            codewords * count.unsqueeze(1),
            torch.zeros_like(count),
            torch.zeros(len(count), dtype=torch.int64, device=count.device),
        )

    def update(self, residuals: Float[Tensor, "n d"], codes: Int64[Tensor, " n"], decay: float) -> None:
        """One step: ``N ← γN + (1−γ)n``, ``m ← γm + (1−γ)Σr``, codeword ``m / N`` with N smoothed.

        Laplace smoothing, ``(N + ε) / (ΣN + codebook·ε) · ΣN``, keeps a code that nobody chooses finite.
        """
        counts, sums = sums_by_code(residuals, codes, len(self.count))
        self.used += counts
        self.count.mul_(decay).add_(counts, alpha=1 - decay)
        self.total.mul_(decay).add_(sums, alpha=1 - decay)
        everything = self.count.sum()
        smooth = (self.count + _LAPLACE) / (everything + len(self.count) * _LAPLACE) * everything
        self.codewords.copy_(self.total / smooth.unsqueeze(1))

    def end_epoch(self, dead_after: int) -> tuple[Float[Tensor, " codebook"], Int64[Tensor, " dead"]]:
        """Close an epoch: how many rows chose each code in it, and the codes idle for ``dead_after`` epochs."""
        used = self.used.clone()
        self.idle = torch.where(used > 0, 0, self.idle + 1)
        self.used.zero_()
        return used, torch.nonzero(self.idle >= dead_after).squeeze(1)

    def restart(self, dead: Int64[Tensor, " dead"], residuals: Float[Tensor, "dead d"]) -> None:
        """Move dead codes onto ``residuals``, with averages as if one row of a batch had chosen each."""
        self.codewords[dead] = residuals
        self.total[dead] = residuals
        self.count[dead] = 1.0
        self.idle[dead] = 0
