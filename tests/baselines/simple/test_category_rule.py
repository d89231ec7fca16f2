"""The category rule: the contract, both of its forms against loops, and what it does without categories."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

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
        for item in range(log.n_items):
            if rule == "block":
                blocked = any(own.get(kind, 0.0) >= 2 for kind in kinds[item])
                expected = blocked + popular[item] / (popular.max() + 1)
            else:
                ratios = [(own.get(kind, 0.0) / share[kind] + 4.0) / (total + 4.0) for kind in kinds[item]]
                expected = (np.mean(ratios) if ratios else 1.0) * popular[item]
            np.testing.assert_allclose(found[row, item], expected, rtol=1e-5, atol=1e-12)


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
