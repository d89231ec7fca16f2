"""Supervised training, rewards and GRPO: formulas against literal transcriptions, and that each learns."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from conrec.arrays import Ragged
from conrec.config import GrpoConfig, GrpoStageConfig
from conrec.errors import ConrecError
from conrec.llm.backbone import Backbone
from conrec.llm.curriculum import RewardSamples, Stage, blocked_items, clean, draw_samples, mean_reward, train_stage
from conrec.llm.grpo import advantages, grpo_loss
from conrec.llm.prompts import Stretch
from conrec.llm.recommender import GenerativeRecommender
from conrec.llm.rewards import FutureReward
from conrec.llm.samples import (
    alignment_choices,
    alignment_stretches,
    high_confidence,
    history_stretches,
    translation_stretches,
)
from conrec.llm.sft import Curve, TrainingError, _loss, train_supervised
from conrec.logs.anchors import build_anchors
from conrec.logs.log import Log
from conrec.protocol import DAY, NEGATIVE, POSITIVE, periods_of
from tests.llm.conftest import ITEMS, TITLES


@pytest.fixture(scope="module")
def rebuilt() -> torch.Tensor:
    drawn = torch.randn(ITEMS, 6, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.normalize(drawn, dim=1)


@pytest.fixture(scope="module")
def periods(log):
    return periods_of(log.timestamp, 0.7, 0.85)


@pytest.fixture
def stage(log, prompts, trie, rebuilt):
    return Stage(log, prompts, trie, FutureReward(rebuilt, 0.5), "both", history_eligible=False)


@pytest.fixture
def samples(log, periods, prompts):
    anchors = build_anchors(log, periods, 7 * DAY).of_split("train")
    return draw_samples(anchors, anchors.future_negatives, prompts, log, "both", 24, seed=0)


def train(backbone, stretches, epochs=3, seed=5, **more):
    return train_supervised(
        backbone, stretches, epochs=epochs, batch_size=8, learning_rate=3e-3, seed=seed, description="test", **more
    )


def test_loss_is_that_of_transformers(backbone):
    stretches = [
        Stretch([5, 6, 7, 8, 9], [False, False, True, False, True]),
        Stretch([10, 11, 12], [False, True, True]),
    ]
    total, count = 0.0, 0
    for one in stretches:
        labels = [token if target else -100 for token, target in zip(one.ids, one.target, strict=True)]
        n = sum(one.target)
        total += float(backbone.model(torch.tensor([one.ids]), labels=torch.tensor([labels])).loss.detach()) * n
        count += n
    assert float(_loss(backbone, stretches).detach()) == pytest.approx(total / count, rel=1e-5)


def test_translation_is_learned(backbone, prompts):
    curve = train(backbone, translation_stretches(prompts, TITLES, np.arange(8)), epochs=40)
    losses = [value for _, value in curve.series["loss"]]
    assert np.mean(losses[-5:]) < 0.35 * np.mean(losses[:5])


def test_the_same_seed_trains_the_same_model(backbone, prompts, log, periods):
    stretches = history_stretches(prompts, log, periods.validation, "negative", np.random.default_rng(0))
    one, two = backbone.clone(), backbone.clone()
    assert train(one, stretches, epochs=1).series == train(two, stretches, epochs=1).series
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, two.model.state_dict()[name])


def test_dropout_repeats_with_the_seed():
    config = GPT2Config(vocab_size=400, n_embd=16, n_layer=1, n_head=2, n_positions=64)
    curves = []
    for _ in range(2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = GPT2LMHeadModel(config)
        stretches = [Stretch([5, 6, 7, 8, 9], [False, True, True, True, True])] * 16
        curves.append(train(Backbone(model, None, 8, (0, 8, 16), 24, 25, 0), stretches).series)
    assert model.config.resid_pdrop > 0
    assert curves[0] == curves[1]


def test_the_best_state_is_kept(backbone, prompts, log, periods):
    stretches = history_stretches(prompts, log, periods.validation, "negative", np.random.default_rng(0))
    states, values = [], iter([0.1, 0.7, 0.3])

    def evaluate():
        states.append({name: value.clone() for name, value in backbone.model.state_dict().items()})
        return next(values)

    curve = train(backbone, stretches, evaluations=3, evaluate=evaluate)
    assert [value for _, value in curve.series["validation_fhr@20"]] == [0.1, 0.7, 0.3]
    assert all(torch.equal(value, backbone.model.state_dict()[name]) for name, value in states[1].items())
    assert not all(torch.equal(value, states[2][name]) for name, value in states[1].items())


def test_what_is_not_finite_stops_the_training(backbone):
    with pytest.raises(TrainingError, match=r"loss is nan at step 3.*learning_rate"):
        Curve().add("loss", 3, math.nan)
    with pytest.raises(ConrecError, match="nothing to train on"):
        train(backbone, [])


def even(items):
    """The even ones of a user's dislikes."""
    return np.unique(items[items % 2 == 0])


