"""The losses over both signs against literal sums, and the side to which each one pushes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from conrec.arrays import Ragged
from conrec.baselines.signed.lessons import Answers
from conrec.baselines.signed.losses import OPPOSITE, pairwise, softmax_loss, unlikelihood

DISLIKES = [[2], [0, 4], [1, 2, 3]]
LIKES = [[1, 3], [], [0]]


def _logits() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(3, 5))).requires_grad_()


def _answers(rows: list[list[int]]) -> Answers:
    return Answers.of(Ragged.from_rows(rows))


def _probability(logits: Tensor, row: int, item: int) -> float:
    row_of = logits[row].tolist()
    return float(np.exp(row_of[item]) / np.exp(row_of).sum())


def test_softmax() -> None:
    logits = _logits()
    expected = -sum(
        math.log(_probability(logits, row, item)) / len(items) for row, items in enumerate(DISLIKES) for item in items
    )
    assert softmax_loss(logits, _answers(DISLIKES)).item() == pytest.approx(expected)


def test_unlikelihood() -> None:
    logits = _logits()
    expected = -sum(
        math.log(1 - _probability(logits, row, item)) / len(items) for row, items in enumerate(LIKES) for item in items
    )
    assert unlikelihood(logits, _answers(DISLIKES), _answers(LIKES)).item() == pytest.approx(expected)


def test_unlikelihood_of_a_certain_like_is_finite() -> None:
    logits = torch.tensor([[0.0, 100.0]], requires_grad=True)
    loss = unlikelihood(logits, _answers([[0]]), _answers([[1]]))
    assert math.isfinite(loss.item())
    loss.backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_pairwise() -> None:
    logits = _logits()
    expected = 0.0
    for row, items in enumerate(LIKES):
        disliked = np.mean([logits[row].tolist()[item] for item in DISLIKES[row]])
        for item in items:
            expected -= math.log(1 / (1 + math.exp(logits[row].tolist()[item] - disliked))) / len(items)
    assert pairwise(logits, _answers(DISLIKES), _answers(LIKES)).item() == pytest.approx(expected)


@pytest.mark.parametrize("name", sorted(OPPOSITE))
def test_likes_are_pushed_down_and_questions_without_likes_left_alone(name: str) -> None:
    logits = _logits()
    OPPOSITE[name](logits, _answers(DISLIKES), _answers(LIKES)).backward()
    assert logits.grad is not None
    for row, items in enumerate(LIKES):
        assert all(logits.grad[row, item] > 0 for item in items)  # descent lowers them
        assert bool(logits.grad[row].any()) == bool(items)
