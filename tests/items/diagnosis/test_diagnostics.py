"""Diagnostics by hand-counted examples."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conrec.items.diagnosis.diagnostics import (
    alike,
    collisions,
    describe_items,
    entropy_ratio,
    gini,
    perplexity,
    unit_rows,
    use_of_codes,
)
from conrec.items.diagnosis.figures import diagnostics_listings
from conrec.items.semantic_ids import SemanticIds
from conrec.logs.schema import ITEMS

CODES = np.asarray([[0, 0, 0], [0, 0, 0], [0, 1, 0], [3, 1, 0]], dtype=np.int32)
CENTRED = np.asarray([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [2.0, 0.0]])
ROWS = [[2.0, 0.0], [0.0, -1.0], [1.0, 0.0], [1.0, 1.0]]
RESOLVED = np.asarray([[0, 0, 0], [0, 0, 1], [0, 1, 0], [3, 1, 0]], dtype=np.int32)


def test_use_of_codes() -> None:
    first, second, third = use_of_codes(CODES, 4)
    assert (first["level"], first["used"], first["dead"], first["coverage"]) == ("a", 2, 2, 0.5)
    assert [level["counts"] for level in (first, second, third)] == [[3, 0, 0, 1], [2, 2, 0, 0], [4, 0, 0, 0]]
    assert second["perplexity"] == pytest.approx(2)
    assert third["perplexity"] == pytest.approx(1)
    assert first["perplexity"] == pytest.approx(np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25))))


def test_perplexity_of_even_use_is_the_number_of_codes() -> None:
    assert perplexity(np.full(64, 5)) == pytest.approx(64)
    assert perplexity(np.zeros(4, dtype=np.int64)) == 1


@given(st.lists(st.integers(0, 20), min_size=2, max_size=12).filter(any))
def test_gini_and_entropy_by_hand(counts: list[int]) -> None:
    n, mean, total = len(counts), sum(counts) / len(counts), sum(counts)
    differences = sum(abs(one - other) for one in counts for other in counts)
    assert gini(np.asarray(counts)) == pytest.approx(differences / (2 * n * n * mean))
    entropy = -sum(one / total * math.log(one / total) for one in counts if one)
    assert entropy_ratio(np.asarray(counts)) == pytest.approx(entropy / math.log(n))
    assert perplexity(np.asarray(counts)) == pytest.approx(math.exp(entropy))


def test_even_use_and_one_code_for_all() -> None:
    even, one = np.full(64, 5), np.eye(64, dtype=np.int64)[3] * 320
    assert (gini(even), entropy_ratio(even)) == (0, pytest.approx(1))
    assert (gini(one), entropy_ratio(one)) == (pytest.approx(63 / 64), 0)
    assert (gini(np.zeros(4, dtype=np.int64)), entropy_ratio(np.zeros(4, dtype=np.int64))) == (0, 0)


def test_collisions() -> None:
    assert collisions(CODES) == {"distinct": 3, "items_sharing": 2, "rate": 0.5, "largest": 2}
    assert collisions(RESOLVED) == {"distinct": 4, "items_sharing": 0, "rate": 0.0, "largest": 1}


def test_unit_rows_leave_zero_rows_zero() -> None:
    unit = unit_rows(np.asarray([[3.0, 4.0], [0.0, 0.0], [1e-30, 0.0]]))
    assert unit.dtype == np.float32
    assert unit.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0.0, 0.0], [1.0, 0.0]]


def catalogue(n: int) -> pa.Table:
    ids = [str(item) for item in range(n)]
    category = [["Drama"], ["Drama", "War"], ["War"], []][:n]
    columns = {"item_id": ids, "title": ids, "text": ids, "category": category, "image": [None] * n}
    return pa.table(columns, schema=ITEMS)


def describe(train: list[bool], resolved_rows: list[list[float]] = ROWS) -> dict[str, Any]:
    ids, rebuilt = SemanticIds(CODES, RESOLVED, 4), np.asarray(ROWS)
    return describe_items(ids, CENTRED, rebuilt, np.asarray(resolved_rows), np.asarray(train), catalogue(4), 0)


def test_describe_items_is_json() -> None:
    found = describe([True, True, True, False])
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["collisions"]["moved"], found["collisions"]["moved_of_training"]) == (1, 1)
    later = describe([True, False, True, True])
    assert (later["collisions"]["moved"], later["collisions"]["moved_of_training"]) == (1, 0)
    assert found["collisions"]["moved_to_another_second_code"] == 0
    assert found["reconstruction_cosine"]["training"] == pytest.approx(0)
    assert found["reconstruction_cosine"]["other"] == pytest.approx(np.sqrt(0.5))
    assert found["reconstruction_cosine_resolved"] == found["reconstruction_cosine"]
    assert describe([True] * 4)["reconstruction_cosine"]["other"] is None
    moved = describe([True] * 4, [[2.0, 0.0], [0.0, 3.0], [1.0, 0.0], [1.0, 1.0]])
    assert moved["reconstruction_cosine_resolved"]["all"] == pytest.approx((2 + np.sqrt(0.5)) / 4)
    assert moved["reconstruction_cosine"]["all"] == pytest.approx(np.sqrt(0.5) / 4)


def test_neighbours_tie_by_codes_and_not_by_rounding() -> None:
    """Rows of the same codes that were computed in two batches differ in their last bits, and tie all the same."""
    random = np.random.default_rng(0)
    codes = np.repeat(random.integers(0, 4, (10, 3)), 6, axis=0).astype(np.int32)
    rows = np.repeat(random.normal(size=(10, 5)), 6, axis=0).astype(np.float32)
    batches = rows * (1 + 1e-6 * (np.arange(60) % 2)[:, None]).astype(np.float32)
    assert len(np.unique(alike(batches, codes), axis=0)) == len(np.unique(codes, axis=0))
    ids = SemanticIds(codes, codes, 4)
    items = pa.table(
        {name: [str(one) for one in range(60)] for name in ("item_id", "title", "text")} | {"category": [[]] * 60}
    )
    centred = random.normal(size=(60, 5)).astype(np.float32)
    first, second = (
        describe_items(ids, centred, one, one, np.arange(60) < 50, items, 0)["neighbour_hit_rate"]
        for one in (rows, batches)
    )
    assert first["raw"] == pytest.approx(second["raw"], abs=1e-6)
    assert first["chance"] == pytest.approx(10 / 59)
    assert first["queries"] == 60


def test_listings_say_every_figure_of_levels_and_groups() -> None:
    found = describe([True, True, True, False])
    use, crowded, kept, purity = diagnostics_listings(found)
    assert all(len(row) == len(one.columns) for one in (use, crowded, kept, purity) for row in one.rows)
    assert use.rows[0] == ("level a", "2", "2", "0.500", "1.8", "0.406", "0.625")
    assert crowded.rows == (("before", "3", "2", "0.500", "2"), ("after", "4", "0", "0.000", "1"))
    assert "1 have other codes after resolution (1 of the training period); 0 of them" in crowded.note
    cosine, _, hits, _ = kept.rows
    assert cosine == ("cosine to the embedding, raw codes", "0.177", "0.000", "0.707")
    assert hits[1:] == ("1.000", "1.000", "1.000"), "all other items are the nearest of four"
    assert [row[0] for row in purity.rows] == ["1 code", "2 codes", "3 codes"]
    assert "3 items with a category (of 2)" in purity.note


def test_a_single_item_without_category() -> None:
    codes, row = CODES[:1], np.asarray([[1.0, 0.0]])
    items = catalogue(4).slice(3)
    found = describe_items(SemanticIds(codes, codes, 4), row, row, row, np.asarray([True]), items, 0)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["neighbour_hit_rate"]["chance"] is None
    assert found["neighbour_hit_rate"]["raw"]["all"] is None
    assert found["category_purity"] is None
    assert len(diagnostics_listings(found)) == 3
