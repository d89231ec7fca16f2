"""The K best of full-catalogue scores, against sorting everything."""

from __future__ import annotations

import numpy as np
import pytest

from conrec.recommender import Ranking


@pytest.mark.parametrize("k", [1, 5, 39, 40, 47])
def test_best_scores_come_first_and_ties_go_by_index(k: int) -> None:
    random = np.random.default_rng(k)
    scores = random.integers(0, 6, (50, 40)).astype(np.float32)
    scores[random.random(scores.shape) < 0.3] = -np.inf
    scores[0] = -np.inf
    found = Ranking.from_scores(scores, k)
    assert found.item.shape == found.score.shape == (50, k)
    for row in range(50):
        eligible = [item for item in range(40) if np.isfinite(scores[row, item])]
        expected = sorted(eligible, key=lambda item: (-scores[row, item], item))[:k]
        assert found.item[row].tolist() == expected + [-1] * (k - len(expected))
        assert found.score[row].tolist() == [*scores[row, expected].tolist()] + [-np.inf] * (k - len(expected))


def test_an_empty_catalogue_ranks_nothing() -> None:
    found = Ranking.from_scores(np.empty((2, 0), dtype=np.float32), 3)
    assert found.item.tolist() == [[-1] * 3] * 2
