"""Semantic IDs of four levels, and shared ones: every engine against scoring all items with one row each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from conrec.config import BackboneConfig, GrpoConfig, PromptConfig
from conrec.items.eligible import EligibleTrie, LiveItems
from conrec.items.semantic_ids import SemanticIds
from conrec.items.trie import Trie
from conrec.llm.backbone import build_backbone, load_backbone, load_tokens
from conrec.llm.curriculum import Stage, clean
from conrec.llm.generation import beam_search
from conrec.llm.policy import log_probabilities
from conrec.llm.prefix_search import search
from conrec.llm.prompts import INSTRUCTIONS, PromptBuilder
from conrec.llm.recommender import GenerativeRecommender
from conrec.llm.rewards import FutureReward, Similarity
from conrec.llm.rollouts import sample
from conrec.llm.tree import check_tree
from conrec.llm.vllm import VllmEngine, VllmRecommender
from conrec.logs.log import Log
from conrec.recommender import Queries
from tests.llm import world
from tests.llm.conftest import CODEBOOK, ITEMS, PROMPTS, TITLES
from tests.llm.plain import every_score, plain_log_probabilities
from tests.llm.test_grpo_stage import gradient, plain_step, step
from tests.llm.test_recommender import GenerativeConformance
from tests.llm.test_vllm import SamplingParams, StandIn, agree

SEEDS = torch.tensor([11, 12, 13])
TINY = BackboneConfig(hidden_size=32, layers=2, heads=4, key_value_heads=2, intermediate_size=64, vocabulary=320)


def table(kind: str, items: int = ITEMS, size: int = CODEBOOK, groups: int = 17, seed: int = 4) -> SemanticIds:
    """A catalogue in which many items have the same raw codes, in any order."""
    rng = np.random.default_rng(seed)
    key = rng.permutation(size**3)[:groups][rng.integers(groups, size=items)]
    codes = np.stack([key // size**2, key // size % size, key % size], axis=1).astype(np.int32)
    if kind == "shared":
        return SemanticIds(codes, codes.copy(), size, "shared")
    seen: dict[int, int] = {}
    fourth = []
    for one in key.tolist():
        fourth.append(seen.get(one, 0))
        seen[one] = fourth[-1] + 1
    return SemanticIds(
        codes, np.column_stack([codes, fourth]).astype(np.int32), size, "extra_level", max(seen.values())
    )


def disturbed(backbone):
    """Weights as after some training: the answers of a fresh model are nearly uniform."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in backbone.model.parameters():
            parameter.add_(0.15 * torch.randn(parameter.shape, generator=generator))
    backbone.model.eval()
    return backbone


@pytest.fixture(params=["extra_level", "shared"])
def ids(request) -> SemanticIds:
    return table(request.param)


@pytest.fixture
def trie(ids) -> Trie:
    return Trie.of(ids)


@pytest.fixture
def backbone(ids):
    return disturbed(build_backbone(TINY, ids.sizes, TITLES, INSTRUCTIONS, seed=1))


@pytest.fixture
def stage(ids, trie, backbone) -> Stage:
    """A GRPO stage; items of the same raw codes have the same embedding."""
    _, group = np.unique(ids.codes, axis=0, return_inverse=True)
    rebuilt = world.rebuilt()[torch.from_numpy(group.reshape(-1))]
    prompts = PromptBuilder(backbone, ids.resolved, PromptConfig(max_events=12))
    reward = FutureReward(Similarity(rebuilt), 0.5)
    return Stage(world.log(), prompts, trie, reward, "both", history_eligible=False)


def listed(scores: torch.Tensor, ids: SemanticIds, k: int) -> list[list[int]]:
    """The top K as the protocol has it: semantic IDs by score, those of one in the order of the catalogue."""
    of: dict[tuple[int, ...], int] = {}
    first = [of.setdefault(tuple(row), item) for item, row in enumerate(ids.resolved.tolist())]
    rows = []
    for score in scores:
        free = [item for item in range(len(ids)) if not score[item].isneginf()]
        best = {first[item]: float(score[item]) for item in reversed(free)}
        rows.append(sorted(free, key=lambda item: (-best[first[item]], item))[:k])
    return rows


