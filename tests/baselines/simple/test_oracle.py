"""EASE and item-kNN against LensKit and implicit on MovieLens-100K's dislikes (``tests/oracle/neighbours.json``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conrec.baselines.simple.ease import Ease
from conrec.baselines.simple.item_knn import ItemKnn
from conrec.logs.log import Log
from conrec.logs.prepare import Prepared
from conrec.protocol import NEGATIVE
from conrec.recommender import Queries
from conrec.settings.baselines.simple import EaseConfig, ItemKnnConfig

ORACLE: dict[str, Any] = json.loads((Path(__file__).parents[2] / "oracle" / "neighbours.json").read_text())
COSINE = ItemKnnConfig(neighbours=2000, target_power=0.5, shrinkage=0.0, popularity=0.0, training_half_life_days=None)


@pytest.fixture(scope="module")
def log(prepared_ml100k: Prepared) -> Log:
    """The dislikes of the whole log; nothing else was shown to the oracles."""
    whole = prepared_ml100k.log
    own = whole.feedback == NEGATIVE
    return Log.from_columns(
        whole.user_ids, whole.item_ids, whole.user[own], whole.item[own], whole.timestamp[own], whole.feedback[own]
    )


@pytest.fixture(scope="module")
def ease(log: Log) -> Ease:
    settings = EaseConfig(
        regularisation=ORACLE["regularisation"], positive=0.0, intercept=False, training_half_life_days=None
    )
    return Ease.of(log, settings)


@pytest.fixture(scope="module")
def cosine(log: Log) -> ItemKnn:
    return ItemKnn.of(log, COSINE)


def _items(log: Log, ids: list[str]) -> np.ndarray:
    index = {name: position for position, name in enumerate(log.item_ids)}
    return np.array([index[one] for one in ids], dtype=np.int32)


def _asked(log: Log, users: list[str]) -> Queries:
    """The users after the last event."""
    index = {name: position for position, name in enumerate(log.user_ids)}
    end = int(log.timestamp[-1]) + 1
    return Queries(np.array([index[one] for one in users], dtype=np.int32), np.full(len(users), end))


def test_ease_scores_as_lenskit_does(log: Log, ease: Ease) -> None:
    users, items = list(ORACLE["ease"]), _items(log, ORACLE["items"])
    found = ease.score(log, _asked(log, users), np.tile(items, (len(users), 1)))
    np.testing.assert_allclose(found, list(ORACLE["ease"].values()), atol=1e-5, rtol=0)


def test_ease_has_the_weights_of_lenskit(log: Log, ease: Ease) -> None:
    expected = np.array(ORACLE["ease_weights"])
    assert np.abs(expected).max() > 1e-3
    place = np.searchsorted(ease.kept, _items(log, ORACLE["items"][: len(expected)]))
    np.testing.assert_allclose(ease.weights[np.ix_(place, place)], expected, atol=1e-6, rtol=0)


def test_item_knn_scores_as_lenskit_does(log: Log, cosine: ItemKnn) -> None:
    """At items that the user has not disliked: LensKit counts an item as its own neighbour, with 1."""
    users, items = list(ORACLE["item_knn"]), _items(log, ORACLE["items"])
    queries = _asked(log, users)
    found = cosine.score(log, queries, np.tile(items, (len(users), 1)))
    for row, expected in enumerate(ORACLE["item_knn"].values()):
        new = ~np.isin(items, log.item[log.events_of(int(queries.user[row]))])
        assert new.sum() > 10
        np.testing.assert_allclose(found[row, new], np.array(expected)[new], atol=2e-5, rtol=0)


def test_each_items_neighbours_are_those_of_implicit(log: Log, cosine: ItemKnn) -> None:
    few = ItemKnn.of(log, COSINE.model_copy(update={"neighbours": 50}))
    for name, (own, *expected) in ORACLE["cosine_neighbours"].items():
        assert own == pytest.approx(1.0)
        item = int(_items(log, [name])[0])
        kept = few.neighbours[[item]].toarray()[0]
        assert len(expected) == 50 == (kept > 0).sum()
        np.testing.assert_allclose(-np.sort(-kept)[:50], expected, atol=1e-6, rtol=0)
        np.testing.assert_array_equal(kept[kept > 0], cosine.neighbours[[item]].toarray()[0][kept > 0])


def test_it_recommends_what_implicit_recommends(log: Log, cosine: ItemKnn) -> None:
    expected = ORACLE["cosine_recommended"]
    top = cosine.predict(log, _asked(log, list(expected)), 20)
    compared = 0
    for row, one in enumerate(expected.values()):
        np.testing.assert_allclose(top.score[row], one["scores"], atol=2e-5, rtol=0)
        apart = np.abs(np.diff(one["scores"], prepend=np.inf, append=-np.inf)) > 1e-4
        alone = apart[:-1] & apart[1:]
        np.testing.assert_array_equal(top.item[row][alone], _items(log, one["items"])[alone])
        compared += int(alone.sum())
    assert compared > 50