def test_an_answer_is_repeated_by_its_user_or_shared_by_many():
    """Where items repeat, the paper's rule counts in the user's own list; where they cannot, users are counted."""

    def of(users, items):
        n = len(users)
        return Log.from_columns(
            tuple("abcdef"), tuple("xyz"), np.asarray(users), np.asarray(items), np.arange(n), np.full(n, -1)
        )

    shared = high_confidence(of([0, 1, 2, 3, 0, 1], [0, 0, 0, 0, 1, 1]), 3)
    assert shared(np.asarray([1, 0, 2])).tolist() == [0]
    repeated = high_confidence(of([0, 0, 0, 0, 1, 2, 3, 4], [2, 2, 2, 2, 1, 1, 1, 1]), 3)
    assert repeated(np.asarray([2, 2, 1, 2, 2])).tolist() == [2]
    assert repeated(np.asarray([1, 2])).tolist() == []


def test_choices_are_what_the_task_says(log, periods):
    choices = alignment_choices(log, None, periods.validation, even, 300, np.random.default_rng(0))
    assert len(choices) == 300
    training = log.before(periods.validation)
    for user, options, answer in zip(choices.user, choices.options, choices.answer, strict=True):
        events = training.events_of(int(user))
        items, feedback = training.item[events], training.feedback[events]
        assert len(set(options.tolist())) == 4
        assert options[answer] % 2 == 0
        assert options[answer] in items[feedback == NEGATIVE]
        assert np.isin(np.delete(options, answer), items[feedback == POSITIVE]).all()
    assert set(choices.answer.tolist()) == {0, 1, 2, 3}
    nobody = alignment_choices(log, None, periods.validation, lambda items: items[:0], 300, np.random.default_rng(0))
    assert len(nobody) == 0


def test_alignment_is_learned(backbone, prompts, trie, log, periods):
    """Even items are disliked and odd ones liked by everybody, so the answer can be read off the options."""
    rigged = replace(log, feedback=np.where(log.item % 2 == 0, -1, 1).astype(np.int8))
    choices = alignment_choices(rigged, None, periods.validation, np.unique, 600, np.random.default_rng(0))
    train(backbone, alignment_stretches(prompts, choices), epochs=4)
    held = alignment_choices(rigged, periods.validation, periods.end, np.unique, 100, np.random.default_rng(1))
    model = GenerativeRecommender(backbone, prompts, trie, "both", 16)
    assert (model.choose(held.options) == held.answer).mean() > 0.6


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), penalty=st.floats(0, 2))
def test_reward_is_its_formula(seed, penalty):
    rng = np.random.default_rng(seed)
    rebuilt = rng.normal(size=(12, 4)).astype(np.float32)
    rebuilt /= np.linalg.norm(rebuilt, axis=1, keepdims=True)
    items = rng.integers(12, size=(3, 5))
    gts = [rng.integers(12, size=rng.integers(1, 4)).astype(np.int32) for _ in range(3)]
    fps = [rng.integers(12, size=rng.integers(0, 4)).astype(np.int32) for _ in range(3)]
    reward = FutureReward(torch.from_numpy(rebuilt), penalty)(torch.from_numpy(items), gts, fps)
    for row in range(3):
        for column in range(5):
            own = rebuilt[items[row, column]]
            expected = max(float(own @ rebuilt[i]) for i in gts[row])
            if len(fps[row]):
                expected -= penalty * max(float(own @ rebuilt[t]) for t in fps[row])
            assert float(reward[row, column]) == pytest.approx(expected, abs=1e-5)


def test_advantages_are_their_formula_with_floor_and_flat_groups():
    rewards = torch.tensor([[1.0, 2.0, 3.0, 6.0], [0.5, 0.5, 0.5, 0.5], [0.50, 0.51, 0.50, 0.51]])
    found = advantages(rewards, std_floor=0.05, flat=1e-4)
    mean, std = 3.0, math.sqrt((4 + 1 + 0 + 9) / 4)
    assert found[0].tolist() == pytest.approx([(r - mean) / std for r in (1.0, 2.0, 3.0, 6.0)])
    assert found[1].tolist() == [0.0] * 4
    assert found[2].tolist() == pytest.approx([-0.1, 0.1, -0.1, 0.1], abs=1e-4)  # 0.005 / 0.05, not 0.005 / 0.005


