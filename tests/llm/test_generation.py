"""Beams and exact lists, against scoring every item with one row each."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model

from conrec.errors import ConrecError, DataError
from conrec.items.eligible import EligibleTrie, LiveItems
from conrec.items.trie import Trie
from conrec.llm.generation import beam_search
from conrec.llm.policy import log_probabilities
from tests.llm.conftest import PROMPTS
from tests.llm.plain import every_score


def assert_exact(beams, scores, k):
    """The lists are the k best of the given scores [B, items]; -inf is not eligible."""
    for row, score in enumerate(scores):
        n = min(k, int((~score.isneginf()).sum()))
        best = score.topk(n)
        found = beams.item[row]
        torch.testing.assert_close(beams.score[row, :n], best.values, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(score[found[:n]], best.values, atol=1e-5, rtol=1e-5)
        assert len(set(found[:n].tolist())) == n
        assert (found[n:] == -1).all()
        assert beams.score[row, n:].isneginf().all()
    assert beams.proved.all()


@torch.no_grad()
@pytest.mark.parametrize("k", [1, 5, 39, 100])
def test_certified_lists_are_the_exhaustive_ranking(backbone, trie, blocked, k):
    scores = every_score(backbone, trie, PROMPTS, blocked)
    torch.testing.assert_close(scores.exp().sum(1), torch.ones(3))
    for width in (1, None, 10_000):
        assert_exact(beam_search(backbone, PROMPTS, EligibleTrie(trie, blocked), k, width), scores, k)


@torch.no_grad()
def test_the_certificate_reads_less_than_everything_and_plain_beams_say_what_they_proved(backbone, trie, nothing):
    scores = every_score(backbone, trie, PROMPTS, nothing)
    exact = beam_search(backbone, PROMPTS, EligibleTrie(trie, nothing), 2)
    prefixes = len({tuple(row) for row in trie.codes[:, :2].tolist()}) + len(set(trie.codes[:, 0].tolist()))
    assert (exact.nodes < prefixes).all()
    plain = beam_search(backbone, PROMPTS, EligibleTrie(trie, nothing), 2, 2, certified=False)
    assert (plain.nodes == 4).all()
    best = scores.topk(2, 1).values
    assert not plain.proved.all()
    torch.testing.assert_close(plain.score[plain.proved], best[plain.proved], atol=1e-5, rtol=1e-5)
    assert ((plain.score - best).max(1).values <= 1e-5).all()


@torch.no_grad()
def test_a_prior_moves_the_ranking_and_the_list_stays_exact(backbone, trie, blocked):
    prior = 3 * torch.randn(trie.n_items, generator=torch.Generator().manual_seed(0))
    scores = every_score(backbone, trie, PROMPTS, blocked) + prior
    live = LiveItems(trie, prior=prior)
    assert_exact(beam_search(backbone, PROMPTS, EligibleTrie(live, blocked), 7), scores, 7)


@torch.no_grad()
def test_a_live_catalogue_is_the_trie_of_its_items(backbone, trie, blocked):
    kept = torch.arange(trie.n_items) % 3 != 0
    live = EligibleTrie(LiveItems(trie, kept), blocked)
    gone = [(~kept).nonzero()[:, 0].tolist() + row for row in blocked.tolist()]
    assert_exact(beam_search(backbone, PROMPTS, live, 9),
                 every_score(backbone, trie, PROMPTS, torch.tensor(gone)), 9)  # fmt: skip


@torch.no_grad()
def test_probabilities_over_the_whole_vocabulary(backbone, trie, nothing):
    """The score of an item is the model's own probability of its three tokens."""
    beams = beam_search(backbone, PROMPTS, EligibleTrie(trie, nothing), 5, normalise="vocabulary")
    offsets = torch.tensor(backbone.code_offset)
    scores = torch.zeros(3, trie.n_items)
    for row, prompt in enumerate(PROMPTS):
        ids = torch.cat([torch.tensor(prompt).expand(trie.n_items, -1), trie.codes + offsets], 1)
        logs = backbone.model(ids).logits[:, len(prompt) - 1 : -1].log_softmax(-1)
        scores[row] = logs.gather(-1, (trie.codes + offsets)[..., None])[..., 0].sum(1)
    assert_exact(beams, scores, 5)


