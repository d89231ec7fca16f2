"""User-kNN: the contract, its formula, and that it finds who is alike."""

from __future__ import annotations

import numpy as np
import pytest

from conrec.baselines.simple.fallback import LEAST
from conrec.baselines.simple.user_knn import UserKnn
from conrec.logs.log import Log
from conrec.protocol import DAY
from conrec.recommender import Queries
from conrec.settings.baselines.simple import UserKnnConfig
from tests.baselines.simple.learnable import END, two_tastes
from tests.conformance import CUT, SILENT, CatalogueScorerConformance, queries_of, small_log

COSINE = UserKnnConfig(neighbours=3, popularity=0.0, training_half_life_days=None)
SIGNED = UserKnnConfig(
    neighbours=4, neutral=0.0, positive=0.5, shrinkage=1.0, popularity=2.0, training_half_life_days=9.0
)


class TestUserKnn(CatalogueScorerConformance):
    def fit(self, log: Log, cut: int) -> UserKnn:
        return UserKnn.of(log.before(cut), SIGNED)


def _vector(log: Log, user: int, settings: UserKnnConfig) -> dict[tuple[int, int], float]:
    """Weight of each (item, sign) that the user ever gave."""
    given = {(int(log.item[e]), int(log.feedback[e])) for e in log.events_of(user)}
    return {(item, sign): settings.weights[sign + 1] for item, sign in given}


def _cosine(one: dict[tuple[int, int], float], other: dict[tuple[int, int], float], shrinkage: float) -> float:
    norm = np.sqrt(sum(value**2 for value in one.values()) * sum(value**2 for value in other.values()))
    dot = sum(value * other.get(entry, 0.0) for entry, value in one.items())
    return float(dot / (norm + shrinkage)) if dot else 0.0


@pytest.mark.parametrize("settings", [COSINE, SIGNED], ids=["cosine", "signed"])
def test_scores_are_the_formula(settings: UserKnnConfig) -> None:
    log = small_log(events=250)
    train = log.before(CUT)
    queries = queries_of(log)
    found = UserKnn.of(train, settings).scores(log, queries)
    disliked = np.zeros((log.n_users, log.n_items))
    for e in range(len(train)):
        if train.feedback[e] == -1:
            age = (int(train.timestamp[-1]) - int(train.timestamp[e])) / DAY
            half_life = settings.training_half_life_days
            disliked[train.user[e], train.item[e]] = 1.0 if half_life is None else 0.5 ** (age / half_life)
    times, active = disliked.sum(axis=0), len(set(train.user.tolist()))
    others = [_vector(train, user, settings) for user in range(log.n_users)]
    for row in range(0, len(queries), 5):
        user = int(queries.user[row])
        own = _vector(log.before(int(queries.timestamp[row])), user, settings)
        similarity = [
            0.0 if other == user else _cosine(own, vector, settings.shrinkage) for other, vector in enumerate(others)
        ]
        nearest = sorted(range(log.n_users), key=lambda v: (-similarity[v], v))[: settings.neighbours]
        expected = LEAST * times / times.max() + settings.popularity * times / active
        expected += sum(similarity[other] * disliked[other] for other in nearest)
        np.testing.assert_allclose(found[row], expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    "settings", [UserKnnConfig(neighbours=10, popularity=0.0), UserKnnConfig(popularity=1.0)], ids=["cosine", "signed"]
)
def test_it_finds_who_is_alike(settings: UserKnnConfig) -> None:
    log = two_tastes()
    users = np.arange(log.n_users, dtype=np.int32)
    top = UserKnn.of(log, settings).predict(log, Queries(users, np.full(log.n_users, END)), 3).item
    assert ((top + users[:, None]) % 2 == 0).mean() > 0.95


def test_nobody_is_his_own_neighbour_however_a_later_log_numbers_users() -> None:
    train = small_log().before(CUT)
    model = UserKnn.of(train, UserKnnConfig(neighbours=100))
    later = Log.from_columns(
        ("a newcomer", *train.user_ids), train.item_ids, train.user + 1, train.item, train.timestamp, train.feedback
    )
    before = Queries(np.arange(train.n_users, dtype=np.int32), np.full(train.n_users, CUT))
    after = Queries(before.user + np.int32(1), before.timestamp)
    near = model.neighbours(train, before)
    assert not near.diagonal().any()
    np.testing.assert_array_equal(model.neighbours(later, after).toarray(), near.toarray())
    newcomer = Queries(np.zeros(1, dtype=np.int32), np.array([CUT]))
    assert (
        model.predict(later, newcomer, 3).item.tolist()
        == model.predict(train, before.select(slice(SILENT, SILENT + 1)), 3).item.tolist()
    )
