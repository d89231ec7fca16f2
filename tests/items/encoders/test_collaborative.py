"""Vectors of co-feedback against a literal transcription, and what they say on groups that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.sparse import csr_array

from conrec.config import CollaborativeConfig
from conrec.items.encoders.collaborative import _together, co_feedback_vectors, ppmi

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


def test_items_without_feedback_change_no_bit_of_the_others() -> None:
    """Wherever they stand, and whether vectors come from the iteration or from all eigenvectors."""
    users, items, feedback = groups()
    for dim in (8, 30):
        config = BOTH.model_copy(update={"dim": dim, "items_per_user": 2})
        alone = co_feedback_vectors(users, items, feedback, 20, config, 0)
        first = co_feedback_vectors(users, items + 10, feedback, 30, config, 0)
        # One between two others, with feedback of a user who gave it to nothing else.
        place = np.where(items > 7, items + 1, items)
        lone = [np.append(column, one) for column, one in ((users, 999), (place, 8), (feedback, -1))]
        between = co_feedback_vectors(*lone, 21, config, 0)
        for name, table in alone.items():
            assert table.any()
            assert np.array_equal(first[name][10:], table)
            assert not first[name][:10].any()
            assert np.array_equal(np.delete(between[name], 8, axis=0), table)
            assert not between[name][8].any()


def test_a_table_of_which_nothing_is_known_is_not_written_out() -> None:
    """As a full table a million items would take terabytes."""
    some = np.arange(3)
    vectors = co_feedback_vectors(some, some, np.asarray([-1, -1, 1]), 1_000_000, BOTH, 0)
    assert {name: table.shape for name, table in vectors.items()} == {
        "negative": (1_000_000, 0),
        "positive": (1_000_000, 0),
    }
    few = co_feedback_vectors(
        np.zeros(4, dtype=np.int64), np.arange(4) * 250_000, -np.ones(4, dtype=np.int64), 1_000_000, BOTH, 0
    )
    assert few["negative"].shape[0] == 1_000_000


def test_of_a_user_with_too_many_items_some_count() -> None:
    users, items, feedback = groups()
    many = BOTH.model_copy(update={"items_per_user": 3})  # as many as anybody has
    wide = co_feedback_vectors(users, items, feedback, 20, BOTH, 0)
    for name, table in co_feedback_vectors(users, items, feedback, 20, many, 0).items():
        assert np.array_equal(table, wide[name])
    # One more user, who rejects everything: he makes 3 pairs and not 190.
    draw = np.random.default_rng(1).permutation(20)
    more = [
        np.concatenate([users, np.full(40, 80)]),
        np.concatenate([items, draw, draw]),
        np.concatenate([feedback, -np.ones(40, dtype=np.int64)]),
    ]
    known, counts = _together(more[0][more[2] < 0], more[1][more[2] < 0], 3, (0, "co-feedback", "negative"))
    _, before = _together(users[feedback < 0], items[feedback < 0], 3, (0, "co-feedback", "negative"))
    assert np.array_equal(known, np.arange(20))
    added = (counts - before).toarray()
    assert added.sum() == 6
    assert np.count_nonzero(added.any(axis=0)) == 3
    order = np.random.default_rng(2).permutation(len(more[0]))
    first = co_feedback_vectors(*more, 20, many, 0)["negative"]
    assert np.array_equal(first, co_feedback_vectors(*(one[order] for one in more), 20, many, 0)["negative"])
    assert not np.array_equal(first, co_feedback_vectors(*more, 20, many, 1)["negative"])


def test_a_user_with_very_many_items_is_no_matter() -> None:
    n = 200_000
    users = np.zeros(n, dtype=np.int64)
    vectors = co_feedback_vectors(users, np.arange(n), users - 1, n, BOTH.model_copy(update={"items_per_user": 50}), 0)
    assert vectors["negative"].shape[0] == n
