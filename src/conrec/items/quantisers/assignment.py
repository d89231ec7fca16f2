"""Which codewords stand for a vector: the nearest one of a codebook, the best path through several, balanced ones.

A greedy walk takes the nearest codeword of each level and may regret it two levels later. `best_path` keeps the few
best prefixes of codes at every level (multi-path residual quantisation: Babenko and Lempitsky, "Additive
quantization", CVPR 2014; beam search as in FAISS's ResidualQuantizer), which lowers the error at no cost in bits.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

__all__ = ["best_path", "nearest", "sinkhorn", "sums_by_code"]

_HELD = 1 << 21
"""Distances that are held in memory at once: few enough to be still in the cache when they are compared."""
_HELD_ELSEWHERE = 1 << 27
"""The same on an accelerator, which wants large parts (half a gigabyte)."""
_BLOCK = 64
"""Distances of a row are reduced in blocks of so many first: whole registers at a time instead of one by one."""


def nearest(points: Float[Tensor, "n d"], codewords: Float[Tensor, "codebook d"]) -> Int64[Tensor, " n"]:
    """Index of the codeword nearest to each point (Euclidean); ties go to the lower index."""
    if not len(points):
        return torch.empty(0, dtype=torch.int64, device=points.device)
    half = codewords.square().sum(1) / 2
    parts = points.split(_part(points, len(codewords)))
    return torch.cat([_lowest(torch.addmm(half, part, codewords.T, alpha=-1)) for part in parts])


def best_path(
    latents: Float[Tensor, "n d"], codebooks: Float[Tensor, "levels codebook d"], width: int
) -> Int64[Tensor, "n levels"]:
    """Codes whose codewords' sum comes nearest to each vector, among the prefixes that a beam of ``width`` keeps.

    With ``width`` 1 this is the greedy walk: the nearest codeword to what the levels before left over.

    Args:
        latents: what is quantised.
        codebooks: codewords of each level.
        width: how many prefixes are kept after each level but the last.
    """
    if width == 1:
        return _greedy(latents, codebooks)
    if not len(latents):
        return torch.empty(0, len(codebooks), dtype=torch.int64, device=latents.device)
    tables = [_table(codebook) for codebook in codebooks]
    parts = latents.split(_part(latents, codebooks.shape[1] * width))
    return torch.cat([_beam(part, codebooks, tables, width) for part in parts])


def _part(rows: Tensor, distances: int) -> int:
    """How many rows are compared at once, each with so many distances."""
    return max(1, (_HELD if rows.device.type == "cpu" else _HELD_ELSEWHERE) // distances)


def _greedy(latents: Tensor, codebooks: Tensor) -> Tensor:
    residual, codes = latents, []
    for codebook in codebooks:
        codes.append(nearest(residual, codebook))
        residual = residual - codebook[codes[-1]]
    return torch.stack(codes, dim=1)


def _table(codebook: Tensor) -> Tensor:
    """What a residual with its half square and a 1 beside it is multiplied with for half its squared distances.

    ``‖r − c‖² / 2 = [r, ‖r‖² / 2, 1] · [−c, 1, ‖c‖² / 2]``: one product, and no further pass over the distances.
    """
    half = codebook.square().sum(1, keepdim=True) / 2
    return torch.cat([-codebook, torch.ones_like(half), half], dim=1).T.contiguous()


def _beam(latents: Tensor, codebooks: Tensor, tables: list[Tensor], width: int) -> Tensor:
    """The beam over one part of the rows, int64 [n, levels]."""
    n, d = latents.shape
    size, last = codebooks.shape[1], len(codebooks) - 1
    residual = latents.unsqueeze(1)
    path = torch.zeros(n, 1, 0, dtype=torch.int64, device=latents.device)
    for level, (codebook, table) in enumerate(zip(codebooks, tables, strict=True)):
        kept = residual.shape[1]
        half = residual.square().sum(2, keepdim=True) / 2
        points = torch.cat([residual, half, torch.ones_like(half)], dim=2)
        distance = (points.view(n * kept, d + 2) @ table).view(n, kept * size)
        wanted = min(width, kept * size)
        chosen = _lowest(distance).unsqueeze(1) if level == last else _few_lowest(distance, wanted)
        parent, code = chosen // size, chosen % size
        path = torch.cat([path.gather(1, parent.unsqueeze(2).expand(-1, -1, level)), code.unsqueeze(2)], dim=2)
        if level < last:
            left = residual.gather(1, parent.unsqueeze(2).expand(-1, -1, d)) if level else residual
            residual = left - codebook[code]
    return path[:, 0]


def _lowest(values: Float[Tensor, "n m"]) -> Int64[Tensor, " n"]:
    """Position of the lowest value of each row, the first of equal ones."""
    n, m = values.shape
    if m % _BLOCK or m < 4 * _BLOCK:
        return torch.argmin(values, dim=1)
    blocks = values.view(n, m // _BLOCK, _BLOCK)
    block = torch.argmin(blocks.amin(2), dim=1)
    inside = torch.argmin(blocks[torch.arange(n, device=values.device), block], dim=1)
    return block * _BLOCK + inside


def _few_lowest(values: Float[Tensor, "n m"], k: int) -> Int64[Tensor, "n k"]:
    """Positions of the k lowest values of each row, lowest first.

    They lie in the k blocks whose lowest values are lowest, so that only those are sorted.
    """
    n, m = values.shape
    if m % _BLOCK or m < 2 * k * _BLOCK:
        return values.topk(k, dim=1, largest=False).indices
    blocks = values.view(n, m // _BLOCK, _BLOCK)
    block = blocks.amin(2).topk(k, dim=1, largest=False).indices
    inside = blocks.gather(1, block.unsqueeze(2).expand(-1, -1, _BLOCK)).view(n, k * _BLOCK)
    chosen = inside.topk(k, dim=1, largest=False).indices
    return block.gather(1, chosen // _BLOCK) * _BLOCK + chosen % _BLOCK


def sinkhorn(
    points: Float[Tensor, "n d"], codewords: Float[Tensor, "codebook d"], epsilon: float, rounds: int = 50
) -> Int64[Tensor, " n"]:
    """Balanced assignment: entropic optimal transport of the points to codewords that all get the same share.

    Sinkhorn's iteration on ``exp(−cost / ε)`` with the costs scaled to a largest value of 1 (LC-Rec,
    arXiv 2311.09049, eq. 6 to 8, for one level; Cuturi, arXiv 1306.0895), in logarithms and float64.

    Args:
        points: what is assigned.
        codewords: to what.
        epsilon: smaller is nearer to a hard balanced assignment.
        rounds: of the iteration.

    Returns:
        For each point the codeword that it sends most to.
    """
    cost = torch.cdist(points.double(), codewords.double()).square()
    kernel = -cost / cost.amax().clamp(min=1e-12) / epsilon
    for _ in range(rounds):
        kernel = kernel - torch.logsumexp(kernel, dim=0, keepdim=True)
        kernel = kernel - torch.logsumexp(kernel, dim=1, keepdim=True)
    return torch.argmax(kernel, dim=1)


def sums_by_code(
    points: Float[Tensor, "n d"], codes: Int64[Tensor, " n"], size: int
) -> tuple[Float[Tensor, " codebook"], Float[Tensor, "codebook d"]]:
    """How many points each code has, and their sum.

    On a GPU a product with the one-hot matrix, because scattered additions run in no fixed order there.
    """
    counts = torch.bincount(codes, minlength=size).to(points.dtype)
    sums = torch.zeros(size, points.shape[1], dtype=points.dtype, device=points.device)
    if points.device.type == "cpu":
        return counts, sums.index_add_(0, codes, points)
    every = torch.arange(size, device=points.device).unsqueeze(1)
    for part, own in zip(points.split(4096), codes.split(4096), strict=True):
        sums += (every == own).to(points.dtype) @ part
    return counts, sums
