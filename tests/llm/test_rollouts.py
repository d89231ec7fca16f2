"""Rollouts: distributed as the policy, with replacement and without, and the same in any batch."""

from __future__ import annotations

import itertools

import pytest
import torch

from conrec.errors import ConrecError, DataError
from conrec.items.eligible import EligibleTrie
from conrec.items.trie import Trie
from conrec.llm.policy import log_probabilities
from conrec.llm.rollouts import beams, sample
from tests.llm.conftest import PROMPTS
from tests.llm.plain import every_score

SEEDS = torch.tensor([11, 12, 13])


@torch.no_grad()
def test_draws_with_replacement_follow_the_policy(backbone, trie, blocked):
    probability = every_score(backbone, trie, PROMPTS, blocked).exp()
    drawn = sample(backbone, PROMPTS, EligibleTrie(trie, blocked), 4000, SEEDS).item
    for row in range(3):
        frequency = torch.bincount(drawn[row], minlength=trie.n_items) / 4000
        assert not frequency[blocked[row][blocked[row] >= 0]].any()
        # Four standard errors of a share of 4,000 draws.
        error = (probability[row] * (1 - probability[row]) / 4000).sqrt()
        assert ((frequency - probability[row]).abs() <= 4 * error + 1e-6).all()


@torch.no_grad()
def test_draws_without_replacement_are_ordered_samples_and_their_weights_unbiased(backbone):
    """Of four items two are drawn: every ordered pair comes as often as drawing one after the other would give it."""
    trie = Trie.from_codes(torch.tensor([[0, 0, 1], [0, 0, 2], [0, 3, 2], [5, 1, 1]]), 8)
    repeats = 3000
    eligible = EligibleTrie(trie, torch.full((repeats, 0), -1))
    drawn = sample(backbone, [PROMPTS[0]] * repeats, eligible, 2, torch.arange(repeats), replacement=False)
    p = every_score(backbone, trie, PROMPTS[:1], torch.full((1, 0), -1)).exp()[0]
    for first, second in itertools.permutations(range(4), 2):
        expected = float(p[first] * p[second] / (1 - p[first]))
        found = float(((drawn.item[:, 0] == first) & (drawn.item[:, 1] == second)).float().mean())
        assert abs(found - expected) <= 4 * (expected * (1 - expected) / repeats) ** 0.5 + 1e-6
    value = torch.tensor([3.0, -1.0, 2.0, 7.0])
    estimate = (drawn.weight * value[drawn.item]).sum(1)
    assert abs(float(estimate.mean() - (p * value).sum())) <= 4 * float(estimate.std()) / repeats**0.5


