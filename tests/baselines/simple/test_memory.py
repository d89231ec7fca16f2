"""How much memory a question takes: of the answers that are held at once, never of the whole table or all queries."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from scipy.sparse import csr_array

from conrec.baselines import base
from conrec.baselines.base import CatalogueScorer
from conrec.baselines.simple.category_rule import CategoryRule
from conrec.baselines.simple.ease import Ease
from conrec.baselines.simple.item_knn import ItemKnn
from conrec.baselines.simple.nearest_item import NearestItem
from conrec.baselines.simple.popularity import LivePopularity, MostDisliked
from conrec.baselines.simple.profiles import profiles
from conrec.baselines.simple.rows import in_memory
from conrec.baselines.simple.user_knn import UserKnn
from conrec.logs.log import Log
from conrec.protocol import DAY
from conrec.recommender import Queries
from conrec.settings.baselines.simple import (
    CategoryRuleConfig,
    EaseConfig,
    ItemKnnAllConfig,
    NearestItemConfig,
    PopularityConfig,
    UserKnnConfig,
)

USERS, LARGE = 50, 105_096
QUERIES = Queries(np.arange(40, dtype=np.int32), np.full(40, 90 * DAY))


def _log(n_items: int) -> Log:
    """Two hundred events of 50 users on a catalogue of any size."""
    random = np.random.default_rng(0)
    return Log.from_columns(
        tuple(f"u{user:02d}" for user in range(USERS)),
        tuple(f"i{item:06d}" for item in range(n_items)),
        random.integers(0, USERS, 200),
        random.integers(0, n_items, 200),
        random.integers(0, 90, 200) * DAY,
        random.integers(-1, 2, 200),
    )


def _table(rows: int, columns: int, entries: int) -> csr_array:
    """So many entries in each row, spread evenly."""
    step = np.arange(entries) * (columns // entries)
    place = np.sort((np.arange(rows)[:, None] + step) % columns, axis=1).reshape(-1)
    values = np.random.default_rng(1).random(len(place))
    return in_memory(csr_array((values, place, np.arange(0, len(place) + 1, entries)), shape=(rows, columns)))


def _category_rule(n: int, rule: str) -> CategoryRule:
    settings = CategoryRuleConfig.model_validate({"rule": rule, "blocked_after": 1})
    return CategoryRule(_table(n, 40, 3), np.full(40, 1 / 40), np.arange(n) % 100.0, settings, PopularityConfig())


def _ease(n: int) -> Ease:
    random = np.random.default_rng(2)
    weights = random.normal(size=(301, 300)).astype(np.float32)
    return Ease(weights, np.arange(300) * (n // 300), random.random(n), EaseConfig())


def _user_knn(n: int) -> UserKnn:
    users = {f"u{user:02d}": user for user in range(USERS)}
    return UserKnn(_table(3 * n, USERS, 5), _table(USERS, n, 100), np.zeros(n), users, UserKnnConfig())


MODELS: dict[str, Callable[[int], CatalogueScorer]] = {
    "most-disliked": lambda n: MostDisliked(np.arange(n, dtype=np.float32)),
    "live-popularity": lambda n: LivePopularity(PopularityConfig()),
    "category-rule-block": lambda n: _category_rule(n, "block"),
    "category-rule-share": lambda n: _category_rule(n, "share"),
    "nearest-item": lambda n: NearestItem(_table(n, n, 20), np.zeros(n), NearestItemConfig()),
    "item-knn": lambda n: ItemKnn(_table(3 * n, n, 5), np.zeros(n), ItemKnnAllConfig()),
    "user-knn": _user_knn,
    "ease": _ease,
}


def _peak(ask: Callable[[], object]) -> int:
    """Bytes that are taken at once beyond what there was before."""
    tracemalloc.start()
    try:
        ask()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("row", MODELS)
def test_it_holds_so_many_scores_at_once_and_not_those_of_all_queries(
    row: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two queries at a time on a catalogue of 105,096 items; all 40 in float64 would be 34 MB."""
    monkeypatch.setattr(base, "CELLS", 2 * LARGE)
    log, model = _log(LARGE), MODELS[row](LARGE)
    assert _peak(lambda: model.predict(log, QUERIES, 20)) < 8 * 8 * base.CELLS


@pytest.mark.parametrize("row", ["nearest-item", "item-knn", "user-knn"])
def test_a_question_copies_no_table(row: str) -> None:
    """One query, against tables of some 8 MB or more; a copy of the indices alone would be a third of that."""
    n = 3000
    large: dict[str, Callable[[], tuple[CatalogueScorer, int]]] = {
        "nearest-item": lambda: (NearestItem(_table(n, n, 300), np.zeros(n), NearestItemConfig()), 300 * n),
        "item-knn": lambda: (ItemKnn(_table(3 * n, n, 100), np.zeros(n), ItemKnnAllConfig()), 300 * n),
        "user-knn": lambda: (
            UserKnn(_table(3 * n, USERS, 50), _table(USERS, n, 3000), np.zeros(n), {}, UserKnnConfig()),
            3 * n * 50,
        ),
    }
    model, entries = large[row]()
    log = _log(n)
    one = QUERIES.select(slice(0, 1))
    model.scores(log, one)
    assert _peak(lambda: model.scores(log, one)) < 2 * entries


def test_tables_and_profiles_are_of_the_same_types() -> None:
    asked, table = profiles(_log(300), QUERIES, (1.0, 1.0, 1.0)), _table(300, 300, 7)
    for matrix in (asked, table, asked @ table):
        assert matrix.dtype == np.float64
        assert matrix.indices.dtype == matrix.indptr.dtype == np.int32


def test_in_memory_are_the_values_of_the_file() -> None:
    exact = csr_array(np.array([[0.1, 0.0], [1 / 3, -2.5]]))
    held = in_memory(exact)
    assert held.toarray().tolist() == exact.toarray().astype(np.float32).astype(np.float64).tolist()
