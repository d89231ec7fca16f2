"""The category rule: the contract, both of its forms against loops, and what it does without categories."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from scipy.sparse import csr_array

from conrec.baselines.simple.category_rule import CategoryRule
from conrec.baselines.simple.fallback import LEAST
from conrec.baselines.simple.popularity import LivePopularity
from conrec.errors import NotApplicableError
from conrec.logs.log import Log
from conrec.protocol import DAY
from conrec.recommender import Queries
from conrec.settings.baselines.simple import CategoryRuleConfig, PopularityConfig
from conrec.workspace import Categories
from tests.baselines.simple.learnable import END, categories_of, two_tastes
from tests.conformance import CUT, CatalogueScorerConformance, queries_of, small_log

LIVE = PopularityConfig(days=20, half_life_days=5.0)


def _kinds(n_items: int) -> list[list[str]]:
    """Three colours and a size; every seventh item has no category at all."""
    return [[f"colour {i % 3}", *(["large"] if i % 2 else [])] if i % 7 else [] for i in range(n_items)]


def _rule(log: Log, cut: int, settings: CategoryRuleConfig) -> CategoryRule:
    return CategoryRule.of(log.before(cut), categories_of(_kinds(log.n_items)), settings, LIVE)


class TestBlock(CatalogueScorerConformance):
    def fit(self, log: Log, cut: int) -> CategoryRule:
        return _rule(log, cut, CategoryRuleConfig(rule="block", blocked_after=2, half_life_days=30.0))


class TestShare(CatalogueScorerConformance):
    def fit(self, log: Log, cut: int) -> CategoryRule:
        return _rule(log, cut, CategoryRuleConfig(rule="share", order="count", smoothing=3.0))


def _dislikes_by_category(log: Log, user: int, time: int, half_life: float | None) -> tuple[dict[str, float], float]:
    """d(u, c) and d(u): each item that the user ever disliked, aged by the last time."""
    latest = {int(log.item[e]): int(log.timestamp[e]) for e in log.history(user, time) if log.feedback[e] == -1}
    counts: dict[str, float] = {}
    total = 0.0
    for item, then in latest.items():
        weight = 1.0 if half_life is None else 0.5 ** ((time - then) / DAY / half_life)
        for kind in _kinds(log.n_items)[item]:
            counts[kind] = counts.get(kind, 0.0) + weight
            total += weight
    return counts, total


@pytest.mark.parametrize("half_life", [None, 25.0])
@pytest.mark.parametrize("order", ["live", "count"])
@pytest.mark.parametrize("rule", ["block", "share"])
def test_scores_are_the_formula(
    rule: Literal["block", "share"], order: Literal["live", "count"], half_life: float | None
) -> None:
    log = small_log(events=300)
    train = log.before(CUT)
    settings = CategoryRuleConfig(rule=rule, order=order, blocked_after=2, smoothing=4.0, half_life_days=half_life)
    queries = queries_of(log).select(slice(0, None, 7))
    found = _rule(log, CUT, settings).scores(log, queries)
    live = LivePopularity(LIVE).scores(log, queries)
    kinds = _kinds(log.n_items)
    disliked = {(int(train.user[e]), int(train.item[e])) for e in range(len(train)) if train.feedback[e] == -1}
    times = np.array([sum(item == one for _, one in disliked) for item in range(log.n_items)])
    everybody = {
        kind: 1 + sum(kind in kinds[item] for _, item in disliked) for kind in {k for row in kinds for k in row}
    }
    share = {kind: count / sum(everybody.values()) for kind, count in everybody.items()}
    for row, (user, time) in enumerate(zip(queries.user, queries.timestamp, strict=True)):
        own, total = _dislikes_by_category(log, int(user), int(time), half_life)
        popular = times if order == "count" else live[row] + LEAST * times / times.max()
        if rule == "block":
            blocked = np.array([any(own.get(kind, 0.0) >= 2 for kind in one) for one in kinds])
            first = np.lexsort((np.arange(log.n_items), -times, -popular, -blocked.astype(int)))
            assert np.lexsort((np.arange(log.n_items), -found[row])).tolist() == first.tolist()
            same = (np.diff(popular[first]) == 0) & (np.diff(times[first]) == 0) & (np.diff(blocked[first]) == 0)
            assert (np.diff(found[row][first]) == 0).tolist() == same.tolist()
            continue
        for item in range(log.n_items):
            ratios = [(own.get(kind, 0.0) / share[kind] + 4.0) / (total + 4.0) for kind in kinds[item]]
            expected = (np.mean(ratios) if ratios else 1.0) * popular[item]
            np.testing.assert_allclose(found[row, item], expected, rtol=1e-5, atol=1e-12)


def test_numbers_of_dislikes_order_blocked_items_too_where_nothing_is_live() -> None:
    """Also in a large catalogue, where they differ by less than float32 tells apart next to 1."""
    n = 100_000
    user = np.zeros(6, dtype=int)
    log = Log.from_columns(
        ("one",), tuple(f"i{item}" for item in range(n)), user, np.arange(6), np.arange(6) * DAY, user - 1
    )
    dislikes = np.random.default_rng(0).permutation(n) + 1.0
    odd = np.arange(n) % 2
    member = csr_array((np.ones(n), odd, np.arange(n + 1)), shape=(n, 2))
    queries = Queries(np.zeros(2, dtype=np.int32), np.array([1, 500]) * DAY)
    settings = CategoryRuleConfig(rule="block", blocked_after=3)
    # On day 500 nothing is live and both kinds are blocked; on day 1 neither is, and item 0 is live.
    model = CategoryRule(member, np.array([0.5, 0.5]), dislikes, settings, LIVE)
    early, late = model.scores(log, queries)
    order = np.argsort(-dislikes)
    assert np.argsort(-late, kind="stable").tolist() == order.tolist()
    assert np.argsort(-early, kind="stable").tolist() == [0, *order[order != 0].tolist()]
    # On the fifth day items 0, 2 and 4 have been disliked: all even items come first, and of both halves what is live.
    (fifth,) = model.scores(log, Queries(np.zeros(1, dtype=np.int32), np.array([4 * DAY + 1])))
    behind = [item for item in order.tolist() if item > 4]
    expected = [4, 2, 0, *(item for item in behind if item % 2 == 0), 3, 1, *(item for item in behind if item % 2)]
    assert np.argsort(-fifth, kind="stable").tolist() == expected
    assert len(set(fifth.tolist())) == n


@pytest.mark.parametrize("rule", ["block", "share"])
def test_it_learns_who_dislikes_which_category(rule: Literal["block", "share"]) -> None:
    log = two_tastes()
    settings = CategoryRuleConfig(rule=rule, order="count", smoothing=1.0)
    kinds = categories_of([[f"kind {item % 2}"] for item in range(log.n_items)])
    users = np.arange(log.n_users, dtype=np.int32)
    model = CategoryRule.of(log, kinds, settings, LIVE)
    top = model.predict(log, Queries(users, np.full(log.n_users, END)), 3).item
    mine = np.array([(log.feedback[log.events_of(int(user))] == -1).sum() >= 5 for user in users])
    assert mine.sum() > 15
    assert ((top[mine] + users[mine, None]) % 2 == 0).mean() > 0.95


def test_without_categories_there_is_no_such_row() -> None:
    log = small_log()
    nothing: Categories = categories_of([[] for _ in range(log.n_items)])
    with pytest.raises(NotApplicableError, match="no item has a category"):
        CategoryRule.of(log.before(CUT), nothing, CategoryRuleConfig(), LIVE)