@torch.no_grad()
@pytest.mark.parametrize("group", [1, 10, 60])
def test_no_item_comes_twice_and_short_groups_are_filled_up(backbone, trie, blocked, group):
    drawn = sample(backbone, PROMPTS, EligibleTrie(trie, blocked), group, SEEDS, replacement=False)
    assert drawn.item.shape == drawn.weight.shape == (3, group)
    for row, free in enumerate((10, 39, 40)):
        found = drawn.item[row][drawn.item[row] >= 0].tolist()
        assert len(found) == len(set(found)) == min(group, free)
        assert not set(found) & set(blocked[row].tolist())
        assert not drawn.weight[row, len(found) :].any()
        if group > free:  # everything was drawn: the weights are the probabilities
            assert float(drawn.weight[row].sum()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("replacement", [True, False])
def test_log_probabilities_and_gradient_are_those_of_the_policy(backbone, trie, blocked, replacement):
    """One pass of the model is the rollout and the policy at once."""
    eligible = EligibleTrie(trie, blocked)
    weights = torch.randn(3, 9, 3, generator=torch.Generator().manual_seed(1))
    gradients = []
    rollouts = sample(backbone, PROMPTS, eligible, 9, SEEDS, replacement=replacement)
    assert torch.equal(trie.codes[rollouts.item].long(), rollouts.codes)
    again = log_probabilities(backbone, PROMPTS, eligible, rollouts.codes)
    torch.testing.assert_close(rollouts.log_probability, again, atol=1e-5, rtol=1e-5)
    for logs in (rollouts.log_probability, again):
        backbone.model.zero_grad()
        (logs * weights).sum().backward()
        gradients.append(torch.cat([one.grad.flatten() for one in backbone.model.parameters()]))
    assert float((gradients[0] - gradients[1]).norm() / gradients[1].norm()) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("replacement", [True, False])
def test_what_a_request_draws_depends_on_itself_alone(backbone, trie, blocked, replacement):
    together = sample(backbone, PROMPTS, EligibleTrie(trie, blocked), 12, SEEDS, replacement=replacement)
    order = [2, 0, 1]
    turned = sample(
        backbone, [PROMPTS[row] for row in order], EligibleTrie(trie, blocked[order]), 12, SEEDS[order],
        replacement=replacement,
    )  # fmt: skip
    assert torch.equal(turned.item, together.item[order])
    for row in range(3):
        alone = sample(
            backbone, PROMPTS[row : row + 1], EligibleTrie(trie, blocked[row : row + 1]), 12, SEEDS[row : row + 1],
            replacement=replacement,
        )  # fmt: skip
        assert torch.equal(alone.item[0], together.item[row])
    other = sample(backbone, PROMPTS, EligibleTrie(trie, blocked), 12, SEEDS + 1, replacement=replacement)
    assert not torch.equal(other.item, together.item)


@torch.no_grad()
@pytest.mark.parametrize("replacement", [True, False])
def test_a_request_without_eligible_items_draws_nothing(backbone, trie, replacement):
    blocked = torch.full((3, trie.n_items), -1)
    blocked[1] = torch.arange(trie.n_items)
    drawn = sample(backbone, PROMPTS, EligibleTrie(trie, blocked), 5, SEEDS, replacement=replacement)
    assert (drawn.item[1] == -1).all()
    assert not drawn.weight[1].any()
    assert not drawn.log_probability[1].any()
    assert (drawn.item[[0, 2]] >= 0).all()


@torch.no_grad()
def test_padding_changes_no_draw_and_broken_weights_are_said(backbone, trie, blocked):
    eligible = EligibleTrie(trie, blocked)
    for replacement in (True, False):
        right = sample(backbone, PROMPTS, eligible, 8, SEEDS, replacement=replacement)
        left = sample(backbone, PROMPTS, eligible, 8, SEEDS, replacement=replacement, padding="left")
        assert torch.equal(left.item, right.item)
        torch.testing.assert_close(left.log_probability, right.log_probability, atol=1e-5, rtol=1e-5)
    for group, seeds in ((0, SEEDS), (3, SEEDS[:2])):
        with pytest.raises(DataError, match="rollouts"):
            sample(backbone, PROMPTS, eligible, group, seeds)
    backbone.model.get_decoder().norm.weight.fill_(torch.nan)
    with pytest.raises(ConrecError, match="not finite"):
        sample(backbone, PROMPTS, eligible, 3, SEEDS)


@pytest.mark.parametrize("group", [4, 60])
def test_beams_are_the_most_probable_items_with_their_gradient(backbone, trie, blocked, group):
    eligible = EligibleTrie(trie, blocked)
    drawn = beams(backbone, PROMPTS, eligible, group)
    scores = every_score(backbone, trie, PROMPTS, blocked)
    for row, free in enumerate((10, 39, 40)):
        found = drawn.item[row][drawn.item[row] >= 0]
        assert len(found) == min(group, free)
        torch.testing.assert_close(
            drawn.log_probability[row, : len(found)].sum(-1), scores[row, found], atol=1e-4, rtol=0
        )
        if group > free:  # nothing is left to choose
            assert set(found.tolist()) == set(scores[row].topk(free).indices.tolist())
        torch.testing.assert_close(drawn.weight[row, : len(found)], torch.full((len(found),), 1 / len(found)))
        assert not drawn.weight[row, len(found) :].any()
    drawn.log_probability.sum().backward()
    assert all(one.grad is None or one.grad.isfinite().all() for one in backbone.model.parameters())
    assert backbone.model.get_input_embeddings().weight.grad.abs().sum() > 0