def test_grpo_loss_is_its_formula():
    generator = torch.Generator().manual_seed(1)
    policy, rollout, reference = (torch.randn(2, 3, 3, generator=generator) for _ in range(3))
    advantage = torch.randn(2, 3, generator=generator)
    loss, kl = grpo_loss(policy, rollout, reference, advantage, clip=0.2, kl_weight=0.3)
    total = divergence = 0.0
    for b in range(2):
        for g in range(3):
            for level in range(3):
                ratio = math.exp(policy[b, g, level] - rollout[b, g, level])
                a = float(advantage[b, g])
                difference = float(reference[b, g, level] - policy[b, g, level])
                k3 = math.exp(difference) - difference - 1
                assert k3 >= 0
                divergence += k3
                total += min(ratio * a, min(max(ratio, 0.8), 1.2) * a) - 0.3 * k3
    assert float(loss) == pytest.approx(-total / 18, rel=1e-5)
    assert float(kl) == pytest.approx(divergence / 18, rel=1e-5)


def test_history_is_blocked_unless_it_may_return(log):
    time = int(log.timestamp[100])
    users, times = np.arange(6), np.full(6, time)
    blocked = blocked_items(log, users, times, history_eligible=False)
    for user in range(6):
        assert set(np.flatnonzero(blocked[user].numpy())) == set(log.item[log.history(user, time)].tolist())
    assert not blocked_items(log, users, times, history_eligible=True).any()


def test_samples_have_something_to_show(log, periods, prompts):
    anchors = build_anchors(log, periods, 7 * DAY).of_split("train")
    for context in ("recent", "negative", "both"):
        drawn = draw_samples(anchors, anchors.future_negatives, prompts, log, context, 15, seed=0)
        assert len(drawn) == 15
        for user, time in zip(drawn.user.tolist(), drawn.timestamp.tolist(), strict=True):
            assert len(prompts.select(log, user, time, context))
        again = draw_samples(anchors, anchors.future_negatives, prompts, log, context, 15, seed=0)
        assert again.timestamp.tolist() == drawn.timestamp.tolist()


def test_cleaning_augments_what_the_model_takes_for_a_dislike(backbone, stage, samples):
    untouched, none = clean(backbone, stage, samples, similarity=1.1, batch_size=8)
    assert none == 0
    assert len(untouched) == len(samples)
    cleaned, augmented = clean(backbone, stage, samples, similarity=0.5, batch_size=8)
    assert 0 < augmented <= len(samples)
    assert len(cleaned) == len(samples) + augmented
    reward = stage.reward
    for row in range(len(samples)):
        added = np.setdiff1d(cleaned.fps[row], samples.fps[row])
        assert not np.isin(added, samples.gts[row]).any()
        for item in added.tolist():
            near = (reward.rebuilt[item] @ reward.rebuilt[torch.from_numpy(samples.fps[row].astype(np.int64))].T).max()
            assert float(near) > 0.5
    twice = [(int(u), int(t)) for u, t in zip(cleaned.user, cleaned.timestamp, strict=True)][len(samples) :]
    assert all(
        any((int(u), int(t)) == one for u, t in zip(samples.user, samples.timestamp, strict=True)) for one in twice
    )


def test_a_stage_raises_the_reward_and_repeats_exactly(backbone, stage, samples, log, periods):
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


def test_mean_reward_draws_the_same_chance(backbone, stage, samples):
    config = GrpoConfig(group_size=4, batch_size=8)
    assert mean_reward(backbone, stage, samples, config, 1) == mean_reward(backbone, stage, samples, config, 1)


def test_a_reward_on_ragged_rows(rebuilt):
    reward = FutureReward(rebuilt, 0.5)
    rows = Ragged.from_rows([[1, 2, 3], [4]])
    items = torch.tensor([[1, 5], [4, 0]])
    found = reward(items, list(rows), [np.empty(0, dtype=np.int32)] * 2)
    assert float(found[0, 0]) == pytest.approx(1.0, abs=1e-6)
    assert float(found[1, 0]) == pytest.approx(1.0, abs=1e-6)


def test_samples_can_be_selected(samples):
    part = samples.select(np.asarray([3, 1]))
    assert isinstance(part, RewardSamples)
    assert part.timestamp.tolist() == [int(samples.timestamp[3]), int(samples.timestamp[1])]
    assert part.gts[0].tolist() == samples.gts[3].tolist()
