"""The trie restricted to what may be returned: a live catalogue for all, and each request's own blocked items.

Neither restriction builds the trie again. A prefix under which no item is left is not allowed either, so
that every allowed path ends at an item that may be returned.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from conrec.items.trie import Children, Trie, dense

__all__ = ["EligibleTrie", "LiveItems"]


class LiveItems:
    """A subset of the catalogue, such as a country's item pool, and optionally a prior for each item.

    Args:
        trie: the whole catalogue.
        items: bool [items], which are live; all by default.
        prior: float [items], added to an item's log-probability by the beam search (not by sampling): the
            logarithm of a popularity, a business rule; none by default.
    """

    def __init__(
        self, trie: Trie, items: Bool[Tensor, " items"] | None = None, prior: Float[Tensor, " items"] | None = None
    ) -> None:
        self.trie = trie
        live = (
            torch.ones(trie.n_items, dtype=torch.bool, device=trie.device) if items is None else items.to(trie.device)
        )
        self._n_live = int(live.sum())
        path = trie.path() if items is not None or prior is not None else None
        if items is None or path is None:
            self._counts = (trie.items_below(0), trie.items_below(1), live.long())
        else:
            below = [torch.zeros(trie.n_nodes(level), dtype=torch.int64, device=trie.device) for level in (0, 1)]
            for level in (0, 1):
                below[level].index_add_(0, path[:, level], live.long())
            self._counts = (below[0], below[1], live.long())
        self._prior: tuple[Tensor, ...] | None = None
        if prior is not None and path is not None:
            value = prior.to(trie.device, torch.float32).masked_fill(~live, -torch.inf)
            best = [torch.full((trie.n_nodes(level),), -torch.inf, device=trie.device) for level in (0, 1)]
            for level in (0, 1):
                best[level].scatter_reduce_(0, path[:, level], value, "amax")
            self._prior = (best[0], best[1], value)

    @property
    def n_live(self) -> int:
        """Number of live items."""
        return self._n_live

    @property
    def has_prior(self) -> bool:
        """Whether items have a prior."""
        return self._prior is not None

    def counts(self, level: int) -> Int64[Tensor, " nodes"]:
        """How many live items lie under each state after the code of ``level``."""
        return self._counts[level]

    def prior(self, state: Int64[Tensor, "*n"], level: int) -> Float[Tensor, "*n"]:
        """The largest prior of a live item under each state after the code of ``level``; 0 without priors.

        No item under a state gains more than this, which is what an exact search needs to know.
        """
        if self._prior is None:
            return torch.zeros(state.shape, device=state.device)
        return self._prior[level][state.clamp(min=0)].masked_fill(state < 0, -torch.inf)


class EligibleTrie:
    """A `Trie` for a batch of B requests, each with items of its own that are not eligible.

    Args:
        live: the catalogue, whole (a `Trie`) or restricted (`LiveItems`).
        blocked: int64 [B, M], the items that a request must not return, in any order, -1 for none; an item may
            be named twice.
    """

    def __init__(self, live: Trie | LiveItems, blocked: Int64[Tensor, "B M"]) -> None:
        self.live = LiveItems(live) if isinstance(live, Trie) else live
        self.trie = self.live.trie
        self.rows = len(blocked)
        self._blocked = blocked.to(self.trie.device)
        self._gone, self._n_gone = self._emptied()

    def _emptied(self) -> tuple[list[Tensor], Tensor]:
        """For each level, sorted keys ``row * nodes + state`` of the states that a request's blocked items empty."""
        blocked = self._blocked
        row = torch.arange(self.rows, device=blocked.device)[:, None].expand_as(blocked)[blocked >= 0]
        item = blocked[blocked >= 0]
        alive = self.live.counts(2)[item] > 0
        key = torch.unique(row[alive] * self.trie.n_items + item[alive])
        row, item = key // self.trie.n_items, key % self.trie.n_items
        state, codes = self.trie.root(len(item)), self.trie.codes[item].long()
        gone = []
        for level in range(self.trie.levels - 1):
            state = self.trie.step(state, codes[:, level], level)
            nodes = self.trie.n_nodes(level)
            keys, count = torch.unique(row * nodes + state, return_counts=True)
            gone.append(keys[count == self.live.counts(level)[keys % nodes]])
        return [*gone, key], torch.bincount(row, minlength=self.rows)

    def root(self) -> Int64[Tensor, "B 1"]:
        """The state before any code."""
        return self.trie.root(self.rows)[:, None]

    def children(self, state: Int64[Tensor, "B n"], level: int) -> Children:
        """The codes that may follow each state, as `Trie.children` gives them."""
        every = self.trie.children(state, level)
        reached = every.state.clamp(min=0)
        allowed = every.allowed & (self.live.counts(level)[reached] > 0)
        gone = self._gone[level]
        if len(gone):
            row = torch.arange(self.rows, device=state.device)[:, None, None]
            key = row * self.trie.n_nodes(level) + reached
            place = torch.searchsorted(gone, key).clamp(max=len(gone) - 1)
            allowed &= gone[place] != key
        return Children(every.code, torch.where(allowed, every.state, -1))

    def mask(self, state: Int64[Tensor, "B n"], level: int) -> Bool[Tensor, "B n codes"]:
        """Which codes may follow each state."""
        return dense(self.children(state, level), self.trie.codebook_size)

    def step(self, state: Int64[Tensor, "B n"], code: Int64[Tensor, "B n"], level: int) -> Int64[Tensor, "B n"]:
        """The state after a code; after the last level, the item."""
        return self.trie.step(state, code, level)

    def eligible_counts(self) -> Int64[Tensor, " B"]:
        """How many items each request may return."""
        return self.live.n_live - self._n_gone

    def select(self, rows: Int64[Tensor, " n"]) -> EligibleTrie:
        """The trie of some of the requests, in the given order."""
        return EligibleTrie(self.live, self._blocked[rows])
