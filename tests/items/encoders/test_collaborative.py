"""Vectors of co-feedback against a literal transcription, and what they say on groups that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.sparse import csr_array

from conrec.config import CollaborativeConfig
from conrec.items.encoders.collaborative import co_feedback_vectors, ppmi

BOTH = CollaborativeConfig(negative_weight=1.0, positive_weight=1.0, dim=8)


def groups() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Users who dislike within one of four groups of five items, and like within the next group."""
    draw = np.random.default_rng(0)
    events = [
        (user, 5 * ((user + (sign > 0)) % 4) + item, sign)
        for user in range(80)
        for sign in (-1, 1)
        for item in draw.choice(5, 3, replace=False)
    ]
    return tuple(np.asarray(column) for column in zip(*events, strict=True))


def test_ppmi_is_its_formula() -> None:
    counts = np.asarray([[0, 3, 1, 0], [3, 0, 0, 1], [1, 0, 0, 2], [0, 1, 2, 0]])
    total = counts.sum(1)
    smooth = [value**0.75 for value in total]
    wanted = np.zeros((4, 4))
    for i in range(4):
        for j in range(4):
            if counts[i, j]:
                wanted[i, j] = max(0.0, math.log(counts[i, j] * sum(smooth) / (total[i] * smooth[j])))
    assert np.allclose(ppmi(csr_array(counts), 0.75).toarray(), (wanted + wanted.T) / 2)


def test_items_that_the_same_users_reject_are_near_and_signs_are_apart() -> None:
    users, items, feedback = groups()
    vectors = co_feedback_vectors(users, items, feedback, 22, BOTH, 0)
    assert set(vectors) == {"negative", "positive"}
    group = np.arange(20) // 5
    for table in vectors.values():
        assert table.dtype == np.float32
        assert np.array_equal(table[20:], np.zeros_like(table[20:]))  # nothing is known of the last two
        unit = table[:20] / np.linalg.norm(table[:20], axis=1, keepdims=True)
        same = group[:, None] == group
        assert (unit @ unit.T)[same].min() > 0.9
        assert (unit @ unit.T)[~same].max() < 0.1
    turned = co_feedback_vectors(users, items, -feedback, 22, BOTH, 0)
    assert np.allclose(
        turned["negative"] @ turned["negative"].T, vectors["positive"] @ vectors["positive"].T, atol=1e-4
    )


def test_the_vectors_rebuild_the_matrix_and_repeat_to_the_bit() -> None:
    users, items, feedback = groups()
    wide = BOTH.model_copy(update={"positive_weight": 0.0, "dim": 30})
    vectors = co_feedback_vectors(users, items, feedback, 20, wide, 0)
    assert list(vectors) == ["negative"]
    own = feedback == -1
    counts = np.zeros((20, 20), dtype=np.int64)
    for user in range(80):
        mine = np.unique(items[own & (users == user)])
        counts[np.ix_(mine, mine)] += 1
    np.fill_diagonal(counts, 0)
    matrix = ppmi(csr_array(counts), wide.smoothing).toarray()
    values, axes = np.linalg.eigh(matrix)
    positive = (axes * values.clip(min=0)) @ axes.T
    assert np.allclose(vectors["negative"] @ vectors["negative"].T, positive, atol=1e-4)
    again = co_feedback_vectors(users, items, feedback, 20, BOTH, 0)
    assert np.array_equal(again["negative"], co_feedback_vectors(users, items, feedback, 20, BOTH, 0)["negative"])


@pytest.mark.parametrize("events", [0, 1])
def test_logs_without_two_items_of_one_user_say_nothing(events: int) -> None:
    some = np.zeros(events, dtype=np.int64)
    vectors = co_feedback_vectors(some, some, some - 1, 7, BOTH, 0)
    assert all(table.shape[0] == 7 and not table.any() for table in vectors.values())
