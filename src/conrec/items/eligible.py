"""The trie restricted to what may be returned: a live catalogue for all, and each request's own blocked items.

Neither restriction builds the trie again. A prefix under which no item is left is not allowed either, so
that every allowed path ends at an item that may be returned. Where items share a semantic ID, it is allowed as long as
one of them may be returned, and `EligibleTrie.expanded` names them.
"""

from __future__ import annotations

from copy import copy

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from conrec.errors import DataError
from conrec.items.trie import Trie
from conrec.items.trie_nodes import Children, dense

__all__ = ["EligibleTrie", "LiveItems"]


class LiveItems:
    """A subset of the catalogue, such as a country's item pool, and optionally a prior for each item.

    Args:
        trie: the whole catalogue.
        items: bool [items], which are live; all by default.
        prior: float [items], added to an item's log-probability by the beam search (not by sampling): the
            logarithm of a popularity, a business rule; none by default. An item at -inf is not live. Of live items that
            share a semantic ID, the largest prior holds for all.

    Attributes:
        n_live: number of semantic IDs with a live item: of live items, where each has its own.
        has_prior: whether items have a prior.

    Raises:
        DataError: not one value an item, or a prior that is NaN or +inf.
    """

    def __init__(
        self, trie: Trie, items: Bool[Tensor, " any"] | None = None, prior: Float[Tensor, " priors"] | None = None
    ) -> None:
        self.trie = trie
        for name, given in (("items", items), ("prior", prior)):
            if given is not None and len(given) != trie.n_items:
                raise DataError(
                    f"{len(given)} values", where=f"live {name}", expected=f"one for each of {trie.n_items} items"
                )
        self.n_live, self.has_prior = trie.n_sids, prior is not None
        self._live: Tensor | None = None  # bool [items]; None: all
        self._below: tuple[Tensor, ...] | None = None  # live semantic IDs below each state, where not all are live
        self._prior: tuple[Tensor, ...] | None = None  # largest prior below each state
        if items is None and prior is None:
            return
        live = torch.ones(trie.n_items, dtype=torch.bool) if items is None else items
        live = live.to(trie.device)
        path = trie.path()
        if prior is not None:
            value = prior.to(trie.device, torch.float32)
            if bool((value.isnan() | value.isposinf()).any()):
                raise DataError("a prior is NaN or +inf", where="live prior", expected="numbers, or -inf for never")
            live = live & ~value.isneginf()
            value = value.masked_fill(~live, -torch.inf)
            best = [torch.full((trie.n_nodes(level),), -torch.inf, device=trie.device) for level in range(trie.levels)]
            for level, one in enumerate(best):
                one.scatter_reduce_(0, path[:, level], value, "amax")
            self._prior = tuple(best)
        self._live = live
        # A semantic ID counts once, at the first of its items.
        there = torch.zeros(trie.n_items, dtype=torch.int64, device=trie.device)
        there[path[live, -1]] = 1
        below = [
            torch.zeros(trie.n_nodes(level), dtype=torch.int64, device=trie.device) for level in range(trie.levels - 1)
        ]
        for level, one in enumerate(below):
            one.index_add_(0, path[:, level], there)
        self._below = (*below, there)
        self.n_live = int(there.sum())

    def has(self, item: Int64[Tensor, "*n"]) -> Bool[Tensor, "*n"]:
        """Whether each item is live."""
        return torch.ones_like(item, dtype=torch.bool) if self._live is None else self._live[item]

    def below(self, state: Int64[Tensor, "*n"], level: int) -> Int64[Tensor, "*n"]:
        """How many semantic IDs with a live item lie under each state after the code of ``level``; 0 for -1."""
        if self._below is None:
            return self.trie.sids_below(state, level)
        return torch.where(state >= 0, self._below[level][state.clamp(min=0)], 0)

    def only(self, state: Int64[Tensor, "*n"], level: int) -> Int64[Tensor, "*n"]:
        """States after the code of ``level``, -1 in the place of those under which no item is live."""
        return state if self._below is None else torch.where(self.below(state, level) > 0, state, -1)

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

    Raises:
        DataError: a blocked item is none of the catalogue.
    """

    def __init__(self, live: Trie | LiveItems, blocked: Int64[Tensor, "B M"]) -> None:
        self.live = LiveItems(live) if isinstance(live, Trie) else live
        self.trie = self.live.trie
        self.rows = len(blocked)
        if blocked.numel() and int(blocked.max()) >= self.trie.n_items:
            raise DataError(
                f"item {int(blocked.max())}",
                where="blocked items",
                expected=f"from 0 to {self.trie.n_items - 1}, or -1",
            )
        blocked = blocked.to(self.trie.device)
        self._blocked = blocked if self.trie.shared else None
        self._gone, self._n_gone = self._emptied(blocked)

    def _emptied(self, blocked: Tensor) -> tuple[list[Tensor], Tensor]:
        """For each level, sorted keys ``row * edges + edge`` of the edges that a request's blocked items empty."""
        row = torch.arange(self.rows, device=blocked.device)[:, None].expand_as(blocked)[blocked >= 0]
        item = blocked[blocked >= 0]
        last = self.trie.levels - 1
        alive = self.live.has(item)
        row, item = row[alive], item[alive]
        ends = self.trie.n_edges(last)
        if self.trie.shared:
            row, item = self._exhausted(row, item)
        key = torch.unique(row * ends + self.trie.edges_of(item)[:, last])
        row = key // ends
        way = self.trie.edges_of(self.trie.reached(key % ends, last))
        gone = []
        for level in range(last):
            edges = self.trie.n_edges(level)
            # In the order of the last edges those of the other levels are in order too.
            keys, count = torch.unique_consecutive(row * edges + way[:, level], return_counts=True)
            gone.append(keys[count == self.live.below(self.trie.reached(keys % edges, level), level)])
        gone.append(key)
        return gone, torch.bincount(row, minlength=self.rows)

    def _exhausted(self, row: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """Of live items that requests block, those whose semantic ID has no live item left for the request."""
        items = self.trie.n_items
        pair = torch.unique(row * items + item)
        sid = pair // items * items + self.trie.first_of(pair % items)
        sid, count = torch.unique(sid, return_counts=True)
        others, of_each = self.trie.items_of(sid % items)
        place = torch.arange(len(sid), device=sid.device).repeat_interleave(of_each)
        live = torch.zeros_like(count).index_add_(0, place, self.live.has(others).long())
        sid = sid[count == live]
        return sid // items, sid % items

    def expanded(
        self, item: Int64[Tensor, "B K"], score: Float[Tensor, "B K"]
    ) -> tuple[Int64[Tensor, "B K"], Float[Tensor, "B K"]]:
        """Lists of semantic IDs as lists of items: in place of each its eligible items, in the order of the catalogue.

        Args:
            item: the first item of each semantic ID, as a search finds them, -1 for none, distinct in each row.
            score: of each.

        Returns:
            The first K items of each row, -1 behind the last, and the scores of their semantic IDs, -inf behind the
            last. The same lists where every item has a semantic ID of its own.
        """
        if self._blocked is None:
            return item, score
        row, place = (item >= 0).nonzero(as_tuple=True)
        every, count = self.trie.items_of(item[row, place])
        row, place = row.repeat_interleave(count), place.repeat_interleave(count)
        blocked = self._blocked + torch.arange(self.rows, device=item.device)[:, None] * self.trie.n_items
        wanted = row * self.trie.n_items + every
        free = self.live.has(every) & ~torch.isin(wanted, blocked[self._blocked >= 0])
        row, place, every = row[free], place[free], every[free]
        # Their numbers within each row, which stand one behind the other.
        begins = torch.searchsorted(row, torch.arange(self.rows, device=item.device))
        rank = torch.arange(len(row), device=item.device) - begins[row]
        listed = rank < item.shape[1]
        row, place, every, rank = row[listed], place[listed], every[listed], rank[listed]
        items, scores = torch.full_like(item, -1), torch.full_like(score, -torch.inf)
        items[row, rank], scores[row, rank] = every, score[row, place]
        return items, scores

    def root(self) -> Int64[Tensor, "B 1"]:
        """The state before any code."""
        return self.trie.root(self.rows)[:, None]

    def children(self, state: Int64[Tensor, "B n"], level: int) -> Children:
        """The codes that may follow each state, as `Trie.children` gives them."""
        every = self.trie.children(state, level)
        reached = self.live.only(every.state, level)
        gone = self._gone[level]
        if len(gone) and state.numel():
            row = torch.arange(self.rows, device=state.device)[:, None] * self.trie.n_edges(level)
            begin, end = (one + row for one in self.trie.span(state, level))
            first, last = torch.searchsorted(gone, begin), torch.searchsorted(gone, end)
            most = int((last - first).max())
            if most:
                # The few emptied edges of each state, as places in its list.
                number = first[..., None] + torch.arange(most, device=state.device)
                at = (number < last[..., None]).nonzero(as_tuple=True)
                reached[at[0], at[1], gone[number[at]] - begin[at[0], at[1]]] = -1
        return Children(every.code, reached)

    def mask(self, state: Int64[Tensor, "B n"], level: int) -> Bool[Tensor, "B n codes"]:
        """Which codes may follow each state."""
        return dense(self.children(state, level), self.trie.sizes[level])

    def step(self, state: Int64[Tensor, "B n"], code: Int64[Tensor, "B n"], level: int) -> Int64[Tensor, "B n"]:
        """The state after a code; after the last level, the item."""
        return self.trie.step(state, code, level)

    def eligible_counts(self) -> Int64[Tensor, " B"]:
        """How many semantic IDs each request may return: as many items, where each has its own."""
        return self.live.n_live - self._n_gone

    def select(self, rows: Int64[Tensor, " n"]) -> EligibleTrie:
        """The trie of some of the requests, each named once, in the given order."""
        chosen = copy(self)
        chosen.rows = len(rows)
        chosen._blocked = None if self._blocked is None else self._blocked[rows]
        place = torch.full((self.rows,), -1, dtype=torch.int64, device=rows.device)
        place[rows] = torch.arange(len(rows), device=rows.device)
        chosen._n_gone = self._n_gone[rows]
        chosen._gone = []
        for level, gone in enumerate(self._gone):
            edges = self.trie.n_edges(level)
            row = place[gone // edges]
            chosen._gone.append((row * edges + gone % edges)[row >= 0].sort().values)
        return chosen
