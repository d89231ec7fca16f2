"""Item-kNN: the contract, its formula, and that it finds what goes together."""

from __future__ import annotations

import numpy as np
import pytest

from conrec.baselines.simple.fallback import LEAST
from conrec.baselines.simple.item_knn import ItemKnn
from conrec.logs.log import Log
from conrec.protocol import DAY
from conrec.recommender import Queries
from conrec.settings.baselines.simple import ItemKnnAllConfig, ItemKnnConfig
from tests.baselines.simple.learnable import END, two_tastes
from tests.conformance import CUT, LOVER, CatalogueScorerConformance, queries_of, small_log

COSINE = ItemKnnConfig(target_power=0.5, shrinkage=0.0, popularity=0.0, training_half_life_days=None)
SIGNS = (-1, 0, 1)


class TestItemKnnNegatives(CatalogueScorerConformance):
    def fit(self, log: Log, cut: int) -> ItemKnn:
        return ItemKnn.of(log.before(cut), ItemKnnConfig(neighbours=5, half_life_days=20.0))


class TestItemKnnAll(CatalogueScorerConformance):
    def fit(self, log: Log, cut: int) -> ItemKnn:
        return ItemKnn.of(log.before(cut), ItemKnnAllConfig(neutral=0.5, positive=-0.25))


def _users(log: Log, item: int, feedback: int) -> set[int]:
    return {int(log.user[e]) for e in range(len(log)) if log.item[e] == item and log.feedback[e] == feedback}


def _disliked(train: Log, item: int, half_life: float | None) -> dict[int, float]:
    """y of the module's formula, of each user who disliked the item."""
    latest = {int(train.user[e]): e for e in range(len(train)) if train.item[e] == item and train.feedback[e] == -1}
    age = {user: (int(train.timestamp[-1]) - int(train.timestamp[e])) / DAY for user, e in latest.items()}
    return {user: 1.0 if half_life is None else 0.5 ** (one / half_life) for user, one in age.items()}


def _similarity(gave: set[int], disliked: dict[int, float], settings: ItemKnnConfig) -> float:
    """The formula of the module."""
    both = sum(disliked[user] for user in gave & set(disliked))
    if not both:
        return 0.0
    norm = len(gave) ** settings.source_power * sum(disliked.values()) ** settings.target_power
    return both / (norm + settings.shrinkage)


def _similarities(train: Log, feedback: int, disliked: list[dict[int, float]], settings: ItemKnnConfig) -> np.ndarray:
    """Of all pairs of items, then the nearest of each."""
    result = np.zeros((train.n_items, train.n_items))
    for i in range(train.n_items):
        gave = _users(train, i, feedback)
        result[i] = [_similarity(gave, disliked[j], settings) if i != j else 0.0 for j in range(train.n_items)]
        nearest = sorted(range(train.n_items), key=lambda j: (-result[i, j], j))[: settings.neighbours]
        result[i, [j for j in range(train.n_items) if j not in nearest]] = 0
    return result


@pytest.mark.parametrize(
    "settings",
    [
        COSINE,
        ItemKnnConfig(neighbours=4, source_power=1.0, target_power=0.25, shrinkage=3.0, popularity=2.0),
        ItemKnnAllConfig(neutral=0.5, positive=-0.25, half_life_days=10.0, training_half_life_days=20.0),
        ItemKnnAllConfig(neutral=0.0, target_power=0.0, neighbours=7),
    ],
    ids=["cosine", "shrunk", "signed", "without-neutral"],
)
def test_scores_are_the_formula(settings: ItemKnnConfig) -> None:
    log = small_log(events=250)
    train = log.before(CUT)
    model = ItemKnn.of(train, settings)
    queries = queries_of(log).select(slice(0, None, 6))
    found = model.scores(log, queries)
    disliked = [_disliked(train, item, settings.training_half_life_days) for item in range(log.n_items)]
    times = np.array([sum(one.values()) for one in disliked])
    near = [_similarities(train, sign, disliked, settings) for sign in SIGNS]
    everybody = {int(user) for user in train.user}
    bias = np.array([settings.popularity * _similarity(everybody, one, settings) for one in disliked])
    for row, (user, time) in enumerate(zip(queries.user, queries.timestamp, strict=True)):
        expected = LEAST * times / times.max() + bias
        for sign, weight in zip(SIGNS, settings.weights, strict=True):
            latest: dict[int, int] = {}
            for e in log.history(int(user), int(time)):
                if log.feedback[e] == sign:
                    latest[int(log.item[e])] = int(log.timestamp[e])
            for item, then in latest.items():
                age = (int(time) - then) / DAY
                decay = 1.0 if settings.half_life_days is None else 0.5 ** (age / settings.half_life_days)
                expected += weight * decay * near[sign + 1][item]
        np.testing.assert_allclose(found[row], expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("settings", [ItemKnnConfig(), ItemKnnAllConfig()], ids=["negatives", "all"])
def test_it_finds_what_goes_together(settings: ItemKnnConfig) -> None:
    log = two_tastes()
    users = np.arange(log.n_users, dtype=np.int32)
    top = ItemKnn.of(log, settings).predict(log, Queries(users, np.full(log.n_users, END)), 3).item
    assert ((top + users[:, None]) % 2 == 0).mean() > 0.95


def test_likes_lead_to_dislikes_in_the_row_on_all_events_alone() -> None:
    log = two_tastes()
    liked = Log.from_columns(
        log.user_ids, log.item_ids, log.user, log.item, log.timestamp, np.where(log.user == LOVER, 1, log.feedback)
    )
    queries = Queries(np.array([LOVER], dtype=np.int32), np.array([END]))
    negatives = ItemKnn.of(liked, COSINE)
    counts = liked.negative_counts()[1]
    np.testing.assert_allclose(negatives.scores(liked, queries)[0], LEAST * counts / counts.max(), rtol=1e-6)
    every = ItemKnnAllConfig(popularity=0.0)
    assert ItemKnn.of(liked, every).scores(liked, queries).max() > 0.1


def test_each_item_keeps_so_many_neighbours_of_each_sign_that_is_read() -> None:
    train = small_log().before(CUT)
    model = ItemKnn.of(train, ItemKnnAllConfig(neighbours=6, neutral=0.0))
    kept = np.diff(model.neighbours.indptr).reshape(3, train.n_items)
    assert kept.max(axis=1).tolist() == [6, 0, 6]
    assert model.parameters == kept.sum()
