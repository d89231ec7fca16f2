"""Profiles of feedback against their definition, event by event."""

from __future__ import annotations

import numpy as np
import pytest

from conrec.baselines.simple.fallback import LEAST, active_users, by_dislikes, dislikes_of_late
from conrec.baselines.simple.profiles import DISLIKES, SignWeights, interactions, profiles
from conrec.logs.log import Log
from conrec.protocol import DAY
from tests.conformance import CUT, SILENT, queries_of, small_log


def _transcribed(log: Log, user: int, time: int, weights: SignWeights, half_life: float | None) -> list[float]:
    """Σ_s w(s) · 0.5 ** (age / half life), of the latest event of each sign."""
    result = [0.0] * log.n_items
    for item in range(log.n_items):
        for sign in (-1, 0, 1):
            times = [
                int(log.timestamp[e])
                for e in range(len(log))
                if log.user[e] == user and log.item[e] == item and log.feedback[e] == sign and log.timestamp[e] < time
            ]
            if times:
                age = 0.0 if half_life is None else (time - max(times)) / DAY / half_life
                result[item] += weights[sign + 1] * 0.5**age
    return result


@pytest.mark.parametrize(
    ("weights", "half_life"),
    [(DISLIKES, None), ((1.0, 0.25, -0.5), None), ((0.0, 0.0, 2.0), 9.0), ((1.0, 1.0, 1.0), 30.0)],
)
def test_a_profile_is_its_formula(weights: SignWeights, half_life: float | None) -> None:
    log = small_log(events=300)
    queries = queries_of(log)
    found = profiles(log, queries, weights, half_life).toarray()
    for row in range(0, len(queries), 5):
        expected = _transcribed(log, int(queries.user[row]), int(queries.timestamp[row]), weights, half_life)
        np.testing.assert_allclose(found[row], expected, rtol=1e-12, atol=1e-12)


def test_interactions_are_the_profiles_of_everybody_at_the_end() -> None:
    log = small_log(events=300)
    found = interactions(log, (1.0, 0.5, -1.0)).toarray()
    end = int(log.timestamp[-1]) + 1
    expected = [_transcribed(log, user, end, (1.0, 0.5, -1.0), None) for user in range(log.n_users)]
    np.testing.assert_allclose(found, expected)
    assert not found[SILENT].any()


def test_signs_apart_are_one_block_each() -> None:
    log = small_log(events=300)
    queries = queries_of(log)
    found = profiles(log, queries, (1.0, 0.5, -2.0), 9.0, apart=True).toarray()
    signs: list[SignWeights] = [(1.0, 0.0, 0.0), (0.0, 0.5, 0.0), (0.0, 0.0, -2.0)]
    np.testing.assert_allclose(found, np.hstack([profiles(log, queries, one, 9.0).toarray() for one in signs]))


def test_a_dislike_counts_once_and_an_exposure_does_not_undo_it() -> None:
    log = Log.from_columns(
        ("a",), ("x", "y"), np.zeros(5, dtype=int), np.array([0, 0, 0, 1, 1]), np.arange(5), np.array([-1, -1, 0, 1, 0])
    )
    assert interactions(log, DISLIKES).toarray().tolist() == [[1.0, 0.0]]
    assert interactions(log, (0.0, 1.0, 0.0)).toarray().tolist() == [[1.0, 1.0]]
    assert interactions(log, (0.0, 1.0, 0.0)).nnz == 2
    assert interactions(log, (1.0, 2.0, 4.0), apart=True).toarray().tolist() == [[1.0, 0.0, 2.0, 2.0, 0.0, 4.0]]


def test_unknown_items_are_ordered_by_their_dislikes() -> None:
    log = small_log().before(CUT)
    users = [
        {int(log.user[e]) for e in range(len(log)) if log.item[e] == i and log.feedback[e] == -1} for i in range(30)
    ]
    counts = np.array([len(one) for one in users])
    dislikes = dislikes_of_late(log, None)
    np.testing.assert_array_equal(dislikes, counts)
    np.testing.assert_allclose(by_dislikes(dislikes), LEAST * counts / counts.max())
    halved = interactions(log, DISLIKES, 20.0).toarray().sum(axis=0)
    np.testing.assert_allclose(dislikes_of_late(log, 20.0), halved)
    assert by_dislikes(dislikes_of_late(log.before(0), 20.0)).tolist() == [0.0] * log.n_items
    assert active_users(log) == len(set(log.user.tolist()))


def test_feedback_of_the_training_period_is_halved_with_age() -> None:
    log = Log.from_columns(
        ("a",), ("x", "y", "z"), np.zeros(3, dtype=int), np.arange(3), np.array([0, 6, 10]) * DAY, np.full(3, -1)
    )
    np.testing.assert_allclose(interactions(log, DISLIKES, 4.0).toarray(), [[0.5**2.5, 0.5, 1.0]])
