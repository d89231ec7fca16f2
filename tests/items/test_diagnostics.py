"""Diagnostics by hand-counted examples."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from conrec.items.diagnostics import collisions, describe_items, perplexity, unit_rows, use_of_codes
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
