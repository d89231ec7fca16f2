"""Light graph convolution over the graph of one sign, against dense matrices."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from conrec.arrays import Array
from conrec.baselines.signed.graph import Graph
from conrec.logs.log import Log
from tests.conformance import small_log


def _dense(log: Log, sign: int, left_out: Array | None = None) -> Array:
    """Users times items: 1 where there is an event of the sign."""
    matrix = np.zeros((log.n_users, log.n_items))
    for user, item, feedback in zip(log.user, log.item, log.feedback, strict=True):
        if feedback == sign and (left_out is None or not left_out[user]):
            matrix[user, item] = 1
    return matrix


def _normalised(matrix: Array) -> Array:
    user, item = matrix.sum(axis=1, keepdims=True), matrix.sum(axis=0, keepdims=True)
    return matrix / np.sqrt(np.maximum(user, 1)) / np.sqrt(np.maximum(item, 1))


@pytest.mark.parametrize("sign", [-1, 0, 1])
@pytest.mark.parametrize("layers", [0, 1, 3])
@pytest.mark.parametrize("thin", [False, True])
def test_convolution_is_that_of_dense_matrices(sign: int, layers: int, thin: bool) -> None:
    log = small_log()
    left_out = np.arange(log.n_users) % 3 == 0 if thin else None
    graph = Graph.of(log, sign) if left_out is None else Graph.of(log, sign).without(left_out)
    matrix = _dense(log, sign, left_out)
    table = np.random.default_rng(0).normal(size=(log.n_items, 5))
    edges = _normalised(matrix)
    expected, layer = table.copy(), table
    for _ in range(layers):
        layer = edges.T @ (edges @ layer)
        expected += layer
    found = graph.convolved(torch.from_numpy(table), layers)
    np.testing.assert_allclose(found.numpy(), expected / (layers + 1), atol=1e-12)
    assert graph.degree.tolist() == matrix.sum(axis=0).tolist()
    assert len(graph) == matrix.sum()


def test_it_is_the_even_layers_of_light_graph_convolution_over_all_nodes() -> None:
    """Users start at 0: what reaches items after 2 l of LightGCN's layers is what `convolved` gives in layer l."""
    log = small_log(1)
    edges = _normalised(_dense(log, -1))
    users, items = edges.shape
    whole = np.block([[np.zeros((users, users)), edges], [edges.T, np.zeros((items, items))]])
    table = np.random.default_rng(0).normal(size=(items, 4))
    nodes = np.concatenate([np.zeros((users, 4)), table])
    layers = [np.linalg.matrix_power(whole, power) @ nodes for power in (0, 2, 4)]
    found = Graph.of(log, -1).convolved(torch.from_numpy(table), 2)
    np.testing.assert_allclose(found.numpy(), np.mean(layers, axis=0)[users:], atol=1e-12)


def test_dropped_edges_carry_nothing() -> None:
    log = small_log()
    graph, edges = Graph.of(log, 1), _normalised(_dense(log, 1))
    kept = torch.from_numpy(np.random.default_rng(2).integers(0, 2, len(graph)).astype(float))
    mask = np.zeros_like(edges)
    mask[graph.user, graph.item.numpy()] = kept.numpy()
    table = np.random.default_rng(0).normal(size=(log.n_items, 3))
    expected = (table + (edges * mask).T @ ((edges * mask) @ table)) / 2
    found = graph.convolved(torch.from_numpy(table), 1, kept)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def test_gradients_are_those_of_the_transposed_map() -> None:
    graph = Graph.of(small_log(), 1)
    table = torch.from_numpy(np.random.default_rng(0).normal(size=(30, 2))).requires_grad_()
    assert torch.autograd.gradcheck(lambda one: graph.convolved(one, 2), (table,))


def test_a_graph_without_edges_and_a_copy() -> None:
    log = small_log()
    empty = Graph.of(log, -1).without(np.ones(log.n_users, dtype=bool))
    table = torch.ones(log.n_items, 2)
    torch.testing.assert_close(empty.convolved(table, 1), table / 2)
    assert copy.deepcopy(empty) is empty
