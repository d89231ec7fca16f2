"""The trie of existing semantic IDs: one object for rollouts, generation and serving alike.

Level 1 is one dense table over the codebook. A deeper level is CSR: the codes that follow a node, in
ascending order, between two offsets. Nodes of a level are numbered in the order of their prefixes, so the
number of an edge is the number of the node that it leads to, and nothing else has to be stored. All
look-ups are vectorised over states and stay on the device; 28 to 40 bytes an item in all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int, Int64
from torch import Tensor

from conrec.items.trie_arrays import trie_arrays

__all__ = ["Children", "Trie"]

LEVELS = 3


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
class _Edges:
    """Edges out of the nodes of one level, in order of (parent node, code); edge e leads to node e.

    Attributes:
        codes: int32 [edges].
        offsets: int32 [parents + 1]; the edges of parent p are ``offsets[p]:offsets[p + 1]``.
        widest: largest number of edges out of one node.
    """

    codes: Tensor
    offsets: Tensor
    widest: int

    def to(self, device: torch.device | str) -> _Edges:
        """The same edges on ``device``."""
        return _Edges(self.codes.to(device), self.offsets.to(device), self.widest)


class Trie:
    """Which codes may follow which prefix, over the resolved semantic IDs of a catalogue.

    A state is an int64: 0 at the root, then the number of the node that was reached, and after the last
    level the index of the item. -1 is the state of a prefix that no item has; it stays -1.

    Attributes:
        codes: int32 [items, 3], the semantic ID of each item.
        codebook_size: codes per level.
    """

    levels = LEVELS

    def __init__(
        self, codes: Tensor, codebook_size: int, first: Tensor, deeper: tuple[_Edges, _Edges], item: Tensor
    ) -> None:
        self.codes = codes
        self.codebook_size = codebook_size
        self._first = first  # int32 [codebook], node of each first code, -1 for none
        self._deeper = deeper
        self._item = item  # int32 [items], item of each edge of the last level
        self._edge_of = torch.empty_like(item)  # and the edge of each item
        self._edge_of[item.long()] = torch.arange(len(item), dtype=item.dtype, device=item.device)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Tensor], codebook_size: int) -> Trie:
        """The trie that `arrays` was asked of."""
        second, third = (
            _Edges(arrays[f"{name}_codes"], arrays[f"{name}_offsets"], int(arrays[f"{name}_offsets"].diff().max()))
            for name in ("second", "third")
        )
        return cls(arrays["codes"], codebook_size, arrays["first"], (second, third), arrays["item"])

    @classmethod
    def from_codes(cls, codes: Int[Tensor, "items 3"], codebook_size: int) -> Trie:
        """Build the trie of the semantic IDs ``codes``, on the device where they lie.

        Args:
            codes: resolved codes of each item, each in [0, codebook_size); every row different.
            codebook_size: codes per level.

        Raises:
            DataError: no items, a code out of range, or two items with the same semantic ID.
        """
        arrays = {
            name: torch.from_numpy(one)
            for name, one in trie_arrays(codes.detach().cpu().numpy(), codebook_size).items()
        }
        return cls.from_arrays(arrays, codebook_size).to(codes.device)

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

    @property
    def nbytes(self) -> int:
        """Bytes of all its arrays."""
        return sum(one.numel() * one.element_size() for one in (*self.arrays().values(), self._edge_of))

    def to(self, device: torch.device | str) -> Trie:
        """The same trie on ``device``."""
        second, third = self._deeper
        return Trie(
            self.codes.to(device),
            self.codebook_size,
            self._first.to(device),
            (second.to(device), third.to(device)),
            self._item.to(device),
        )

    def root(self, n: int) -> Int64[Tensor, " n"]:
        """``n`` states at the root: zeros."""
        return torch.zeros(n, dtype=torch.int64, device=self.device)

    def n_nodes(self, level: int) -> int:
        """How many states there are after the code of ``level`` (0, 1 or 2); after the last, the items."""
        return len(self._deeper[level].offsets) - 1 if level < LEVELS - 1 else self.n_items

    def widest(self, level: int) -> int:
        """How many codes of ``level`` follow one state at most."""
        return self.codebook_size if level == 0 else self._edges(level).widest

    def items_below(self, state: Int64[Tensor, "*n"], level: int) -> Int64[Tensor, "*n"]:
        """How many items begin with the prefix of each state after the code of ``level`` (0, 1 or 2); 0 for -1."""
        alive = state >= 0
        if level == LEVELS - 1:
            return alive.long()
        begin = state.clamp(min=0)
        end = begin + 1
        if level == 0:
            begin, end = self._deeper[0].offsets[begin].long(), self._deeper[0].offsets[end].long()
        items = self._deeper[1].offsets
        return torch.where(alive, (items[end] - items[begin]).long(), 0)

    def edges_of(self, item: Int64[Tensor, "*n"]) -> Int64[Tensor, "*n 3"]:
        """The edges on the way to each item, see `span`."""
        third = self._edge_of[item]
        second = torch.searchsorted(self._deeper[1].offsets, third, right=True) - 1
        return torch.stack([self.codes[item, 0].long(), second, third.long()], dim=-1)

    def path(self) -> Int64[Tensor, "items 3"]:
        """The state of every item after each of its codes; the last column counts the items."""
        edges = self.edges_of(torch.arange(self.n_items, device=self.device))
        return torch.stack([self.reached(edges[:, level], level) for level in range(LEVELS)], dim=1)

    def children(self, state: Int64[Tensor, "*n"], level: int) -> Children:
        """The codes that may follow, as a list for each state.

        Args:
            state: states after ``level`` codes.
            level: 0, 1 or 2, the level of the code that follows.

        Returns:
            Codes and the states they lead to; at level 0 a place for every code of the codebook.
        """
        alive = (state >= 0).unsqueeze(-1)
        if level == 0:
            code = torch.arange(self.codebook_size, device=self.device).expand(*state.shape, -1)
            return Children(code, torch.where(alive, self._first.long(), -1))
        begin, end = (one.unsqueeze(-1) for one in self.span(state, level))
        widest = max(1, int((end - begin).max())) if state.numel() else 1
        edge = begin + torch.arange(widest, device=self.device)
        used = edge < end
        edge.clamp_(max=self.n_edges(level) - 1)
        code = torch.take(self._edges(level).codes, edge).long()  # faster than an index of many dimensions
        return Children(code, torch.where(used, self.reached(edge, level), -1))

    def span(self, state: Int64[Tensor, "*n"], level: int) -> tuple[Int64[Tensor, "*n"], Int64[Tensor, "*n"]]:
        """First edge out of each state, and the one after its last; nothing lies between them for -1.

        Edges are what `children` lists, in that order. At level 0 they are the codes of the codebook.
        """
        if level == 0:
            begin = torch.zeros_like(state)
            return begin, torch.where(state >= 0, self.codebook_size, 0)
        offsets = self._edges(level).offsets
        node = state.clamp(0, len(offsets) - 2)
        begin = offsets[node].long()
        return begin, torch.where(state >= 0, offsets[node + 1].long(), begin)

    def n_edges(self, level: int) -> int:
        """How many edges a level has, used or not."""
        return self.codebook_size if level == 0 else len(self._edges(level).codes)

    def edge(self, state: Int64[Tensor, "*n"], code: Int64[Tensor, "*n"], level: int) -> Int64[Tensor, "*n"]:
        """The edge out of each state that carries a code; -1 where there is none."""
        known = (state >= 0) & (code >= 0) & (code < self.codebook_size)
        if level == 0:
            return torch.where(known & (self._first[code.clamp(0, self.codebook_size - 1)] >= 0), code, -1)
        edges = self._edges(level)
        low, end = self.span(state, level)
        # Bisection inside each node's own stretch, all states at once; the invariant is codes[< low] < code.
        high = end
        for _ in range(edges.widest.bit_length()):
            middle = (low + high) // 2
            below = (low < high) & (edges.codes[middle.clamp(max=len(edges.codes) - 1)] < code)
            low, high = torch.where(below, middle + 1, low), torch.where(below, high, middle)
        edge = low.clamp(max=len(edges.codes) - 1)
        return torch.where(known & (low < end) & (edges.codes[edge] == code), edge, -1)

    def reached(self, edge: Int64[Tensor, "*n"], level: int) -> Int64[Tensor, "*n"]:
        """The state that each edge leads to; -1 for -1."""
        if level == 1:
            return edge
        target = self._first if level == 0 else self._item
        return torch.where(edge >= 0, target[edge.clamp(min=0)].long(), -1)

    def mask(self, state: Int64[Tensor, "*n"], level: int) -> Bool[Tensor, "*n codebook"]:
        """Which codes may follow, as a mask over the codebook.

        Args:
            state: states after ``level`` codes.
            level: 0, 1 or 2, the level of the code that follows.

        Returns:
            True where an item has the state's prefix followed by the code; all False for a state of -1.
        """
        return dense(self.children(state, level), self.codebook_size)

    def step(self, state: Int64[Tensor, "*n"], code: Int64[Tensor, "*n"], level: int) -> Int64[Tensor, "*n"]:
        """The state after one more code.

        Args:
            state: states after ``level`` codes.
            code: the code that follows each.
            level: 0, 1 or 2, the level of ``code``.

        Returns:
            The next state, -1 where no item has that prefix; after level 2 it is the item's index.
        """
        return self.reached(self.edge(state, code, level), level)

    def arrays(self) -> dict[str, Tensor]:
        """Everything that the trie consists of besides the codebook's size, int32, by name."""
        second, third = self._deeper
        return {
            "codes": self.codes,
            "first": self._first,
            "second_codes": second.codes,
            "second_offsets": second.offsets,
            "third_codes": third.codes,
            "third_offsets": third.offsets,
            "item": self._item,
        }

    def _edges(self, level: int) -> _Edges:
        if level not in (1, 2):
            raise ValueError(f"level {level} of a trie with levels 0, 1 and 2")
        return self._deeper[level - 1]


def dense(children: Children, codebook_size: int) -> Bool[Tensor, "*n codebook"]:
    """The children as a mask over the codebook."""
    # Unused places are written into a column that is cut off again.
    column = torch.where(children.allowed, children.code, codebook_size)
    shape = (*column.shape[:-1], codebook_size + 1)
    mask = torch.zeros(shape, dtype=torch.bool, device=column.device)
    return mask.scatter_(-1, column, True)[..., :codebook_size]
