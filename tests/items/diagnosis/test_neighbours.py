"""The neighbour hit rate against a brute force over every order of the ties."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from conrec.items.diagnosis import neighbours
from conrec.items.diagnosis.neighbours import ASKED_WHOLE, QUERIES, neighbour_hits, queries_of


def top_sets(similarity: np.ndarray, query: int, nearest: int) -> list[frozenset[int]]:
    """The nearest of a query under every order in which its neighbours could be sorted."""
    others = [item for item in range(len(similarity)) if item != query]
    return [frozenset(sorted(order, key=lambda item: -similarity[item])[:nearest]) for order in permutations(others)]


def brute_force(original: np.ndarray, rebuilt: np.ndarray, query: int, nearest: int) -> float:
    sides = [top_sets(rows @ rows[query], query, nearest) for rows in (original, rebuilt)]
    shares = [len(one & other) / nearest for one in set(sides[0]) for other in set(sides[1])]
    weights = [sides[0].count(one) * sides[1].count(other) for one in set(sides[0]) for other in set(sides[1])]
    return float(np.average(shares, weights=weights))


# Small whole numbers are exact in any order of summation, and tie often.
ROWS = arrays(np.float32, (6, 2), elements=st.integers(-2, 2).map(float))


@given(ROWS, ROWS, st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_ties_are_taken_at_their_expectation(original: np.ndarray, rebuilt: np.ndarray, nearest: int) -> None:
    found = neighbour_hits(original, (rebuilt,), np.arange(6), nearest)[0]
    assert found == pytest.approx([brute_force(original, rebuilt, query, nearest) for query in range(6)])


@given(ROWS, ROWS, st.permutations(range(6)))
@settings(max_examples=40, deadline=None)
def test_the_order_of_the_catalogue_does_not_matter(
    original: np.ndarray, rebuilt: np.ndarray, order: list[int]
) -> None:
    found = neighbour_hits(original, (rebuilt,), np.arange(6), 3)[0]
    assert neighbour_hits(original[order], (rebuilt[order],), np.arange(6), 3)[0] == pytest.approx(found[order])


def test_the_same_embedding_has_every_neighbour_unless_rows_are_alike() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    alike = np.repeat(rows[:1], 50, axis=0)
    same, chance = neighbour_hits(rows, (rows, alike), np.arange(50), 10)
    assert same.tolist() == [1.0] * 50
    assert chance == pytest.approx([10 / 49] * 50), "embeddings that know nothing have what a random order has"


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    rows = random.integers(-3, 4, (40, 3)).astype(np.float32)
    codes = random.integers(-1, 2, (40, 3)).astype(np.float32)
    whole = neighbour_hits(rows, (codes,), np.arange(5, 40), 10)
    monkeypatch.setattr(neighbours, "_CELLS", 130)
    assert np.array_equal(neighbour_hits(rows, (codes,), np.arange(5, 40), 10), whole)


def test_few_items() -> None:
    rows = np.eye(3, dtype=np.float32)
    assert neighbour_hits(rows, (rows,), np.arange(3), 10)[0].tolist() == [1, 1, 1], "all others are the nearest"
    assert np.isnan(neighbour_hits(rows[:1], (rows[:1],), np.arange(1), 10)).all()


def test_signs_of_zero_are_equal() -> None:
    rows = np.asarray([[0.0, 1.0], [-0.0, 1.0], [1.0, 0.0], [1.0, -0.0]], dtype=np.float32)
    assert neighbour_hits(rows, (np.abs(rows),), np.arange(4), 1)[0].tolist() == [1, 1, 1, 1]


def test_a_large_catalogue_is_asked_by_a_seeded_sample() -> None:
    assert queries_of(ASKED_WHOLE, 0).tolist() == list(range(ASKED_WHOLE))
    some = queries_of(ASKED_WHOLE + 1, 3)
    assert len(np.unique(some)) == QUERIES
    assert np.array_equal(some, queries_of(ASKED_WHOLE + 1, 3))
    assert not np.array_equal(some, queries_of(ASKED_WHOLE + 1, 4))
