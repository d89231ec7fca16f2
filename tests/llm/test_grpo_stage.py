"""A GRPO step against the plain form with one row a rollout, in any micro-batches, and a whole stage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from conrec.arrays import Ragged
from conrec.config import GrpoConfig, GrpoStageConfig
from conrec.items.eligible import EligibleTrie
from conrec.llm import grpo_stage
from conrec.llm.curriculum import blocked_items
from conrec.llm.grpo import judge
from conrec.llm.grpo_stage import mean_reward, rollout_seeds, train_stage, train_step
from conrec.llm.policy import log_probabilities
from conrec.llm.rewards import HitRankReward
from conrec.llm.rollouts import sample
from conrec.llm.watch import Watch
from conrec.seeds import derive
from tests.llm.plain import plain_log_probabilities
from tests.llm.test_grpo import literal


@pytest.fixture(autouse=True)
def _unclipped(monkeypatch):
    """Gradients as they are."""
    monkeypatch.setattr(grpo_stage, "LONGEST_GRADIENT", float("inf"))


@pytest.fixture
def _norms_of_any_width(monkeypatch):
    """Norms compute in float32 even in a model of float64, which would hide what is wrong by less than 1e-7."""

    def forward(self, hidden):
        scale = torch.rsqrt(hidden.square().mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * (hidden * scale)

    monkeypatch.setattr(Qwen3RMSNorm, "forward", forward)


@pytest.fixture
def reference(backbone):
    """A model somewhat beside the policy."""
    other = backbone.clone()
    chance = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=chance))
    return other


def gradient(backbone):
    return torch.cat([p.grad.flatten() for p in backbone.model.parameters() if p.requires_grad])


def weights(backbone):
    return torch.cat([p.detach().flatten() for p in backbone.model.parameters()])


def step(backbone, reference, stage, samples, config, kl_weight=0.3, learning_rate=0.0):
    """One step; its record, the optimiser's gradient left in the policy."""
    optimiser = torch.optim.SGD(backbone.model.parameters(), lr=learning_rate)
    seeds = rollout_seeds(11, "rollout", np.arange(len(samples)))
    return train_step(backbone, reference, stage, samples, seeds, config, kl_weight, optimiser)


def plain_step(backbone, reference, stage, samples, config, kl_weight):
    """Loss of the step by the literal sums, its gradient by one row of the model a code."""
    prompts, trie = stage.inputs(samples)
    seeds = rollout_seeds(11, "rollout", np.arange(len(samples)))
    with torch.no_grad():
        drawn = sample(backbone, prompts, trie, config.group_size, seeds, replacement=config.rollouts == "sample")
    rewards = stage.reward(drawn.item.clamp(min=0), list(samples.gts), list(samples.fps)).double()
    share = drawn.weight.double() / drawn.weight.double().sum(1, keepdim=True)
    judgement = judge(rewards, drawn.weight.double(), config)
    blocked = blocked_items(stage.log, samples.user, samples.timestamp, stage.history_eligible)
    total, counted, literals = 0.0, 0, []
    for row, prompt in enumerate(prompts):
        gone = set(blocked[row].tolist())
        eligible = {tuple(triple) for item, triple in enumerate(stage.trie.codes.tolist()) if item not in gone}
        logs = [plain_log_probabilities(backbone, prompt, one, eligible) for one in drawn.codes[row].tolist()]
        with torch.no_grad():
            anchor = [plain_log_probabilities(reference, prompt, one, eligible) for one in drawn.codes[row].tolist()]
        literals.append(([one.tolist() for one in logs], [one.tolist() for one in anchor]))
        if not judgement.counted[row]:
            continue
        counted += 1
        for column, (policy, other) in enumerate(zip(logs, anchor, strict=True)):
            ratio = (policy - policy.detach()).exp()
            surrogate = ratio * judgement.advantage[row, column]
            kl = (other - policy).exp() - (other - policy) - 1
            total = total - share[row, column] * (surrogate - kl_weight * kl).mean()
    backbone.model.zero_grad()
    (total / counted).backward()
    policies, anchors = zip(*literals, strict=True)
    value = literal(policies, policies, anchors, rewards.tolist(), drawn.weight.tolist(), config, kl_weight)
    return value, gradient(backbone)


@pytest.mark.usefixtures("_norms_of_any_width")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("loss", "rollouts"), [("grpo", "sample"), ("dr_grpo", "gumbel"), ("dapo", "sample")])
def test_the_fused_gradient_is_that_of_one_row_a_rollout(backbone, reference, stage, samples, loss, rollouts, dtype):
    """Policy and rollout are one pass, the prompt is read once; nothing changes but rounding."""
    for one in (backbone, reference):
        one.model.to(dtype)
    config = GrpoConfig(loss=loss, rollouts=rollouts, group_size=4, batch_size=3)
    few = samples.select(np.arange(3))
    record = step(backbone, reference, stage, few, config)
    found = gradient(backbone)
    value, expected = plain_step(backbone, reference, stage, few, config, 0.3)
    exact = dtype == torch.float64
    assert float((found - expected).norm() / expected.norm()) < (1e-12 if exact else 1e-5)
    assert record.loss == pytest.approx(value, rel=1e-9 if exact else 1e-3, abs=1e-6)


