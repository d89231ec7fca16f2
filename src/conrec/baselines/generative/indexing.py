"""Collaborative indexing: IDs from a tree of clusters of items that occur together (P5-CID, arXiv 2305.06569, 4.3.4).

An ID is the way down the tree, a token for each cluster of its own, and a last token for the item in its leaf. As in
the paper's code, at most three clusters stand before the last token. Departures:

* the graph is clustered by `conrec.baselines.generative.spectral`, which is regularised;
* a leaf counts its items from the most disliked one of the training period on, not at random: the same last token then
  says something of the same kind in every leaf;
* items that occur together with none get a cluster of their own, filled in the order of the catalogue and split into
  groups of ``leaf_size``; the paper's code gives items without training data a last token alone.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Int64
from scipy.sparse import coo_array, csr_array

from conrec.arrays import Array
from conrec.baselines.generative.retrieval import ItemIds
from conrec.baselines.generative.spectral import cluster_tree
from conrec.logs.log import Log
from conrec.protocol import NEGATIVE
from conrec.settings.baselines.generative import P5CidConfig

__all__ = ["co_occurrence", "collaborative_ids"]

DEPTH = 3
"""Clusters in an ID, at most."""

_Leaf = tuple[tuple[int, ...], Array]


def collaborative_ids(log: Log, settings: P5CidConfig, seed: int) -> ItemIds:
    """IDs of the whole catalogue; distinct.

    Codes of one level are numbered over the whole tree, so that each cluster has a token of its own. IDs that are
    shorter than others are filled up with code 0 before the last code; no cluster has it.

    Args:
        log: of the training period.
        settings: of the row.
        seed: of the iteration for eigenvectors.
    """
    graph = co_occurrence(log, settings.graph)
    linked = np.flatnonzero(np.diff(graph.indptr))
    leaves: list[_Leaf] = []
    if len(linked):
        leaves = cluster_tree(graph, linked, settings.clusters, settings.leaf_size, DEPTH, seed)
    alone = np.setdiff1d(np.arange(log.n_items), linked)
    own = 1 + max((path[0] for path, _ in leaves), default=-1)
    groups = [alone[begin : begin + settings.leaf_size] for begin in range(0, len(alone), settings.leaf_size)]
    leaves += [((own, number) if len(groups) > 1 else (own,), group) for number, group in enumerate(groups)]
    disliked = log.negative_counts()[1]
    columns = [_numbered([path[: level + 1] for path, _ in leaves], level) for level in range(_deepest(leaves))]
    codes = np.zeros((log.n_items, len(columns) + 1), dtype=np.int32)
    for leaf, (_, members) in enumerate(leaves):
        for level, column in enumerate(columns):
            codes[members, level] = column[leaf]
        rank = np.arange(len(members))
        ordered = members[np.argsort(-disliked[members], kind="stable")]
        codes[ordered, -1] = rank if settings.last_token == "shared" else ordered
    return ItemIds(codes, tuple((codes.max(axis=0) + 1).tolist()))


def co_occurrence(log: Log, events: str) -> csr_array:
    """How many users two different items have in common, int64 [items, items], symmetric.

    Args:
        log: of the training period.
        events: "negative" counts dislikes alone, "all" every event.
    """
    chosen = log.feedback == NEGATIVE if events == "negative" else np.ones(len(log), dtype=np.bool_)
    shape = (log.n_users, log.n_items)
    given = csr_array(coo_array((np.ones(chosen.sum(), dtype=np.int64), (log.user[chosen], log.item[chosen])), shape))
    given.data[:] = 1  # once a user, however often he did it
    together = csr_array(given.T @ given)
    together.setdiag(0)
    together.eliminate_zeros()
    return together


def _deepest(leaves: Iterable[_Leaf]) -> int:
    """Clusters of the longest way."""
    return max(len(path) for path, _ in leaves)


def _numbered(prefixes: list[tuple[int, ...]], level: int) -> Int64[Array, " leaves"]:
    """A code for each prefix of ``level`` + 1 clusters, from 1 in their order; 0 for those that end before."""
    whole = sorted({one for one in prefixes if len(one) > level})
    number = {one: position for position, one in enumerate(whole, start=1)}
    return np.asarray([number.get(one, 0) for one in prefixes], dtype=np.int64)
