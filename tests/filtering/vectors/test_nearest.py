"""The nearest prediction of many pairs: the compiled way and the plain one, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conrec.filtering.vectors import compiled
from conrec.filtering.vectors.nearest import nearest_of_pairs
from conrec.filtering.vectors.table import ItemTable, max_similarity


def plain(table: ItemTable, predicted, sets, items, weights):
    """Pair by pair."""
    similarity, nearest = np.full(len(items), np.nan, np.float32), np.full(len(items), -1, np.int32)
    for pair, (row, item) in enumerate(zip(sets.tolist(), items.tolist(), strict=True)):
        here = np.flatnonzero(predicted[row] >= 0) if min(row, item) >= 0 else []
        if len(here):
            cosines = table.similarities(np.asarray([item]), predicted[row][here])[0]
            cosines = cosines if weights is None else cosines * weights[row][here]
            similarity[pair], nearest[pair] = cosines.max(), predicted[row][here][cosines.argmax()]
    return similarity, nearest


@pytest.mark.skipif(not compiled.COMPILED, reason="numba comes with the extra `serve`")
@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 2, 31, 32, 33, 128, 200]),
    st.floats(0.01, 2),
    st.sampled_from(["none", "some", "zero"]),
    st.booleans(),
)
def test_all_three_ways_agree_to_the_bit(seed: int, dimension: int, spread: float, kind: str, in_order: bool) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(3, dimension))[rng.integers(0, 3, 50)] + spread * rng.normal(size=(50, dimension))
    rows[40:] = rows[:10]  # ties are common
    table = ItemTable.build((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))
    predicted = rng.integers(-1, 50, (9, rng.integers(1, 24))).astype(np.int32)
    predicted[4] = -1
    sets, items = rng.integers(-1, 9, 300), rng.integers(-1, 50, 300).astype(np.int32)
    sets = np.sort(sets) if in_order else sets
    weights = {"none": None, "some": rng.random(predicted.shape), "zero": np.zeros(predicted.shape)}[kind]
    expected = plain(table, predicted, sets, items, weights)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "COMPILED", False)
        without = max_similarity(table, predicted, sets, items, weights)
    for found in (nearest_of_pairs(table, predicted, sets, items, weights), without):
        np.testing.assert_array_equal(found[0], expected[0], strict=True)
        np.testing.assert_array_equal(found[1], expected[1], strict=True)


def test_no_pairs_and_no_predictions() -> None:
    table = ItemTable.build(np.eye(3, dtype=np.float32))
    nothing = np.empty(0, dtype=np.int64)
    for predicted in (np.empty((0, 5), np.int32), np.empty((2, 0), np.int32), np.full((2, 5), -1, np.int32)):
        assert [len(one) for one in max_similarity(table, predicted, nothing, nothing.astype(np.int32))] == [0, 0]
        if len(predicted):
            similarity, nearest = max_similarity(table, predicted, np.asarray([0, 1]), np.asarray([2, -1], np.int32))
            assert np.isnan(similarity).all()
            assert nearest.tolist() == [-1, -1]


def test_a_system_that_keeps_nothing_compiles_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As numba has it where neither the package's folder nor a home can be written."""
    asked: list[bool] = []

    def njit(cache=False, **_):
        asked.append(cache)

        def made(function):
            if cache:
                raise RuntimeError("cannot cache function: no locator available for file")
            return function

        return made

    monkeypatch.setattr(compiled, "njit", njit, raising=False)
    monkeypatch.setattr(compiled, "COMPILED", True)
    assert compiled.compiled(len) is len
    assert asked == [True, False]
