"""One codebook that follows what chooses it: moving averages, and a restart of dead codes.

Codewords are moved by exponential moving averages of the residuals that chose them (van den Oord et al.,
arXiv 1711.00937, appendix A.1), never by a gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from conrec.items.quantisers.assignment import sums_by_code

__all__ = ["MovingCodebook"]

_LAPLACE = 1e-5
"""Added to the count of every code before dividing by it."""
_FORGOTTEN = 1e-2
"""A code whose average count has fallen below this stays where it is: the smoothing would draw it to the origin."""


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

        Laplace smoothing: ``(N + ε) / (ΣN + codebook·ε) · ΣN``. γ is ``decay`` where a batch has a row or more for each
        code, and its power ``n / codebook`` where it has fewer: an average then reaches back over as many rows as it
        would with larger batches, and not over the last one or two.
        """
        size = len(self.count)
        decay **= min(1.0, len(codes) / size)
        counts, sums = sums_by_code(residuals, codes, size)
        self.used += counts
        self.count.mul_(decay).add_(counts, alpha=1 - decay)
        self.total.mul_(decay).add_(sums, alpha=1 - decay)
        everything = self.count.sum()
        smooth = (self.count + _LAPLACE) / (everything + size * _LAPLACE) * everything
        known = (self.count > _FORGOTTEN * (everything / size).clamp(max=1.0)).unsqueeze(1)
        self.codewords.copy_(torch.where(known, self.total / smooth.unsqueeze(1), self.codewords))

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
