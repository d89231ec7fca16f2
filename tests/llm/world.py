"""A small catalogue, a log and a model, for tests in this process and for processes that a test starts."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from conrec.config import BackboneConfig, PromptConfig
from conrec.items.trie import Trie
from conrec.llm.backbone import Backbone, build_backbone
from conrec.llm.curriculum import RewardSamples, Stage, draw_samples
from conrec.llm.prompts import INSTRUCTIONS, PromptBuilder
from conrec.llm.rewards import FutureReward, Similarity
from conrec.logs.anchors import build_anchors
from conrec.logs.log import Log
from conrec.protocol import DAY, Periods, periods_of

CODEBOOK = 8
ITEMS = 40
PROMPTS = [[5, 6, 7, 8], [9, 10], [11, 12, 13, 14, 15, 16, 17]]
TITLES = [f"Film {number} of the north ({1950 + number})" for number in range(ITEMS)]


@cache
def codes() -> np.ndarray:
    """Distinct semantic IDs, int32 [items, 3]."""
    drawn = np.random.default_rng(3).permutation(CODEBOOK**3)[:ITEMS]
    return np.stack([drawn // CODEBOOK**2, drawn // CODEBOOK % CODEBOOK, drawn % CODEBOOK], axis=1).astype(np.int32)


@cache
def trie() -> Trie:
    """Of all items."""
    return Trie.from_codes(torch.from_numpy(codes().astype(np.int64)), CODEBOOK)


def backbone() -> Backbone:
    """A tiny Qwen3 with weights as after some training: the answers of a fresh model are nearly uniform."""
    config = BackboneConfig(hidden_size=32, layers=2, heads=4, key_value_heads=2, intermediate_size=64, vocabulary=320)
    built = build_backbone(config, CODEBOOK, TITLES, INSTRUCTIONS, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in built.model.parameters():
            parameter.add_(0.15 * torch.randn(parameter.shape, generator=generator))
    built.model.eval()
    return built


@cache
def log() -> Log:
    """Six users, 30 events each over 30 days, no two at the same second; user 5 dislikes nothing."""
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(6, dtype=np.int32), 30)
    times = np.concatenate([np.sort(rng.permutation(30 * DAY)[:30]) for _ in range(6)]) + 1_000_000_000
    items = np.concatenate([rng.permutation(ITEMS)[:30] for _ in range(6)]).astype(np.int32)
    feedback = rng.choice(np.asarray([-1, 0, 1], dtype=np.int8), p=[0.35, 0.15, 0.5], size=180)
    feedback[users == 5] = 1
    names = tuple(f"u{number}" for number in range(6))
    return Log.from_columns(names, tuple(f"i{number}" for number in range(ITEMS)), users, items, times, feedback)


def periods(of: Log) -> Periods:
    """Its cuts."""
    return periods_of(of.timestamp, 0.7, 0.85)


@cache
def rebuilt() -> torch.Tensor:
    """Embeddings, unit rows, float32 [items, 6]."""
    drawn = torch.randn(ITEMS, 6, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.normalize(drawn, dim=1)


def stage(policy: Backbone) -> Stage:
    """A GRPO stage whose prompts show all feedback."""
    prompts = PromptBuilder(policy, codes(), PromptConfig(max_events=12))
    return Stage(log(), prompts, trie(), FutureReward(Similarity(rebuilt()), 0.5), "both", history_eligible=False)


def samples(of: Stage) -> RewardSamples:
    """Training samples of the stage, GTS without neighbours."""
    anchors = build_anchors(of.log, periods(of.log), 7 * DAY).of_split("train")
    return draw_samples(anchors, lambda drawn: drawn.future_negatives, of.prompts, of.log, of.context, 24, seed=0)
