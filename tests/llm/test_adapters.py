"""Adapters and new rows: what is learned, what is not, and that what was learned ends in the weights."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from conrec.items.eligible import EligibleTrie
from conrec.llm.adapters import adapted
from conrec.llm.backbone import Backbone, load_backbone
from conrec.llm.course import Best
from conrec.llm.generation import beam_search
from conrec.llm.grpo_stage import train_stage
from conrec.llm.policy import log_probabilities
from conrec.llm.prompts import Stretch
from conrec.llm.sft import train_supervised
from conrec.llm.watch import Watch
from conrec.settings.models import GrpoConfig, LoraConfig
from tests.llm import world
from tests.llm.world import CODEBOOK, PROMPTS

RANK = 2
LORA = LoraConfig(rank=RANK, alpha=4)


@pytest.fixture(params=["tied", "untied"])
def model(request, backbone) -> Backbone:
    if request.param == "untied":
        head = backbone.model.get_output_embeddings()
        head.weight = nn.Parameter(head.weight.detach() * 1.1)
        backbone.model.config.tie_word_embeddings = False
    return backbone


def _logits(backbone: Backbone) -> torch.Tensor:
    with torch.no_grad():
        return backbone.model(torch.tensor([PROMPTS[0]])).logits


def _learn(backbone: Backbone, steps: int = 3) -> None:
    """A few steps on the codes of prompts: every part that can be learned moves."""
    optimiser = torch.optim.AdamW([one for one in backbone.model.parameters() if one.requires_grad], lr=0.05)
    ids = torch.arange(backbone.disliked - 4, backbone.disliked + 10)[None]
    for _ in range(steps):
        optimiser.zero_grad()
        backbone.model(ids, labels=ids).loss.backward()
        optimiser.step()


def _weights(backbone: Backbone) -> dict[str, torch.Tensor]:
    return {name: one.detach().clone() for name, one in backbone.model.named_parameters()}


def test_none_tunes_all_weights(model) -> None:
    with adapted(model, None, 0):
        assert all(one.requires_grad for one in model.model.parameters())
        assert not any("lora_" in name for name, _ in model.model.named_parameters())


def test_at_first_the_model_answers_as_before_and_few_numbers_can_be_learned(model) -> None:
    before, size = _logits(model), sum(one.numel() for one in model.model.parameters())
    new, width = 2 + 3 * CODEBOOK, model.model.config.hidden_size
    with adapted(model, LORA, 0):
        torch.testing.assert_close(_logits(model), before)
        learned = {name: one for name, one in model.model.named_parameters() if one.requires_grad}
        assert all("lora_" in name or name.endswith("rows") for name in learned)
        rows = [one for name, one in learned.items() if name.endswith("rows")]
        assert [one.shape for one in rows] == [(new, width)] * (1 if model.model.config.tie_word_embeddings else 2)
        assert sum(one.numel() for one in learned.values()) < size / 2
    torch.testing.assert_close(_logits(model), before)


def test_what_was_learned_is_in_the_weights_and_nothing_else_moved(model) -> None:
    before, tied = _weights(model), model.model.config.tie_word_embeddings
    with adapted(model, LORA, 0):
        _learn(model)
        inside = _logits(model)
    after = _weights(model)
    torch.testing.assert_close(_logits(model), inside, rtol=1e-4, atol=1e-4)
    assert list(after) == list(before)
    assert all(one.requires_grad for one in model.model.parameters())
    linear = {f"{name}.weight" for name, one in model.model.named_modules() if isinstance(one, nn.Linear)}
    matrices = {"model.embed_tokens.weight", "lm_head.weight"}
    first, last = model.disliked, model.disliked + 2 + 3 * CODEBOOK
    for name, old in before.items():
        moved = after[name] - old
        if name in matrices:
            assert moved[first:last].abs().max() > 0.01, name
            moved[first:last] = 0.0
        if name in linear - matrices:
            spread = torch.linalg.svdvals(moved)
            assert spread[0] > 0.01, name
            assert spread[RANK] < 1e-5, name
        else:
            assert not moved.any(), name
    head, embedding = model.model.get_output_embeddings(), model.model.get_input_embeddings()
    assert type(head) is nn.Linear
    assert type(embedding) is nn.Embedding
    assert (head.weight is embedding.weight) is tied


def test_the_engine_reads_an_adapted_model(model, trie, codes, nothing) -> None:
    with adapted(model, LORA, 0):
        _learn(model)
        found = beam_search(model, PROMPTS, EligibleTrie(trie, nothing), 5)
        drawn = torch.from_numpy(codes).long()[found.item]
        logs = log_probabilities(model, PROMPTS, EligibleTrie(trie, nothing), drawn)
        logs.sum().backward()
        assert all(one.grad is not None for one in model.model.parameters() if one.requires_grad)
    again = beam_search(model, PROMPTS, EligibleTrie(trie, nothing), 5)
    assert torch.equal(found.item, again.item)
    torch.testing.assert_close(found.score, again.score, rtol=1e-4, atol=1e-4)


def test_the_saved_model_is_an_ordinary_one(model, tmp_path) -> None:
    with adapted(model, LORA, 0):
        _learn(model)
    model.save(tmp_path)
    assert not list(tmp_path.glob("adapter*"))
    torch.testing.assert_close(_logits(load_backbone(tmp_path, CODEBOOK)), _logits(model))


def test_one_seed_one_start_and_no_chance_is_spent(backbone) -> None:
    states = []
    for _ in range(2):
        other = backbone.clone()
        before = torch.get_rng_state()
        with adapted(other, LORA, 7):
            states.append({name: one.detach().clone() for name, one in other.model.named_parameters()})
        assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one, states[1][name]) for name, one in states[0].items())


def test_after_an_error_the_model_is_whole(model) -> None:
    before = _logits(model)
    with pytest.raises(RuntimeError, match="stop"), adapted(model, LORA, 0):
        raise RuntimeError("stop")
    torch.testing.assert_close(_logits(model), before)
    assert all(one.requires_grad for one in model.model.parameters())


def test_both_kinds_of_training_tune_adapters_where_the_backbone_says_so(backbone) -> None:
    tuned = replace(backbone, lora=LORA)
    stage = world.stage(tuned)
    stretches = [Stretch([*prompt, tuned.disliked], [False] + [True] * len(prompt)) for prompt in PROMPTS]
    values = iter(range(10))
    weights = [_weights(tuned)]
    train_supervised(
        tuned, stretches, epochs=2, batch_size=2, learning_rate=0.01, seed=0, description="", evaluations=2,
        evaluate=lambda: float(next(values)),
    )  # fmt: skip
    weights.append(_weights(tuned))
    config = GrpoConfig(batch_size=4, group_size=4, evaluations=2, learning_rate=0.01)
    few = world.samples(stage).select(np.arange(8))
    watch = Watch(lambda: {"fhr": float(next(values))}, kept=("fhr",))
    train_stage(tuned, None, stage, few, few, config, config.stages[2], 0, "", watch=watch)
    weights.append(_weights(tuned))
    for before, after in pairwise(weights):
        for name, old in before.items():
            moved = after[name] - old
            assert not moved.any() if "norm" in name else moved.any(), name
            if "proj" in name:
                assert torch.linalg.svdvals(moved)[RANK] < 1e-5, name
        assert not (after["model.embed_tokens.weight"] - before["model.embed_tokens.weight"])[: tuned.disliked].any()


def test_the_best_state_holds_what_can_be_learned_alone(backbone) -> None:
    best, values = Best(), []
    with adapted(backbone, LORA, 0):
        best.offer(backbone.model, 1.0)
        assert best.state is not None
        assert all("lora_" in name or name.endswith("rows") for name in best.state)
        values.append(_logits(backbone))
        _learn(backbone)
        assert not torch.allclose(_logits(backbone), values[0])
        best.restore(backbone.model)
    torch.testing.assert_close(_logits(backbone), values[0])


def test_the_reference_of_a_stage_shares_what_is_frozen_and_is_not_moved_by_it(backbone) -> None:
    curves = []
    for shared in (True, False):
        policy = replace(backbone, lora=LORA).clone()
        stage = world.stage(policy)
        few = world.samples(stage).select(np.arange(8))
        config = GrpoConfig(batch_size=4, group_size=4, evaluations=2, learning_rate=0.01)
        reference = None if shared else policy.clone()
        curves.append(train_stage(policy, reference, stage, few, few, config, config.stages[2], 0, "").series)
    assert curves[0]["kl"][-1][1] > 0
    for name, points in curves[0].items():
        np.testing.assert_allclose(points, curves[1][name], rtol=1e-4, atol=1e-6, err_msg=name)
    with adapted(backbone, LORA, 0):
        copy = dict(backbone.clone().model.named_parameters())
        for name, one in backbone.model.named_parameters():
            assert (copy[name] is one) is not one.requires_grad, name