@pytest.mark.usefixtures("_norms_of_any_width")
def test_the_fused_gradient_is_the_unfused_one(backbone, reference, stage, samples):
    """The rollout's own log-probabilities, and those of a second reading of what was drawn, have one gradient."""
    for one in (backbone, reference):
        one.model.double()
    prompts, trie = stage.inputs(samples)
    seeds = rollout_seeds(3, "rollout", np.arange(len(samples)))
    weight = torch.randn(len(samples), 6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for replacement in (True, False):
        drawn = sample(backbone, prompts, trie, 6, seeds, replacement=replacement)
        backbone.model.zero_grad()
        (drawn.log_probability * weight).sum().backward()
        fused = gradient(backbone)
        backbone.model.zero_grad()
        again = log_probabilities(backbone, prompts, trie, drawn.codes)
        (again * weight).sum().backward()
        torch.testing.assert_close(again, drawn.log_probability, atol=1e-12, rtol=1e-12)
        assert float((gradient(backbone) - fused).norm() / fused.norm()) < 1e-12


@pytest.mark.usefixtures("_norms_of_any_width")
def test_drawing_everything_gives_the_exact_gradient(backbone, stage, samples):
    """With as many draws without replacement as there are items, the estimate is the gradient of the mean reward."""
    backbone.model.double()
    one = samples.select(np.arange(1))
    prompts, trie = stage.inputs(one)
    items = int(trie.eligible_counts()[0])
    config = GrpoConfig(loss="dr_grpo", rollouts="gumbel", group_size=items + 3, batch_size=1, flat=0.0)
    record = step(backbone, backbone.clone(), stage, one, config, kl_weight=0.0)
    found = gradient(backbone)
    assert record.distinct_items == items
    drawn = sample(backbone, prompts, trie, items, torch.zeros(1, dtype=torch.int64), replacement=False)
    logs = log_probabilities(backbone, prompts, trie, drawn.codes).sum(-1)
    rewards = stage.reward(drawn.item, list(one.gts), list(one.fps)).double()
    backbone.model.zero_grad()
    expected = (logs.exp() * rewards).sum()
    (-expected / 3).backward()
    assert logs.detach().exp().sum().item() == pytest.approx(1.0)
    assert record.reward == pytest.approx(expected.item(), rel=1e-6)
    # Weights and rewards are float32.
    assert float((found - gradient(backbone)).norm() / gradient(backbone).norm()) < 1e-5


@pytest.mark.usefixtures("_norms_of_any_width")
@pytest.mark.parametrize(("loss", "rollouts"), [("grpo", "sample"), ("dr_grpo", "gumbel"), ("dapo", "gumbel")])
def test_micro_batches_change_nothing_but_rounding(backbone, reference, stage, samples, loss, rollouts):
    """Two steps of two updates each, read 24, 16 + 8 or 7 + 7 + 7 + 3 at a time."""
    ends = []
    for size in (None, 16, 7):
        policy = backbone.clone()
        config = GrpoConfig(
            loss=loss, rollouts=rollouts, group_size=4, batch_size=24, updates_per_rollout=2, micro_batch_size=size
        )
        for one in (policy, reference):
            one.model.double()
        records = [step(policy, reference, stage, samples, config, learning_rate=0.5) for _ in range(2)]
        ends.append((weights(policy), records))
    for found, records in ends[1:]:
        torch.testing.assert_close(found, ends[0][0], atol=1e-10, rtol=1e-10)
        for one, other in zip(records, ends[0][1], strict=True):
            for name in grpo_stage.NAMES:
                assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-9), name
    assert (ends[0][0] - weights(backbone)).abs().max() > 1e-4


def test_a_further_update_leaves_the_ratio_and_clips(backbone, reference, stage, samples):
    """The second update is computed anew: with a step in between, and no KL, clipping takes gradient away."""
    gradients = {}
    for clip in (1e-6, 10.0):
        policy = backbone.clone()
        config = GrpoConfig(group_size=6, batch_size=24, updates_per_rollout=2, clip=clip)
        step(policy, reference, stage, samples, config, kl_weight=0.0, learning_rate=0.5)
        gradients[clip] = gradient(policy)
    assert float(gradients[1e-6].norm()) < 0.8 * float(gradients[10.0].norm())


