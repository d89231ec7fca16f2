"""Beam search through vLLM's public interface, against a stand-in that answers from our own small model.

The stand-in keeps the rules of vLLM that matter: at most 1,024 allowed tokens, at most ``max_logprobs``
log-probabilities, raw ones before the restriction and processed ones after it, the chosen token always among them.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from conrec.errors import ConfigError, DataError, MissingExtraError
from conrec.items.eligible import EligibleTrie
from conrec.items.trie import Trie
from conrec.llm import vllm
from conrec.llm.generation import beam_search
from conrec.llm.prefix_search import search
from conrec.llm.recommender import GenerativeRecommender
from conrec.llm.vllm import VllmEngine, VllmRecommender
from conrec.recommender import Queries
from tests.llm.conftest import CODEBOOK, PROMPTS


@dataclass(frozen=True)
class SamplingParams:
    """Fields of `vllm.SamplingParams` with vLLM's defaults; anything else is a mistake."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int | None = 16
    logprobs: int | None = None
    detokenize: bool = True
    allowed_token_ids: list[int] | None = None


class StandIn:
    """`vllm.LLM`, one plain forward pass a request."""

    def __init__(self, backbone, logprobs_mode="raw_logprobs", max_logprobs=20):
        self.backbone, self.mode, self.max_logprobs = backbone, logprobs_mode, max_logprobs
        self.calls = []

    def generate(self, prompts, sampling_params, *, use_tqdm=True):
        assert len(prompts) == len(sampling_params)
        self.calls.append([tuple(one["prompt_token_ids"]) for one in prompts])
        return [self._answer(*pair) for pair in zip(prompts, sampling_params, strict=True)]

    def _answer(self, prompt, params):
        assert set(prompt) == {"prompt_token_ids"}
        assert (params.n, params.max_tokens, params.top_p, params.top_k) == (1, 1, 1.0, 0)
        assert 0 < len(params.allowed_token_ids) <= 1024
        assert params.logprobs <= self.max_logprobs, "VLLMValidationError: greater than max allowed"
        with torch.no_grad():
            logits = self.backbone.model(torch.tensor([prompt["prompt_token_ids"]])).logits[0, -1].double()
        allowed = torch.full_like(logits, -torch.inf)
        allowed[params.allowed_token_ids] = logits[params.allowed_token_ids]
        chosen = int(allowed.argmax())
        shown = (allowed if self.mode == "processed_logprobs" else logits).log_softmax(0)
        top = shown.topk(params.logprobs).indices.tolist()
        logprobs = {token: SimpleNamespace(logprob=float(shown[token])) for token in {*top, chosen}}
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=[chosen], logprobs=[logprobs])])


@pytest.fixture
def engine(backbone):
    return VllmEngine(StandIn(backbone, "processed_logprobs", CODEBOOK), SamplingParams)