def found(beams, trie: EligibleTrie) -> tuple[list[list[int]], torch.Tensor]:
    item, score = trie.expanded(beams.item, beams.score)
    assert (item >= 0).equal(~score.isneginf())
    return [[one for one in row if one >= 0] for row in item.tolist()], score


@torch.no_grad()
@pytest.mark.parametrize("k", [1, 5, 13, 100])
def test_lists_are_the_exhaustive_ranking(backbone, trie, ids, blocked, k):
    scores = every_score(backbone, trie, PROMPTS, blocked)
    eligible = EligibleTrie(trie, blocked)
    for width in (1, None, 10_000):
        beams = beam_search(backbone, PROMPTS, eligible, k, width)
        assert beams.proved.all()
        items, score = found(beams, eligible)
        assert items == listed(scores, ids, k)
        for row, one in enumerate(items):
            torch.testing.assert_close(score[row, : len(one)], scores[row, one], atol=1e-5, rtol=1e-5)
    plain = beam_search(backbone, PROMPTS, eligible, k, certified=False)
    items, score = found(plain, eligible)
    for row, one in enumerate(items):
        assert len(one) == len(set(one)) == min(k, int((~scores[row].isneginf()).sum()))
        torch.testing.assert_close(score[row, : len(one)], scores[row, one], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_scores_of_given_items_are_those_of_one_row_each(backbone, trie, blocked):
    scores = every_score(backbone, trie, PROMPTS, torch.full((3, 0), -1))
    every = EligibleTrie(trie, torch.full((3, 0), -1))
    codes = trie.codes.long().expand(3, -1, -1)
    logs = log_probabilities(backbone, PROMPTS, every, codes)
    assert logs.shape == (3, ITEMS, trie.levels)
    torch.testing.assert_close(logs.sum(-1), scores, atol=1e-5, rtol=1e-5)
    alone = log_probabilities(backbone, PROMPTS, EligibleTrie(trie, blocked), codes).sum(-1)
    left = {tuple(one) for item, one in enumerate(trie.codes.tolist()) if item >= 30}
    for item, one in enumerate(trie.codes.tolist()):
        if tuple(one) in left:  # a shared name stays while one of its items is eligible
            expected = plain_log_probabilities(backbone, PROMPTS[0], one, left).sum()
            torch.testing.assert_close(alone[0, item], expected, atol=1e-5, rtol=1e-5)
        else:
            assert alone[0, item].isneginf()


@torch.no_grad()
def test_draws_follow_the_policy(backbone, trie, blocked):
    """Over semantic IDs: of those that share one, the first item stands for all."""
    first = trie.first_of(torch.arange(ITEMS))
    scores = every_score(backbone, trie, PROMPTS, blocked)
    drawn = sample(backbone, PROMPTS, EligibleTrie(trie, blocked), 4000, SEEDS)
    assert drawn.codes.equal(trie.codes[drawn.item].long())
    for row in range(3):
        probability = torch.zeros(ITEMS)
        free = ~scores[row].isneginf()
        probability[first[free]] = scores[row, free].exp()
        torch.testing.assert_close(float(probability.sum()), 1.0, atol=1e-5, rtol=0)
        frequency = torch.bincount(drawn.item[row], minlength=ITEMS) / 4000
        error = (probability * (1 - probability) / 4000).sqrt()
        assert ((frequency - probability).abs() <= 4 * error + 1e-6).all()


@torch.no_grad()
def test_draws_without_replacement_hold_no_name_twice(backbone, trie, blocked):
    eligible = EligibleTrie(trie, blocked)
    drawn = sample(backbone, PROMPTS, eligible, 60, SEEDS, replacement=False)
    first = trie.first_of(torch.arange(ITEMS))
    for row, counts in enumerate(eligible.eligible_counts().tolist()):
        items = drawn.item[row][drawn.item[row] >= 0].tolist()
        free = set(range(ITEMS)) - set(blocked[row].tolist())
        assert sorted(items) == sorted({int(first[item]) for item in free})
        assert len(items) == counts
        torch.testing.assert_close(float(drawn.weight[row].sum()), 1.0, atol=1e-4, rtol=0)


@torch.no_grad()
def test_live_items_and_priors(backbone, trie, ids, blocked):
    """Of live items that share a semantic ID, the largest prior holds for all."""
    kept = torch.arange(ITEMS) % 3 != 0
    gone = torch.tensor([(~kept).nonzero()[:, 0].tolist() + row for row in blocked.tolist()])
    live = EligibleTrie(LiveItems(trie, kept), blocked)
    items, _ = found(beam_search(backbone, PROMPTS, live, 9), live)
    assert items == listed(every_score(backbone, trie, PROMPTS, gone), ids, 9)
    prior = 3 * torch.randn(ITEMS, generator=torch.Generator().manual_seed(0))
    first = trie.first_of(torch.arange(ITEMS))
    best = torch.full((ITEMS,), -torch.inf).scatter_reduce(0, first[kept], prior[kept], "amax")[first]
    weighted = EligibleTrie(LiveItems(trie, kept, prior), blocked)
    items, _ = found(beam_search(backbone, PROMPTS, weighted, 9), weighted)
    assert items == listed(every_score(backbone, trie, PROMPTS, gone) + best, ids, 9)


@torch.no_grad()
@pytest.mark.parametrize(("k", "budget"), [(1, None), (6, None), (6, 9), (60, None)])
def test_requests_to_an_engine_find_the_same(backbone, trie, blocked, k, budget):
    engine = VllmEngine(StandIn(backbone, "processed_logprobs", 64), SamplingParams)
    eligible = EligibleTrie(trie, blocked)
    expected = beam_search(backbone, PROMPTS, eligible, k, budget=budget)
    agree(search(engine, backbone.code_offset, PROMPTS, eligible, k, budget=budget), expected)


@pytest.mark.parametrize("rollouts", ["sample", "gumbel"])
def test_a_grpo_step_is_that_of_one_row_a_rollout(backbone, stage, samples, rollouts, monkeypatch):
    monkeypatch.setattr("conrec.llm.grpo_stage.LONGEST_GRADIENT", float("inf"))
    reference = backbone.clone()
    with torch.no_grad():
        for parameter in reference.model.parameters():
            parameter.mul_(1.02)
    config = GrpoConfig(rollouts=rollouts, group_size=4, batch_size=3)
    few = samples.select(np.arange(3))
    value, wanted = plain_step(backbone, reference, stage, few, config, 0.3)
    backbone.model.zero_grad()
    record = step(backbone, reference, stage, few, config)
    assert record.loss == pytest.approx(value, abs=1e-5)
    torch.testing.assert_close(gradient(backbone), wanted, atol=2e-5, rtol=1e-3)


def test_rewards_of_a_shared_name_do_not_depend_on_the_item():
    ids = table("shared")
    trie = Trie.of(ids)
    policy = disturbed(build_backbone(TINY, ids.sizes, TITLES, INSTRUCTIONS, seed=1))
    _, group = np.unique(ids.codes, axis=0, return_inverse=True)
    cosine = Similarity(world.rebuilt()[torch.from_numpy(group.reshape(-1))])
    reward = FutureReward(cosine, 0.5)
    items = torch.arange(ITEMS)[None]
    assert reward(items, [np.arange(3)], [np.arange(5, 9)]).equal(
        reward(trie.first_of(items), [np.arange(3)], [np.arange(5, 9)])
    )
    prompts = PromptBuilder(policy, ids.resolved, PromptConfig(max_events=12))
    stage = Stage(world.log(), prompts, trie, reward, "both", history_eligible=True)
    samples = world.samples(stage)
    cleaned, augmented = clean(policy, stage, samples, cosine, similarity=0.5, batch_size=8)
    assert augmented
    for row in range(len(samples)):
        added = np.setdiff1d(cleaned.fps[row], samples.fps[row])
        names = {tuple(one) for one in ids.resolved[samples.gts[row]].tolist()}
        # A generation that has the name of a future negative is one, whichever item stands for the name.
        assert not names & {tuple(one) for one in ids.resolved[added].tolist()}


def test_a_model_of_four_levels_is_saved_and_read(tmp_path):
    ids = table("extra_level")
    backbone = disturbed(build_backbone(TINY, ids.sizes, TITLES, INSTRUCTIONS, seed=1))
    assert backbone.sizes == (CODEBOOK, CODEBOOK, CODEBOOK, ids.extra_size)
    assert backbone.tokenizer.convert_ids_to_tokens(backbone.code_offset[3] + ids.extra_size - 1) == (
        f"<d_{ids.extra_size - 1}>"
    )
    assert backbone.head(torch.zeros(2, 32), 3).shape == (2, ids.extra_size)
    check_tree(backbone, 60)
    backbone.save(tmp_path)
    for again in (load_backbone(tmp_path, ids.sizes), load_tokens(tmp_path, ids.sizes)):
        assert (again.sizes, again.code_offset) == (backbone.sizes, backbone.code_offset)
    prompts = PromptBuilder(backbone, ids.resolved, PromptConfig(max_events=12))
    assert backbone.tokenizer.decode(prompts.sid(0)) == "".join(
        f"<{letter}_{code}>" for letter, code in zip("abcd", ids.resolved[0], strict=True)
    )
    log = world.log()
    stretch = prompts.history(log, log.events_of(0)[:20])
    assert len(stretch.ids) == len(stretch.target) == prompts.longest - 1 + 8 * 5
    assert sum(stretch.target) % 4 == 0


class OfKind(GenerativeConformance):
    """The contract of all rows, with colliding items."""

    kind = "extra_level"

    def fit(self, log: Log, cut: int) -> GenerativeRecommender:
        ids = table(self.kind, log.n_items, 6, max(2, log.n_items // 2))
        backbone = disturbed(build_backbone(TINY, ids.sizes, ["title"], INSTRUCTIONS, seed=0))
        prompts = PromptBuilder(backbone, ids.resolved, PromptConfig(max_events=10))
        return GenerativeRecommender(backbone, prompts, Trie.of(ids), self.context, batch_size=16)


class TestExtraLevel(OfKind):
    pass


class TestShared(OfKind):
    kind = "shared"


def test_candidates_of_one_name_tie_and_lists_repeat_its_score():
    log = world.log()
    model = TestShared().fit(log, 0)
    queries = Queries(np.arange(4, dtype=np.int32), np.full(4, 1 << 40))
    every = np.tile(np.arange(log.n_items, dtype=np.int32), (4, 1))
    scores = model.score(log, queries, every)
    first = model.trie.first_of(torch.arange(log.n_items)).numpy()
    assert np.array_equal(scores, scores[:, first])
    assert len(np.unique(first)) < log.n_items
    ranking = model.predict(log, queries, 11, history_eligible=True)
    np.testing.assert_allclose(np.take_along_axis(scores, ranking.item, 1), ranking.score, atol=1e-5)
    for items in ranking.item:
        for name in np.unique(first[items]):
            same = items[first[items] == name]
            assert (np.diff(same) > 0).all()
            # All of it, unless the list ends in it.
            assert len(same) == (first == name).sum() or first[items[-1]] == name
    engine = VllmEngine(StandIn(model.backbone, "processed_logprobs", 64), SamplingParams)
    other = VllmRecommender(engine, model.prompts, model.trie, model.context)
    assert np.array_equal(other.predict(log, queries, 11, history_eligible=True).item, ranking.item)
    pooled = replace(model, pool=LiveItems(model.trie, torch.arange(log.n_items) % 2 == 0))
    live = pooled.predict(log, queries, 50, history_eligible=True).item
    assert all(set(row[row >= 0].tolist()) == set(range(0, log.n_items, 2)) for row in live)
