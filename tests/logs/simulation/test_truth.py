"""The truth beside the log is that of the utilities, and utilities are those of the formula."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from conrec.errors import ArtefactError
from conrec.logs.simulation import draw_world, read_world, true_interests
from conrec.logs.simulation.names import category_names
from conrec.logs.simulation.truth import _smallest, averse_items
from conrec.logs.simulation.world import BLOCK, STYLE_DIM
from conrec.settings.simulation import SimulationConfig
from tests.logs.simulation.conftest import SMALL


def literal(world, user, item, day):
    """The formula of `conrec.logs.simulation.world`, one user and item at a time."""
    config, people, items = world.config, world.people, world.catalogue
    taste = 0.0
    for place, category in enumerate(people.category[user]):
        if category == items.category[item]:
            begin, end = people.begin[user, place], people.end[user, place]
            taste = begin + config.drift * day / config.days * (end - begin)
    own = sum(people.style[user, d] * items.style[item, d] for d in range(STYLE_DIM))
    return taste + config.style * own / STYLE_DIM**0.5 + items.quality[item]


def test_utilities_are_those_of_the_formula():
    world = draw_world(SMALL)
    random = np.random.default_rng(0)
    users, items = random.integers(0, SMALL.users, 60), random.integers(0, SMALL.items, 60)
    day = random.integers(0, SMALL.days, 60)
    expected = [literal(world, *one) for one in zip(users, items, day, strict=True)]
    one_each = world.utilities(world.tastes(users, day), np.arange(60), users, items)
    np.testing.assert_allclose(one_each, expected, rtol=1e-4, atol=1e-5)
    of_all = world.utilities_of_all(users, day)
    np.testing.assert_allclose(of_all[np.arange(60), items], expected, rtol=1e-4, atol=1e-5)


def test_tastes_are_likes_aversions_and_a_large_neutral_zone():
    world = draw_world(SMALL)
    users = np.arange(SMALL.users)
    first, last = (world.tastes(users, np.full(len(users), day)) for day in (0, SMALL.days - 1))
    for taste in (first, last):
        assert ((taste > 0).sum(axis=1) == SMALL.liked).all()
        assert ((taste < 0).sum(axis=1) == SMALL.disliked).all()
    assert (np.sign(first) == np.sign(last)).all()
    assert 0 < np.abs(last - first).mean() < np.abs(first).mean()


def test_a_world_of_the_first_users_is_the_same():
    config = SimulationConfig(users=BLOCK + 30, events=BLOCK + 30)
    few, all_of_them = draw_world(config, 10), draw_world(config)
    np.testing.assert_array_equal(few.people.begin, all_of_them.people.begin[:10])
    np.testing.assert_array_equal(few.people.presses, all_of_them.people.presses[:10])
    assert all_of_them.n_users == BLOCK + 30
    assert not np.array_equal(all_of_them.people.begin[:30], all_of_them.people.begin[BLOCK:])


def test_the_file_ranks_by_true_aversion(simulated):
    folder, said = simulated
    world, names = read_world(folder), category_names(SMALL.categories)
    rows = pq.read_table(folder / "truth.parquet").to_pylist()
    assert {one["timestamp"] for one in rows} == {SMALL.start + day * 86_400 for day in (0, 10, 20)}
    assert len(rows) == 3 * said.users
    for row in rows[:: len(rows) // 25]:
        user, day = int(row["user_id"][1:]), (row["timestamp"] - SMALL.start) // 86_400
        taste = world.tastes(np.array([user]), np.array([day]))[0]
        order = np.argsort(taste, kind="stable")[:8]
        assert row["categories"] == [names[one] for one in order]
        np.testing.assert_allclose(row["category_aversion"], -taste[order], rtol=1e-6)
        there = np.flatnonzero(world.catalogue.arrival <= day)
        utility = world.utilities_of_all(np.array([user]), np.array([day]))[0, there]
        best = np.argsort(utility, kind="stable")[: SMALL.truth_items]
        assert row["items"] == [f"i{there[one]:04d}" for one in best]
        np.testing.assert_allclose(row["item_aversion"], -utility[best], rtol=1e-5)
        assert (np.diff(row["item_aversion"]) <= 0).all()


def test_interests_are_those_of_the_day_and_may_be_fewer():
    world = draw_world(SMALL)
    users = np.zeros(3, dtype=np.int64)
    at = SMALL.start + np.array([-1_000_000, 86_399, 10**9])
    found = true_interests(world, users, at, 10)
    assert found.ranked.shape == (3, 10)
    np.testing.assert_array_equal(found.ranked[0], found.ranked[1])
    assert (found.ranked[:, SMALL.disliked :] == -1).all()
    assert np.isnan(found.aversion[:, SMALL.disliked :]).all()
    assert (np.diff(found.aversion[:, : SMALL.disliked], axis=1) <= 0).all()
    assert (found.aversion[:, : SMALL.disliked] > 0).all()
    few = averse_items(draw_world(SimulationConfig(items=3, new_items=0)), users[:1], at[1:2], 5)
    assert (few.ranked[0, 3:] == -1).all()
    assert set(few.ranked[0, :3]) == {0, 1, 2}
    assert averse_items(world, users[:0], at[:0], 5).ranked.shape == (0, 5)
    assert averse_items(world, users, at, 0).ranked.shape == (3, 0)


@pytest.mark.parametrize(("n", "k"), [(1000, 3), (64, 1), (65, 1), (200, 199), (129, 2), (5, 5), (700, 0)])
def test_the_smallest_of_groups_are_the_smallest(n, k):
    values = np.random.default_rng(n).standard_normal((4, n)).astype(np.float32)
    values[1, : n // 2] = np.inf
    found = np.sort(np.take_along_axis(values, _smallest(values, k), axis=1), axis=1)
    np.testing.assert_array_equal(found, np.sort(values, axis=1)[:, :k])


def test_a_folder_without_settings_is_named(tmp_path):
    with pytest.raises(ArtefactError, match="missing"):
        read_world(tmp_path)
    (tmp_path / "simulation.json").write_text(json.dumps({"settings": {"people": 3}}))
    with pytest.raises(ArtefactError, match="no settings"):
        read_world(tmp_path)
