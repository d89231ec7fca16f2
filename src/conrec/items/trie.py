"""The trie of existing semantic IDs: one object for rollouts, generation and serving alike.

Level 1 is one dense table over the codebook. A deeper level is CSR: the codes that follow a node, in
ascending order, between two offsets. Nodes of a level are numbered in the order of their prefixes, so the
number of an edge is the number of the node that it leads to, and nothing else has to be stored. All
look-ups are vectorised over states and stay on the device; 28 to 40 bytes an item in all, of three levels.

There are as many levels as the semantic IDs have codes. Where items share theirs, the first of them in the catalogue
stands for all in every state and answer; `Trie.items_of` says which they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Int, Int64
from torch import Tensor

from conrec.items.semantic_ids import SemanticIds, level_sizes
from conrec.items.trie_arrays import DEEPER, SHARED, trie_arrays
from conrec.items.trie_nodes import Children, Edges, dense

__all__ = ["Trie"]


class Trie:
    """Which codes may follow which prefix, over the resolved semantic IDs of a catalogue.

    A state is an int64: 0 at the root, then the number of the node that was reached, and after the last
    level the index of the item (of those that share a semantic ID the first). -1 is the state of a prefix that no item
    has; it stays -1.

    Attributes:
        codes: int32 [items, levels], the semantic ID of each item.
        sizes: codes of each level.
        levels: how many there are.
    """

    def __init__(
        self,
        codes: Tensor,
        sizes: Sequence[int],
        first: Tensor,
        deeper: tuple[Edges, ...],
        item: Tensor,
        item_offsets: Tensor | None = None,
    ) -> None:
        self.codes = codes
        self.sizes = tuple(sizes)
        self.levels = len(self.sizes)
        self._first = first  # int32 [codes of the first level], node of each first code, -1 for none
        self._deeper = deeper
        self._items = item  # int32 [items], items of each edge of the last level, one edge after the other
        self._offsets = item_offsets  # int32 [edges + 1], where those of each begin; None: one each
        self._item = item if item_offsets is None else item[item_offsets[:-1].long()]  # the first of each
        edges = torch.arange(len(self._item), dtype=item.dtype, device=item.device)
        if item_offsets is not None:
            edges = edges.repeat_interleave(item_offsets.diff(), output_size=len(item))
        self._edge_of = torch.empty_like(item)  # and the edge of each item
        self._edge_of[item.long()] = edges

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Tensor], sizes: Sequence[int]) -> Trie:
        """The trie that `arrays` was asked of."""
        deeper = tuple(
            Edges(arrays[f"{name}_codes"], arrays[f"{name}_offsets"], int(arrays[f"{name}_offsets"].diff().max()))
            for name in DEEPER[: len(sizes) - 1]
        )
        return cls(arrays["codes"], sizes, arrays["first"], deeper, arrays["item"], arrays.get(SHARED))

    @classmethod
    def from_codes(
        cls, codes: Int[Tensor, "items levels"], sizes: int | Sequence[int], *, shared: bool = False
    ) -> Trie:
        """Build the trie of the semantic IDs ``codes``, on the device where they lie.

        Args:
            codes: resolved codes of each item, each in [0, size of its level).
            sizes: codes of each level; one number for three levels of so many.
            shared: whether several items may have the same semantic ID; otherwise every row is different.

        Raises:
            DataError: no items, a code out of range, or two items with the same semantic ID where they are not shared.
        """
        found = trie_arrays(codes.detach().cpu().numpy(), sizes, shared=shared)
        arrays = {name: torch.from_numpy(one) for name, one in found.items()}
        return cls.from_arrays(arrays, level_sizes(sizes)).to(codes.device)

    @classmethod
    def of(cls, ids: SemanticIds) -> Trie:
        """The trie of a table."""
        return cls.from_codes(torch.from_numpy(ids.resolved), ids.sizes, shared=ids.shared)

    def __len__(self) -> int:
        return self.n_items

    @property
    def codebook_size(self) -> int:
        """Codes of each of the first three levels."""
        return self.sizes[0]

    @property
    def n_items(self) -> int:
        """Number of items."""
        return len(self.codes)

    @property
    def n_sids(self) -> int:
        """Number of distinct semantic IDs."""
        return len(self._item)

    @property
    def shared(self) -> bool:
        """Whether several items may have the same semantic ID."""
        return self._offsets is not None

    @property
    def device(self) -> torch.device:
        """Where the trie lies; states and codes must lie there too."""
        return self.codes.device

    @property
    def nbytes(self) -> int:
        """Bytes of all its arrays."""
        held = [*self.arrays().values(), self._edge_of, *([self._item] if self.shared else [])]
        return sum(one.numel() * one.element_size() for one in held)

    def to(self, device: torch.device | str) -> Trie:
        """The same trie on ``device``."""
        return Trie(
            self.codes.to(device),
            self.sizes,
            self._first.to(device),
            tuple(one.to(device) for one in self._deeper),
            self._items.to(device),
            None if self._offsets is None else self._offsets.to(device),
        )

    def root(self, n: int) -> Int64[Tensor, " n"]:
        """``n`` states at the root: zeros."""
        return torch.zeros(n, dtype=torch.int64, device=self.device)

    def n_nodes(self, level: int) -> int:
        """How many states there are after the code of ``level``, from 0; after the last, the items."""
        return len(self._deeper[level].offsets) - 1 if level < self.levels - 1 else self.n_items

    def widest(self, level: int) -> int:
        """How many codes of ``level`` follow one state at most."""
        return self.sizes[0] if level == 0 else self._edges(level).widest

    def sids_below(self, state: Int64[Tensor, "*n"], level: int) -> Int64[Tensor, "*n"]:
        """How many semantic IDs begin with the prefix of each state after the code of ``level``; 0 for -1."""
        alive = state >= 0
        if level == self.levels - 1:
            return alive.long()
        begin = state.clamp(min=0)
        end = begin + 1
        for edges in self._deeper[level:]:
            begin, end = edges.offsets[begin], edges.offsets[end]
        return torch.where(alive, (end - begin).long(), 0)

    def items_of(self, item: Int64[Tensor, " n"]) -> tuple[Int64[Tensor, " m"], Int64[Tensor, " n"]]:
        """The items that share the semantic ID of each item, itself included, in the order of the catalogue.

        Returns:
            All of them one after the other, and how many each of the n has.
        """
        if self._offsets is None:
            return item, torch.ones_like(item)
        edge = self._edge_of[item].long()
        begin = self._offsets[edge].long()
        count = self._offsets[edge + 1].long() - begin
        # From the start of each stretch on, counted by place in the answer.
        start = (begin - count.cumsum(0) + count).repeat_interleave(count)
        return self._items[start + torch.arange(len(start), device=item.device)].long(), count

    def first_of(self, item: Int64[Tensor, "*n"]) -> Int64[Tensor, "*n"]:
        """The item that stands for the semantic ID of each item: the first that has it."""
        return item if self._offsets is None else self._item[self._edge_of[item].long()].long()

    def edges_of(self, item: Int64[Tensor, "*n"]) -> Int64[Tensor, "*n levels"]:
        """The edges on the way to each item, see `span`."""
        edge = self._edge_of[item]
        way = [edge.long()]
        for edges in reversed(self._deeper[1:]):
            edge = torch.searchsorted(edges.offsets, edge, right=True, out_int32=True) - 1
            way.append(edge.long())
        return torch.stack([self.codes[item, 0].long(), *reversed(way)], dim=-1)

    def path(self) -> Int64[Tensor, "items levels"]:
        """The state of every item after each of its codes; in the last column it is the item, or the first of those
        that share its semantic ID."""
        edges = self.edges_of(torch.arange(self.n_items, device=self.device))
        return torch.stack([self.reached(edges[:, level], level) for level in range(self.levels)], dim=1)

    def children(self, state: Int64[Tensor, "*n"], level: int) -> Children:
        """The codes that may follow, as a list for each state.

        Args:
            state: states after ``level`` codes.
            level: of the code that follows, from 0.

        Returns:
            Codes and the states they lead to; at level 0 a place for every code of the codebook.
        """
        alive = (state >= 0).unsqueeze(-1)
        if level == 0:
            code = torch.arange(self.sizes[0], device=self.device).expand(*state.shape, -1)
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
            return begin, torch.where(state >= 0, self.sizes[0], 0)
        offsets = self._edges(level).offsets
        node = state.clamp(0, len(offsets) - 2)
        begin = offsets[node].long()
        return begin, torch.where(state >= 0, offsets[node + 1].long(), begin)

    def n_edges(self, level: int) -> int:
        """How many edges a level has, used or not."""
        return self.sizes[0] if level == 0 else len(self._edges(level).codes)

    def edge(self, state: Int64[Tensor, "*n"], code: Int64[Tensor, "*n"], level: int) -> Int64[Tensor, "*n"]:
        """The edge out of each state that carries a code; -1 where there is none."""
        if level == 0:
            known = (state >= 0) & (code >= 0) & (code < self.sizes[0])
            return torch.where(known & (self._first[code.clamp(0, self.sizes[0] - 1)] >= 0), code, -1)
        edges = self._edges(level)
        known = (state >= 0) & (code >= 0) & (code < self.sizes[level])
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
        if 0 < level < self.levels - 1:
            return edge
        target = self._first if level == 0 else self._item
        return torch.where(edge >= 0, target[edge.clamp(min=0)].long(), -1)

    def mask(self, state: Int64[Tensor, "*n"], level: int) -> Bool[Tensor, "*n codes"]:
        """Which codes may follow, as a mask over the codes of the level.

        Args:
            state: states after ``level`` codes.
            level: of the code that follows, from 0.

        Returns:
            True where an item has the state's prefix followed by the code; all False for a state of -1.
        """
        return dense(self.children(state, level), self.sizes[level])

    def step(self, state: Int64[Tensor, "*n"], code: Int64[Tensor, "*n"], level: int) -> Int64[Tensor, "*n"]:
        """The state after one more code.

        Args:
            state: states after ``level`` codes.
            code: the code that follows each.
            level: of ``code``, from 0.

        Returns:
            The next state, -1 where no item has that prefix; after the last level it is the item's index.
        """
        return self.reached(self.edge(state, code, level), level)

    def arrays(self) -> dict[str, Tensor]:
        """Everything that the trie consists of besides its sizes, int32, by name."""
        named = {"codes": self.codes, "first": self._first}
        for name, edges in zip(DEEPER, self._deeper, strict=False):
            named |= {f"{name}_codes": edges.codes, f"{name}_offsets": edges.offsets}
        named["item"] = self._items
        return named if self._offsets is None else {**named, SHARED: self._offsets}

    def _edges(self, level: int) -> Edges:
        if not 0 < level < self.levels:
            raise ValueError(f"level {level} of a trie with levels from 0 to {self.levels - 1}")
        return self._deeper[level - 1]
