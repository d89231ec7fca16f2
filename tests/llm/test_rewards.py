"""The reward against its formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conrec.arrays import Ragged
from conrec.llm.rewards import FutureReward


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), penalty=st.floats(0, 2))
def test_reward_is_its_formula(seed, penalty):
    rng = np.random.default_rng(seed)
    rebuilt = rng.normal(size=(12, 4)).astype(np.float32)
    rebuilt /= np.linalg.norm(rebuilt, axis=1, keepdims=True)
    items = rng.integers(12, size=(3, 5))
    gts = [rng.integers(12, size=rng.integers(1, 4)).astype(np.int32) for _ in range(3)]
    fps = [rng.integers(12, size=rng.integers(0, 4)).astype(np.int32) for _ in range(3)]
    reward = FutureReward(torch.from_numpy(rebuilt), penalty)(torch.from_numpy(items), gts, fps)
    for row in range(3):
        for column in range(5):
            own = rebuilt[items[row, column]]
            expected = max(float(own @ rebuilt[i]) for i in gts[row])
            if len(fps[row]):
                expected -= penalty * max(float(own @ rebuilt[t]) for t in fps[row])
            assert float(reward[row, column]) == pytest.approx(expected, abs=1e-5)


def test_a_reward_on_ragged_rows(rebuilt):
    reward = FutureReward(rebuilt, 0.5)
    rows = Ragged.from_rows([[1, 2, 3], [4]])
    items = torch.tensor([[1, 5], [4, 0]])
    found = reward(items, list(rows), [np.empty(0, dtype=np.int32)] * 2)
    assert float(found[0, 0]) == pytest.approx(1.0, abs=1e-6)
    assert float(found[1, 0]) == pytest.approx(1.0, abs=1e-6)
