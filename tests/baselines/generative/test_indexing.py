"""Collaborative indexing: clusters that are there are found, every item gets an ID of its own, training data alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from conrec.baselines.generative import spectral
from conrec.baselines.generative.indexing import co_occurrence, collaborative_ids
from conrec.baselines.generative.spectral import cluster_tree, spectral_clusters
from conrec.logs.log import Log
from conrec.settings.baselines.generative import P5CidConfig
from tests.conformance import small_log

TASTES, PER_TASTE = 6, 10


def tastes(users: int = 120) -> Log:
    """Each user dislikes items of one kind, `item % TASTES`, and now and then another; the last item is disliked by
    nobody, and the one before it by a user who dislikes nothing else."""
    random = np.random.default_rng(0)
    items = TASTES * PER_TASTE
    user = np.repeat(np.arange(users), 8)
    kind = user % TASTES
    item = random.integers(0, PER_TASTE, len(user)) * TASTES + kind
    stray = random.random(len(user)) < 0.05
    item[stray] = random.integers(0, items, stray.sum())
    user, item = np.r_[user, users], np.r_[item, items]
    names = tuple(f"u{one:03d}" for one in range(users + 1))
    catalogue = tuple(f"i{one}" for one in range(items + 2))
    return Log.from_columns(names, catalogue, user, item, np.arange(len(user)), np.full(len(user), -1))


def agreement(codes: np.ndarray) -> float:
    """Share of the items whose first code is the commonest of their kind."""
    kinds = np.arange(TASTES * PER_TASTE) % TASTES
    first = codes[: len(kinds), 0]
    return float(np.mean([np.bincount(first[kinds == kind]).max() / PER_TASTE for kind in range(TASTES)]))


@pytest.mark.parametrize("dense", [600, 10])
def test_kinds_of_items_become_clusters(dense: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectral, "DENSE", dense)
    ids = collaborative_ids(tastes(), P5CidConfig(clusters=TASTES, leaf_size=20), seed=0)
    assert ids.codes.shape == (TASTES * PER_TASTE + 2, 2)
    assert agreement(ids.codes) > 0.9
    assert len(np.unique(ids.codes[:-2, 0])) == TASTES
    # Those that occur together with none: a cluster of their own.
    assert ids.codes[-1, 0] == ids.codes[-2, 0]
    assert ids.codes[-1, 0] not in ids.codes[:-2, 0]


def test_the_last_code_counts_a_leaf_from_its_most_disliked_item_on() -> None:
    log = tastes()
    ids = collaborative_ids(log, P5CidConfig(clusters=TASTES, leaf_size=20), seed=0)
    counts = log.negative_counts()[1]
    for cluster in np.unique(ids.codes[:, 0]):
        members = np.flatnonzero(ids.codes[:, 0] == cluster)
        assert sorted(ids.codes[members, 1].tolist()) == list(range(len(members)))
        assert (np.diff(counts[members[np.argsort(ids.codes[members, 1])]]) <= 0).all()


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 100), st.integers(2, 6), st.integers(1, 12), st.sampled_from(["shared", "item"]), st.booleans())
def test_every_item_has_an_id_of_its_own(seed: int, clusters: int, leaf: int, last: str, every: bool) -> None:
    log = small_log(seed, events=120)
    config = P5CidConfig(clusters=clusters, leaf_size=leaf, last_token=last, graph="all" if every else "negative")
    ids = collaborative_ids(log, config, seed)
    assert ids.codes.shape[0] == log.n_items
    assert 2 <= ids.codes.shape[1] <= 4
    assert len(np.unique(ids.codes, axis=0)) == log.n_items
    assert (ids.codes.min(axis=0) >= 0).all()
    assert (ids.codes < ids.sizes).all()
    again = collaborative_ids(log, config, seed)
    np.testing.assert_array_equal(again.codes, ids.codes)
    for level in range(1, ids.codes.shape[1] - 1):  # a cluster has one parent
        inner = ids.codes[ids.codes[:, level] > 0]
        assert len(np.unique(inner[:, level])) == len(np.unique(inner[:, : level + 1], axis=0))


def test_large_leaves_are_split_as_deep_as_three_clusters() -> None:
    log = tastes()
    ids = collaborative_ids(log, P5CidConfig(clusters=2, leaf_size=4), seed=0)
    assert ids.codes.shape[1] == 4
    leaves, sizes = np.unique(ids.codes[:, :-1], axis=0, return_counts=True)
    short = leaves[:, 2] == 0
    assert (sizes[short] <= 4).all()
    assert len(leaves) > 4


def test_co_occurrence_counts_users_by_hand() -> None:
    log = small_log()
    for events in ("negative", "all"):
        found = co_occurrence(log, events).toarray()
        sets = [
            {int(log.item[e]) for e in log.events_of(user) if events == "all" or log.feedback[e] == -1}
            for user in range(log.n_users)
        ]
        for i in range(log.n_items):
            for j in range(log.n_items):
                expected = sum(i in one and j in one for one in sets) if i != j else 0
                assert found[i, j] == expected


def test_nobody_dislikes_two_items_and_everything_is_still_named() -> None:
    log = Log.from_columns(
        ("a", "b"), tuple("vwxyz"), np.array([0, 1]), np.array([2, 4]), np.array([1, 2]), np.array([-1, -1])
    )
    ids = collaborative_ids(log, P5CidConfig(leaf_size=2), seed=0)
    assert len(np.unique(ids.codes, axis=0)) == 5
    assert ids.codes.shape == (5, 3)


def test_trivial_graphs() -> None:
    assert spectral_clusters(csr_array(np.zeros((5, 5))), 3, 0).tolist() == [0] * 5
    assert spectral_clusters(csr_array(np.ones((2, 2))), 2, 0).tolist() == [0, 1]
    leaves = cluster_tree(csr_array(np.zeros((5, 5))), np.arange(5), 3, 2, 3, 0)
    assert [(path, nodes.tolist()) for path, nodes in leaves] == [((0,), [0, 1, 2, 3, 4])]
