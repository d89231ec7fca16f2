"""What leads out of the nodes of a trie: all edges of a level, and the children of some states."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

__all__ = ["Children", "Edges", "dense"]


@dataclass(frozen=True, slots=True)
class Children:
    """What may follow each of some states; ``w`` is the largest number of codes that may follow one of them.

    Attributes:
        code: int64 [*n, w], ascending over the children of a state; any code in unused places.
        state: int64 [*n, w], the state after the code (after the last level the item), -1 in unused places.
    """

    code: Tensor
    state: Tensor

    @property
    def allowed(self) -> Bool[Tensor, "*n w"]:
        """Which places are used."""
        return self.state >= 0


@dataclass(frozen=True, slots=True)
class Edges:
    """Edges out of the nodes of one level, in order of (parent node, code); edge e leads to node e.

    Attributes:
        codes: int32 [edges].
        offsets: int32 [parents + 1]; the edges of parent p are ``offsets[p]:offsets[p + 1]``.
        widest: largest number of edges out of one node.
    """

    codes: Tensor
    offsets: Tensor
    widest: int

    def to(self, device: torch.device | str) -> Edges:
        """The same edges on ``device``."""
        return Edges(self.codes.to(device), self.offsets.to(device), self.widest)


def dense(children: Children, size: int) -> Bool[Tensor, "*n codes"]:
    """The children as a mask over the codes of their level."""
    # Unused places are written into a column that is cut off again.
    column = torch.where(children.allowed, children.code, size)
    shape = (*column.shape[:-1], size + 1)
    mask = torch.zeros(shape, dtype=torch.bool, device=column.device)
    return mask.scatter_(-1, column, True)[..., :size]
