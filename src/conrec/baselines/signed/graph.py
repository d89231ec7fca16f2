"""The bipartite graph of users and items of one sign, and light graph convolution over it from items back to items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from conrec.arrays import Array
from conrec.logs.log import Log

__all__ = ["Graph"]


@dataclass(frozen=True, slots=True)
class Graph:
    """Edges between users and items, in two orders; users without edges are left out and the others numbered anew.

    Attributes:
        user: int64 [edges], index into the log's users, rising.
        item: int64 [edges], in the order of ``user``.
        begins: int64 [users], where the edges of each user begin.
        by_item: int64 [edges], places of the edges in the order of items.
        user_by_item: int64 [edges], user of each edge in that order, numbered anew.
        item_begins: int64 [items], where the edges of each item begin in that order.
        degree: int64 [items], users of each item.
        weight: float64 [edges], ``1 / sqrt(degree of user * degree of item)``, in the order of ``user``.
    """

    user: Array
    item: Int64[Tensor, " edges"]
    begins: Int64[Tensor, " users"]
    by_item: Int64[Tensor, " edges"]
    user_by_item: Int64[Tensor, " edges"]
    item_begins: Int64[Tensor, " items"]
    degree: Int64[Tensor, " items"]
    weight: Float64[Tensor, " edges"]

    @classmethod
    def of(cls, log: Log, sign: int) -> Graph:
        """The graph of the (user, item) pairs that have an event of one sign; repeated events are one edge."""
        kept = log.feedback == sign
        edges = np.unique(log.user[kept].astype(np.int64) * log.n_items + log.item[kept])
        return cls._of_edges(edges // log.n_items, edges % log.n_items, log.n_items)

    def without(self, left_out: Bool[Array, " users"]) -> Graph:
        """The same graph less some of the log's users; degrees and weights are counted anew."""
        kept = ~left_out[self.user]
        return self._of_edges(self.user[kept], self.item.numpy()[kept], len(self.degree))

    @classmethod
    def _of_edges(cls, user: Array, item: Array, n_items: int) -> Graph:
        """From distinct edges, users rising."""
        _, begins, place, user_degree = np.unique(user, return_index=True, return_inverse=True, return_counts=True)
        degree = np.bincount(item, minlength=n_items)
        by_item = np.argsort(item, kind="stable")
        return cls(
            user,
            torch.from_numpy(item),
            torch.from_numpy(begins),
            torch.from_numpy(by_item),
            torch.from_numpy(place[by_item]),
            torch.from_numpy(np.cumsum(degree) - degree),
            torch.from_numpy(degree),
            torch.from_numpy(1 / np.sqrt(user_degree[place] * degree[item])),
        )

    def __len__(self) -> int:
        return len(self.user)

    def __deepcopy__(self, memo: dict[int, Any]) -> Graph:
        return self  # it never changes, and networks that hold it are copied in every epoch

    def convolved(
        self, table: Float[Tensor, "items d"], layers: int, kept: Float[Tensor, " edges"] | None = None
    ) -> Float[Tensor, "items d"]:
        """Mean over ``l = 0 … layers`` of ``(A^T A)^l table``, with A the matrix of edge weights, users times items.

        Light graph convolution (He et al., SIGIR 2020, arXiv 2002.02126) of twice as many layers, in which users have
        no vectors of their own at layer 0 and so nothing but what their items give them.

        Args:
            table: vectors of layer 0.
            layers: from items to users and back.
            kept: a factor for the weight of each edge, in the order of ``user``; None: 1.
        """
        weight = self.weight.to(table.dtype)
        weight = weight if kept is None else weight * kept
        total = layer = table
        for _ in range(layers if len(self) else 0):
            users = _sums(layer, self.item, self.begins, weight)
            layer = _sums(users, self.user_by_item, self.item_begins, weight[self.by_item])
            total = total + layer
        return total / (layers + 1)


def _sums(
    table: Float[Tensor, "rows d"],
    rows: Int64[Tensor, " edges"],
    begins: Int64[Tensor, " groups"],
    weight: Float[Tensor, " edges"],
) -> Float[Tensor, "groups d"]:
    """Weighted sum of some of the table's rows for each group of edges."""
    return F.embedding_bag(rows, table, begins, mode="sum", per_sample_weights=weight)