def test_a_step_of_flat_groups_leaves_the_policy_of_dapo(backbone, reference, stage, samples):
    before = weights(backbone)
    config = GrpoConfig(loss="dapo", group_size=4, flat=100.0)
    record = step(backbone, reference, stage, samples, config, learning_rate=0.5)
    assert record.flat_groups == 1.0
    assert record.loss == 0.0
    assert torch.equal(weights(backbone), before)


def test_half_precision_stays_near_and_leaves_the_weights_alone(backbone, reference, stage, samples):
    """Log-probabilities within 0.1 (rewards within 0.02) of float32, gradients within a fifth of their norm."""
    half = replace(backbone.clone(), precision="bfloat16")
    prompts, trie = stage.inputs(samples)
    drawn = sample(backbone, prompts, trie, 8, rollout_seeds(0, "rollout", np.arange(len(samples))))
    found = log_probabilities(half, prompts, trie, drawn.codes)
    assert found.dtype == torch.float32
    assert 0 < float((found - drawn.log_probability).detach().abs().max()) < 0.1
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(0))
    (found * weight).sum().backward()
    (drawn.log_probability * weight).sum().backward()
    assert float((gradient(half) - gradient(backbone)).norm() / gradient(backbone).norm()) < 0.2
    config = GrpoConfig(group_size=8)
    assert mean_reward(half, stage, samples, config, 1) == pytest.approx(
        mean_reward(backbone, stage, samples, config, 1), abs=0.02
    )
    step(half, replace(reference, precision="bfloat16"), stage, samples, config, learning_rate=0.1)
    assert {p.dtype for p in half.model.parameters()} == {torch.float32}
    assert gradient(half).isfinite().all()


@pytest.fixture
def adapted(backbone):
    """The model with adapters (LoRA) that already do something."""
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"])
    model = get_peft_model(backbone.clone().model, config)
    chance = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=chance))
    model.eval()
    return replace(backbone, model=model)


# PEFT 0.21 asks Transformers 5.23 for an attribute by its old name; delete once it asks for the new one.
adapters = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@adapters
@pytest.mark.usefixtures("_norms_of_any_width")
@pytest.mark.parametrize("rollouts", ["sample", "gumbel"])
def test_the_gradient_of_adapters_is_that_of_one_row_a_rollout(adapted, backbone, stage, samples, rollouts):
    for one in (adapted, backbone):
        one.model.double()
    config = GrpoConfig(rollouts=rollouts, group_size=4, batch_size=3, micro_batch_size=2)
    few = samples.select(np.arange(3))
    record = step(adapted, backbone, stage, few, config)
    found = gradient(adapted)
    value, expected = plain_step(adapted, backbone, stage, few, config, 0.3)
    assert float(expected.norm()) > 1e-3
    assert float((found - expected).norm() / expected.norm()) < 1e-11
    assert record.loss == pytest.approx(value, rel=1e-9)


@adapters
def test_a_stage_moves_adapters_alone(adapted, backbone, stage, samples):
    before = {name: value.clone() for name, value in adapted.model.state_dict().items()}
    config = GrpoConfig(group_size=4, batch_size=12, updates_per_rollout=2, learning_rate=1e-2, evaluations=2)
    train_stage(adapted, backbone, stage, samples, samples, config, GrpoStageConfig(context="both"), 3, "test")
    moved = {name for name, value in adapted.model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if "lora_" in name}


@pytest.fixture
def _an_exhausted_user(monkeypatch, stage, samples):
    """The second sample has no eligible item."""
    inputs, key = type(stage).inputs, (int(samples.user[1]), int(samples.timestamp[1]))

    def with_nothing(self, of):
        prompts, _ = inputs(self, of)
        blocked = torch.full((len(of), self.trie.n_items), -1)
        for row, one in enumerate(zip(of.user.tolist(), of.timestamp.tolist(), strict=True)):
            if one == key:
                blocked[row] = torch.arange(self.trie.n_items)
        return prompts, EligibleTrie(self.trie, blocked)

    monkeypatch.setattr(type(stage), "inputs", with_nothing)


@pytest.mark.usefixtures("_norms_of_any_width", "_an_exhausted_user")
@pytest.mark.parametrize("rollouts", ["sample", "gumbel"])
@pytest.mark.parametrize("loss", ["grpo", "dapo"])
def test_a_context_without_an_eligible_item_counts_nowhere(backbone, reference, stage, samples, loss, rollouts):
    for one in (backbone, reference):
        one.model.double()
    config = GrpoConfig(loss=loss, rollouts=rollouts, group_size=4, batch_size=6, updates_per_rollout=2)
    seeds = rollout_seeds(11, "rollout", np.arange(6))
    ends = []
    for rows in ([0, 1, 2, 3, 4, 5], [0, 2, 3, 4, 5]):
        policy = backbone.clone()
        optimiser = torch.optim.SGD(policy.model.parameters(), lr=0.1)
        record = train_step(
            policy, reference, stage, samples.select(np.asarray(rows)), seeds[rows], config, 0.3, optimiser
        )
        ends.append((record, weights(policy)))
    torch.testing.assert_close(ends[0][1], ends[1][1], atol=1e-12, rtol=1e-12)
    for name in grpo_stage.NAMES:
        assert getattr(ends[0][0], name) == pytest.approx(getattr(ends[1][0], name), rel=1e-9), name


