"""Most disliked and live popularity against literal transcriptions of their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from conrec.baselines.simple.popularity import LivePopularity, MostDisliked
from conrec.errors import ArtefactError
from conrec.logs.log import Log
from conrec.protocol import DAY, NEGATIVE
from conrec.settings.baselines.simple import PopularityConfig
from tests.conformance import CUT, CatalogueScorerConformance, queries_of, small_log


class TestMostDisliked(CatalogueScorerConformance):
    def fit(self, log: Log, cut: int) -> MostDisliked:
        return MostDisliked.count(log.before(cut))


class TestLivePopularity(CatalogueScorerConformance):
    def fit(self, log: Log, cut: int) -> LivePopularity:
        return LivePopularity(PopularityConfig())


def test_most_disliked_counts_training_negatives() -> None:
    log = small_log()
    scores = MostDisliked.count(log.before(CUT)).scores(log, queries_of(log).select(slice(0, 2)))
    expected = [
        sum(
            int(log.item[e]) == item and log.feedback[e] == NEGATIVE and log.timestamp[e] < CUT for e in range(len(log))
        )
        for item in range(log.n_items)
    ]
    assert scores.tolist() == [expected, expected]


@pytest.mark.parametrize(("days", "half_life"), [(30, 7.0), (3, 1.5), (400, 0.25)])
def test_live_popularity_is_its_formula(days: int, half_life: float) -> None:
    log = small_log()
    queries = queries_of(log)
    scores = LivePopularity(PopularityConfig(days=days, half_life_days=half_life)).scores(log, queries)
    for row in range(0, len(queries), 7):
        t = int(queries.timestamp[row])
        expected = np.zeros(log.n_items)
        for e in range(len(log)):
            s = int(log.timestamp[e])
            if log.feedback[e] == NEGATIVE and t - days * DAY <= s < t:
                expected[log.item[e]] += 0.5 ** ((t - s) / DAY / half_life)
        np.testing.assert_allclose(scores[row], expected, rtol=1e-6, atol=1e-30)


def test_live_popularity_halves_in_a_half_life() -> None:
    log = Log.from_columns(("a", "b"), ("x", "y"), np.array([0]), np.array([1]), np.array([0]), np.array([NEGATIVE]))
    queries = queries_of(log).select(np.array([0, 0, 0, 0]))
    queries.timestamp[:] = [0, 7 * DAY, 30 * DAY, 30 * DAY + 1]
    scores = LivePopularity(PopularityConfig()).scores(log, queries)
    np.testing.assert_allclose(scores[:, 1], [0, 0.5, 0.5 ** (30 / 7), 0], rtol=1e-6)


def test_a_model_of_another_catalogue_is_refused() -> None:
    model = MostDisliked.count(small_log(items=20).before(CUT))
    log = small_log(items=30)
    with pytest.raises(ArtefactError, match="scores 20 items; expected the 30 items"):
        model.predict(log, queries_of(log), 5)
