"""Supervised training: the loss against transformers, the tasks' samples, and that each is learned."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from conrec.errors import ConrecError
from conrec.llm.backbone import Backbone
from conrec.llm.course import Curve, TrainingError
from conrec.llm.prompts import Stretch
from conrec.llm.recommender import GenerativeRecommender
from conrec.llm.samples import (
    alignment_choices,
    alignment_stretches,
    high_confidence,
    history_stretches,
    translation_stretches,
)
from conrec.llm.sft import _loss, train_supervised
from conrec.logs.log import Log
from conrec.protocol import NEGATIVE, POSITIVE
from tests.llm.conftest import TITLES


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


def test_half_precision_stays_near_and_leaves_the_weights_alone(backbone, prompts):
    """A loss of 5 within 1 %, gradients within 5 % of their norm: bfloat16 keeps 8 bits of a number."""
    stretches = translation_stretches(prompts, TITLES, np.arange(8))
    half = replace(backbone.clone(), precision="bfloat16")
    for one in (backbone, half):
        _loss(one, stretches).backward()
    assert float(_loss(half, stretches).detach()) == pytest.approx(float(_loss(backbone, stretches).detach()), rel=0.01)
    assert _loss(half, stretches).dtype == torch.float32
    exact, found = (torch.cat([p.grad.flatten() for p in one.model.parameters()]) for one in (backbone, half))
    assert 0 < (found - exact).norm() / exact.norm() < 0.05
    train(half, stretches, epochs=1)
    assert {p.dtype for p in half.model.parameters()} == {torch.float32}


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
