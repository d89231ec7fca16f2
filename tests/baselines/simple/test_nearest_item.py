"""Nearest items by embedding: the contract, the formula, and that neighbours are the nearest."""

from __future__ import annotations

import numpy as np
import pytest

from conrec.baselines.simple import nearest_item
from conrec.baselines.simple.fallback import LEAST
from conrec.baselines.simple.nearest_item import NearestItem, nearest_items
from conrec.errors import NotApplicableError
from conrec.logs.log import Log
from conrec.protocol import DAY
from conrec.recommender import Queries
from conrec.settings.baselines.simple import NearestItemConfig
from tests.baselines.simple.learnable import END, two_tastes
from tests.conformance import CUT, CatalogueScorerConformance, queries_of, small_log


def _embeddings(n_items: int) -> np.ndarray:
    return np.random.default_rng(5).normal(1.0, 1.0, (n_items, 6)).astype(np.float32)


def _fit(log: Log, cut: int, settings: NearestItemConfig) -> NearestItem:
    trained = np.isin(np.arange(log.n_items), log.before(cut).item)
    return NearestItem.of(log.before(cut), _embeddings(log.n_items), trained, settings)


class TestNearestItem(CatalogueScorerConformance):
    def fit(self, log: Log, cut: int) -> NearestItem:
        return _fit(log, cut, NearestItemConfig(neighbours=6, half_life_days=14.0))


def _cosines(embeddings: np.ndarray, trained: np.ndarray, n: int) -> np.ndarray:
    """Item by item, in double precision."""
    centred = embeddings.astype(np.float64) - embeddings[trained].astype(np.float64).mean(axis=0)
    result = np.zeros((len(embeddings), len(embeddings)))
    for i, one in enumerate(centred):
        cosine = [one @ other / np.sqrt((one @ one) * (other @ other)) for other in centred]
        cosine[i] = -np.inf
        for j in sorted(range(len(centred)), key=lambda j: -cosine[j])[:n]:
            result[i, j] = max(0.0, cosine[j])
    return result


@pytest.mark.parametrize("n", [1, 5, 100])
def test_neighbours_are_the_nearest(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest_item, "CELLS", 1)
    monkeypatch.setattr(nearest_item, "LEAST_ROWS", 7)
    embeddings, trained = _embeddings(40), np.arange(40) % 3 > 0
    found = nearest_items(embeddings, trained, n)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.toarray(), _cosines(embeddings, trained, n), atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        NearestItemConfig(neighbours=4, popularity_power=0.0, training_half_life_days=None),
        NearestItemConfig(popularity_power=0.7, training_half_life_days=15.0, half_life_days=10.0),
    ],
    ids=["bare", "popular"],
)
def test_scores_are_the_formula(settings: NearestItemConfig) -> None:
    log = small_log(events=300)
    train = log.before(CUT)
    trained = np.isin(np.arange(log.n_items), train.item)
    near = _cosines(_embeddings(log.n_items), trained, settings.neighbours)
    latest = {(int(train.user[e]), int(train.item[e])): e for e in range(len(train)) if train.feedback[e] == -1}
    times = np.zeros(log.n_items)
    for (_, item), e in latest.items():
        age = (int(train.timestamp[-1]) - int(train.timestamp[e])) / DAY
        times[item] += 0.5 ** (age / (settings.training_half_life_days or np.inf))
    queries = queries_of(log).select(slice(0, None, 5))
    found = _fit(log, CUT, settings).scores(log, queries)
    for row, (user, time) in enumerate(zip(queries.user, queries.timestamp, strict=True)):
        past = {int(log.item[e]): e for e in log.history(int(user), int(time)) if log.feedback[e] == -1}
        expected = np.zeros(log.n_items)
        for item, e in past.items():
            age = (int(time) - int(log.timestamp[e])) / DAY
            expected += 0.5 ** (age / (settings.half_life_days or np.inf)) * near[item]
        expected = expected * (1 + times) ** settings.popularity_power + LEAST * times / times.max()
        np.testing.assert_allclose(found[row], expected, rtol=1e-4, atol=1e-6)


def test_it_finds_what_is_like_the_dislikes() -> None:
    log = two_tastes()
    random = np.random.default_rng(0)
    side = np.where(np.arange(log.n_items) % 2 == 0, 1.0, -1.0)[:, None]
    embeddings = (side * np.array([1.0, 2.0, 0.0]) + 0.2 * random.normal(size=(log.n_items, 3)) + 5).astype(np.float32)
    model = NearestItem.of(log, embeddings, np.ones(log.n_items, dtype=np.bool_), NearestItemConfig())
    users = np.flatnonzero([(log.feedback[log.events_of(u)] == -1).any() for u in range(log.n_users)]).astype(np.int32)
    top = model.predict(log, Queries(users, np.full(len(users), END)), 3).item
    assert ((top + users[:, None]) % 2 == 0).mean() > 0.95


def test_items_that_cannot_be_told_apart_give_no_row() -> None:
    log = small_log()
    same = np.full((log.n_items, 4), 0.3, dtype=np.float32)
    with pytest.raises(NotApplicableError, match="no item is near another"):
        NearestItem.of(log.before(CUT), same, np.ones(log.n_items, dtype=np.bool_), NearestItemConfig())
