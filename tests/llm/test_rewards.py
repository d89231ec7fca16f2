"""The rewards against their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conrec.arrays import Ragged
from conrec.items.trie import Trie
from conrec.llm.rewards import FutureReward, HitRankReward, Similarity


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), penalty=st.floats(0, 2))
def test_reward_is_its_formula(seed, penalty):
    rng = np.random.default_rng(seed)
    rebuilt = rng.normal(size=(12, 4)).astype(np.float32)
    rebuilt /= np.linalg.norm(rebuilt, axis=1, keepdims=True)
    items = rng.integers(12, size=(3, 5))
    gts = [rng.integers(12, size=rng.integers(1, 4)).astype(np.int32) for _ in range(3)]
    fps = [rng.integers(12, size=rng.integers(0, 4)).astype(np.int32) for _ in range(3)]
    reward = FutureReward(Similarity(torch.from_numpy(rebuilt)), penalty)(torch.from_numpy(items), gts, fps)
    for row in range(3):
        for column in range(5):
            own = rebuilt[items[row, column]]
            expected = max(float(own @ rebuilt[i]) for i in gts[row])
            if len(fps[row]):
                expected -= penalty * max(float(own @ rebuilt[t]) for t in fps[row])
            assert float(reward[row, column]) == pytest.approx(expected, abs=1e-5)


def test_a_reward_on_ragged_rows(rebuilt):
    reward = FutureReward(Similarity(rebuilt), 0.5)
    rows = Ragged.from_rows([[1, 2, 3], [4]])
    items = torch.tensor([[1, 5], [4, 0]])
    found = reward(items, list(rows), [np.empty(0, dtype=np.int32)] * 2)
    assert float(found[0, 0]) == pytest.approx(1.0, abs=1e-6)
    assert float(found[1, 0]) == pytest.approx(1.0, abs=1e-6)


def literal_hits(items, logs, wanted):
    """Rule and rank rewards of MiniOneRec for one group, as its paper writes them."""
    rule = [1.0 if item == wanted else 0.0 for item in items]
    if not any(rule):
        return [0.0] * len(items)
    ranks = [1 + sum(other > own for other in logs) for own in logs]
    raw = [0.0 if hit else -1 / math.log(rank + 1) for hit, rank in zip(rule, ranks, strict=True)]
    total = sum(raw)
    return [hit + (-one / total if total else 0.0) for hit, one in zip(rule, raw, strict=True)]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_hits_and_ranks_are_their_formula(trie, seed):
    rng = np.random.default_rng(seed)
    items, logs = rng.integers(6, size=(4, 5)), rng.choice([-3.0, -2.0, -1.5, -1.0, -0.2], size=(4, 5))
    wanted = rng.integers(6, size=(4, 1)).astype(np.int32)
    found = HitRankReward(trie)(torch.from_numpy(items), list(wanted), list(wanted), torch.from_numpy(logs))
    for row in range(4):
        assert found[row].tolist() == pytest.approx(literal_hits(items[row], logs[row], wanted[row, 0]), abs=1e-6)


def test_probable_mistakes_cost_most_and_only_beside_a_hit(trie):
    logs = torch.tensor([[-1.0, -2.0, -3.0, -4.0]] * 2)
    reward = HitRankReward(trie)
    found = reward(torch.tensor([[7, 2, 9, 4], [7, 2, 9, 4]]), [np.array([2]), np.array([5])], [], logs)
    assert found[0, 1] == 1.0
    assert found[0, 0] < found[0, 2] < found[0, 3] < 0
    assert float(found[0].sum()) == pytest.approx(0.0, abs=1e-6)
    assert found[1].tolist() == [0.0] * 4


def test_what_was_not_drawn_has_no_part_in_the_penalty(trie):
    logs = torch.tensor([[-1.0, -2.0, -torch.inf]])
    found = HitRankReward(trie)(torch.tensor([[7, 2, 2]]), [np.array([2])], [], logs)
    assert found.tolist() == [[-1.0, 1.0, 0.0]]
    alone = HitRankReward(trie)(torch.tensor([[2]]), [np.array([2])], [], torch.tensor([[-1.0]]))
    assert alone.tolist() == [[1.0]]
    assert HitRankReward(trie)(torch.tensor([[7, 2]]), [np.array([2])], []).tolist() == [[0.0, 1.0]]


def test_items_of_one_semantic_id_are_one_item():
    trie = Trie.from_codes(torch.tensor([[0, 0, 0], [0, 0, 1], [0, 0, 0]]), 2, shared=True)
    found = HitRankReward(trie)(torch.tensor([[0, 1]]), [np.array([2])], [], torch.tensor([[-1.0, -2.0]]))
    assert found.tolist() == [[1.0, -1.0]]
