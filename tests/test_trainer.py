"""What the trainer asks of the rooms: the settings that reach them."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from conrec import training
from conrec.config import PromptConfig, load_config
from conrec.llm.prompts import PromptBuilder
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

    def noted(_, __, drawn, ___, batch_size, processes):
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
    space.backbone.return_value = policy
    space.prompts.return_value = PromptBuilder(policy, world.codes(), PromptConfig(max_events=12))
    Trainer(space, Processes(rank=1, world=2)).grpo("conrec-grpo-2", "conrec-grpo-1", 1)
    assert asked == [(read, 2)]
