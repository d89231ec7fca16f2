"""The item table: exact cosines, a screen that never changes an answer, and the mapped file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conrec.errors import ArtefactError
from conrec.filtering.vectors import compiled
from conrec.filtering.vectors.compiled import SCALE
from conrec.filtering.vectors.table import FIRST, SECOND, THIRD, ItemTable, max_similarity

MADE_OF = {"sid_hash": "one", "rebuilt": "two"}


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def clustered(rng: np.random.Generator, items: int, dimension: int, spread: float) -> np.ndarray:
    """Rows in a few clusters, some of them twice, so that similarities of 1 and near a threshold are common."""
    rows = rng.normal(size=(4, dimension))[rng.integers(0, 4, items)] + spread * rng.normal(size=(items, dimension))
    rows[-3:] = rows[:3]
    return unit(rows)


def literal(table: ItemTable, item: int, members: np.ndarray, weights: np.ndarray) -> float:
    """The rule with Python's whole numbers, which have no size."""
    best = -np.inf
    for member, weight in zip(members.tolist(), weights.tolist(), strict=True):
        x, y = table.rows[item].tolist(), table.rows[member].tolist()
        product = sum(a * b for a, b in zip(x, y, strict=True))
        lengths = float(np.sqrt(sum(a * a for a in x))) * float(np.sqrt(sum(b * b for b in y)))
        best = max(best, product / lengths * weight)
    return float(np.float32(best))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 2, 17, 31, 32, 127, 128, 200]),
    st.floats(0.01, 2),
    st.booleans(),
    st.sampled_from(["similarity", "below", "nothing", "everything"]),
)
def test_both_ways_and_the_literal_rule_agree_to_the_bit(
    seed: int, dimension: int, spread: float, weighted: bool, kind: str
) -> None:
    rng = np.random.default_rng(seed)
    table = ItemTable.build(clustered(rng, 40, dimension, spread))
    members = rng.integers(0, 40, rng.integers(1, 24)).astype(np.int32)
    items = rng.integers(-1, 40, rng.integers(1, 300)).astype(np.int32)
    weights = rng.random(len(members)) if weighted else np.ones(len(members))
    similarity = (table.similarities(np.maximum(items, 0), members) * weights).max(axis=1).astype(np.float32)
    middle = rng.choice(similarity)  # thresholds that are similarities themselves: the hardest ones
    limit = {
        "similarity": middle,
        "below": np.nextafter(middle, np.float32(-2)),
        "nothing": np.float32(np.inf),
        "everything": np.float32(-2),
    }[kind]
    limits = np.full(len(items), limit, dtype=np.float32)
    dropped = table.dropped(items, members, weights, limits)
    np.testing.assert_array_equal(dropped, (similarity > limits) & (items >= 0))
    for at in range(0, len(items), 17):
        if items[at] >= 0:
            assert similarity[at] == literal(table, int(items[at]), members, weights)


def test_the_compiled_way_is_the_one_that_was_tested() -> None:
    assert compiled.COMPILED


def test_without_numba_the_answers_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    table = ItemTable.build(clustered(rng, 500, 150, 0.7))
    members, items = rng.integers(0, 500, 20).astype(np.int32), rng.integers(-1, 500, 2000).astype(np.int32)
    limits = rng.uniform(0.8, 1, 2000).astype(np.float32)
    with_numba = table.dropped(items, members, np.ones(20), limits)
    assert 0 < with_numba.sum() < len(items) / 2
    monkeypatch.setattr(compiled, "COMPILED", False)
    np.testing.assert_array_equal(table.dropped(items, members, np.ones(20), limits), with_numba)