@pytest.mark.usefixtures("_an_exhausted_user")
def test_the_mean_reward_leaves_out_who_has_no_eligible_item(backbone, stage, samples):
    def of(rows):
        return mean_reward(backbone, stage, samples.select(np.asarray(rows)), GrpoConfig(group_size=4), 1)

    first = of([0])
    assert of([0, 1]) == pytest.approx(first, rel=1e-6)
    assert of([1]) == 0.0
    assert of([0, 2]) != pytest.approx(first, rel=1e-3)


def test_a_stage_raises_the_reward_and_repeats_exactly(backbone, stage, samples):
    config = GrpoConfig(group_size=8, batch_size=8, learning_rate=3e-3, evaluations=3)
    stage_config = GrpoStageConfig(context="both", kl_weight=0.01)
    many = samples.select(np.tile(np.arange(len(samples)), 6))
    curves, states = [], []
    for _ in range(2):
        policy = backbone.clone()
        stage.prompts.backbone = policy
        curves.append(
            train_stage(policy, backbone, stage, many, samples, config, stage_config, seed=3, description="test").series
        )
        states.append(policy.model.state_dict())
    rewards = [value for _, value in curves[0]["validation_reward"]]
    assert rewards[-1] > rewards[0] + 0.05
    assert curves[0] == curves[1]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert [step for step, _ in curves[0]["validation_reward"]] == [0, 9, 18]
    assert set(curves[0]) == {*grpo_stage.NAMES, "validation_reward"}


def test_the_mean_reward_does_not_depend_on_the_batch(backbone, stage, samples):
    backbone.model.double()
    values = [
        mean_reward(backbone, stage, samples, GrpoConfig(group_size=4, batch_size=size), 1) for size in (24, 24, 7, 1)
    ]
    assert values == [pytest.approx(values[0], abs=1e-12)] * 4
    assert mean_reward(backbone, stage, samples, GrpoConfig(group_size=4), 2) != pytest.approx(values[0], abs=1e-6)


def test_seeds_hang_on_the_place_alone():
    places = np.asarray([5, 0, 7])
    assert rollout_seeds(1, "rollout", places).tolist() == [derive(1, "rollout", place) for place in (5, 0, 7)]


def test_a_stage_keeps_the_best_state_where_it_is_asked(backbone, reference, stage, samples):
    """Also that before the first step."""
    config = GrpoConfig(group_size=4, batch_size=8, rollouts="beams", learning_rate=1e-2, evaluations=3)
    for values, best in (([0.1, 0.7, 0.3], 1), ([0.9, 0.7, 0.3], 0)):
        policy, states, given = backbone.clone(), [], iter(values)

        def evaluate(policy=policy, states=states, given=given):
            states.append(weights(policy))
            return next(given)

        stage_config = GrpoStageConfig(context="both", samples=24)
        curve = train_stage(
            policy,
            reference,
            stage,
            samples,
            samples.select(np.arange(0)),
            config,
            stage_config,
            0,
            "",
            watch=Watch(lambda: {"fhr": evaluate()}, kept=("fhr",)),
        )
        assert [value for _, value in curve.series["fhr"]] == values
        assert "validation_reward" not in curve.series
        assert torch.equal(weights(policy), states[best])
        assert not torch.equal(states[0], states[2])


def test_hits_are_learned_from_beams(backbone, stage, samples):
    """Plain GRPO on hits and ranks: the next items become likelier."""
    stage.reward = HitRankReward(stage.trie)
    following = replace(samples, gts=Ragged.from_rows([row[:1] for row in samples.gts]))
    config = GrpoConfig(group_size=24, batch_size=4, rollouts="beams", learning_rate=3e-3)
    before = mean_log_probability(backbone, stage, following)
    none = following.select(np.arange(0))
    stage_config = GrpoStageConfig(context="both", kl_weight=1e-3, samples=24)
    train_stage(backbone, backbone.clone(), stage, following, none, config, stage_config, 0, "")
    assert mean_log_probability(backbone, stage, following) > before + 0.3


@torch.no_grad()
def mean_log_probability(backbone, stage, samples):
    """Of the first wanted item of each sample."""
    prompts, trie = stage.inputs(samples)
    wanted = torch.tensor([[int(row[0])] for row in samples.gts])
    return float(log_probabilities(backbone, prompts, trie, stage.trie.codes[wanted].long()).sum(-1).mean())
