"""The catalogue, log and model of the language-model tests as fixtures; `tests.llm.world` makes them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conrec.config import PromptConfig
from conrec.items.trie import Trie
from conrec.llm.backbone import Backbone
from conrec.llm.curriculum import RewardSamples, Stage
from conrec.llm.prompts import PromptBuilder
from conrec.logs.log import Log
from conrec.protocol import Periods
from tests.llm import world
from tests.llm.world import CODEBOOK, ITEMS, PROMPTS, TITLES

__all__ = ["CODEBOOK", "ITEMS", "PROMPTS", "TITLES"]


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def codes() -> np.ndarray:
    return world.codes()


@pytest.fixture(scope="session")
def trie() -> Trie:
    return world.trie()


@pytest.fixture
def backbone() -> Backbone:
    return world.backbone()


@pytest.fixture
def prompts(backbone, codes) -> PromptBuilder:
    return PromptBuilder(backbone, codes, PromptConfig(max_events=12))


@pytest.fixture(scope="session")
def log() -> Log:
    return world.log()


@pytest.fixture(scope="session")
def rebuilt() -> torch.Tensor:
    return world.rebuilt()


@pytest.fixture(scope="session")
def periods(log) -> Periods:
    return world.periods(log)


@pytest.fixture
def stage(backbone) -> Stage:
    return world.stage(backbone)


@pytest.fixture
def samples(stage) -> RewardSamples:
    return world.samples(stage)


@pytest.fixture
def nothing() -> torch.Tensor:
    """No blocked items for the three prompts."""
    return torch.full((3, 0), -1)


@pytest.fixture
def blocked() -> torch.Tensor:
    """Three quarters of the catalogue for the first prompt, one item for the second."""
    drawn = torch.full((3, 30), -1)
    drawn[0], drawn[1, 0] = torch.arange(30), 3
    return drawn
