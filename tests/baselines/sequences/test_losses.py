"""Losses against their formulas, written out position by position; samples against the whole catalogue."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from conrec.baselines.sequences.losses import full_softmax, gbce, gbce_beta, sampled_softmax
from conrec.baselines.sequences.sampling import Proposal, candidate_scores, catalogue_loss
from conrec.settings.baselines.sequential import SasrecConfig, SasrecGbceConfig, SasrecSampledConfig

ROWS, ITEMS, WIDTH, DRAWN = 5, 9, 4, 6


def _world(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """States, item vectors, biases, targets."""
    draw = torch.Generator().manual_seed(seed)
    states = torch.randn(ROWS, WIDTH, generator=draw, dtype=torch.float64)
    vectors = torch.randn(ITEMS, WIDTH, generator=draw, dtype=torch.float64)
    bias = torch.randn(ITEMS, generator=draw, dtype=torch.float64)
    return states, vectors, bias, torch.randint(ITEMS, (ROWS,), generator=draw)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_full_softmax_is_its_formula() -> None:
    states, vectors, bias, targets = _world()
    expected = 0.0
    for row in range(ROWS):
        scores = [sum(float(a * b) for a, b in zip(states[row], one, strict=True)) for one in vectors]
        scores = [score + float(bias[item]) for item, score in enumerate(scores)]
        expected -= scores[int(targets[row])] - math.log(sum(math.exp(score) for score in scores))
    assert float(full_softmax(states @ vectors.T + bias, targets)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("corrected", [True, False])
def test_sampled_softmax_is_its_formula(corrected: bool) -> None:
    states, vectors, bias, targets = _world()
    proposal = Proposal.mixed(np.arange(ITEMS), 0.5)
    drawn = torch.tensor([int(targets[0]), 8, 8, 1, 2, int(targets[3])])
    expected = 0.0
    for row in range(ROWS):
        positive = float(states[row] @ vectors[targets[row]] + bias[targets[row]])
        partition = math.exp(positive)
        for item in drawn.tolist():
            if item != int(targets[row]):
                weight = 1 / (DRAWN * proposal.probability[item]) if corrected else 1.0
                partition += weight * math.exp(float(states[row] @ vectors[item] + bias[item]))
        expected += math.log(partition) - positive
    positives, negatives = candidate_scores(states, vectors, bias, targets, drawn)
    found = sampled_softmax(positives, negatives, proposal.log(drawn) if corrected else None)
    assert float(found) == pytest.approx(expected, rel=1e-12)


def test_every_item_drawn_once_is_the_full_softmax() -> None:
    states, vectors, bias, targets = _world(1)
    every = torch.arange(ITEMS)
    positive, negative = candidate_scores(states, vectors, bias, targets, every)
    log_probability = Proposal.mixed(np.zeros(ITEMS, dtype=int), 0.0).log(every)
    found = sampled_softmax(positive, negative, log_probability)
    torch.testing.assert_close(found, full_softmax(states @ vectors.T + bias, targets))
    torch.testing.assert_close(sampled_softmax(positive, negative, None), found)


@pytest.mark.parametrize("popular", [0.0, 0.5, 0.9])
def test_with_many_draws_the_corrected_loss_and_its_gradient_are_the_full_ones(popular: float) -> None:
    states, vectors, bias, targets = _world(2)
    vectors.requires_grad_()
    counts = np.arange(ITEMS) ** 2 + 1
    settings = SasrecSampledConfig(negatives=200_000, popular=popular)
    sampled = catalogue_loss(settings, counts, np.random.default_rng(0))(states, vectors, bias, targets)
    full = catalogue_loss(SasrecConfig(), counts, np.random.default_rng(0))(states, vectors, bias, targets)
    assert float(sampled.detach()) == pytest.approx(float(full.detach()), rel=0.01)
    (found,) = torch.autograd.grad(sampled, vectors)
    (expected,) = torch.autograd.grad(full, vectors)
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)
    uncorrected = settings.model_copy(update={"log_q": False, "negatives": 20_000})
    wrong = catalogue_loss(uncorrected, counts, np.random.default_rng(0))(states, vectors, bias, targets)
    assert float(wrong.detach()) > 1.5 * float(full.detach())


def test_draws_follow_the_proposal() -> None:
    counts = np.array([0, 6, 2, 0])
    proposal = Proposal.mixed(counts, 0.75)
    np.testing.assert_allclose(proposal.probability, [0.0625, 0.625, 0.25, 0.0625])
    drawn = proposal.draw(40_000, np.random.default_rng(0)).numpy()
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), proposal.probability, atol=0.01)
    np.testing.assert_allclose(proposal.log(torch.tensor([1, 3])), np.log([0.625, 0.0625]))
    only_popular = Proposal.mixed(counts, 1.0).draw(1000, np.random.default_rng(0)).numpy()
    assert set(only_popular.tolist()) == {1, 2}


@pytest.mark.parametrize(("drawn", "calibration"), [(1, 0.0), (3, 0.75), (8, 1.0)])
def test_gbce_is_its_formula(drawn: int, calibration: float) -> None:
    states, vectors, bias, targets = _world(3)
    sample = torch.arange(drawn)
    alpha = drawn / (ITEMS - 1)
    beta = alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)
    expected = 0.0
    for row in range(ROWS):
        own = [item for item in sample.tolist() if item != int(targets[row])]
        positive = _sigmoid(float(states[row] @ vectors[targets[row]] + bias[targets[row]]))
        loss = -math.log(positive**beta)
        for item in own:
            loss -= math.log(1 - _sigmoid(float(states[row] @ vectors[item] + bias[item])))
        expected += loss / (len(own) + 1)
    positives, negatives = candidate_scores(states, vectors, bias, targets, sample)
    assert float(gbce(positives, negatives, gbce_beta(drawn, ITEMS, calibration))) == pytest.approx(expected, rel=1e-9)


def test_a_gbce_row_draws_uniformly_and_its_gradient_is_finite() -> None:
    states, vectors, bias, targets = _world(4)
    vectors.requires_grad_()
    settings = SasrecGbceConfig(negatives=4)
    first = catalogue_loss(settings, np.zeros(ITEMS, dtype=int), np.random.default_rng(0))
    loss = first(states, vectors, bias, targets)
    (gradient,) = torch.autograd.grad(loss, vectors)
    vectors, value = vectors.detach(), float(loss.detach())
    assert torch.isfinite(gradient).all()
    assert float(first(states, vectors, bias, targets)) != value
    again = catalogue_loss(settings, np.zeros(ITEMS, dtype=int), np.random.default_rng(0))
    assert float(again(states, vectors, bias, targets)) == value


def test_the_power_of_gbce_at_its_ends() -> None:
    assert gbce_beta(10, 1001, 0.0) == pytest.approx(1.0)
    assert gbce_beta(10, 1001, 1.0) == pytest.approx(0.01)
    assert gbce_beta(256, 100, 0.75) == pytest.approx(1.0)
