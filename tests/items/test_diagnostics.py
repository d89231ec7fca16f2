"""Diagnostics by hand-counted examples."""

from __future__ import annotations

import json

import numpy as np
import pytest

from conrec.items.diagnostics import collisions, describe_items, perplexity, unit_rows, use_of_codes
from conrec.items.semantic_ids import SemanticIds

CODES = np.asarray([[0, 0, 0], [0, 0, 0], [0, 1, 0], [3, 1, 0]], dtype=np.int32)
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


def test_describe_items_is_json() -> None:
    centred = np.asarray([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [2.0, 0.0]])
    rebuilt = np.asarray([[2.0, 0.0], [0.0, -1.0], [1.0, 0.0], [1.0, 1.0]])
    train = np.asarray([True, True, True, False])
    found = describe_items(SemanticIds(CODES, RESOLVED, 4), centred, rebuilt, train)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["collisions"]["moved"], found["collisions"]["moved_of_training"]) == (1, 1)
    later = describe_items(SemanticIds(CODES, RESOLVED, 4), centred, rebuilt, np.asarray([True, False, True, True]))
    assert (later["collisions"]["moved"], later["collisions"]["moved_of_training"]) == (1, 0)
    assert found["collisions"]["moved_to_another_second_code"] == 0
    assert found["reconstruction_cosine"]["training"] == pytest.approx(0)
    assert found["reconstruction_cosine"]["other"] == pytest.approx(np.sqrt(0.5))
    everything = describe_items(SemanticIds(CODES, RESOLVED, 4), centred, rebuilt, np.ones(4, dtype=np.bool_))
    assert everything["reconstruction_cosine"]["other"] is None
