"""A trie restricted, request by request, to the items that may be returned, without rebuilding it."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from conrec.items.trie import Trie

__all__ = ["EligibleTrie"]


class EligibleTrie:
    """A `Trie` for a batch of B requests, each with items of its own that are not eligible.

    A prefix under which no eligible item is left is not allowed either, so that every allowed path
    ends at an eligible item.

    Args:
        trie: the whole catalogue.
        blocked: bool [B, items], the items that a request must not return.
    """

    def __init__(self, trie: Trie, blocked: Bool[Tensor, "B items"]) -> None:
        self.trie = trie
        free = (~blocked).to(torch.int32)
        codes = trie.codes
        first = trie.step(trie.root(len(codes)), codes[:, 0], 0)
        second = trie.step(first, codes[:, 1], 1)
        rows = len(blocked)
        n_second = int(second.max()) + 1
        self._free_first = torch.zeros(rows, int(first.max()) + 1, dtype=torch.int32, device=blocked.device)
        self._free_first.index_add_(1, first, free)
        self._free_second = torch.zeros(rows, n_second, dtype=torch.int32, device=blocked.device)
        self._free_second.index_add_(1, second, free)
        self._free = (self._free_first > 0, self._free_second > 0, ~blocked)

    def root(self) -> Int64[Tensor, "B 1"]:
        """The state before any code."""
        return self.trie.root(len(self._free[2]))[:, None]

    def mask(self, state: Int64[Tensor, "B n"], level: int) -> Bool[Tensor, "B n codes"]:
        """Which codes may follow each state."""
        allowed = self.trie.mask(state, level)
        every = torch.arange(allowed.shape[-1], device=state.device).expand(allowed.shape)
        child = self.trie.step(state[..., None].expand(allowed.shape).contiguous(), every.contiguous(), level)
        free = self._free[level]
        rows = torch.arange(len(free), device=state.device)[:, None, None]
        return allowed & free[rows, child.clamp(min=0)]

    def step(self, state: Int64[Tensor, "B n"], code: Int64[Tensor, "B n"], level: int) -> Int64[Tensor, "B n"]:
        """The state after a code; after the last level, the item."""
        return self.trie.step(state, code, level)

    def eligible_counts(self) -> Int64[Tensor, " B"]:
        """How many items each request may return."""
        return self._free[2].sum(1)
