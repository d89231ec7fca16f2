"""Metrics against literal transcriptions of the protocol, and the edges that transcriptions miss."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import conrec.evaluation.coverage
import conrec.evaluation.metrics
import conrec.evaluation.studies
from conrec.arrays import Ragged
from conrec.evaluation.metrics import anchor_values, candidate_accuracy, fhr, hr, lif, mean
from tests.evaluation.evaluation_world import anchors_of, world


@pytest.mark.parametrize(
    "module",
    [conrec.evaluation.metrics, conrec.evaluation.coverage, conrec.evaluation.studies],
    ids=lambda m: m.__name__,
)
def test_docstring_examples(module: object) -> None:
    # jaxtyping wraps functions, and doctest skips those whose module it cannot tell: run them by name.
    runner = doctest.DocTestRunner()
    ran = 0
    for name in module.__all__:
        one = getattr(module, name)
        if not callable(one):
            continue
        for test in doctest.DocTestFinder(recurse=False).find(one, name, globs=vars(module).copy()):
            runner.run(test)
            ran += len(test.examples)
    assert ran > 0
    assert runner.failures == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_all_metrics_are_the_protocol_word_for_word(seed: int) -> None:
    log, anchors, train_negatives = world(seed)
    random = np.random.default_rng(seed)
    top = np.stack([random.permutation(log.n_items)[:12] for _ in range(len(anchors))]).astype(np.int32)
    top[random.random(top.shape) < 0.05] = -1
    scores = random.integers(0, 4, anchors.candidates.shape).astype(np.float32)
    found = anchor_values(anchors, top, scores, train_negatives, 5)
    expected: dict[str, list[float]] = {name: [] for name in ("hr@5", "fhr@5", "luf@5", "lif@5", "candidate_accuracy")}
    for a in range(len(anchors)):
        best, future = set(top[a, :5].tolist()) - {-1}, anchors.future_negatives[a].tolist()
        tail = [item for item in future if train_negatives[item] < 5]
        expected["hr@5"].append(float(future[0] in best))
        expected["fhr@5"].append(float(any(item in best for item in future)))
        expected["luf@5"].append(expected["fhr@5"][-1] if anchors.long_tail_user[a] else np.nan)
        expected["lif@5"].append(float(any(item in best for item in tail)) if tail else np.nan)
        pairs = [(s, c) for s, c in zip(scores[a], anchors.candidates[a], strict=True) if c >= 0]
        winners = [c for s, c in pairs if s == max(pairs)[0]]
        expected["candidate_accuracy"].append((future[0] in winners) / len(winners))
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
        without = np.where(anchors.negative_history == 0, values, np.nan)
        np.testing.assert_array_equal(found[f"{name}/no_negative_history"], without)


def test_deeper_hits_come_with_deeper_files() -> None:
    _, anchors, counts = world(3, items=80)
    top = np.tile(np.arange(60, dtype=np.int32), (len(anchors), 1))
    found = anchor_values(anchors, top, None, counts, 20)
    np.testing.assert_array_equal(found["hr@50"], hr(top[:, :50], anchors.next_item))
    np.testing.assert_array_equal(found["fhr@50"], fhr(top[:, :50], anchors.future_negatives))
    assert "candidate_accuracy" not in found
    assert "hr@50" not in anchor_values(anchors, top[:, :49], None, counts, 20)
    assert list(anchor_values(anchors, None, np.zeros(anchors.candidates.shape, np.float32), counts, 20)) == [
        "candidate_accuracy",
        "candidate_accuracy/no_negative_history",
    ]


def test_absent_places_never_hit() -> None:
    top = np.full((2, 3), -1, dtype=np.int32)
    assert hr(top, np.array([0, 1], dtype=np.int32)).tolist() == [0, 0]
    assert fhr(top, Ragged.from_rows([[0, 1], [2]])).tolist() == [0, 0]


def test_constant_scores_are_chance() -> None:
    candidates = np.tile(np.arange(20, dtype=np.int32), (3, 1))
    scores = np.zeros((3, 20), dtype=np.float32)
    values = candidate_accuracy(scores, candidates, np.array([0, 7, 19], dtype=np.int32))
    assert values.tolist() == [0.05, 0.05, 0.05]


def test_anchors_without_their_answer_among_candidates_do_not_count() -> None:
    candidates = np.array([[0, 1], [-1, -1]], dtype=np.int32)
    scores = np.array([[0, 1], [-np.inf, -np.inf]], dtype=np.float32)
    assert np.isnan(candidate_accuracy(scores, candidates, np.array([5, 5], dtype=np.int32))).all()


def test_absent_candidates_never_win() -> None:
    candidates = np.array([[-1, 3, 4]], dtype=np.int32)
    scores = np.array([[9, 1, 0]], dtype=np.float32)
    assert candidate_accuracy(scores, candidates, np.array([3], dtype=np.int32)).tolist() == [1.0]


def test_the_long_tail_is_fewer_than_five() -> None:
    top = np.array([[0], [1]], dtype=np.int32)
    assert lif(top, Ragged.from_rows([[0], [1]]), np.array([4, 5])).tolist() == pytest.approx(
        [1.0, np.nan], nan_ok=True
    )


def test_no_anchor_that_counts_has_no_mean() -> None:
    assert np.isnan(mean(np.array([np.nan, np.nan])))


def test_no_anchors() -> None:
    none = anchors_of([])
    found = anchor_values(none, np.empty((0, 5), np.int32), np.empty((0, 20), np.float32), np.zeros(3, np.int64), 5)
    assert all(len(values) == 0 for values in found.values())
