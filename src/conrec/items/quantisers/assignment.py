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

_HELD = 1 << 22
"""Distances that are held in memory at once."""
_BLOCK = 64
"""Distances of a row are reduced in blocks of so many first: whole registers at a time instead of one by one."""


def nearest(points: Float[Tensor, "n d"], codewords: Float[Tensor, "codebook d"]) -> Int64[Tensor, " n"]:
    """Index of the codeword nearest to each point (Euclidean); ties go to the lower index."""
    half_norm = codewords.square().sum(1) / 2
    parts = [_lowest(_half(part, codewords, half_norm)) for part in points.split(max(1, _HELD // len(codewords)))]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64, device=points.device)


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
    size = codebooks.shape[1]
    if width == 1:
        return _greedy(latents, codebooks)
    parts = [_beam(part, codebooks, width) for part in latents.split(max(1, _HELD // (size * width)))]
    return torch.cat(parts) if parts else torch.empty(0, len(codebooks), dtype=torch.int64, device=latents.device)


def _greedy(latents: Tensor, codebooks: Tensor) -> Tensor:
    residual, codes = latents, []
    for codebook in codebooks:
        codes.append(nearest(residual, codebook))
        residual = residual - codebook[codes[-1]]
    return torch.stack(codes, dim=1)


def _beam(latents: Tensor, codebooks: Tensor, width: int) -> Tensor:
    """The beam over one part of the rows, int64 [n, levels]."""
    n, d = latents.shape
    size = codebooks.shape[1]
    residual = latents.unsqueeze(1)
    path = torch.zeros(n, 1, 0, dtype=torch.int64, device=latents.device)
    for level, codebook in enumerate(codebooks):
        kept = residual.shape[1]
        # ‖r − c‖² / 2 = ‖r‖² / 2 + ‖c‖² / 2 − r·c, over all prefixes that are kept and all codes that may follow.
        distance = _half(residual.reshape(n * kept, d), codebook, codebook.square().sum(1) / 2).view(n, kept, size)
        if kept > 1:
            distance += residual.square().sum(2, keepdim=True) / 2
        flat = distance.view(n, kept * size)
        wanted = 1 if level == len(codebooks) - 1 else min(width, flat.shape[1])
        chosen = _lowest(flat).unsqueeze(1) if wanted == 1 else _few_lowest(flat, wanted)
        parent, code = chosen // size, chosen % size
        path = torch.cat([path.gather(1, parent.unsqueeze(2).expand(-1, -1, level)), code.unsqueeze(2)], dim=2)
        residual = residual.gather(1, parent.unsqueeze(2).expand(-1, -1, d)) - codebook[code]
    return path[:, 0]


def _half(points: Tensor, codewords: Tensor, half_norm: Tensor) -> Tensor:
    """Half the squared distances less half the points' squared lengths, [n, codebook]."""
    return torch.addmm(half_norm, points, codewords.T, alpha=-1)


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
