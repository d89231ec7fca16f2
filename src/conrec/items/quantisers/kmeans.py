"""K-means from coarse to fine: centres are found in two principal components and refined in ever more of them.

Started from rows of a high-dimensional cloud (k-means++ draws far ones), many a centre keeps a row or two that no
other row resembles. Centres that were found where the rows differ most stay groups (progressive dimensions, as
FAISS trains its residual quantiser). What it changes is in docs/semantic_ids.md.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from conrec.items.quantisers.assignment import nearest, sums_by_code

__all__ = ["kmeans", "principal_axes"]

_STEPS = 10
"""In how many steps the dimensions grow, geometrically."""
_ROWS_PER_CENTRE = 64
"""Each step sees at most so many rows a centre, drawn anew: more does not move the centres."""


def kmeans(
    points: Float[Tensor, "n d"], size: int, generator: torch.Generator, rounds: int = 10
) -> tuple[Float[Tensor, "codebook d"], Float[Tensor, " codebook"]]:
    """Centres of all rows, from coarse to fine; on large data each step has a mini-batch of its own.

    Args:
        points: at least ``size`` rows.
        size: number of centres.
        generator: source of the draws, on the CPU.
        rounds: of Lloyd's iteration in each step.

    Returns:
        Centres, and how many points each has. A centre without points moves to the point that lies farthest from its
        own centre.

    Raises:
        ValueError: fewer rows than centres.
    """
    n, d = points.shape
    if n < size:
        raise ValueError(f"k-means needs at least as many rows as centres: {n} rows, {size} centres")
    axes = principal_axes(points)
    seen = min(n, size * _ROWS_PER_CENTRE)
    centres = points.new_zeros(size, 0)
    for dims in _growing(d):
        drawn = torch.randperm(n, generator=generator)[:seen].to(points.device)
        batch = points[drawn] @ axes[:, :dims]
        centres = _refined(batch, centres) if centres.shape[1] else batch[_spread_rows(batch, size, generator)]
        centres = _lloyd(batch, centres, rounds)
    centres = centres @ axes.T
    counts, _ = sums_by_code(points, nearest(points, centres), size)
    return centres, counts


def _growing(d: int) -> list[int]:
    """Dimensions of each step, from 2 (or d) to d in a geometric progression."""
    return sorted({min(d, max(2, round(d ** (step / _STEPS)))) for step in range(_STEPS + 1)})


def principal_axes(points: Tensor) -> Tensor:
    """Eigenvectors of the covariance, largest variance first, [d, d]; computed in float64 on the CPU."""
    centred = (points - points.mean(0)).cpu()
    covariance = torch.zeros(points.shape[1], points.shape[1], dtype=torch.float64)
    for part in centred.split(65_536):
        covariance += part.double().T @ part.double()
    axes: Tensor = torch.linalg.eigh(covariance).eigenvectors.flip(1).to(points)
    return axes


def _spread_rows(points: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """``size`` rows drawn as k-means++ draws them (Arthur and Vassilvitskii, 2007): each with probability proportional
    to its squared distance to the nearest of those before it."""
    draws = torch.rand(size, generator=generator, dtype=torch.float64).to(points.device)
    rows = [torch.zeros((), dtype=torch.int64, device=points.device)]  # the rows come in random order
    distance = torch.full((len(points),), float("inf"), dtype=torch.float64, device=points.device)
    for draw in draws[1:]:
        distance = torch.minimum(distance, (points - points[rows[-1]]).square().sum(1).to(torch.float64))
        upto = torch.cumsum(distance, 0)
        # Where all rows lie on a centre already the sum is 0, and any row is as good as another: take the last.
        drawn = torch.searchsorted(upto, draw * upto[-1], right=True)
        rows.append(drawn.clamp(max=len(points) - 1))
    return torch.stack(rows)


def _refined(batch: Tensor, centres: Tensor) -> Tensor:
    """The same groups in more dimensions: means of the rows that each centre has in those that it knows."""
    known = centres.shape[1]
    counts, sums = sums_by_code(batch, nearest(batch[:, :known].contiguous(), centres), len(centres))
    unmoved = torch.cat([centres, batch.new_zeros(len(centres), batch.shape[1] - known)], dim=1)
    return torch.where(counts.unsqueeze(1) > 0, sums / counts.clamp(min=1).unsqueeze(1), unmoved)


def _lloyd(points: Tensor, centres: Tensor, rounds: int) -> Tensor:
    """So many rounds of Lloyd's iteration; centres without points move to the farthest ones."""
    for _ in range(rounds):
        codes = nearest(points, centres)
        counts, sums = sums_by_code(points, codes, len(centres))
        empty = torch.nonzero(counts == 0).squeeze(1)
        moved = torch.where(counts.unsqueeze(1) > 0, sums / counts.clamp(min=1).unsqueeze(1), centres)
        if len(empty):
            distance = (points - centres[codes]).square().sum(1)
            moved[empty] = points[torch.sort(distance, descending=True, stable=True).indices[: len(empty)]]
        centres = moved
    return centres
