"""The trie of existing semantic IDs: one object for rollouts, generation and serving alike.

Level 1 is one dense table over the codebook. The deeper levels are sorted arrays of edge keys
(``parent node * codebook_size + code``) with the offset of each node's first edge, so that a step is a
binary search and a mask is one gather and one scatter, for all beams at once and without leaving the device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int, Int64
from torch import Tensor

from conrec.errors import DataError

__all__ = ["Trie"]

LEVELS = 3


@dataclass(frozen=True, slots=True)
class _Edges:
    """Edges out of the nodes of one level, sorted by (parent node, code).

    Attributes:
        keys: int64 [edges], ``parent * codebook_size + code``, strictly increasing.
        codes: int64 [edges].
        offsets: int64 [parents + 1]; the edges of parent p are ``offsets[p]:offsets[p + 1]``.
        targets: int64 [edges], the state that each edge leads to.
        widest: largest number of edges out of one node.
    """

    keys: Tensor
    codes: Tensor
    offsets: Tensor
    targets: Tensor
    widest: int

    @classmethod
    def build(cls, parents: Tensor, codes: Tensor, targets: Tensor, n_parents: int, codebook_size: int) -> _Edges:
        """Edges given in order of (parent, code)."""
        counts = torch.bincount(parents, minlength=n_parents)
        offsets = torch.zeros(n_parents + 1, dtype=torch.int64)
        torch.cumsum(counts, 0, out=offsets[1:])
        return cls(parents * codebook_size + codes, codes, offsets, targets, int(counts.max()))

    def to(self, device: torch.device | str) -> _Edges:
        """The same edges on ``device``."""
        keys, codes, offsets, targets = (one.to(device) for one in (self.keys, self.codes, self.offsets, self.targets))
        return _Edges(keys, codes, offsets, targets, self.widest)


class Trie:
    """Which codes may follow which prefix, over the resolved semantic IDs of a catalogue.

    A state is an int64: 0 at the root, then the index of the node that was reached, and after the last
    level the index of the item. -1 is the state of a prefix that no item has; it stays -1.

    Attributes:
        codes: int64 [items, 3], the semantic ID of each item.
        codebook_size: codes per level.
    """

    levels = LEVELS

    def __init__(self, codes: Tensor, codebook_size: int, first: Tensor, deeper: tuple[_Edges, _Edges]) -> None:
        self.codes = codes
        self.codebook_size = codebook_size
        self._first = first
        self._deeper = deeper

    @classmethod
    def from_codes(cls, codes: Int[Tensor, "items 3"], codebook_size: int) -> Trie:
        """Build the trie of the semantic IDs ``codes``, on the device where they lie.

        Args:
            codes: resolved codes of each item, each in [0, codebook_size); every row different.
            codebook_size: codes per level.

        Raises:
            DataError: no items, a code out of range, or two items with the same semantic ID.
        """
        device = codes.device
        codes = codes.detach().to("cpu", torch.int64)
        if len(codes) == 0:
            raise DataError("there are no semantic IDs", where="trie", expected="at least one item")
        outside = ((codes < 0) | (codes >= codebook_size)).any(1).nonzero()
        if len(outside):
            item = int(outside[0, 0])
            raise DataError(
                f"item {item} has the codes {codes[item].tolist()}",
                where="trie",
                expected=f"codes from 0 to {codebook_size - 1}",
            )
        # Three columns in order: sort by the last first, each sort stable.
        order = torch.arange(len(codes))
        for level in reversed(range(LEVELS)):
            order = order[torch.sort(codes[order, level], stable=True).indices]
        ordered = codes[order]
        changed = ordered[1:] != ordered[:-1]
        same = (~changed.any(1)).nonzero()
        if len(same):
            position = int(same[0, 0])
            pair = [int(order[position]), int(order[position + 1])]
            raise DataError(
                f"items {pair[0]} and {pair[1]} have the same semantic ID {ordered[position].tolist()}",
                where="trie",
                expected="distinct semantic IDs",
                mend="Resolve collisions first: conrec.items.semantic_ids.resolve_collisions.",
            )
        # Node of each item at depth 1 and 2: how many prefixes of that length begin before it.
        node = torch.zeros(LEVELS - 1, len(codes), dtype=torch.int64)
        for depth in range(1, LEVELS):
            node[depth - 1, 1:] = torch.cumsum(changed[:, :depth].any(1), 0)
        begins = torch.ones(LEVELS - 1, len(codes), dtype=torch.bool)
        begins[:, 1:] = node[:, 1:] != node[:, :-1]
        first = torch.full((codebook_size,), -1, dtype=torch.int64)
        first[ordered[begins[0], 0]] = node[0, begins[0]]
        second = _Edges.build(
            node[0, begins[1]], ordered[begins[1], 1], node[1, begins[1]], int(node[0, -1]) + 1, codebook_size
        )
        third = _Edges.build(node[1], ordered[:, 2], order, int(node[1, -1]) + 1, codebook_size)
        return cls(codes, codebook_size, first, (second, third)).to(device)

    def __len__(self) -> int:
        return self.n_items

    @property
    def n_items(self) -> int:
        """Number of items."""
        return len(self.codes)

    @property
    def device(self) -> torch.device:
        """Where the trie lies; states and codes must lie there too."""
        return self.codes.device

    def to(self, device: torch.device | str) -> Trie:
        """The same trie on ``device``."""
        second, third = self._deeper
        return Trie(
            self.codes.to(device), self.codebook_size, self._first.to(device), (second.to(device), third.to(device))
        )

    def root(self, n: int) -> Int64[Tensor, " n"]:
        """``n`` states at the root: zeros."""
        return torch.zeros(n, dtype=torch.int64, device=self.device)

    def mask(self, state: Int64[Tensor, "*n"], level: int) -> Bool[Tensor, "*n codebook"]:
        """Which codes may follow.

        Args:
            state: states after ``level`` codes.
            level: 0, 1 or 2, the level of the code that follows.

        Returns:
            True where an item has the state's prefix followed by the code; all False for a state of -1.
        """
        alive = (state >= 0).unsqueeze(-1)
        if level == 0:
            return alive & (self._first >= 0)
        edges = self._edges(level)
        node = state.clamp(0, len(edges.offsets) - 2)
        begin, end = edges.offsets[node].unsqueeze(-1), edges.offsets[node + 1].unsqueeze(-1)
        position = begin + torch.arange(edges.widest, device=self.device)
        codes = edges.codes[position.clamp(max=len(edges.codes) - 1)]
        # A node with fewer edges than the widest writes the rest into a column that is cut off again.
        codes = torch.where((position < end) & alive, codes, self.codebook_size)
        mask = torch.zeros(*state.shape, self.codebook_size + 1, dtype=torch.bool, device=self.device)
        return mask.scatter_(-1, codes, True)[..., : self.codebook_size]

    def step(self, state: Int64[Tensor, "*n"], code: Int64[Tensor, "*n"], level: int) -> Int64[Tensor, "*n"]:
        """The state after one more code.

        Args:
            state: states after ``level`` codes.
            code: the code that follows each.
            level: 0, 1 or 2, the level of ``code``.

        Returns:
            The next state, -1 where no item has that prefix; after level 2 it is the item's index.
        """
        known = (state >= 0) & (code >= 0) & (code < self.codebook_size)
        if level == 0:
            return torch.where(known, self._first[code.clamp(0, self.codebook_size - 1)], -1)
        edges = self._edges(level)
        key = state * self.codebook_size + code
        position = torch.searchsorted(edges.keys, key).clamp(max=len(edges.keys) - 1)
        return torch.where(known & (edges.keys[position] == key), edges.targets[position], -1)

    def _edges(self, level: int) -> _Edges:
        if level not in (1, 2):
            raise ValueError(f"level {level} of a trie with levels 0, 1 and 2")
        return self._deeper[level - 1]
