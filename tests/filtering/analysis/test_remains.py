"""What remains: diversity, entropy and coverage against plain versions, and the cases in which nothing does."""

from __future__ import annotations

from itertools import permutations
from math import log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conrec.arrays import Array, Ragged
from conrec.filtering.analysis.pairs import NEGATIVES, Pairs
from conrec.filtering.analysis.remains import Candidates
from conrec.filtering.analysis.segments import NO_CATEGORY, OTHERS, Categories, user_segments
from conrec.filtering.vectors.table import ItemTable
from tests.filtering.analysis.small_world import anchors_of, unit

ROWS = unit(np.asarray([[1, 0], [0, 1], [-1, 0], [0, -1], [1, 1], [1, 0]], dtype=np.float64))
TABLE = ItemTable.build(ROWS)
CATEGORIES = Ragged.from_rows([[0], [1], [0, 1], [2], [], [0]])


def candidates(rows: list[list[int]], categories: Ragged | None = CATEGORIES) -> Candidates:
    return Candidates.of(np.asarray(rows, dtype=np.int32), TABLE, categories)


def test_two_opposite_items_are_as_diverse_as_can_be() -> None:
    found = candidates([[0, 2], [0, 5], [0, 1]]).keeping(np.ones((3, 2), dtype=np.bool_))
    assert found.diversity == pytest.approx([2.0, 0.0, 1.0], abs=1e-4)
    assert found.entropy == pytest.approx([-0.75 * log2(0.75) - 0.25 * log2(0.25), 0.0, 1.0])
    assert found.shown == 4
    assert found.kept.tolist() == [2, 2, 2]


def test_nothing_or_one_kept_has_no_diversity() -> None:
    ready = candidates([[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]])
    kept = np.asarray([[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0]], dtype=np.bool_)
    found = ready.keeping(kept)
    assert found.kept.tolist() == [0, 1, 2]
    assert found.diversity.tolist() == pytest.approx([0.0, 0.0, 1.0], abs=1e-4)
    assert found.entropy.tolist() == [0.0, 0.0, 1.0]
    assert found.over_half_lost.tolist() == [1.0, 1.0, 0.0]  # half is not more than half
    assert found.shown == 2


def test_without_candidates_or_categories() -> None:
    ready = candidates([[-1, -1], [4, -1], [0, 4]])
    found = ready.keeping(np.ones((3, 2), dtype=np.bool_))
    assert found.kept.tolist() == [0, 1, 2]
    assert np.isnan(found.diversity).tolist() == [True, False, False]
    assert np.isnan(found.over_half_lost).tolist() == [True, False, False]
    assert np.isnan(found.entropy).tolist() == [True, True, False]
    assert found.entropy[2] == 0.0
    assert np.isnan(candidates([[0, 1]], None).keeping(np.ones((1, 2), dtype=np.bool_)).entropy).all()
    nobody = Candidates.of(np.empty((0, 20), dtype=np.int32), TABLE, CATEGORIES).keeping(np.empty((0, 20), np.bool_))
    assert (len(nobody.kept), nobody.shown) == (0, 0)


@given(st.lists(st.lists(st.integers(-1, 5), min_size=5, max_size=5), min_size=1, max_size=4), st.data())
@settings(deadline=None, max_examples=60)
def test_against_loops(rows: list[list[int]], data: st.DataObject) -> None:
    marks = st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=len(rows), max_size=len(rows))
    kept = np.asarray(data.draw(marks), dtype=np.bool_)
    found = candidates(rows).keeping(kept)
    for place, row in enumerate(rows):
        items = [item for item, one in zip(row, kept[place], strict=True) if one and item >= 0]
        if all(item < 0 for item in row):
            assert np.isnan(found.diversity[place])
            continue
        pairs = [1 - float(ROWS[one] @ ROWS[other]) for one, other in permutations(items, 2)]
        assert found.diversity[place] == pytest.approx(np.mean(pairs) if pairs else 0.0, abs=1e-3)
        weight: dict[int, float] = {}
        for item in items:
            for group in CATEGORIES[item].tolist():
                weight[group] = weight.get(group, 0.0) + 1 / len(CATEGORIES[item])
        whole = sum(weight.values())
        entropy = -sum(one / whole * log2(one / whole) for one in weight.values())
        if any(item >= 0 and len(CATEGORIES[item]) for item in row):
            assert found.entropy[place] == pytest.approx(entropy, abs=1e-9)
    shown = {
        item for row, marks_of in zip(rows, kept, strict=True) for item, one in zip(row, marks_of, strict=True) if one
    }
    assert found.shown == len(shown - {-1})


NAMES = [("Drama",), ("Drama", "War"), ("War",), ("Noir",), (), ("Drama",)]


def pairs_of_two() -> Pairs:
    return Pairs.of(anchors_of([(0, 9, [0, 1, 4], [2], [3]), (1, 9, [5, 0, 3], [], [1, 4])]))


def test_categories_count_an_item_in_each_of_its_own() -> None:
    pairs = pairs_of_two()
    found = Categories.of(NAMES, pairs, largest=1)
    assert found is not None
    assert found.names == ("Drama", OTHERS, NO_CATEGORY)
    assert found.items.tolist() == [3, 3, 1]
    assert found.counts.tolist() == [[4, 0, 1], [2, 1, 2], [1, 0, 1]]
    dropped = (pairs.kind == NEGATIVES).astype(np.float64)
    assert found.shares(dropped, pairs) == [[0.0, None, 1.0], [0.0, 0.0, 1.0], [0.0, None, 1.0]]


def test_categories_that_nothing_needs_have_no_row() -> None:
    pairs = Pairs.of(anchors_of([(0, 9, [0], [2], [1])]))
    found = Categories.of(NAMES, pairs)
    assert found is not None
    assert found.names == ("Drama", "War")
    assert Categories.of([()] * 6, pairs) is None


def test_users_are_split_by_their_past() -> None:
    anchors = anchors_of([(0, 9, [0], [], [1])] * 3, long_tail=[True, False, True], history=[0, 5, 2])
    found: dict[str, Array] = user_segments(anchors)
    assert {name: rows.tolist() for name, rows in found.items()} == {
        "all": [True, True, True],
        "long_tail_users": [True, False, True],
        "other_users": [False, True, False],
        "no_negative_history": [True, False, False],
    }