def test_a_threshold_for_each_candidate() -> None:
    table = ItemTable.build(unit(np.asarray([[1.0, 0], [1, 0.1], [0, 1]])))
    items, members = np.asarray([1, 1, 2, -1], dtype=np.int32), np.asarray([0], dtype=np.int32)
    limits = np.asarray([0.9, 1, -1, -1], dtype=np.float32)
    assert table.dropped(items, members, np.ones(1), limits).tolist() == [True, False, True, False]
    assert table.dropped(items, members[:0], np.ones(0), limits).tolist() == [False] * 4
    assert table.dropped(items[:0], members, np.ones(1), limits[:0]).tolist() == []


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 40, 384]))
def test_cosines_are_those_of_the_rows_and_never_above_1(seed: int, dimension: int) -> None:
    rng = np.random.default_rng(seed)
    rebuilt = clustered(rng, 30, dimension, 0.5)
    table = ItemTable.build(rebuilt)
    every = np.arange(30, dtype=np.int32)
    cosines = table.similarities(every, every)
    # Each feature is off by half of 1/32000 at most, so a row by sqrt(d) times that, and a cosine by twice that.
    np.testing.assert_allclose(cosines, rebuilt @ rebuilt.T, atol=1.1 * dimension**0.5 / SCALE + 1e-6)
    assert np.float32(cosines).max() == 1
    np.testing.assert_array_equal(np.float32(np.diag(cosines)), 1)
    np.testing.assert_allclose(np.linalg.norm(table.rebuilt(every), axis=1), 1, atol=1e-6)


def test_no_row_is_too_long_for_its_numbers() -> None:
    # One feature alone is the largest number there is; 1,024 equal ones round up together.
    rows = np.zeros((2, 1024), dtype=np.float32)
    rows[0, 7] = 1.0005
    rows[1] = 1.0005 / 32
    table = ItemTable.build(rows)
    assert table.rows[0, 7] == np.rint(SCALE * 1.0005)
    largest = np.square(table.rows.astype(np.int64)).sum(axis=1).max()
    assert largest < 2**31
    assert table.similarities(np.asarray([0, 1]), np.asarray([0, 1])).diagonal().tolist() == pytest.approx([1, 1])


def test_the_mapped_file_is_the_table(tmp_path: Path) -> None:
    table = ItemTable.build(clustered(np.random.default_rng(0), 50, 60, 0.5))
    path = tmp_path / "items.safetensors"
    assert ItemTable.map(path, MADE_OF) is None
    table.save(path, MADE_OF)
    assert ItemTable.map(path, {**MADE_OF, "rebuilt": "another"}) is None
    mapped = ItemTable.map(path, MADE_OF)
    assert mapped is not None
    assert not mapped.rows.flags.owndata
    assert [one.shape[1] for one in (mapped.first, mapped.second, mapped.third)] == [FIRST, SECOND, THIRD]
    for name in ("rows", "lengths", "first", "second", "third", "slack"):
        np.testing.assert_array_equal(getattr(mapped, name), getattr(table, name))
    with pytest.raises(ValueError, match="read-only"):
        mapped.rows[0] = 0


@pytest.mark.parametrize("cut", [0, 4, 40, 2000])
def test_a_file_cut_short_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "items.safetensors"
    ItemTable.build(clustered(np.random.default_rng(0), 50, 60, 0.5)).save(path, MADE_OF)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ArtefactError, match=r"items\.safetensors"):
        ItemTable.map(path, MADE_OF)


def test_a_damaged_number_is_found(tmp_path: Path) -> None:
    path = tmp_path / "items.safetensors"
    ItemTable.build(clustered(np.random.default_rng(0), 50, 60, 0.5)).save(path, MADE_OF)
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match="checksum"):
        ItemTable.map(path, MADE_OF)


@pytest.mark.parametrize("with_numba", [True, False])
def test_indices_of_another_catalogue_are_unknown_items(monkeypatch: pytest.MonkeyPatch, with_numba: bool) -> None:
    monkeypatch.setattr(compiled, "COMPILED", with_numba)
    table = ItemTable.build(clustered(np.random.default_rng(0), 50, 60, 0.5))
    items = np.asarray([3, 50, 10**6, -1, -7, 2**32 + 3, -(2**40)])
    members, limits = np.asarray([3], dtype=np.int32), np.full(7, 0.5, dtype=np.float32)
    assert table.dropped(items, members, np.ones(1), limits).tolist() == [True] + [False] * 6
    predicted = np.asarray([[3, 50, 2**31 - 1]], dtype=np.int32)
    similarity, nearest = max_similarity(table, predicted, np.zeros(7, dtype=np.int64), items)
    assert nearest.tolist() == [3] + [-1] * 6
    assert np.isnan(similarity[1:]).all()
    with pytest.raises(IndexError, match="set 1"):
        max_similarity(table, predicted, np.ones(7, dtype=np.int64), items)