@torch.no_grad()
def test_beam_of_one_is_greedy(backbone, trie, nothing):
    items = beam_search(backbone, PROMPTS, EligibleTrie(trie, nothing), k=1, width=1, certified=False).item
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
    beams = beam_search(backbone, PROMPTS, EligibleTrie(trie, blocked), k=35, width=1, certified=False)
    assert [(row >= 0).sum().item() for row in beams.item] == [10, 35, 35]
    scores = every_score(backbone, trie, PROMPTS, blocked)
    for row in range(3):
        n = int((beams.item[row] >= 0).sum())
        torch.testing.assert_close(beams.score[row, :n], scores[row, beams.item[row, :n]], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("certified", [False, True])
@pytest.mark.parametrize("width", [1, 8])
def test_a_prompt_means_the_same_in_any_batch(backbone, trie, blocked, certified, width):
    together = beam_search(backbone, PROMPTS, EligibleTrie(trie, blocked), 8, width, certified=certified)
    for row, prompt in enumerate(PROMPTS):
        alone = beam_search(
            backbone, [prompt], EligibleTrie(trie, blocked[row : row + 1]), 8, width, certified=certified
        )
        assert alone.item[0].tolist() == together.item[row].tolist()
        assert int(alone.nodes[0]) == int(together.nodes[row])
        torch.testing.assert_close(alone.score[0], together.score[row], atol=1e-5, rtol=1e-5)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(1, 12),
    k=st.integers(1, 20),
    seed=st.integers(0, 1000),
    width=st.integers(1, 4),
    certified=st.booleans(),
    used=st.sampled_from([1, 2, 8]),
)
def test_every_output_is_an_eligible_item_and_none_comes_twice(backbone, n, k, seed, width, certified, used):
    """Tiny tries too: one item, one code a level, chains."""
    rng = np.random.default_rng(seed)
    drawn = torch.from_numpy(rng.permutation(used**3)[:n].astype(np.int64))
    n = len(drawn)
    trie = Trie.from_codes(torch.stack([drawn // used**2, drawn // used % used, drawn % used], 1), 8)
    marks = rng.random((3, n)) < 0.4
    marks[:, 0] = False
    blocked = torch.from_numpy(np.where(marks, np.arange(n), -1))
    beams = beam_search(backbone, PROMPTS, EligibleTrie(trie, blocked), k, width, certified=certified)
    for row in range(3):
        found = beams.item[row][beams.item[row] >= 0].tolist()
        assert len(found) == min(k, int((~marks[row]).sum())) == len(set(found))
        assert not marks[row, found].any()
        assert (beams.score[row, : len(found)].diff() <= 0).all()
    if certified:
        assert_exact(beams, every_score(backbone, trie, PROMPTS, blocked).detach(), k)


def test_a_request_without_eligible_items_gets_an_empty_list(backbone, trie, nothing):
    blocked = torch.full((3, trie.n_items), -1)
    blocked[1] = torch.arange(trie.n_items)
    for certified in (False, True):
        beams = beam_search(backbone, PROMPTS, EligibleTrie(trie, blocked), 4, certified=certified)
        assert [(row >= 0).sum().item() for row in beams.item] == [4, 0, 4]
        assert beams.score[1].isneginf().all()


def test_a_budget_ends_the_proof_and_not_the_list(backbone, trie, blocked):
    for k in (2, 35):
        short = beam_search(backbone, PROMPTS, EligibleTrie(trie, blocked), k, 2, budget=1)
        plain = beam_search(backbone, PROMPTS, EligibleTrie(trie, blocked), k, 2, certified=False)
        assert torch.equal(short.item, plain.item)
        assert torch.equal(short.proved, plain.proved)
    assert not beam_search(backbone, PROMPTS, EligibleTrie(trie, blocked), 2, 2, budget=1).proved.all()
    assert beam_search(backbone, PROMPTS, EligibleTrie(trie, blocked), 2, 2, budget=1000).proved.all()


@torch.no_grad()
def test_neither_padding_nor_pieces_nor_precision_change_a_list(backbone, trie, blocked, monkeypatch):
    eligible = EligibleTrie(trie, blocked)
    plain = beam_search(backbone, PROMPTS, eligible, 9)
    left = beam_search(backbone, PROMPTS, eligible, 9, padding="left")
    monkeypatch.setattr("conrec.llm.generation.CELLS", 1)  # a prefix at a time
    pieces = beam_search(backbone, PROMPTS, eligible, 9)
    backbone.model.double()
    double = beam_search(backbone, PROMPTS, eligible, 9)
    assert double.score.dtype == torch.float64
    for other in (left, pieces, double):
        assert torch.equal(other.item, plain.item)
        torch.testing.assert_close(other.score, plain.score, atol=1e-5, rtol=1e-5, check_dtype=False)


# PEFT 0.21 asks Transformers 5.23 for an attribute by its old name; delete once it asks for the new one.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("targets", [["q_proj", "down_proj"], ["v_proj", "lm_head"]])
@torch.no_grad()
def test_lists_of_a_model_with_adapters_are_exact(backbone, trie, blocked, targets):
    """On the head too, which is then more than its matrix."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`")
        model = get_peft_model(backbone.model, LoraConfig(r=4, target_modules=targets))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    model.eval()
    adapted = replace(backbone, model=model)
    scores = every_score(adapted, trie, PROMPTS, blocked)
    with model.disable_adapter():
        assert (scores - every_score(backbone, trie, PROMPTS, blocked)).abs().nan_to_num().max() > 0.1
    assert_exact(beam_search(adapted, PROMPTS, EligibleTrie(trie, blocked), 9), scores, 9)
    codes = trie.codes[None].expand(3, -1, -1).long()
    logs = log_probabilities(adapted, PROMPTS, EligibleTrie(trie, blocked), codes).sum(-1)
    torch.testing.assert_close(logs, scores, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("certified", [False, True])
def test_broken_weights_are_said_and_no_search_goes_on_for_ever(backbone, trie, nothing, certified):
    with torch.no_grad():
        backbone.model.get_decoder().norm.weight.fill_(torch.nan)
    with pytest.raises(ConrecError, match=r"code 1: the model's logits are not finite.*learning_rate"):
        beam_search(backbone, PROMPTS, EligibleTrie(trie, nothing), 3, certified=certified)


@pytest.mark.parametrize(
    ("prompts", "k", "width", "budget"),
    [(PROMPTS, 0, None, None), (PROMPTS, 3, -1, None), (PROMPTS, 3, 3, 0), (PROMPTS[:2], 3, None, None),
     ([], 3, None, None), ([[1], [], [2]], 3, None, None)],
)  # fmt: skip
def test_what_cannot_be_searched_is_refused(backbone, trie, nothing, prompts, k, width, budget):
    with pytest.raises(DataError):
        beam_search(backbone, prompts, EligibleTrie(trie, nothing), k, width, budget=budget)


@torch.no_grad()
def test_many_items_and_a_wide_fan_out(backbone):
    """300 items, of which one first code holds all but a few; lists longer than the first round."""
    rng = np.random.default_rng(1)
    drawn = np.concatenate([rng.permutation(64)[:60], 64 + rng.permutation(448)[:240]])
    codes = torch.from_numpy(np.stack([drawn // 64, drawn // 8 % 8, drawn % 8], 1))
    trie = Trie.from_codes(codes, 8)
    nothing = torch.full((3, 0), -1)
    scores = every_score(backbone, trie, PROMPTS, nothing)
    for k in (3, 150, 400):
        assert_exact(beam_search(backbone, PROMPTS, EligibleTrie(trie, nothing), k), scores, k)
