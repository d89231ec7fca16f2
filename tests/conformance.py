"""What every model must do; a test class of a model inherits these tests and says how it is fitted."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import pytest

from conrec.logs.log import Log
from conrec.protocol import DAY, NEGATIVE
from conrec.recommender import Queries, Ranking, Recommender

CUT = 60 * DAY
"""Where the training period of `small_log` ends."""
LOVER = 0
"""A user of `small_log` with events but no negatives."""
SILENT = 1
"""A user of `small_log` without events."""


def small_log(seed: int = 0, users: int = 12, items: int = 30, events: int = 500) -> Log:
    """Random feedback over 90 days, with shared timestamps, a user without negatives and one without events."""
    random = np.random.default_rng(seed)
    user = random.integers(2, users, events)
    user[: events // 20] = LOVER
    feedback = random.integers(-1, 2, events)
    feedback[user == LOVER] = 1
    return Log.from_columns(
        tuple(f"u{one:02d}" for one in range(users)),
        tuple(f"i{one:02d}" for one in range(items)),
        user,
        (items * random.random(events) ** 2).astype(int),
        random.integers(0, 360, events) * (DAY // 4),
        feedback,
    )


def queries_of(log: Log) -> Queries:
    """Every user at an early, a middle and a late time, and exactly at the time of some events."""
    times = [DAY, 45 * DAY, CUT, 89 * DAY, *log.timestamp[:: max(1, len(log) // 5)]]
    user, timestamp = np.meshgrid(np.arange(log.n_users), times)
    return Queries(user.reshape(-1).astype(np.int32), timestamp.reshape(-1).astype(np.int64))


class RecommenderConformance(ABC):
    """The contract of `conrec.recommender.Recommender`."""

    tolerance = 0.0
    """How far a score may move with the batch it is computed in; 0: not by a bit."""

    @abstractmethod
    def fit(self, log: Log, cut: int) -> Recommender:
        """Fit on the events before ``cut``."""

    @pytest.fixture(scope="class")
    @classmethod
    def log(cls) -> Log:
        return small_log()

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, log: Log) -> Recommender:
        return cls().fit(log, CUT)

    def test_only_strictly_earlier_events_are_read(self, log: Log, model: Recommender) -> None:
        queries = queries_of(log)
        candidates = np.tile(np.arange(6, dtype=np.int32), (len(queries), 1))
        whole, scores = model.predict(log, queries, 10), model.score(log, queries, candidates)
        for row in range(len(queries)):
            past = log.before(int(queries.timestamp[row]))
            one = queries.select(slice(row, row + 1))
            _assert_same(model.predict(past, one, 10), _row(whole, row), self.tolerance)
            alone = model.score(past, one, candidates[row : row + 1])[0]
            np.testing.assert_allclose(alone, scores[row], rtol=0, atol=self.tolerance)

    def test_answers_do_not_depend_on_the_batch(self, log: Log, model: Recommender) -> None:
        queries = queries_of(log)
        candidates = np.random.default_rng(1).integers(-1, log.n_items, (len(queries), 7)).astype(np.int32)
        whole, scores = model.predict(log, queries, 10), model.score(log, queries, candidates)
        order = np.random.default_rng(0).permutation(len(queries))[: len(queries) // 2]
        some = model.predict(log, queries.select(order), 10)
        _assert_same(some, Ranking(whole.item[order], whole.score[order]), self.tolerance)
        again = model.score(log, queries.select(order), candidates[order])
        np.testing.assert_allclose(again, scores[order], rtol=0, atol=self.tolerance)

    def test_rankings_hold_distinct_eligible_items_in_order(self, log: Log, model: Recommender) -> None:
        queries = queries_of(log)
        ranking = model.predict(log, queries, 10)
        assert ranking.item.dtype == np.int32
        assert ranking.score.dtype == np.float32
        assert ranking.item.shape == ranking.score.shape == (len(queries), 10)
        for row, (user, timestamp) in enumerate(zip(queries.user, queries.timestamp, strict=True)):
            items = ranking.item[row][ranking.item[row] >= 0]
            seen = np.unique(log.item[log.history(int(user), int(timestamp))])
            assert len(np.unique(items)) == len(items) == min(10, log.n_items - len(seen))
            assert not np.isin(items, seen).any()
            assert (items < log.n_items).all()
            scores = ranking.score[row][: len(items)]
            assert np.isfinite(scores).all()
            assert (scores[1:] <= scores[:-1]).all()
            assert (ranking.item[row][len(items) :] == -1).all()
            assert np.isneginf(ranking.score[row][len(items) :]).all()

    def test_history_is_eligible_where_items_return(self, log: Log, model: Recommender) -> None:
        ranking = model.predict(log, queries_of(log), log.n_items, history_eligible=True)
        assert (np.sort(ranking.item, axis=1) == np.arange(log.n_items)).all()

    def test_k_beyond_the_catalogue_is_padded(self, log: Log, model: Recommender) -> None:
        queries = Queries(np.array([3], dtype=np.int32), np.array([CUT]))
        ranking = model.predict(log, queries, log.n_items + 5)
        eligible = log.n_items - len(np.unique(log.item[log.history(3, CUT)]))
        assert ranking.item.shape == (1, log.n_items + 5)
        assert (ranking.item[0] >= 0).sum() == eligible
        assert (ranking.item[0, eligible:] == -1).all()

    def test_users_without_negatives_or_events_get_an_answer(self, log: Log, model: Recommender) -> None:
        assert not (log.feedback[log.events_of(LOVER)] == NEGATIVE).any()
        assert len(log.events_of(SILENT)) == 0
        queries = Queries(np.array([LOVER, SILENT], dtype=np.int32), np.array([CUT, CUT]))
        assert (model.predict(log, queries, 5).item >= 0).all()

    def test_absent_candidates_score_minus_infinity(self, log: Log, model: Recommender) -> None:
        queries = Queries(np.array([3, 4], dtype=np.int32), np.array([CUT, CUT]))
        scores = model.score(log, queries, np.array([[0, -1, 2], [-1, -1, 5]], dtype=np.int32))
        assert scores.dtype == np.float32
        assert np.isneginf(scores).tolist() == [[False, True, False], [True, True, False]]

    def test_no_queries_no_answers(self, log: Log, model: Recommender) -> None:
        none = Queries(np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int64))
        assert model.predict(log, none, 4).item.shape == (0, 4)
        assert model.score(log, none, np.empty((0, 3), dtype=np.int32)).shape == (0, 3)

    def test_a_log_of_one_user(self) -> None:
        log = Log.from_columns(
            ("only",),
            ("a", "b", "c"),
            np.zeros(3, dtype=int),
            np.array([0, 1, 0]),
            np.array([1, 2, 3]) * DAY,
            np.array([-1, -1, 1]),
        )
        ranking = self.fit(log, 4 * DAY).predict(log, Queries(np.array([0], dtype=np.int32), np.array([2 * DAY])), 3)
        assert sorted(ranking.item[0].tolist()) == [-1, 1, 2]


class CatalogueScorerConformance(RecommenderConformance):
    """Also that a ranking and candidate scores are the same scores."""

    def test_rankings_are_sorted_scores_with_ties_by_index(self, log: Log, model: Recommender) -> None:
        queries = queries_of(log)
        every = np.tile(np.arange(log.n_items, dtype=np.int32), (len(queries), 1))
        scores = model.score(log, queries, every)
        ranking = model.predict(log, queries, log.n_items, history_eligible=True)
        for row in range(len(queries)):
            assert ranking.item[row].tolist() == sorted(range(log.n_items), key=lambda i: (-scores[row, i], i))
        np.testing.assert_array_equal(np.take_along_axis(scores, ranking.item, axis=1), ranking.score)


def _row(ranking: Ranking, row: int) -> Ranking:
    return Ranking(ranking.item[row : row + 1], ranking.score[row : row + 1])


def _assert_same(found: Ranking, expected: Ranking, tolerance: float) -> None:
    np.testing.assert_array_equal(found.item, expected.item)
    np.testing.assert_allclose(found.score, expected.score, rtol=0, atol=tolerance)
