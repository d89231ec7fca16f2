"""The objective of GRPO and its variants against literal transcriptions, and its gradient against the exact one."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conrec.config import GrpoConfig
from conrec.llm.grpo import grpo_loss, judge

LOSSES = ("grpo", "dr_grpo", "dapo")


def literal(policy, rollout, reference, rewards, weights, config, kl_weight):
    """The loss of a step, number by number, from the papers' sums; weights of 1 are the papers' own case."""
    groups = []
    for b in range(len(rewards)):
        total = sum(weights[b])
        mean = sum(w * r for w, r in zip(weights[b], rewards[b], strict=True)) / total
        std = math.sqrt(sum(w * (r - mean) ** 2 for w, r in zip(weights[b], rewards[b], strict=True)) / total)
        flat = std < config.flat
        if config.loss == "dapo" and flat:
            continue
        high = config.clip_high if config.loss == "dapo" else config.clip
        value = 0.0
        for i, reward in enumerate(rewards[b]):
            if weights[b][i] == 0:
                continue
            advantage = 0.0 if flat else reward - mean
            if config.loss != "dr_grpo":
                advantage /= max(std, config.std_floor)
            codes = len(policy[b][i])
            for t in range(codes):
                ratio = math.exp(policy[b][i][t] - rollout[b][i][t])
                clipped = min(max(ratio, 1 - config.clip), 1 + high)
                difference = reference[b][i][t] - policy[b][i][t]
                kl = math.exp(difference) - difference - 1
                assert kl >= 0
                value += weights[b][i] / total / codes * (min(ratio * advantage, clipped * advantage) - kl_weight * kl)
        groups.append(value)
    return -sum(groups) / max(1, len(groups))


def step_loss(policy, rollout, reference, rewards, weights, config, kl_weight):
    """The same from the module."""
    judgement = judge(rewards, weights, config)
    loss, _ = grpo_loss(policy, rollout, reference, judgement, config, kl_weight)
    return loss.sum() / max(1, int(judgement.counted.sum()))


def drawn(seed, contexts=3, group=4):
    """Log-probabilities of policy, rollout and reference, rewards (a group of equal ones among them) and weights."""
    chance = torch.Generator().manual_seed(seed)
    rollout = torch.randn(contexts, group, 3, generator=chance, dtype=torch.float64) - 2
    policy, reference = (
        rollout + 0.4 * torch.randn(contexts, group, 3, generator=chance, dtype=torch.float64) for _ in range(2)
    )
    rewards = torch.rand(contexts, group, generator=chance, dtype=torch.float64)
    rewards[0] = 0.3
    weights = torch.rand(contexts, group, generator=chance, dtype=torch.float64) + 0.01
    return policy, rollout, reference, rewards, weights


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    loss=st.sampled_from(LOSSES),
    kl_weight=st.floats(0, 1),
    clip=st.floats(0.05, 0.5),
    high=st.floats(0.05, 0.8),
    floor=st.floats(1e-6, 0.5),
    weighted=st.booleans(),
)
def test_each_loss_is_its_formula(seed, loss, kl_weight, clip, high, floor, weighted):
    config = GrpoConfig(loss=loss, clip=clip, clip_high=high, std_floor=floor)
    policy, rollout, reference, rewards, weights = drawn(seed)
    weights = weights if weighted else torch.ones_like(weights)
    found = step_loss(policy, rollout, reference, rewards, weights, config, kl_weight)
    lists = [one.tolist() for one in (policy, rollout, reference, rewards, weights)]
    assert float(found) == pytest.approx(literal(*lists, config, kl_weight), rel=1e-9, abs=1e-12)


def test_advantages_with_floor_and_flat_groups():
    rewards = torch.tensor([[1.0, 2.0, 3.0, 6.0], [0.5, 0.5, 0.5, 0.5], [0.50, 0.51, 0.50, 0.51]])
    even = torch.full((3, 4), 0.25)
    found = judge(rewards, even, GrpoConfig(std_floor=0.05, flat=1e-4))
    mean, std = 3.0, math.sqrt((4 + 1 + 0 + 9) / 4)
    assert found.advantage[0].tolist() == pytest.approx([(r - mean) / std for r in (1.0, 2.0, 3.0, 6.0)])
    assert found.advantage[1].tolist() == [0.0] * 4
    assert found.advantage[2].tolist() == pytest.approx([-0.1, 0.1, -0.1, 0.1], abs=1e-4)  # 0.005 / 0.05
    assert found.flat.tolist() == [False, True, False]
    assert found.counted.all()
    assert judge(rewards, even, GrpoConfig(loss="dapo")).counted.tolist() == [True, False, True]
    undivided = judge(rewards, even, GrpoConfig(loss="dr_grpo")).advantage
    assert undivided[0].tolist() == pytest.approx([-2.0, -1.0, 0.0, 3.0])


@pytest.mark.parametrize("seed", range(5))
def test_where_the_variants_coincide(seed):
    """All completions have three codes, so that only the deviation, the upper bound and flat groups tell them apart."""
    policy, rollout, reference, rewards, weights = drawn(seed)
    policy, rollout, reference, rewards, weights = (one[1:] for one in (policy, rollout, reference, rewards, weights))

    def of(loss, policy=policy, rewards=rewards, **more):
        config = GrpoConfig(loss=loss, **more)
        return float(step_loss(policy, rollout, reference, rewards, weights, config, 0.2))

    assert of("dapo", clip_high=0.2) == pytest.approx(of("grpo"), rel=1e-12)
    assert of("dapo", policy=rollout) == pytest.approx(of("grpo", policy=rollout), rel=1e-12)
    assert of("dapo") != pytest.approx(of("grpo"), rel=1e-6)
    unit = (rewards - judge(rewards, weights, GrpoConfig()).mean[:, None]) / judge(
        rewards, weights, GrpoConfig()
    ).spread[:, None]
    assert of("dr_grpo", rewards=unit) == pytest.approx(of("grpo"), rel=1e-9)


def test_a_flat_group_dilutes_grpo_and_leaves_dapo():
    policy, rollout, reference, rewards, weights = drawn(1)
    for loss, share in (("grpo", 2 / 3), ("dapo", 1.0)):
        config = GrpoConfig(loss=loss)
        whole = step_loss(policy, rollout, reference, rewards, weights, config, 0.0)
        varied = step_loss(*(one[1:] for one in (policy, rollout, reference, rewards, weights)), config, 0.0)
        assert float(whole) == pytest.approx(share * float(varied), rel=1e-9)
    policy.requires_grad_()
    step_loss(policy, rollout, reference, rewards, weights, GrpoConfig(loss="dapo"), 0.5).backward()
    assert not policy.grad[0].any()
    assert policy.grad[1:].all()


def test_what_was_not_drawn_is_never_looked_at():
    policy, rollout, reference, rewards, weights = drawn(2)
    weights[1, 2] = 0.0
    fewer = [torch.cat([one[1:2, :2], one[1:2, 3:]], 1) for one in (policy, rollout, reference, rewards, weights)]
    for one in (policy, rollout, reference):
        one[1, 2] = -torch.inf
    policy.requires_grad_()
    judgement = judge(rewards, weights, GrpoConfig())
    loss, kl = grpo_loss(policy, rollout, reference, judgement, GrpoConfig(), 0.3)
    expected, kl_expected = grpo_loss(*fewer[:3], judge(*fewer[3:], GrpoConfig()), GrpoConfig(), 0.3)
    assert loss[1].item() == pytest.approx(expected.item(), rel=1e-12)
    assert kl[1].item() == pytest.approx(kl_expected.item(), rel=1e-12)
    loss.sum().backward()
    assert policy.grad.isfinite().all()
    assert not policy.grad[1, 2].any()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("weight", [1.0, 1 / 12, 0.3])
@pytest.mark.parametrize("reward", [0.3, -0.7, 1e-3, 1.0])
def test_rounding_is_no_advantage(loss, weight, reward):
    """Equal rewards, and rewards apart by their own rounding, are flat even where every floor is 0."""
    config = GrpoConfig(loss=loss, std_floor=0.0, flat=0.0)
    equal = torch.full((1, 12), reward)
    apart = equal.clone()
    apart[0, ::3] = torch.nextafter(apart[0, ::3], torch.tensor(2.0))
    for rewards in (equal, apart):
        found = judge(rewards, torch.full((1, 12), weight), config)
        assert found.flat.all()
        assert not found.advantage.any()
    apart[0, 0] += 1e-4 * abs(reward)
    found = judge(apart, torch.full((1, 12), weight), config)
    assert not found.flat.any()
    if loss != "dr_grpo":
        assert float(found.advantage.square().mean()) == pytest.approx(1.0)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_group_of_nothing_is_not_counted(loss):
    policy, rollout, reference, rewards, weights = drawn(3)
    rest = [one[[0, 2]] for one in (policy, rollout, reference, rewards, weights)]
    weights[1] = 0.0
    for one in (rollout, reference):
        one[1] = -torch.inf
    policy.requires_grad_()
    config = GrpoConfig(loss=loss)
    judgement = judge(rewards, weights, config)
    for name in ("share", "advantage", "mean", "spread", "flat", "drawn", "counted"):
        assert not getattr(judgement, name)[1].any(), name
    assert judgement.drawn.tolist() == [True, False, True]
    loss_, kl = grpo_loss(policy, rollout, reference, judgement, config, 0.3)
    assert (float(loss_[1].detach()), float(kl[1])) == (0.0, 0.0)
    whole = step_loss(policy, rollout, reference, rewards, weights, config, 0.3)
    assert float(whole.detach()) == pytest.approx(float(step_loss(*rest, config, 0.3)), rel=1e-12)
    whole.backward()
    assert policy.grad.isfinite().all()
    assert not policy.grad[1].any()


@given(st.lists(st.floats(-12, 12, width=32), min_size=4, max_size=4), st.sampled_from([1e-7, 1e-5, 1e-3, 1.0]))
def test_the_estimate_of_kl_is_never_negative(differences, size):
    reference = torch.tensor(differences).view(1, 4, 1).expand(1, 4, 3) * size
    rewards = torch.rand(1, 4, generator=torch.Generator().manual_seed(0))
    judgement = judge(rewards, torch.ones(1, 4), GrpoConfig())
    for one in range(4):
        share = torch.zeros(1, 4).index_fill(1, torch.tensor([one]), 1.0)
        of_one = replace(judgement, share=share)
        _, kl = grpo_loss(torch.zeros(1, 4, 3), torch.zeros(1, 4, 3), reference, of_one, GrpoConfig(), 1.0)
        x = float(reference[0, one, 0])
        assert float(kl) >= 0
        assert float(kl) == pytest.approx(math.expm1(x) - x, rel=1e-5, abs=1e-7 * abs(x))


def test_the_gradient_of_the_kl_term_is_that_of_the_other_direction():
    """Exact expectations over two codes (4, then 3 after each): the draws do not move with the weights."""
    chance = torch.Generator().manual_seed(4)
    first, second, other_first, other_second = (
        torch.randn(*shape, generator=chance, dtype=torch.float64) for shape in ((4,), (4, 3), (4,), (4, 3))
    )

    def codes(first, second):
        """Log-probabilities of the three codes of all 12 items, the third one certain; [1, 12, 3]."""
        one, two = first.log_softmax(0)[:, None].expand(4, 3), second.log_softmax(1)
        return torch.stack([one, two, torch.zeros_like(two)], -1).view(1, 12, 3)

    reference = codes(other_first, other_second)
    learned = [first.requires_grad_(), second.requires_grad_()]
    policy = codes(*learned)
    probability = policy.detach().sum(-1).exp()
    config = GrpoConfig()
    loss, kl = grpo_loss(policy, policy.detach(), reference, judge(torch.ones(1, 12), probability, config), config, 1.0)
    found = torch.autograd.grad(loss.sum(), learned)

    def direct(of, against, prefix):
        """KL of the next code, of the first one and after the prefixes as drawn; mean over three codes."""
        of_first, of_second = of[0].log_softmax(0), of[1].log_softmax(1)
        against_first, against_second = against[0].log_softmax(0), against[1].log_softmax(1)
        at_first = (of_first.exp() * (of_first - against_first)).sum()
        at_second = (of_second.exp() * (of_second - against_second)).sum(1)
        return (at_first + (prefix * at_second).sum()) / 3

    prefix, others = first.detach().softmax(0), (other_first, other_second)
    reverse = torch.autograd.grad(direct(others, learned, prefix), learned)
    forward = torch.autograd.grad(direct(learned, others, prefix), learned)
    assert float(kl) == pytest.approx(float(direct(learned, others, prefix).detach()), rel=1e-12)
    for one, other, wrong in zip(found, reverse, forward, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)
        assert float((one - wrong).norm() / one.norm()) > 0.1


LOGITS = torch.tensor([1.5, 0.2, -0.4, 0.9, -1.2, 0.1], dtype=torch.float64)
REWARDS = torch.tensor([0.1, 0.9, 0.4, -0.3, 0.8, 0.2], dtype=torch.float64)


def exact_gradient():
    """Of the expected reward of a policy over six items, in its logits."""
    logits = LOGITS.clone().requires_grad_()
    (logits.softmax(0) @ REWARDS).backward()
    return logits.grad


def estimated_gradient(items, weights):
    """Mean of the estimates of many groups; an item's log-probability is that of its first code."""
    logits = LOGITS.clone().requires_grad_()
    logs = torch.nn.functional.pad(logits.log_softmax(0)[items][..., None], (0, 2))
    config = GrpoConfig(loss="dr_grpo", flat=0.0)
    judgement = judge(REWARDS[items], weights, config)
    loss, _ = grpo_loss(logs, logs.detach(), logs.detach(), judgement, config, 0.0)
    (-3 * loss.mean()).backward()  # three codes share one log-probability
    return logits.grad


