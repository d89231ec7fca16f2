"""Caser: its convolutions written out in loops, its windows, the contract, users with and without a vector."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from conrec.baselines.sequences.stretches import stretches_of
from conrec.baselines.sequential.caser import CaserNetwork, window_of, windows_of
from conrec.logs.log import Log
from conrec.protocol import DAY, NEGATIVE
from conrec.recommender import Queries
from conrec.settings.baselines.sequential import CaserConfig
from tests.baselines.conformance import TrainedConformance
from tests.baselines.worlds import CHAINS_END, chains, follows_chains
from tests.conformance import CUT, LOVER, SILENT, queries_of, small_log

SMALL: dict[str, Any] = {
    "hidden_size": 8, "max_length": 4, "horizontal": 3, "vertical": 2, "dropout": 0.1, "epochs": 3, "batch_size": 32,
    "weight_decay": 0.01,
}  # fmt: skip


class TestCaser(TrainedConformance):
    row = "caser"
    small: ClassVar[dict[str, Any]] = SMALL


_fit = TestCaser().fit


def test_a_score_is_its_equations() -> None:
    torch.manual_seed(0)
    settings = CaserConfig(**{**SMALL, "hidden_size": 4})
    network = CaserNetwork(6, ("a", "b"), settings).double().eval().requires_grad_(False)
    window, user, length, width = [-1, 6, 2, 5], 1, 4, 4
    events = [[0.0] * width if token < 0 else network.item.weight[token].tolist() for token in window]
    found: list[float] = []
    for filters in network.horizontal:
        height = filters.kernel_size[0]
        for k in range(settings.horizontal):
            values = []
            for begin in range(length - height + 1):
                value = float(filters.bias[k])
                for offset in range(height):
                    for i in range(width):
                        value += float(filters.weight[k, i, offset]) * events[begin + offset][i]
                values.append(max(0.0, value))
            found.append(max(values))
    for k in range(settings.vertical):
        for i in range(width):
            found.append(sum(float(network.vertical.weight[k, at]) * events[at][i] for at in range(length)))
    z = []
    for i in range(width):
        value = float(network.mix.bias[i]) + sum(
            float(w) * one for w, one in zip(network.mix.weight[i], found, strict=True)
        )
        z.append(max(0.0, value))
    scores = network(torch.tensor([window, window]), torch.tensor([user, -1]))
    for item in range(6):
        alone = float(network.bias[item]) + sum(z[i] * float(network.item.weight[item, i]) for i in range(width))
        own = sum(float(network.user.weight[user, i] * network.taste.weight[item, i]) for i in range(width))
        assert float(scores[0, item]) == pytest.approx(alone + own, rel=1e-9)
        assert float(scores[1, item]) == pytest.approx(alone, rel=1e-9)


def test_windows_stand_before_every_target() -> None:
    items, user = np.array([3, 1, 4, 1, 5, 2]), np.array([0, 0, 0, 0, 0, 1])
    names = tuple(f"i{one}" for one in range(9))
    log = Log.from_columns(("a", "b"), names, user, items, np.array([1, 2, 3, 3, 5, 9]), np.full(6, -1))
    found = windows_of(log, stretches_of(log, len(log), (-1,)), 3, 2)
    assert found.user.tolist() == [0, 0, 0, 0, 1]
    # No window stands before the second of two dislikes of the same second.
    assert found.window.tolist() == [[-1, -1, 9], [-1, 9, 3], [9, 3, 1], [1, 4, 1], [-1, -1, 9]]
    assert found.target.tolist() == [[3, 1], [1, 4], [4, 1], [5, -1], [2, -1]]
    assert found.window[3].tolist() == window_of(items[:4], 9, 3).tolist()


def test_it_learns_what_follows_what() -> None:
    log = chains()
    model = _fit(log, CHAINS_END, epochs=20, hidden_size=16, learning_rate=1e-2, targets=1)
    assert follows_chains(model, log) > 0.9


def test_it_learns_whose_dislikes_they_are() -> None:
    """Half of the users dislike the first ten items in any order, half the others: only who asks tells."""
    random = np.random.default_rng(0)
    users, each = 40, 6
    item = np.concatenate([random.permutation(10)[:each] + 10 * (user % 2) for user in range(users)])
    log = Log.from_columns(
        tuple(f"u{one:02d}" for one in range(users)),
        tuple(f"i{one:02d}" for one in range(20)),
        np.repeat(np.arange(users), each),
        item,
        np.tile(np.arange(each), users) * DAY,
        np.full(users * each, NEGATIVE),
    )
    model = _fit(log, 60 * DAY, epochs=40, learning_rate=1e-2, max_length=1)
    before = Queries(np.arange(users, dtype=np.int32), np.zeros(users, dtype=np.int64))
    top = model.predict(log, before, 4).item
    assert (top // 10 == np.arange(users)[:, None] % 2).mean() > 0.9


def test_users_without_a_vector_are_answered_alike() -> None:
    log = small_log()
    model = _fit(log)
    assert model.network.user.num_embeddings == 10
    strangers = Queries(np.array([LOVER, SILENT], dtype=np.int32), np.array([CUT, CUT]))
    scores = model.scores(log, strangers)
    np.testing.assert_array_equal(scores[0], scores[1])


def test_a_users_vector_follows_his_name() -> None:
    """In a log with more users, indices are others; the vectors are the same users' still."""
    log = small_log()
    model = _fit(log)
    more = Log.from_columns(
        ("a stranger", *log.user_ids), log.item_ids, log.user + 1, log.item, log.timestamp, log.feedback
    )
    queries = queries_of(log)
    moved = Queries(queries.user + 1, queries.timestamp)
    np.testing.assert_array_equal(model.scores(more, moved), model.scores(log, queries))
