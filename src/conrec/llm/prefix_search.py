"""Beam search by requests: the same search as on the token tree, where an engine answers one prefix at a time.

For engines that hold the model themselves and show no hidden states: each prefix is a request, and its answer the
log-probabilities of the codes that the trie allows after it.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float

from conrec.arrays import Array
from conrec.items.eligible import EligibleTrie
from conrec.llm.generation import FURTHER, Beams, first_round

__all__ = ["PrefixEngine", "search"]


@runtime_checkable
class PrefixEngine(Protocol):
    """What answers the requests."""

    def log_probabilities(
        self, prefixes: Sequence[Sequence[int]], allowed: Sequence[Sequence[int]]
    ) -> Sequence[Float[Array, " _"]]:
        """Log-probability of each allowed token after each prefix, over the allowed tokens.

        Args:
            prefixes: token ids.
            allowed: distinct token ids for each prefix, at least one.
        """
        ...


_Prefix = tuple[float, tuple[int, ...], int]
"""Score negated, tokens of the codes, state in the trie."""


@dataclass
class _Request:
    """The search for one prompt.

    Attributes:
        prompt: its token ids.
        k: items wanted.
        wanted: items that make the list long enough: k, or fewer where fewer are eligible.
        unread: heaps of prefixes, of one code, of two and so on.
        found: heap of the k best items, (score, item negated).
        nodes: prefixes that were asked for.
    """

    prompt: list[int]
    k: int
    wanted: int
    unread: tuple[list[_Prefix], ...]
    found: list[tuple[float, int]] = field(default_factory=list)
    nodes: int = 0

    @property
    def bound(self) -> float:
        """Score that an item must exceed to be listed."""
        return self.found[0][0] if len(self.found) == self.k else -np.inf

    @property
    def proved(self) -> bool:
        """Whether nothing unread can change the list."""
        left = max((-heap[0][0] for heap in self.unread if heap), default=-np.inf)
        return left <= self.bound

    @property
    def complete(self) -> bool:
        """Whether the list is as long as it can be."""
        return len(self.found) >= self.wanted

    def take(self, level: int, limit: int) -> list[_Prefix]:
        """The best prefixes of ``level`` + 1 codes, at most ``limit``, that may lead to something listed."""
        heap, bound = self.unread[level], self.bound
        taken: list[_Prefix] = []
        while heap and len(taken) < limit and -heap[0][0] > bound:
            taken.append(heapq.heappop(heap))
        self.nodes += len(taken)
        return taken

    def done(self, certified: bool, budget: int | None) -> bool:
        """Whether no further round is to begin."""
        spent = budget is not None and self.nodes >= budget
        return self.proved or (self.complete and (spent or not certified))

    def add(self, prefix: _Prefix, token: int, state: int, logarithm: float) -> None:
        """One continuation of a prefix: a longer prefix, or an item."""
        score, tokens, _ = prefix
        total = -score + min(logarithm, 0.0)
        if len(tokens) < len(self.unread):
            heapq.heappush(self.unread[len(tokens)], (-total, (*tokens, token), state))
        else:
            (heapq.heappush if len(self.found) < self.k else heapq.heappushpop)(self.found, (total, -state))


def search(
    engine: PrefixEngine,
    code_offset: Sequence[int],
    prompts: Sequence[Sequence[int]],
    trie: EligibleTrie,
    k: int,
    width: int | None = None,
    *,
    certified: bool = True,
    budget: int | None = None,
) -> Beams:
    """The items that `conrec.llm.generation.beam_search` finds, by requests to an engine.

    Args:
        engine: answers the requests.
        code_offset: token id of code 0 of each level.
        prompts: B prompts.
        trie: the eligible items of each, on the CPU, without priors.
        k: items per prompt.
        width: prefixes of each length read before anything is decided; by default k.
            Where they lead to fewer than min(k, eligible) items, the next best are read too.
        certified: go on until every list is proved to be exact.
        budget: once this many prefixes are read for a prompt, no further round begins for it: its list stays as it
            is, if need be unproved.

    Raises:
        DataError: k, width or budget is below 1.
    """
    limit = first_round(k, width, budget)
    wanted = trie.eligible_counts().clamp(max=k).tolist()
    lengths = range(trie.trie.levels - 1)
    requests = [
        _Request(list(prompt), k, most, tuple([] for _ in lengths))
        for prompt, most in zip(prompts, wanted, strict=True)
    ]
    _read(engine, code_offset, trie, requests, [[(0.0, (), 0)] if one.wanted else [] for one in requests], 0)
    active = requests
    while active := [one for one in active if not one.done(certified, budget)]:
        chosen = {id(one) for one in active}
        for level in lengths:
            taken = [one.take(level, limit) if id(one) in chosen else [] for one in requests]
            _read(engine, code_offset, trie, requests, taken, level + 1)
        limit = max(limit, FURTHER)
    items = torch.full((len(prompts), k), -1, dtype=torch.int64)
    scores = torch.full((len(prompts), k), -torch.inf)
    for row, one in enumerate(requests):
        for place, (score, item) in enumerate(sorted(one.found, reverse=True)):
            items[row, place], scores[row, place] = -item, score
    proved, nodes = torch.tensor([one.proved for one in requests]), torch.tensor([one.nodes for one in requests])
    return Beams(items, scores, proved, nodes)


def _read(
    engine: PrefixEngine,
    code_offset: Sequence[int],
    trie: EligibleTrie,
    requests: list[_Request],
    prefixes: list[list[_Prefix]],
    level: int,
) -> None:
    """Ask for the codes of ``level`` after some prefixes of each request, and add what follows."""
    states = torch.full((len(requests), max(len(some) for some in prefixes)), -1, dtype=torch.int64)
    for row, some in enumerate(prefixes):
        states[row, : len(some)] = torch.tensor([state for _, _, state in some], dtype=torch.int64)
    children = trie.children(states, level)
    asked: list[tuple[_Request, _Prefix, list[int], list[int]]] = []
    for row, some in enumerate(prefixes):
        for place, prefix in enumerate(some):
            allowed = children.state[row, place] >= 0
            tokens = (children.code[row, place][allowed] + code_offset[level]).tolist()
            asked.append((requests[row], prefix, tokens, children.state[row, place][allowed].tolist()))
    answers = engine.log_probabilities(
        [[*request.prompt, *prefix[1]] for request, prefix, _, _ in asked], [tokens for _, _, tokens, _ in asked]
    )
    for (request, prefix, tokens, reached), logs in zip(asked, answers, strict=True):
        for token, state, logarithm in zip(tokens, reached, logs.tolist(), strict=True):
            request.add(prefix, token, state, logarithm)