def without_replacement(groups, size, seed):
    """Gumbel top-k and p / q as the paper has them, in NumPy: items and weights, [groups, size]."""
    rng = np.random.default_rng(seed)
    logs = LOGITS.log_softmax(0).numpy()
    perturbed = logs + rng.gumbel(size=(groups, len(logs)))
    order = np.argsort(-perturbed, axis=1)
    items = order[:, :size]
    threshold = np.full(groups, -np.inf)
    if size < len(logs):
        threshold = perturbed[np.arange(groups), order[:, size]]
    weights = np.exp(logs[items]) / (1 - np.exp(-np.exp(logs[items] - threshold[:, None])))
    return torch.from_numpy(items), torch.from_numpy(weights)


def test_weighted_draws_without_replacement_estimate_the_exact_gradient():
    """The bias of self-normalisation falls with the number of draws, and is gone when everything is drawn."""
    exact = exact_gradient()
    errors = []
    for size in range(2, 7):
        found = estimated_gradient(*without_replacement(40_000, size, seed=size))
        errors.append(float((found - exact).norm() / exact.norm()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-2] < 0.05
    assert errors[-1] < 1e-12
    items, weights = without_replacement(40_000, 5, seed=9)
    unweighted = estimated_gradient(items, torch.ones_like(weights))
    assert float((unweighted - exact).norm() / exact.norm()) > 0.2


@pytest.mark.parametrize("size", [4, 16])
def test_independent_draws_estimate_the_gradient_but_for_their_own_share_in_the_baseline(size):
    rng = np.random.default_rng(size)
    items = torch.from_numpy(rng.choice(6, size=(200_000 // size, size), p=LOGITS.softmax(0).numpy()))
    found = estimated_gradient(items, torch.ones(items.shape, dtype=torch.float64))
    expected = exact_gradient() * (size - 1) / size
    assert float((found - expected).norm() / expected.norm()) < 0.03
