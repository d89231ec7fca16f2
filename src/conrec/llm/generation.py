"""Beam search under the trie, and the certificate that makes its list exact.

Every output is an eligible catalogue item; none is returned twice, also when fewer items than beams are
eligible. Since a prefix is at least as probable as anything below it, a list is proved to be the exact top K
as soon as no prefix left unexpanded scores above its last item; until then, just those prefixes are expanded.

What is searched are semantic IDs. Where items share them, a list names the first item of each, and
`conrec.items.eligible.EligibleTrie.expanded` the others: at least as many items, for each has one that is eligible.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from conrec.errors import DataError
from conrec.items.eligible import EligibleTrie
from conrec.llm.backbone import Backbone
from conrec.llm.policy import CodeHead, NextCodes, Normalise, next_codes, read
from conrec.llm.tree import Padding, PrefixTree

__all__ = ["Beams", "beam_search", "first_round", "search_tree"]

FURTHER = 256
"""Prefixes of a length that a round after the first reads at most for a prompt, where k is no larger."""
CELLS = 1 << 24
"""Continuations of prefixes that are held at a time; more are read in pieces."""


@dataclass(frozen=True, slots=True)
class Beams:
    """The K best items that were found for each of B prompts.

    Attributes:
        item: int64 [B, K], in descending order of score, -1 behind the last; of a shared semantic ID the first item.
        score: float32 [B, K], log-probability of the item (plus its prior, where items have one), -inf behind
            the last.
        proved: bool [B], whether no other eligible item has a higher score than the last one listed.
        nodes: int64 [B], prefixes that the model has read for each prompt.
    """

    item: Tensor
    score: Tensor
    proved: Tensor
    nodes: Tensor


@torch.no_grad()
def beam_search(
    backbone: Backbone,
    prompts: Sequence[Sequence[int]],
    trie: EligibleTrie,
    k: int,
    width: int | None = None,
    *,
    certified: bool = True,
    budget: int | None = None,
    normalise: Normalise = "allowed",
    padding: Padding = "right",
) -> Beams:
    """The k most probable items: the exact ones, or those that a plain beam finds.

    Args:
        backbone: the model, in evaluation mode.
        prompts: B prompts of any lengths.
        trie: the eligible items of each.
        k: items per prompt; may exceed what is eligible.
        width: prefixes of each length read before anything is decided; by default k.
            Where they lead to fewer than min(k, eligible) items, the next best are read too.
        certified: go on until every list is proved. With trained models that costs little; the flatter the
            model's distributions, the more of the catalogue has to be read (`Beams.nodes` tells).
        budget: once this many prefixes are read for a prompt, no further round begins for it: its list stays as it
            is, if need be unproved.
        normalise: over what the probabilities sum to 1 at each step.
        padding: see `TokenTree`.

    Raises:
        DataError: k, width or budget is below 1, or there is not one prompt for each request.
        ConrecError: the model's logits are not finite.
    """
    limit = first_round(k, width, budget)
    tree = read(backbone, prompts, trie, padding)
    return search_tree(backbone, tree, trie, k, limit, certified=certified, budget=budget, normalise=normalise)


@torch.no_grad()
def search_tree(
    head: CodeHead,
    tree: PrefixTree,
    trie: EligibleTrie,
    k: int,
    limit: int,
    *,
    certified: bool = True,
    budget: int | None = None,
    normalise: Normalise = "allowed",
) -> Beams:
    """`beam_search` on the tree of a model of any make, once what its prefixes follow has been read.

    Args:
        head: from hidden states to logits of codes.
        tree: a row for each request.
        trie: the eligible items of each.
        k: items per request; may exceed what is eligible.
        limit: prefixes of each length read before anything is decided, `first_round`.
        certified, budget, normalise: see `beam_search`.

    Raises:
        ConrecError: the model's logits are not finite.
    """
    search = _Search(head, tree, trie, k, normalise)
    rows = torch.arange(trie.rows, device=tree.root.device)  # the requests still at work
    result = search.found()
    while True:
        search.expand(limit)
        found = search.found()
        complete = (found.item >= 0).sum(1) >= search.trie.eligible_counts().clamp(max=k)
        done = found.proved if certified else found.proved | complete
        if budget is not None:
            done = done | (complete & (found.nodes >= budget))
        for name in ("item", "score", "proved", "nodes"):
            getattr(result, name)[rows] = getattr(found, name)
        if bool(done.all()):
            return result
        if bool(done.any()):
            rows = rows[~done]
            search.select((~done).nonzero()[:, 0])
        limit = max(limit, FURTHER)


def first_round(k: int, width: int | None, budget: int | None) -> int:
    """Prefixes of a length that a search reads for a prompt before anything is decided.

    Raises:
        DataError: k, width or budget is below 1.
    """
    limit = k if width is None else width
    if min(k, limit, 1 if budget is None else budget) < 1:
        raise DataError(f"k {k}, width {width}, budget {budget}", where="beam search", expected="at least 1")
    return limit


@dataclass
class _Pool:
    """Prefixes of one length, [B, P] each.

    Attributes:
        score: log-probability.
        bound: what no item below can exceed; -inf for unused places and once a prefix is expanded.
        code: its last code.
        state: where it stands in the trie.
        parent: the tree's node of the prefix that is one code shorter, -1 for the prompt.
    """

    score: Float[Tensor, "B P"]
    bound: Float[Tensor, "B P"]
    code: Int64[Tensor, "B P"]
    state: Int64[Tensor, "B P"]
    parent: Int64[Tensor, "B P"]

    def map(self, change: Callable[[Tensor], Tensor]) -> _Pool:
        """The same change made to everything."""
        return _Pool(change(self.score), change(self.bound), change(self.code), change(self.state), change(self.parent))

    def joined(self, more: _Pool) -> _Pool:
        """These prefixes and further ones behind them, without places that no row uses."""
        pairs = ((getattr(self, name), getattr(more, name)) for name in self.__dataclass_fields__)
        both = _Pool(*(torch.cat(pair, dim=1) for pair in pairs))
        used = int((~both.bound.isneginf()).sum(1).max())
        if used * 2 > both.bound.shape[1]:
            return both
        place = both.bound.topk(used, dim=1).indices
        return both.map(lambda one: one.gather(1, place))

    def best(self, above: Float[Tensor, " B"], limit: int) -> _Pool | None:
        """Take out the prefixes with the highest bounds above a row's threshold, at most ``limit`` a row."""
        wanted = int((self.bound > above[:, None]).sum(1).max())
        if wanted == 0:
            return None
        bound, place = self.bound.topk(min(limit, wanted), dim=1)
        used = bound > above[:, None]
        self.bound = self.bound.scatter(1, place, bound.masked_fill(used, -torch.inf))
        taken = self.map(lambda one: one.gather(1, place))
        taken.bound = bound.masked_fill(~used, -torch.inf)
        taken.state = taken.state.masked_fill(~used, -1)
        return taken


