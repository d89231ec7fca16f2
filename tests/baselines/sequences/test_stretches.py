"""Stretches of histories: every event once a target, none behind events of its own time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conrec.baselines.sequences.learning import decayed, start_at_popularity
from conrec.baselines.sequences.stretches import batches_by_length, stretches_of, target_items
from conrec.baselines.sequential.sasrec import SasrecNetwork
from conrec.errors import DataError
from conrec.logs.log import Log
from conrec.settings.baselines.sequential import SasrecConfig
from tests.conformance import small_log


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_against_a_literal_transcription(seed: int, length: int) -> None:
    log = small_log(seed, users=6, events=80)
    found = stretches_of(log, length, (-1,), np.random.default_rng(seed))
    for user in range(log.n_users):
        events = [int(one) for one in log.events_of(user) if log.feedback[one] == -1]
        own = [one for one in found if log.user[one.events[0]] == user]
        assert {int(event) for one in own for event in one.events} == set(events)
        targets = [int(event) for one in own for event in one.events[one.target]]
        # One target for each moment, in the order of time.
        assert log.timestamp[targets].tolist() == sorted({int(log.timestamp[one]) for one in events})
        for one in own:
            assert 0 < len(one) <= length
            times = log.timestamp[one.events]
            assert (np.diff(times) >= 0).all()
            for place in np.flatnonzero(one.target):
                assert (times[:place] < times[place]).all()


def test_which_of_a_moment_comes_first_is_drawn_anew() -> None:
    log = Log.from_columns(("u",), ("a", "b", "c"), np.zeros(3, int), np.arange(3), np.full(3, 7), np.full(3, -1))
    assert target_items(log, stretches_of(log, 5, (-1,))).tolist() == [[0, -1, -1]]
    random = np.random.default_rng(0)
    firsts = [target_items(log, stretches_of(log, 5, (-1,), random))[0, 0].item() for _ in range(60)]
    assert set(firsts) == {0, 1, 2}


def test_nobody_with_such_an_event_is_an_error() -> None:
    log = small_log()
    liked = Log.from_columns(log.user_ids, log.item_ids, log.user, log.item, log.timestamp, np.ones(len(log)))
    with pytest.raises(DataError, match="no negative events"):
        stretches_of(liked, 5, (-1,))


def test_batches_hold_everything_once() -> None:
    rows = [np.arange(one % 7 + 1) + 10 * one for one in range(50)]
    batches = batches_by_length(rows, 8, np.random.default_rng(0))
    assert sorted(int(row[0]) for batch in batches for row in batch) == [10 * one for one in range(50)]
    assert max(len(batch) for batch in batches) == 8


def test_biases_start_at_popularity_and_do_not_decay() -> None:
    network = SasrecNetwork(4, SasrecConfig(hidden_size=8))
    start_at_popularity(network.bias, np.array([0, 1, 9, 99]))
    expected = np.log([1, 2, 10, 100])
    np.testing.assert_allclose(network.bias.detach().numpy(), expected - expected.mean(), rtol=1e-6)
    matrices, vectors = decayed(network, 0.7)
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.7, 0.0)
    assert any(one is network.bias for one in vectors["params"])
    assert any(one is network.item.weight for one in matrices["params"])
    assert len(matrices["params"]) + len(vectors["params"]) == len(list(network.parameters()))
