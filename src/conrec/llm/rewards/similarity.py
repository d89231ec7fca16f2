"""``sim`` of the rewards and of the cleaning: the cosine of rebuilt embeddings, less what makes an item a hub."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from conrec.arrays import Array

__all__ = ["Similarity", "hub_means", "padded"]


def hub_means(rebuilt: Float[Tensor, "items d"], counted: Bool[Array, " items"]) -> Float[Tensor, " items"]:
    """The mean similarity of each item to the counted ones, itself among them where it is one.

    A mean of dot products is the dot product with the mean, so that this is exact at O(items d), without a matrix of
    items by items.

    Args:
        rebuilt: unit rows.
        counted: which items the mean is over, those of the training period in a run.

    Raises:
        ValueError: none is counted.
    """
    rows = torch.from_numpy(np.flatnonzero(counted)).to(rebuilt.device)
    if not len(rows):
        raise ValueError("no item to take the mean similarity to")
    return rebuilt @ rebuilt[rows].mean(0, dtype=torch.float64).to(rebuilt.dtype)


class Similarity:
    """``sim(o, i)`` of a rollout o and a target i.

    With ``hubs`` it is ``cos(o, i) - m(o)``, m(o) the mean cosine of o to the catalogue. The largest of many cosines is
    large for a hub, whatever the targets are; less m(o) it says how much nearer than usual o has come. m(i) of the
    target is not taken off: what is judged is the choice of o, while i is given. It would change which target counts
    as the nearest one, and make a target worth less for being a hub, which is no fault of the rollout.

    Args:
        rebuilt: unit rows (or 0).
        hubs: `hub_means`; None: the plain cosine.
    """

    def __init__(self, rebuilt: Float[Tensor, "items d"], hubs: Float[Tensor, " items"] | None = None) -> None:
        self.rebuilt = rebuilt
        self.hubs = hubs

    def to_all(self, items: Int64[Tensor, "B G"], targets: Int64[Tensor, "B N"]) -> Float[Tensor, "B G N"]:
        """Similarity of each item to each target of its row, -inf where the target is -1."""
        similarity = self.rebuilt[items] @ self.rebuilt[targets.clamp(min=0)].transpose(1, 2)
        if self.hubs is not None:
            similarity = similarity - self.hubs[items].unsqueeze(-1)
        return similarity.masked_fill((targets < 0)[:, None], -torch.inf)

    def nearest(self, items: Int64[Tensor, "B G"], targets: Sequence[Array]) -> Float[Tensor, "B G"]:
        """Largest similarity of each item to its row's targets, -inf where a row has none."""
        return self.to_all(items, padded(targets, items.device)).amax(-1)


def padded(targets: Sequence[Array], device: torch.device) -> Int64[Tensor, "B N"]:
    """The targets of each row, filled up with -1 to the width of the longest, at least 1."""
    width = max([len(row) for row in targets] + [1])
    filled = torch.full((len(targets), width), -1, dtype=torch.long)
    for row, target in enumerate(targets):
        filled[row, : len(target)] = torch.as_tensor(target, dtype=torch.long)
    return filled.to(device)
