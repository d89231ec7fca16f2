"""The language model as a row of the table keeps the contract of all rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from conrec.config import BackboneConfig, PromptConfig
from conrec.items.eligible import LiveItems
from conrec.items.trie import Trie
from conrec.llm.backbone import build_backbone
from conrec.llm.prompts import INSTRUCTIONS, PromptBuilder
from conrec.llm.recommender import GenerativeRecommender
from conrec.logs.log import Log
from conrec.recommender import Queries
from tests.conformance import RecommenderConformance


class GenerativeConformance(RecommenderConformance):
    tolerance = 2e-5
    context = "both"

    def fit(self, log: Log, cut: int) -> GenerativeRecommender:
        """An untrained model: the contract does not depend on what it has learned."""
        rng = np.random.default_rng(5)
        drawn = rng.permutation(6**3)[: log.n_items]
        codes = np.stack([drawn // 36, drawn // 6 % 6, drawn % 6], axis=1).astype(np.int32)
        config = BackboneConfig(
            hidden_size=16, layers=1, heads=2, key_value_heads=1, intermediate_size=32, vocabulary=300
        )
        backbone = build_backbone(config, 6, ["title"], INSTRUCTIONS, seed=0)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in backbone.model.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        backbone.model.eval()
        prompts = PromptBuilder(backbone, codes, PromptConfig(max_events=10))
        trie = Trie.from_codes(torch.from_numpy(codes.astype(np.int64)), 6)
        return GenerativeRecommender(backbone, prompts, trie, self.context, batch_size=16)


class TestBoth(GenerativeConformance):
    pass


class TestNegative(GenerativeConformance):
    context = "negative"


class TestRecent(GenerativeConformance):
    context = "recent"


def test_only_live_items_are_generated_and_priors_rank_them(log: Log) -> None:
    model = TestBoth().fit(log, 0)
    live = torch.arange(log.n_items) % 2 == 0
    prior = torch.zeros(log.n_items)
    prior[4] = 1000.0
    pooled = replace(model, pool=LiveItems(model.trie, live, prior))
    queries = Queries(np.arange(4, dtype=np.int32), np.full(4, 1 << 40))
    ranking = pooled.predict(log, queries, 50, history_eligible=True)
    for row in ranking.item:
        assert row[0] == 4
        assert set(row[row >= 0].tolist()) == set(range(0, log.n_items, 2))
    candidates = np.tile(np.arange(6), (4, 1))
    assert np.array_equal(pooled.score(log, queries, candidates), model.score(log, queries, candidates))


def test_the_other_normalisation_ranks_and_scores_alike(log: Log) -> None:
    model = replace(TestBoth().fit(log, 0), normalise="vocabulary")
    queries = Queries(np.arange(4, dtype=np.int32), np.full(4, 1 << 40))
    ranking = model.predict(log, queries, 8, history_eligible=True)
    scores = model.score(log, queries, ranking.item.astype(np.int32))
    np.testing.assert_allclose(scores, ranking.score, atol=1e-5)
    assert (np.exp(scores).sum(1) < 1).all()


def test_lists_without_proof_are_counted(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    model = TestBoth().fit(log, 0)
    queries = Queries(np.arange(4, dtype=np.int32), np.full(4, 1 << 40))
    replace(model, budget=1).predict(log, queries, 1, history_eligible=True)
    assert "of 4 lists are not proved exact: prediction.node_budget (1 prefixes)" in " ".join(
        capsys.readouterr().err.split()
    )
    model.predict(log, queries, 3, history_eligible=True)
    assert "not proved" not in capsys.readouterr().err


def test_an_exhausted_catalogue_gives_no_answer() -> None:
    log = Log.from_columns(("u",), ("a", "b"), np.zeros(2, int), np.array([0, 1]), np.array([1, 2]), np.array([-1, 1]))
    model = TestBoth().fit(log, 9)
    ranking = model.predict(log, Queries(np.zeros(1, np.int32), np.array([9])), 3)
    assert ranking.item.tolist() == [[-1, -1, -1]]


@pytest.mark.parametrize("n", [1, 7])
def test_choices_pick_the_most_probable_option(n: int) -> None:
    rng = np.random.default_rng(0)
    one = np.ones(1, int)
    log = Log.from_columns(("u",), tuple("abcdefgh"), one - 1, one, one, one)
    model = TestBoth().fit(log, 9)
    options = np.stack([rng.permutation(8)[:4] for _ in range(n)]).astype(np.int32)
    chosen = model.choose(options)
    for row in range(n):
        scores = model._score([model.prompts.choice(options[row].tolist())], options[row : row + 1])[0]
        assert chosen[row] == scores.argmax()
