"""Beams, rollouts and scores on the token tree, against one row a path."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, MptConfig, MptForCausalLM

from conrec.config import BackboneConfig
from conrec.errors import ConfigError
from conrec.items.eligible import EligibleTrie
from conrec.items.trie import Trie
from conrec.llm.backbone import _train_tokenizer, build_backbone, load_backbone
from conrec.llm.generation import beam_search, log_probabilities, sample
from conrec.llm.tree import TokenTree, check_tree
from tests.llm.plain import plain_log_probabilities

PROMPTS = [[5, 6, 7, 8], [9, 10], [11, 12, 13, 14, 15, 16, 17]]


@pytest.fixture
def blocked(trie):
    drawn = torch.zeros(len(PROMPTS), trie.n_items, dtype=torch.bool)
    drawn[0, :30] = True
    drawn[1, 3] = True
    return drawn


def every_score(backbone, trie, blocked):
    """Log-probability of every eligible item for each prompt, -inf for the others."""
    scores = torch.full((len(PROMPTS), trie.n_items), -torch.inf)
    for row, prompt in enumerate(PROMPTS):
        eligible = {tuple(trie.codes[item].tolist()) for item in range(trie.n_items) if not blocked[row, item]}
        for item in range(trie.n_items):
            if not blocked[row, item]:
                triple = trie.codes[item].tolist()
                scores[row, item] = plain_log_probabilities(backbone, prompt, triple, eligible).sum()
    return scores


@torch.no_grad()
def test_wide_beam_is_the_exhaustive_ranking(backbone, trie, blocked):
    scores = every_score(backbone, trie, blocked)
    torch.testing.assert_close(scores.exp().sum(1), torch.ones(3))
    items, found = beam_search(backbone, PROMPTS, EligibleTrie(trie, blocked), k=trie.n_items, width=10_000)
    for row in range(3):
        n = int((~blocked[row]).sum())
        best = scores[row].topk(n)
        assert items[row, :n].tolist() == best.indices.tolist()
        torch.testing.assert_close(found[row, :n], best.values, atol=1e-5, rtol=1e-5)
        assert (items[row, n:] == -1).all()
        assert found[row, n:].isneginf().all()


@torch.no_grad()
def test_beam_of_one_is_greedy(backbone, trie):
    nothing = torch.zeros(3, trie.n_items, dtype=torch.bool)
    items, _ = beam_search(backbone, PROMPTS, EligibleTrie(trie, nothing), k=1, width=1)
    for row, prompt in enumerate(PROMPTS):
        prefix: list[int] = []
        for level in range(3):
            ids = prompt + [backbone.code_offset[depth] + code for depth, code in enumerate(prefix)]
            logits = backbone.model(torch.tensor([ids])).logits[0, -1]
            allowed = {c[level] for c in trie.codes.tolist() if c[:level] == prefix}
            prefix.append(max(allowed, key=lambda code: float(logits[backbone.code_offset[level] + code])))
        assert trie.codes[items[row, 0]].tolist() == prefix


@torch.no_grad()
def test_narrow_beams_widen_until_enough_items_are_found(backbone, trie, blocked):
    items, found = beam_search(backbone, PROMPTS, EligibleTrie(trie, blocked), k=35, width=1)
    assert [(row >= 0).sum().item() for row in items] == [10, 35, 35]
    scores = every_score(backbone, trie, blocked)
    for row in range(3):
        n = int((items[row] >= 0).sum())
        torch.testing.assert_close(found[row, :n], scores[row, items[row, :n]], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_any_tree_is_its_paths(backbone):
    """Random trees of several calls, with prompts and earlier nodes as parents, and again after a rewind."""
    rng = np.random.default_rng(0)
    tree = TokenTree(backbone, PROMPTS)
    for _ in range(2):
        paths: list[list[list[int]]] = [[], [], []]
        for count in (3, 2, 4):
            tokens = rng.integers(5, 300, size=(3, count))
            parents = rng.integers(-1, len(paths[0]), size=(3, count)) if paths[0] else np.full((3, count), -1)
            hidden = tree.extend(torch.from_numpy(tokens), torch.from_numpy(parents))
            for row in range(3):
                for node in range(count):
                    above = paths[row][parents[row, node]] if parents[row, node] >= 0 else PROMPTS[row]
                    path = [*above, int(tokens[row, node])]
                    paths[row].append(path)
                    plain = backbone.model.get_decoder()(torch.tensor([path])).last_hidden_state[0, -1]
                    torch.testing.assert_close(hidden[row, node], plain, atol=1e-4, rtol=1e-4)
        tree.rewind()


def test_a_prompt_means_the_same_in_any_batch(backbone, trie, blocked):
    together = beam_search(backbone, PROMPTS, EligibleTrie(trie, blocked), k=8)
    for row, prompt in enumerate(PROMPTS):
        alone = beam_search(backbone, [prompt], EligibleTrie(trie, blocked[row : row + 1]), k=8)
        assert alone[0][0].tolist() == together[0][row].tolist()
        torch.testing.assert_close(alone[1][0], together[1][row], atol=1e-5, rtol=1e-5)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n=st.integers(1, 12), k=st.integers(1, 20), seed=st.integers(0, 1000), width=st.integers(1, 4))
def test_every_output_is_an_eligible_item_and_none_comes_twice(backbone, n, k, seed, width):
    rng = np.random.default_rng(seed)
    drawn = torch.from_numpy(rng.permutation(8**3)[:n].astype(np.int64))
    trie = Trie.from_codes(torch.stack([drawn // 64, drawn // 8 % 8, drawn % 8], 1), 8)
    blocked = torch.from_numpy(rng.random((3, n)) < 0.4)
    blocked[:, 0] = False
    items, scores = beam_search(backbone, PROMPTS, EligibleTrie(trie, blocked), k=k, width=width)
    for row in range(3):
        found = items[row][items[row] >= 0].tolist()
        assert len(found) == min(k, int((~blocked[row]).sum())) == len(set(found))
        assert not blocked[row, found].any()
        assert (scores[row, : len(found)].diff() <= 0).all()


def test_log_probabilities_and_their_gradient_equal_the_plain_form(backbone, trie, blocked):
    eligible_trie = EligibleTrie(trie, blocked)
    chance = torch.Generator().manual_seed(0)
    rollouts = sample(backbone, PROMPTS, eligible_trie, 6, chance)
    weights = torch.randn(3, 6, 3, generator=chance)

    logs = log_probabilities(backbone, PROMPTS, eligible_trie, rollouts.codes)
    torch.testing.assert_close(logs.detach(), rollouts.log_probability)
    backbone.model.zero_grad()
    (logs * weights).sum().backward()
    tree = {name: p.grad.clone() for name, p in backbone.model.named_parameters()}

    backbone.model.zero_grad()
    total = 0.0
    for row, prompt in enumerate(PROMPTS):
        eligible = {tuple(trie.codes[item].tolist()) for item in range(trie.n_items) if not blocked[row, item]}
        for column in range(6):
            plain = plain_log_probabilities(backbone, prompt, rollouts.codes[row, column].tolist(), eligible)
            torch.testing.assert_close(plain, logs[row, column], atol=1e-5, rtol=1e-5)
            total = total + (plain * weights[row, column]).sum()
    total.backward()
    for name, parameter in backbone.model.named_parameters():
        scale = parameter.grad.abs().max().clamp(min=1e-6)
        assert ((parameter.grad - tree[name]).abs().max() / scale).item() < 1e-4, name


def test_rollouts_follow_the_policy(backbone, trie, blocked):
    scores = every_score(backbone, trie, blocked)
    drawn = sample(backbone, PROMPTS, EligibleTrie(trie, blocked), 4000, torch.Generator().manual_seed(4)).item
    for row in range(3):
        frequency = torch.bincount(drawn[row], minlength=trie.n_items) / 4000
        assert not frequency[blocked[row]].any()
        # Four standard errors of a share of 4,000 draws.
        probability = scores[row].exp()
        assert ((frequency - probability).abs() <= 4 * (probability * (1 - probability) / 4000).sqrt() + 1e-6).all()


def test_the_same_seed_draws_the_same_rollouts(backbone, trie, blocked):
    one, two = (
        sample(backbone, PROMPTS, EligibleTrie(trie, blocked), 5, torch.Generator().manual_seed(9)) for _ in range(2)
    )
    assert torch.equal(one.item, two.item)


def test_any_causal_language_model_by_folder(tmp_path, trie):
    """An untied Llama with a tokenizer of its own takes the SID tokens and answers by the same code."""
    folder = tmp_path / "llama"
    plain = _train_tokenizer(["a title"], [], 300)
    config = LlamaConfig(
        vocab_size=len(plain), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    plain.save_pretrained(folder)
    llama = build_backbone(BackboneConfig(name=str(folder)), 8, [], [], seed=0)
    llama.model.eval()
    nothing = torch.zeros(3, trie.n_items, dtype=torch.bool)
    scores = every_score(llama, trie, nothing).detach()
    items, found = beam_search(llama, PROMPTS, EligibleTrie(trie, nothing), k=10, width=10_000)
    torch.testing.assert_close(found, scores.topk(10, 1).values, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found, scores.gather(1, items), atol=1e-5, rtol=1e-5)
    llama.save(tmp_path / "saved")
    again = load_backbone(tmp_path / "saved", 8)
    torch.testing.assert_close(beam_search(again, PROMPTS, EligibleTrie(trie, nothing), k=10)[1], found)


def test_a_model_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"backbone\.name.*nowhere"):
        build_backbone(BackboneConfig(name=str(tmp_path / "nowhere")), 8, [], [], seed=0)


def test_models_that_read_a_tree_otherwise_are_refused(backbone, tmp_path):
    """ALiBi, a distance on sequences, is not a distance on trees."""
    check_tree(backbone, 60)
    plain = _train_tokenizer(["a title"], [], 300)
    folder = tmp_path / "mpt"
    config = MptConfig(vocab_size=len(plain), d_model=32, n_heads=4, n_layers=2, max_seq_len=256)
    MptForCausalLM(config).save_pretrained(folder)
    plain.save_pretrained(folder)
    with pytest.raises(ConfigError, match=r"backbone\.name.*token tree"):
        check_tree(build_backbone(BackboneConfig(name=str(folder)), 8, [], [], seed=0), 60)


def test_pickled_weights_are_not_read(backbone, tmp_path):
    folder = tmp_path / "pickled"
    backbone.save(folder)
    (folder / "model.safetensors").unlink()
    torch.save(backbone.model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        build_backbone(BackboneConfig(name=str(folder)), 8, [], [], seed=0)
