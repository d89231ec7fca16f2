"""EASE: the contract, its closed form against the problem that it solves, and that it finds what goes together."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array

from conrec.baselines.simple.ease import Ease, solve
from conrec.baselines.simple.fallback import LEAST
from conrec.baselines.simple.profiles import DISLIKES, interactions
from conrec.logs.log import Log
from conrec.protocol import DAY
from conrec.recommender import Queries
from conrec.settings.baselines.simple import EaseConfig
from tests.baselines.simple.learnable import END, two_tastes
from tests.conformance import CUT, CatalogueScorerConformance, queries_of, small_log

SIGNED = EaseConfig(neutral=0.5, positive=-0.5, regularisation=4.0, half_life_days=30.0)
DISLIKED = EaseConfig(positive=0.0, intercept=False, training_half_life_days=None)


class TestEase(CatalogueScorerConformance):
    def fit(self, log: Log, cut: int) -> Ease:
        return Ease.of(log.before(cut), SIGNED)


class TestEaseOfACutCatalogue(CatalogueScorerConformance):
    def fit(self, log: Log, cut: int) -> Ease:
        return Ease.of(log.before(cut), EaseConfig(max_items=5))


@pytest.mark.parametrize("regularisation", [0.5, 20.0])
def test_each_column_is_the_best_of_all_without_its_own_item(regularisation: float) -> None:
    """Column j of B is the ridge regression of target j on all inputs but the j-th, solved by itself."""
    random = np.random.default_rng(1)
    inputs, targets = random.integers(-1, 2, (50, 9)).astype(float), random.integers(0, 2, (50, 9)).astype(float)
    found = solve(csr_array(inputs.T @ inputs), csr_array(inputs.T @ targets), regularisation)
    for item in range(9):
        others = [one for one in range(9) if one != item]
        part = inputs[:, others]
        column = np.linalg.solve(part.T @ part + regularisation * np.eye(8), part.T @ targets[:, item])
        np.testing.assert_allclose(found[others, item], column, rtol=1e-9, atol=1e-12)
        assert found[item, item] == 0


def test_of_equal_inputs_and_targets_it_is_the_papers() -> None:
    """arXiv 1905.03375, eq. 8: B = I - P · diag(1 / diag(P))."""
    inputs = interactions(small_log(), DISLIKES).toarray()
    gram = csr_array(inputs.T @ inputs)
    inverse = np.linalg.inv(inputs.T @ inputs + 3.0 * np.eye(inputs.shape[1]))
    expected = np.eye(len(inverse)) - inverse / np.diag(inverse)
    np.testing.assert_allclose(solve(gram, gram, 3.0), expected, atol=1e-12)


def test_an_input_beyond_the_targets_is_bound_to_nothing() -> None:
    random = np.random.default_rng(2)
    inputs, targets = random.integers(-1, 2, (40, 6)).astype(float), random.integers(0, 2, (40, 5)).astype(float)
    found = solve(csr_array(inputs.T @ inputs), csr_array(inputs.T @ targets), 2.0)
    assert found.shape == (6, 5)
    for item in range(5):
        others = [one for one in range(6) if one != item]
        part = inputs[:, others]
        column = np.linalg.solve(part.T @ part + 2.0 * np.eye(5), part.T @ targets[:, item])
        np.testing.assert_allclose(found[others, item], column, rtol=1e-9, atol=1e-12)


def test_weights_and_scores_are_the_formula() -> None:
    log = small_log()
    train = log.before(CUT)
    settings = EaseConfig(neutral=0.5, positive=-1.0, regularisation=5.0, training_half_life_days=20.0)
    model = Ease.of(train, settings)
    signed, disliked = np.zeros((log.n_users, log.n_items)), np.zeros((log.n_users, log.n_items))
    for user, item, sign in {
        (int(train.user[e]), int(train.item[e]), int(train.feedback[e])) for e in range(len(train))
    }:
        signed[user, item] += settings.weights[sign + 1]
    for e in range(len(train)):
        if train.feedback[e] == -1:
            age = (int(train.timestamp[-1]) - int(train.timestamp[e])) / DAY
            disliked[train.user[e], train.item[e]] = 0.5 ** (age / 20.0)
    there = np.isin(np.arange(log.n_users), train.user).astype(float)
    inputs = np.c_[signed[:, model.kept], there]
    weights = solve(csr_array(inputs.T @ inputs), csr_array(inputs.T @ disliked[:, model.kept]), 5.0)
    np.testing.assert_allclose(model.weights, weights, rtol=1e-4, atol=1e-6)
    times = disliked.sum(axis=0)
    queries = queries_of(log).select(slice(0, None, 4))
    found = model.scores(log, queries)
    for row, (user, time) in enumerate(zip(queries.user, queries.timestamp, strict=True)):
        past = log.before(int(time))
        own = np.zeros(log.n_items)
        for item, sign in {(int(past.item[e]), int(past.feedback[e])) for e in past.events_of(int(user))}:
            own[item] += settings.weights[sign + 1]
        expected = LEAST * times / times.max()
        expected[model.kept] += own[model.kept] @ weights[:-1] + weights[-1]
        np.testing.assert_allclose(found[row, model.kept], expected[model.kept], rtol=1e-4, atol=1e-5)
        lowest = np.floor(min(0.0, found[row, model.kept].min()))
        values = sorted(set(times[model.rest].tolist()), reverse=True)
        assert found[row, model.rest].tolist() == [lowest - 1 - values.index(times[item]) for item in model.rest]


def test_a_large_catalogue_is_cut_to_the_items_with_the_most_events() -> None:
    train = small_log().before(CUT)
    model = Ease.of(train, DISLIKED.model_copy(update={"max_items": 5}))
    disliked = interactions(train, DISLIKES).toarray()
    events = (disliked > 0).sum(axis=0)
    assert model.kept.tolist() == sorted(sorted(range(train.n_items), key=lambda item: (-events[item], item))[:5])
    assert model.weights.shape == (6, 5)
    assert not model.weights[-1].any()
    assert model.parameters == 25
    alone = csr_array(disliked[:, model.kept])
    gram = csr_array(alone.T @ alone)
    weights = solve(gram, gram, model.settings.regularisation)
    np.testing.assert_allclose(model.weights[:-1], weights, rtol=1e-5)
    queries = Queries(np.array([3], dtype=np.int32), np.array([CUT]))
    rest = [item for item in range(train.n_items) if item not in model.kept]
    assert model.rest.tolist() == rest
    scores = model.scores(train, queries)[0]
    by_score = sorted(rest, key=lambda item: (-scores[item], item))
    assert by_score == sorted(rest, key=lambda item: (-events[item], item))
    assert scores[by_score[0]] < scores[model.kept].min()


@pytest.mark.parametrize("n_items", [40, 105_096])
def test_items_beyond_the_cut_stand_below_all_others_whatever_the_weights(n_items: int) -> None:
    """Weights below 0 push an item below 0, in one query further than in another."""
    log = small_log(items=40)
    log = Log.from_columns(
        log.user_ids, tuple(f"i{one}" for one in range(n_items)), log.user, log.item, log.timestamp, log.feedback
    )
    random = np.random.default_rng(3)
    kept = np.sort(random.permutation(40)[:12])
    weights = random.normal(-2.0, 3.0, (13, 12)).astype(np.float32)
    fallback = LEAST * random.permutation(n_items) / n_items  # all different
    model = Ease(weights, kept, fallback, EaseConfig(positive=-0.5, neutral=0.25))
    queries = queries_of(log).select(slice(0, None, 9))
    scores = model.scores(log, queries)
    assert len(set(np.floor(scores[:, kept].min(axis=1)).tolist())) > 3
    assert (scores[:, kept].min(axis=1) < -2).any()
    order = model.rest[np.argsort(-fallback[model.rest])]
    assert (scores[:, order[0]] < scores[:, kept].min(axis=1)).all()
    assert (scores[:, order[0]] < 0).all()
    assert (np.diff(scores[:, order], axis=1) == -1).all()


def test_regularisation_shrinks_the_intercept_too() -> None:
    train = small_log().before(CUT)
    settings = EaseConfig(neutral=0.0, positive=0.0, regularisation=1e9, training_half_life_days=None)
    model = Ease.of(train, settings)
    disliked, n = (interactions(train, DISLIKES).toarray() > 0).sum(axis=0), len(np.unique(train.user))
    np.testing.assert_allclose(model.weights[-1], disliked[model.kept] / (n + 1e9), rtol=1e-5)


@pytest.mark.parametrize("settings", [DISLIKED, EaseConfig(training_half_life_days=None)], ids=["dislikes", "signed"])
def test_it_finds_what_goes_together(settings: EaseConfig) -> None:
    log = two_tastes()
    users = np.arange(log.n_users, dtype=np.int32)
    top = Ease.of(log, settings).predict(log, Queries(users, np.full(log.n_users, END)), 3).item
    assert ((top + users[:, None]) % 2 == 0).mean() > 0.95