class _Search:
    """Expands the most probable prefixes of many requests at once.

    For every request there is a pool of prefixes that the model has not read yet for each number of codes but the last.
    """

    def __init__(self, head: CodeHead, tree: PrefixTree, trie: EligibleTrie, k: int, normalise: Normalise) -> None:
        self.head, self.tree, self.trie, self.k, self.normalise = head, tree, trie, k, normalise
        device, rows = tree.root.device, trie.rows
        root = torch.zeros(rows, 1, dtype=tree.root.dtype, device=device)
        first = self._below(tree.root[:, None], trie.root(), root, -1, 0)
        self._pools = [first, *(first.map(lambda one: one[:, :0]) for _ in range(trie.trie.levels - 2))]
        self._item = torch.full((rows, k), -1, dtype=torch.int64, device=device)
        self._score = torch.full((rows, k), -torch.inf, dtype=first.score.dtype, device=device)
        self._nodes = torch.zeros(rows, dtype=torch.int64, device=device)
        self._kept = 0  # nodes of the tree that may be parents

    def found(self) -> Beams:
        """The lists so far."""
        best_left = torch.stack([pool.bound.max(1).values for pool in self._pools if pool.bound.shape[1]]).max(0).values
        proved = best_left.isneginf() | (best_left <= self._score[:, -1])
        return Beams(self._item.clone(), self._score.clone(), proved, self._nodes.clone())

    def select(self, rows: Int64[Tensor, " n"]) -> None:
        """Go on with some of the requests."""
        self.tree.select(rows)
        self.trie = self.trie.select(rows)
        self._pools = [pool.map(lambda one: one[rows]) for pool in self._pools]
        self._item, self._score, self._nodes = self._item[rows], self._score[rows], self._nodes[rows]

    def expand(self, limit: int) -> None:
        """Read the best prefixes of one code, then the best of two and so on, at most ``limit`` of each a request."""
        for level, pool in enumerate(self._pools):
            best = pool.best(self._score[:, -1], limit)
            if best is None:
                continue
            step = max(1, CELLS // (self.trie.rows * self.trie.trie.widest(level + 1)))
            for begin in range(0, best.code.shape[1], step):
                piece = slice(begin, begin + step)
                self._read(best.map(lambda one, piece=piece: one[:, piece]), level)  # type: ignore[misc]

    def _read(self, prefixes: _Pool, level: int) -> None:
        """Let the model read prefixes of ``level`` + 1 codes, and put what follows where it belongs."""
        tokens = prefixes.code + self.head.code_offset[level]
        inner = level + 1 < len(self._pools)  # what follows has further codes behind it
        hidden = self.tree.extend((tokens, prefixes.parent), keep=inner)
        self._nodes += (prefixes.state >= 0).sum(1)
        below = self._below(hidden, prefixes.state, prefixes.score, self._kept if inner else -1, level + 1)
        if inner:
            self._kept += tokens.shape[1]
            self._pools[level + 1] = self._pools[level + 1].joined(below)
        else:
            score, place = torch.cat([self._score, below.bound], 1).topk(self.k, dim=1)
            self._item, self._score = torch.cat([self._item, below.state], 1).gather(1, place), score

    def _below(
        self,
        hidden: Float[Tensor, "B n d"],
        state: Int64[Tensor, "B n"],
        score: Float[Tensor, "B n"],
        node: int,
        level: int,
    ) -> _Pool:
        """What follows n prefixes, whose nodes in the tree are numbered from ``node``; unused places at -inf."""
        following: NextCodes = next_codes(self.head, hidden, self.trie, state, level, self.normalise)
        # Rounding may put a certain code a little above 0; a prefix must not gain by going on.
        total = score[..., None] + following.log_probability.clamp(max=0.0)
        total = total.masked_fill(following.state < 0, -torch.inf)
        bound = total + self.trie.live.prior(following.state, level) if self.trie.live.has_prior else total
        if node < 0:
            parent = torch.full_like(following.code, -1)
        else:
            parent = (node + torch.arange(state.shape[1], device=state.device))[:, None].expand_as(following.code)
        return _Pool(*(one.flatten(1) for one in (total, bound, following.code, following.state, parent)))
