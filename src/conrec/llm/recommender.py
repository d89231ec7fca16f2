"""The language model as a row of the table: beams for the top K, log-probabilities for candidates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from conrec.arrays import Array
from conrec.config import Context
from conrec.items.eligible import EligibleTrie, LiveItems
from conrec.items.trie import Trie
from conrec.llm.backbone import Backbone
from conrec.llm.curriculum import blocked_items
from conrec.llm.generation import Beams, beam_search
from conrec.llm.policy import Normalise, log_probabilities
from conrec.llm.prompts import PromptBuilder
from conrec.logs.log import Log
from conrec.progress import console, meter
from conrec.recommender import Queries, Ranking

__all__ = ["GenerativeRecommender", "batches_of", "ranked"]


@dataclass(frozen=True)
class GenerativeRecommender:
    """A trained backbone that answers with items of the trie (a `conrec.recommender.Recommender`).

    Attributes:
        backbone: the model.
        prompts: builds its prompts.
        trie: the catalogue.
        context: what of a history the prompts show.
        batch_size: prompts read at a time.
        certified: whether the top K is proved exact, or what K plain beams find.
        budget: prefixes that may be read for one prompt before the proof is given up.
        normalise: over what probabilities sum to 1 at each code.
        pool: restricts what is generated to live items, and may give them priors; candidates are scored without it.
    """

    backbone: Backbone
    prompts: PromptBuilder
    trie: Trie
    context: Context
    batch_size: int
    certified: bool = True
    budget: int | None = None
    pool: LiveItems | None = None
    normalise: Normalise = "allowed"

    @property
    def parameters(self) -> int:
        """Learned numbers of the backbone."""
        return sum(one.numel() for one in self.backbone.model.parameters())

    def predict(self, log: Log, queries: Queries, k: int, *, history_eligible: bool = False) -> Ranking:
        """See `conrec.recommender.Recommender.predict`; the score is the log-probability of the item."""

        def search(prompts: list[list[int]], trie: EligibleTrie) -> Beams:
            return beam_search(
                self.backbone,
                prompts,
                trie,
                k,
                certified=self.certified,
                budget=self.budget,
                normalise=self.normalise,
            )

        batches = self._batches(log, queries, "generating")
        budget = self.budget if self.certified else None
        return ranked(search, batches, self.pool or self.trie, log, queries, k, history_eligible, budget)

    def score(self, log: Log, queries: Queries, candidates: Array) -> Array:
        """See `conrec.recommender.Recommender.score`; the score is the log-probability of the item."""
        scores = np.full(candidates.shape, -np.inf, dtype=np.float32)
        for rows, prompts in self._batches(log, queries, "scoring candidates"):
            scores[rows] = self._score(prompts, candidates[rows])
        return scores

    def _score(self, prompts: list[list[int]], candidates: Array) -> Array:
        """Log-probability of each candidate, float32 [B, C]; -inf for -1."""
        items = torch.from_numpy(candidates.astype(np.int64)).to(self.backbone.device)
        every = EligibleTrie(self.trie, items.new_empty(len(prompts), 0))
        codes = self.trie.codes[items.clamp(min=0)].long()
        with torch.no_grad():
            logs = log_probabilities(self.backbone, prompts, every, codes, normalise=self.normalise).sum(-1)
        scores: Array = logs.masked_fill(items < 0, -torch.inf).float().cpu().numpy()
        return scores

    def _batches(self, log: Log, queries: Queries, description: str) -> Iterator[tuple[Array, list[list[int]]]]:
        """See `batches_of`."""
        return batches_of(self.prompts, self.context, log, queries, self.batch_size, description)

    def choose(self, options: Array) -> Array:
        """Position of the most probable of the options of each alignment choice, int64 [n], from options [n, 4]."""
        prompts = [self.prompts.choice(row) for row in options.tolist()]
        chosen = np.empty(len(options), dtype=np.int64)
        for rows, batch in _batched(np.arange(len(options)), prompts, self.batch_size * 4, "four-way choices"):
            chosen[rows] = self._score(batch, options[rows]).argmax(1)
        return chosen


def batches_of(
    builder: PromptBuilder, context: Context, log: Log, queries: Queries, size: int, description: str
) -> Iterator[tuple[Array, list[list[int]]]]:
    """Rows of the queries and their prompts, in batches of similar length, behind a progress bar."""
    prompts = [
        builder.next_negative(log, user, timestamp, context)
        for user, timestamp in zip(queries.user.tolist(), queries.timestamp.tolist(), strict=True)
    ]
    order = np.argsort([len(prompt) for prompt in prompts], kind="stable")
    return _batched(order, prompts, size, description)


def ranked(
    search: Callable[[list[list[int]], EligibleTrie], Beams],
    batches: Iterable[tuple[Array, list[list[int]]]],
    catalogue: Trie | LiveItems,
    log: Log,
    queries: Queries,
    k: int,
    history_eligible: bool,
    budget: int | None,
) -> Ranking:
    """The lists that a search finds for all queries, batch by batch: k distinct items each, if so many are eligible.

    Where items share a semantic ID, it is searched while one of them is eligible, and the list names those that are in
    its place, in the order of the catalogue, each with its score.

    Args:
        search: lists of k semantic IDs, from prompts and what each may return.
        batches: see `batches_of`.
        catalogue: of what the lists are.
        log: for what is not eligible.
        queries: all of them.
        k: items per list.
        history_eligible: whether items of the history may be returned.
        budget: prefixes after which the proof of a list is given up, told to the reader where that happened; None
            where no list has to be proved, or each one is.
    """
    items = np.full((len(queries), k), -1, dtype=np.int32)
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    unproved = 0
    for rows, prompts in batches:
        blocked = blocked_items(log, queries.user[rows], queries.timestamp[rows], history_eligible)
        trie = EligibleTrie(catalogue, blocked)
        beams = search(prompts, trie)
        unproved += int((~beams.proved).sum())
        listed, score = trie.expanded(beams.item, beams.score)
        items[rows], scores[rows] = listed.cpu().numpy(), score.cpu().numpy()
    if budget is not None and unproved:
        console.print(
            f"        {unproved} of {len(queries)} lists are not proved exact: prediction.node_budget "
            f"({budget} prefixes) was used up"
        )
    return Ranking(items, scores)


def _batched(
    order: Array, prompts: list[list[int]], size: int, description: str
) -> Iterator[tuple[Array, list[list[int]]]]:
    """Stretches of ``order`` with their prompts."""
    with meter(description, len(order)) as tick:
        for begin in range(0, len(order), size):
            rows = order[begin : begin + size]
            yield rows, [prompts[row] for row in rows]
            tick(len(rows))