def agree(found, expected):
    for name in ("item", "proved", "nodes"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist(), name
    torch.testing.assert_close(found.score, expected.score, atol=1e-5, rtol=0)


@pytest.mark.parametrize("certified", [False, True])
@pytest.mark.parametrize(("k", "width"), [(1, 1), (5, None), (12, 30), (60, None)])
def test_lists_are_those_of_our_own_beams(backbone, trie, engine, blocked, k, width, certified):
    """Also with most of the catalogue blocked, and with more places than items."""
    eligible = EligibleTrie(trie, blocked)
    expected = beam_search(backbone, PROMPTS, eligible, k, width, certified=certified)
    agree(search(engine, backbone.code_offset, PROMPTS, eligible, k, width, certified=certified), expected)


def test_narrow_beams_that_miss_items_go_on(backbone, trie, engine, nothing):
    """A width of 3 leads to fewer than 20 items: the next best prefixes are read too, as in our own search."""
    eligible = EligibleTrie(trie, nothing)
    found = search(engine, backbone.code_offset, PROMPTS, eligible, 20, 3)
    assert (found.item >= 0).all()
    agree(found, beam_search(backbone, PROMPTS, eligible, 20, 3))


@pytest.mark.parametrize("budget", [1, 7, 40])
def test_a_budget_ends_the_proof_as_in_our_own_search(backbone, trie, engine, nothing, monkeypatch, budget):
    """Whole lists, some of them unproved, after as many rounds; a round reads few prefixes here."""
    for module in ("generation", "prefix_search"):
        monkeypatch.setattr(f"conrec.llm.{module}.FURTHER", 3)
    eligible = EligibleTrie(trie, nothing)
    found = search(engine, backbone.code_offset, PROMPTS, eligible, 6, 3, budget=budget)
    assert (found.item >= 0).all()
    agree(found, beam_search(backbone, PROMPTS, eligible, 6, 3, budget=budget))
    assert budget > 1 or not found.proved.all()


def test_sizes_below_one_are_refused(backbone, trie, engine, nothing):
    for sizes in ({"k": 0}, {"k": 3, "width": 0}, {"k": 3, "budget": 0}):
        with pytest.raises(DataError, match="at least 1"):
            search(engine, backbone.code_offset, PROMPTS, EligibleTrie(trie, nothing), **sizes)


def test_a_request_without_eligible_items_is_never_sent(backbone, trie, engine):
    none_left = torch.stack([torch.arange(len(trie)), torch.full((len(trie),), -1)])
    found = search(engine, backbone.code_offset, PROMPTS[:2], EligibleTrie(trie, none_left), 3)
    assert found.item[0].tolist() == [-1, -1, -1]
    assert (found.item[1] >= 0).all()
    assert all(prompt[: len(PROMPTS[1])] == tuple(PROMPTS[1]) for call in engine._llm.calls for prompt in call)


def test_each_level_is_one_call_and_each_prefix_one_request(backbone, trie, engine, nothing):
    search(engine, backbone.code_offset, PROMPTS, EligibleTrie(trie, nothing), 4, certified=False)
    levels = engine._llm.calls
    assert [len(call) for call in levels[:1]] == [len(PROMPTS)]
    assert len(levels) == 3
    for level, call in enumerate(levels):
        assert len(set(call)) == len(call)
        for prefix in call:
            prompt = next(one for one in PROMPTS if tuple(one) == prefix[: len(one)])
            assert len(prefix) == len(prompt) + level


@pytest.mark.parametrize("most", [2, 3, 5])
def test_more_codes_than_a_request_may_name(backbone, trie, engine, nothing, monkeypatch, most):
    """Requests that share the codes of a prefix give the log-probabilities over all of them."""
    monkeypatch.setattr(vllm, "MAX_ALLOWED", most)
    eligible = EligibleTrie(trie, nothing)
    agree(
        search(engine, backbone.code_offset, PROMPTS, eligible, 10),
        beam_search(backbone, PROMPTS, eligible, 10),
    )


@pytest.mark.parametrize("size", [1, 1024, 1025, 2047, 2048, 8192])
def test_chunks_name_every_token_and_share_the_first(size):
    chunks = vllm._chunks(range(size))
    assert all(len(one) <= 1024 and one[0] == 0 for one in chunks)
    assert [0] + [token for one in chunks for token in one[1:]] == list(range(size))
    logs = np.log(np.random.default_rng(0).dirichlet(np.ones(size)))
    parts = [logs[one] - np.logaddexp.reduce(logs[one]) for one in chunks]
    np.testing.assert_allclose(vllm._joined(parts), logs, atol=1e-9)


def test_raw_log_probabilities_are_refused(backbone, trie, nothing):
    raw = VllmEngine(StandIn(backbone, "raw_logprobs", CODEBOOK), SamplingParams)
    with pytest.raises(ConfigError, match="processed_logprobs"):
        search(raw, backbone.code_offset, PROMPTS, EligibleTrie(trie, nothing), 4)


@pytest.fixture
def installed(monkeypatch, backbone):
    """A module `vllm` whose LLM is the stand-in; the arguments that it was started with."""
    started = []

    def start(model, enable_prefix_caching, logprobs_mode, max_logprobs, **options):
        started.append({"model": model, "enable_prefix_caching": enable_prefix_caching, **options})
        return StandIn(backbone, logprobs_mode, max_logprobs)

    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = start, SamplingParams
    monkeypatch.setitem(sys.modules, "vllm", module)
    return started


def test_a_saved_model_ranks_as_our_own_recommender(backbone, prompts, trie, log, installed, tmp_path):
    backbone.save(tmp_path)
    ours = GenerativeRecommender(backbone, prompts, trie, "both", 4)
    theirs = VllmRecommender.load(tmp_path, trie, prompts.config, "both", True, tensor_parallel_size=2)
    assert installed == [{"model": str(tmp_path), "enable_prefix_caching": True, "tensor_parallel_size": 2}]
    assert theirs.prompts.backbone.device.type == "meta"
    queries = Queries(np.arange(6, dtype=np.int32), np.full(6, int(log.timestamp[-1]) + 1))
    for k in (3, 12):
        one, two = theirs.predict(log, queries, k), ours.predict(log, queries, k)
        np.testing.assert_array_equal(one.item, two.item)
        np.testing.assert_allclose(one.score, two.score, atol=1e-5)


def test_lists_that_a_budget_left_unproved_are_told(backbone, prompts, trie, log, engine, capsys):
    queries = Queries(np.arange(2, dtype=np.int32), np.full(2, int(log.timestamp[-1]) + 1))
    for budget, said in ((1, "1 of 2 lists are not proved exact: prediction.node_budget (1 prefixes)"), (None, "")):
        recommender = VllmRecommender(engine, prompts, trie, "both", budget=budget)
        recommender.predict(log, queries, 2)
        printed = capsys.readouterr().err
        assert said in printed
        assert ("not proved" in printed) == bool(said)


def test_without_the_package_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'conrec\[vllm\]'"):
        VllmEngine.load(tmp_path, 8)


def test_a_wide_codebook_keeps_within_the_limits(installed, tmp_path):
    assert VllmEngine.load(tmp_path, 8192)._llm.max_logprobs == 1024
    assert VllmEngine.load(tmp_path, 64)._llm.max_logprobs == 64


def test_a_trie_of_one_item_needs_no_choice(backbone, engine):
    trie = Trie.from_codes(torch.tensor([[1, 2, 3]], dtype=torch.int32), CODEBOOK)
    found = search(engine, backbone.code_offset, PROMPTS, EligibleTrie(trie, torch.full((3, 0), -1)), 2)
    assert found.item.tolist() == [[0, -1]] * 3
    assert found.score[:, 0].tolist() == [0.0] * 3
