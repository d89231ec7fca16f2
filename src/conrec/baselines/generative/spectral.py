"""Spectral clustering of a weighted graph, and the tree of clusters that it makes when it is applied again and again.

The leading N eigenvectors of ``D^-1/2 A D^-1/2`` are assigned by a pivoted QR (Damle, Minden and Ying, "Simple, direct
and efficient multi-way spectral clustering", Information and Inference 2019), which draws nothing at random.

Graphs of co-occurrence have fringes: items with one or two neighbours. Plain spectral clustering cuts off fringe after
fringe and leaves all else in one cluster. Hence the degrees are raised by their mean and the rows of the eigenvectors
have length 1 (regularised spectral clustering: Qin and Rohe, NIPS 2013; why it works: Zhang and Rohe, NeurIPS 2018).
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int, Int64
from scipy.linalg import eigh, qr, svd
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import ArpackNoConvergence, eigsh

from conrec.arrays import Array
from conrec.errors import NotApplicableError
from conrec.seeds import generator

__all__ = ["cluster_tree", "spectral_clusters"]

DENSE = 600
"""Up to so many nodes all eigenvectors are computed; above, the leading ones by iteration."""


def spectral_clusters(graph: csr_array, parts: int, seed: int) -> Int64[Array, " nodes"]:
    """A part for each node, from 0; parts may be empty.

    Args:
        graph: symmetric weights at or above 0, [nodes, nodes]; the diagonal is left out.
        parts: how many, at most as many as there are nodes.
        seed: of the start of the eigenvector iteration, which large graphs need.
    """
    n = graph.shape[0]
    if parts >= n:
        return np.arange(n)
    weights = csr_array(graph.astype(np.float64))
    weights = weights - diags_array(weights.diagonal())
    degree = np.asarray(weights.sum(axis=1))
    if not degree.any():
        return np.zeros(n, dtype=np.int64)
    scale = diags_array(1 / np.sqrt(degree + degree.mean()))
    vectors = _leading(csr_array(scale @ weights @ scale), parts, seed)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return _assigned(vectors / np.where(length > 0, length, 1.0))


def _leading(matrix: csr_array, count: int, seed: int) -> Float64[Array, "nodes count"]:
    """Eigenvectors of the largest eigenvalues of a symmetric matrix."""
    n = matrix.shape[0]
    if n <= max(DENSE, count + 1):
        return np.asarray(eigh(matrix.toarray(), subset_by_index=[n - count, n - 1])[1])
    chance = generator(seed, "spectral", n)
    # Where the iteration begins anew, SciPy 1.17 draws at random; the versions before begin alike every time.
    draws: dict[str, Any] = {"rng": chance} if "rng" in inspect.signature(eigsh).parameters else {}
    try:
        return np.asarray(eigsh(matrix, k=count, which="LA", v0=chance.normal(size=n), tol=1e-8, **draws)[1])
    except ArpackNoConvergence as error:
        raise NotApplicableError(
            f"the spectral clustering of {n} items did not converge", expected="a graph with eigenvectors to cluster by"
        ) from error


def _assigned(vectors: Float[Array, "nodes parts"]) -> Int64[Array, " nodes"]:
    """The part of each row (Damle et al., algorithm 1): the rotation nearest to the rows of the parts' typical nodes
    turns the vectors into indicators of parts."""
    parts = vectors.shape[1]
    typical = qr(vectors.T, pivoting=True, mode="r")[1][:parts]
    left, _, right = svd(vectors[typical].T)
    found: Array = np.abs(vectors @ (left @ right)).argmax(axis=1)
    return found


def cluster_tree(
    graph: csr_array, nodes: Int[Array, " n"], parts: int, leaf_size: int, depth: int, seed: int
) -> list[tuple[tuple[int, ...], Int64[Array, " m"]]]:
    """The leaves of the tree of clusters: clusters of more than ``leaf_size`` nodes are split into ``parts``.

    Args:
        graph: symmetric weights, over more nodes than are clustered.
        nodes: those that are.
        parts: into which a cluster is split; the first split is made in any case.
        leaf_size: clusters of at most so many nodes are leaves.
        depth: splits on the way to a leaf, at most.
        seed: see `spectral_clusters`.

    Returns:
        For each leaf its path, the number of the part at each split, and its nodes, ascending.
    """
    leaves: list[tuple[tuple[int, ...], Array]] = []
    todo: list[tuple[tuple[int, ...], Array]] = [((), np.sort(nodes).astype(np.int64))]
    while todo:
        path, members = todo.pop(0)
        part = spectral_clusters(csr_array(graph[members][:, members]), min(parts, len(members)), seed)
        kinds = np.unique(part)
        for number, kind in enumerate(kinds.tolist()):
            below = members[part == kind]
            done = len(below) <= leaf_size or len(path) + 1 == depth or len(kinds) == 1
            (leaves if done else todo).append(((*path, number), below))
    return leaves
