"""What the trainer asks of the rooms: the settings that reach them."""

from __future__ import annotations

from unittest.mock import Mock

import numpy as np
import pytest

from conrec import training
from conrec.config import PromptConfig, load_config
from conrec.llm.prompts import PromptBuilder
from conrec.llm.rewards import CoverageReward, PrefixReward, hub_means
from conrec.processes import Processes
from conrec.training import Trainer
from conrec.workspace import Workspace
from tests.llm import world


@pytest.mark.parametrize(("micro", "read"), [(None, 12), (5, 5)])
def test_cleaning_reads_no_more_at_a_time_than_a_step_does(monkeypatch, micro, read):
    """`grpo.micro_batch_size` bounds the memory of a stage, its cleaning included."""
    policy = world.backbone()
    samples = world.samples(world.stage(policy))
    asked = []

    def noted(_, __, drawn, ___, ____, batch_size, processes):
        asked.append((batch_size, processes.world))
        return drawn, 0

    monkeypatch.setattr(training, "clean", noted)
    monkeypatch.setattr(training, "draw_samples", lambda *_: samples)
    monkeypatch.setattr(training, "train_stage", lambda *_: None)
    grpo = {"batch_size": 12} if micro is None else {"batch_size": 12, "micro_batch_size": micro}
    space = Mock(spec=Workspace)
    space.config = load_config("tiny", overrides={"grpo": grpo})
    space.prepared = Mock(log=world.log())
    space.trie, space.rebuilt = world.trie(), world.rebuilt()
    space.trained_items = np.ones(world.ITEMS, dtype=bool)
    space.backbone.return_value = policy
    space.prompts.return_value = PromptBuilder(policy, world.codes(), PromptConfig(max_events=12))
    Trainer(space, Processes(rank=1, world=2)).grpo("conrec-grpo-2", "conrec-grpo-1", 1)
    assert asked == [(read, 2)]


def test_the_settings_name_the_reward_and_cleaning_asks_plain_cosines(monkeypatch):
    """A stage of hits with coverage, of mean similarities to the items of the training period."""
    policy = world.backbone()
    stages, cosines = [], []
    monkeypatch.setattr(training, "draw_samples", lambda *_: world.samples(world.stage(policy)))
    monkeypatch.setattr(training, "train_stage", lambda *given: stages.append(given[2]))

    def cleaned(backbone, stage, samples, cosine, *_):
        cosines.append(cosine)
        return samples, 0

    monkeypatch.setattr(training, "clean", cleaned)
    space = Mock(spec=Workspace)
    grpo = {"reward": "prefix", "coverage": 2.0, "hub_corrected": True}
    space.config = load_config("tiny", overrides={"grpo": grpo})
    space.prepared = Mock(log=world.log())
    space.trie, space.rebuilt = world.trie(), world.rebuilt()
    space.trained_items = np.arange(world.ITEMS) < 30
    space.backbone.return_value = policy
    space.prompts.return_value = PromptBuilder(policy, world.codes(), PromptConfig(max_events=12))
    Trainer(space, Processes(rank=1, world=2)).grpo("conrec-grpo-2", "conrec-grpo-1", 1)
    reward = stages[0].reward
    assert isinstance(reward, CoverageReward)
    assert isinstance(reward.reward, PrefixReward)
    assert reward.weight == 2.0
    assert reward.similarity.hubs.equal(hub_means(world.rebuilt(), space.trained_items))
    assert cosines[0].hubs is None
    assert cosines[0].rebuilt is space.rebuilt
