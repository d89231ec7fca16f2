"""HSTU: its layer written out in loops, its time buckets, the contract, and that it learns from items and from time."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from conrec.baselines.sequences.histories import read_histories
from conrec.baselines.sequential.hstu import BUCKETS, EPSILON, HstuLayer, HstuNetwork, time_buckets
from conrec.logs.log import Log
from conrec.protocol import DAY, NEGATIVE
from conrec.recommender import Queries
from conrec.settings.baselines.sequential import HstuConfig
from tests.baselines.conformance import TrainedConformance
from tests.baselines.worlds import CHAINS_END, chains, follows_chains
from tests.conformance import small_log

SMALL: dict[str, Any] = {
    "hidden_size": 16, "layers": 1, "heads": 2, "max_length": 8, "dropout": 0.1, "epochs": 3, "batch_size": 8,
    "weight_decay": 0.01,
}  # fmt: skip


class TestHstu(TrainedConformance):
    row = "hstu"
    small: ClassVar[dict[str, Any]] = SMALL


_fit = TestHstu().fit


def _norm(values: list[float]) -> list[float]:
    mean = sum(values) / len(values)
    spread = sum((one - mean) ** 2 for one in values) / len(values)
    return [(one - mean) / math.sqrt(spread + EPSILON) for one in values]


def _silu(x: float) -> float:
    return x / (1 + math.exp(-x))


def test_a_layer_is_its_equations() -> None:
    torch.manual_seed(0)
    width, heads, length, most = 4, 2, 3, 5
    layer = HstuLayer(width, heads, most, 0.5).double().eval().requires_grad_(False)
    x = torch.randn(1, length, width, dtype=torch.float64)
    buckets = torch.randint(BUCKETS + 1, (1, length, length))
    part = width // heads
    mixed = []
    for position in range(length):
        normed = _norm(x[0, position].tolist())
        row = [_silu(sum(float(w) * v for w, v in zip(one, normed, strict=True))) for one in layer.mix.weight]
        mixed.append([row[i * width : (i + 1) * width] for i in range(4)])
    for now in range(length):
        pooled = [0.0] * width
        for then in range(now + 1):
            for head in range(heads):
                own = range(head * part, (head + 1) * part)
                score = sum(mixed[now][2][i] * mixed[then][3][i] for i in own)
                score += float(layer.position_bias.weight[now - then])
                score += float(layer.time_bias.weight[buckets[0, now, then]])
                for i in own:
                    pooled[i] += _silu(score) / most * mixed[then][1][i]
        gated = [u * one for u, one in zip(mixed[now][0], _norm(pooled), strict=True)]
        for i in range(width):
            expected = float(layer.out.bias[i]) + float(x[0, now, i])
            expected += sum(float(w) * one for w, one in zip(layer.out.weight[i], gated, strict=True))
            assert float(layer(x, buckets)[0, now, i]) == pytest.approx(expected, rel=1e-9)


def test_time_buckets_are_their_formula() -> None:
    happened = torch.tensor([[100, 1000, 90_000]])
    asked = torch.tensor([[100, 1000, 90_000, 10_000_000]])
    found = time_buckets(happened, asked)
    assert found.shape == (1, 4, 4)
    assert (found[:, :, 0] == BUCKETS).all()
    for question in range(4):
        for event in range(3):
            seconds = max(1, int(asked[0, question]) - int(happened[0, event]))
            assert int(found[0, question, event + 1]) == min(BUCKETS - 1, math.floor(math.log(seconds) / 0.301))
    assert int(time_buckets(torch.tensor([[0]]), torch.tensor([[0, 2**62]])).max()) == BUCKETS


def test_it_learns_what_follows_what() -> None:
    log = chains()
    model = _fit(log, CHAINS_END, epochs=60, batch_size=16, learning_rate=1e-2)
    assert follows_chains(model, log) > 0.9


def test_it_learns_what_only_the_time_between_events_tells() -> None:
    """After item 0, item 1 follows within a minute, item 2 after weeks; nothing else tells them apart."""
    random = np.random.default_rng(0)
    users = 80
    quick = random.random(users) < 0.5
    start = random.integers(0, 20 * DAY, users)
    second = start + np.where(quick, 30, 30 * DAY)
    log = Log.from_columns(
        tuple(f"u{one:02d}" for one in range(users)),
        tuple(f"i{one}" for one in range(4)),
        np.r_[np.arange(users), np.arange(users)],
        np.r_[np.zeros(users, dtype=int), np.where(quick, 1, 2)],
        np.r_[start, second],
        np.full(2 * users, NEGATIVE),
    )
    model = _fit(log, 55 * DAY, epochs=30, learning_rate=1e-2)
    everybody = np.arange(users, dtype=np.int32)
    candidates = np.tile(np.array([1, 2], dtype=np.int32), (users, 1))
    for after, answer in ((30, 0), (30 * DAY, 1)):
        scores = model.score(log, Queries(everybody, np.minimum(start + after, second)), candidates)
        own = quick if answer == 0 else ~quick
        assert (scores.argmax(axis=1)[own] == answer).mean() > 0.95


def test_training_and_answering_read_the_same_sequence_alike() -> None:
    log, settings = small_log(), HstuConfig(**{**SMALL, "dropout": 0.0})
    torch.manual_seed(0)
    network = HstuNetwork(log.n_items, settings).double().eval().requires_grad_(False)
    events = log.events_of(5)
    events = events[log.feedback[events] == NEGATIVE]
    distinct = events[np.r_[True, np.diff(log.timestamp[events]) > 0]][:6]
    assert len(distinct) == 6
    one = Log.from_columns(
        log.user_ids,
        log.item_ids,
        log.user[distinct],
        log.item[distinct],
        log.timestamp[distinct],
        log.feedback[distinct],
    )
    items, times = torch.from_numpy(one.item.astype(np.int64))[None], torch.from_numpy(one.timestamp)[None]
    trained = network.logits(network.states(items[:, :-1], times[:, :-1], times)[0])
    for step, moment in enumerate(one.timestamp):
        asked = Queries(np.array([5], dtype=np.int32), np.array([moment]))
        answered = network.answer(read_histories(one, asked, network.max_length, network.signs))
        torch.testing.assert_close(answered[0], trained[step])
