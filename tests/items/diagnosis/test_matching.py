"""Codes of two models matched: permuted codebooks, brute force over all permutations, pairs counted one by one."""

from __future__ import annotations

from itertools import combinations, pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from conrec.items.diagnosis.matching import by_chance, globally, kept, pairs, within_parents
from conrec.items.diagnosis.prefixes import prefix_groups

CODES = arrays(np.int32, (9, 3), elements=st.integers(0, 2))


def random_codes(n: int, size: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, size, (n, 3)).astype(np.int32)


def test_kept_counts_prefixes() -> None:
    first = np.asarray([[1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2, 3]])
    second = np.asarray([[1, 2, 3], [1, 2, 0], [1, 0, 3], [0, 2, 3]])
    assert kept(first, second) == [0.75, 0.5, 0.25]


def test_a_permuted_codebook_is_recovered_exactly() -> None:
    codes = random_codes(500, 16, 0)
    orders = [np.random.default_rng(level + 1).permutation(16) for level in range(3)]
    permuted = np.stack([order[column] for order, column in zip(orders, codes.T, strict=True)], axis=1)
    assert kept(codes, permuted)[2] < 0.1
    assert within_parents(codes, permuted) == [1, 1, 1]
    assert globally(codes, permuted) == [1, 1, 1]
    assert [one["adjusted_rand"] for one in pairs(codes, permuted)] == [1, 1, 1]


def test_codes_permuted_under_each_parent_agree_within_parents_alone() -> None:
    codes = random_codes(3000, 8, 0)
    orders = np.stack([np.random.default_rng(parent).permutation(8) for parent in range(8)])
    permuted = codes.copy()
    permuted[:, 1] = orders[codes[:, 0], codes[:, 1]]
    assert within_parents(codes, permuted) == [1, 1, 1]
    first, second, third = globally(codes, permuted)
    assert first == 1
    assert third <= second < 0.5


@given(CODES, CODES)
@settings(max_examples=40, deadline=None)
def test_matching_by_hand(first: np.ndarray, second: np.ndarray) -> None:
    """Over all permutations of three codes: no matching of a level agrees for more items."""
    best = [
        max((np.asarray(order)[first[:, level]] == second[:, level]).sum() for order in permutations(range(3)))
        for level in range(3)
    ]
    found = within_parents(first, second)
    assert found[0] == pytest.approx(best[0] / 9)
    assert all(one >= other for one, other in pairwise(found))
    # The first of three levels alone: two columns in front that are the same everywhere.
    for level in range(3):
        one, other = np.zeros_like(first), np.zeros_like(second)
        one[:, 2], other[:, 2] = first[:, level], second[:, level]
        assert within_parents(one, other)[2] == globally(one, other)[2] == pytest.approx(best[level] / 9)


@given(CODES, CODES)
@settings(max_examples=40, deadline=None)
def test_pairs_by_hand(first: np.ndarray, second: np.ndarray) -> None:
    for length, found in enumerate(pairs(first, second), start=1):
        here = {
            (i, j) for i, j in combinations(range(9), 2) if first[i, :length].tolist() == first[j, :length].tolist()
        }
        there = {
            (i, j) for i, j in combinations(range(9), 2) if second[i, :length].tolist() == second[j, :length].tolist()
        }
        assert (found["codes"], found["together"]) == (length, len(here))
        assert found["kept"] == (pytest.approx(len(here & there) / len(here)) if here else None)
        assert found["kept_back"] == (pytest.approx(len(here & there) / len(there)) if there else None)


def test_adjusted_rand_is_that_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    first, second = random_codes(200, 3, 0), random_codes(200, 3, 1)
    second[:120] = first[:120]
    for length, found in enumerate(pairs(first, second), start=1):
        groups = prefix_groups(first, length), prefix_groups(second, length)
        assert found["adjusted_rand"] == pytest.approx(metrics.adjusted_rand_score(*groups))


def test_nobody_together_says_nothing() -> None:
    alone = np.stack([np.arange(4)] * 3, axis=1)
    assert pairs(alone, alone)[0] == {
        "codes": 1, "together": 0, "kept": None, "kept_back": None, "adjusted_rand": None
    }  # fmt: skip


def test_chance_is_what_codes_that_know_nothing_have() -> None:
    random = np.random.default_rng(0)
    first, second = random_codes(2000, 6, 0), random_codes(2000, 6, 1)
    second[:, 0] = first[:, 0]
    found, chance = within_parents(first, second), by_chance(first, second, random)
    assert found[0] == 1
    assert chance[0] < 0.3
    assert chance[1:] == pytest.approx(found[1:], abs=0.03), "below the first level nothing agrees"
    assert chance[2] > 1 / 36, "small groups agree easily"


def test_prefix_groups() -> None:
    codes = np.asarray([[3, 1], [0, 2], [3, 0], [3, 1]])
    assert prefix_groups(codes, 2).tolist() == [2, 0, 1, 2]
    assert prefix_groups(codes, 1).tolist() == [1, 0, 1, 1]
    assert prefix_groups(codes, 0).tolist() == [0, 0, 0, 0]
    wide = np.asarray([[65535, 65535, 65535], [65535, 65535, 65534]], dtype=np.int32)
    assert prefix_groups(wide, 3).tolist() == [1, 0]
