"""Checkpoints: a training that is killed goes on to the same weights, and a broken step leaves its batch."""

from __future__ import annotations

import json
import math
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from conrec.artefacts import read_json
from conrec.llm.checkpoints import Checkpoints, Running
from conrec.llm.course import Best, Curve, TrainingError, clip_gradients
from conrec.llm.grpo_stage import train_stage
from conrec.llm.samples import translation_stretches
from conrec.llm.sft import cosine_schedule, train_supervised
from conrec.settings.models import GrpoConfig, GrpoStageConfig, LoraConfig
from tests.llm import world
from tests.llm.conftest import TITLES

KEPT, KILLED = 5, 7
"""The last checkpoint, and the step after which the process is gone."""


class Killing(Checkpoints):
    """Writes after one step, and ends the process with SIGKILL after a later one."""

    def keep(self, running, step):
        self.every = 0.0 if step == KEPT else math.inf
        super().keep(running, step)
        if step == KILLED:
            os.kill(os.getpid(), signal.SIGKILL)


def killed(work, folder):
    """Do the work in a process that is killed in its middle."""
    pid = os.fork()
    if pid == 0:
        work(Killing(folder))
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


def supervised(lora, dropout, rising):
    """SFT of a small model; with dropout, so that the chance of every step counts. Its weights and curves."""

    def work(checkpoints=None):
        backbone = world.backbone()
        for one in backbone.model.modules():
            if hasattr(one, "attention_dropout"):
                one.attention_dropout = dropout
        backbone = replace(backbone, lora=lora)
        values = iter(np.linspace(0.1, 0.9, 9) if rising else np.linspace(0.9, 0.1, 9))
        if type(checkpoints) is Checkpoints:
            next(values)  # the first one was taken before the kill
        prompts = world.stage(backbone).prompts
        curve = train_supervised(
            backbone,
            translation_stretches(prompts, TITLES, np.arange(8)),
            epochs=3,
            batch_size=4,
            learning_rate=3e-3,
            seed=5,
            description="test",
            evaluations=3,
            evaluate=lambda: float(next(values)),
            checkpoints=checkpoints,
        )
        return backbone.model.state_dict(), curve.series

    return work


def progressive(lora, rollouts):
    """A stage of GRPO. Its weights and curves."""

    def work(checkpoints=None):
        backbone = replace(world.backbone(), lora=lora)
        stage = world.stage(backbone)
        few = world.samples(stage)
        config = GrpoConfig(group_size=4, batch_size=2, rollouts=rollouts, learning_rate=1e-2, evaluations=3)
        stage_config = GrpoStageConfig(context="both", kl_weight=0.05)
        curve = train_stage(backbone, None, stage, few, few, config, stage_config, 3, "test", checkpoints=checkpoints)
        return backbone.model.state_dict(), curve.series

    return work


def running():
    """A training that has not begun."""
    model = torch.nn.Linear(2, 2)
    optimiser = torch.optim.AdamW(model.parameters())
    return Running(model, optimiser, cosine_schedule(optimiser, 3), Curve(), Best(), torch.device("cpu"))


LORA = LoraConfig(rank=2, dropout=0.3)
TRAININGS = {
    "sft": supervised(None, 0.4, rising=True),
    "sft, the best state lies before the kill": supervised(None, 0.4, rising=False),
    "sft, adapters with dropout": supervised(LORA, 0.0, rising=True),
    "grpo": progressive(None, "sample"),
    "grpo, adapters": progressive(LORA, "gumbel"),
}


@pytest.mark.parametrize("name", TRAININGS)
def test_a_killed_training_goes_on_to_the_same_weights(tmp_path, name):
    work = TRAININGS[name]
    weights, curves = work()
    killed(work, tmp_path)
    assert (tmp_path / "checkpoint.safetensors").is_file()
    going_on = Checkpoints(tmp_path, math.inf)
    again, curves_again = work(going_on)
    assert max(step for step, _ in curves["loss"]) > KILLED
    assert curves_again == curves
    assert list(again) == list(weights)
    assert all(torch.equal(one, again[key]) for key, one in weights.items())
    journal = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    for series, points in curves.items():
        told = [(one["step"], one["value"]) for one in journal if one["series"] == series]
        assert told == [tuple(point) for point in points], series


def test_the_chance_of_the_steps_matters_in_these_tests():
    """Without dropout the end is another: what is compared above hangs on the random state."""
    plain, curves = supervised(None, 0.0, rising=True)()
    _, dropped = TRAININGS["sft"]()
    assert curves["loss"][:1] != dropped["loss"][:1]
    assert plain


@pytest.mark.parametrize("damage", ["half", "empty", "other"])
def test_a_damaged_checkpoint_counts_as_none(tmp_path, damage):
    work = TRAININGS["sft"]
    _, curves = work()
    killed(work, tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    whole = path.read_bytes()
    path.write_bytes({"half": whole[: len(whole) // 2], "empty": b"", "other": b"{}" * 100}[damage])

    assert Checkpoints(tmp_path).resume(running()) == 0
    assert work(Untouched(tmp_path))[1] == curves


class Untouched(Checkpoints):
    """As any other; `supervised` sees by it that its values are asked for from the first one on."""


def test_nothing_is_written_without_a_folder_and_by_other_processes(tmp_path):
    for checkpoints in (Checkpoints(None, 0.0), Checkpoints(tmp_path / "none", 0.0, writes=False)):
        checkpoints.keep(running(), 1)
        checkpoints.note("loss", 1, 0.5)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_a_step_that_is_not_finite_stops_and_leaves_its_batch(tmp_path, kind):
    backbone = world.backbone()
    stretches = translation_stretches(world.stage(backbone).prompts, TITLES, np.arange(8))
    start = {name: one.clone() for name, one in backbone.model.state_dict().items()}

    def loss_of(model, batch):
        whole = sum((one.float() ** 2).sum() for one in model.model.parameters())
        if kind == "loss":
            return whole * math.nan
        zero = whole * 0.0
        return zero + torch.sqrt(zero)  # 0, with a slope of 0 x infinity

    with pytest.raises(TrainingError, match=r"batch\.json") as caught:
        train_supervised(
            backbone,
            stretches,
            epochs=1,
            batch_size=4,
            learning_rate=1e-3,
            seed=0,
            description="test",
            loss_of=loss_of,
            checkpoints=Checkpoints(tmp_path),
        )
    assert "nan" in str(caught.value)
    found = read_json(tmp_path / "batch.json")
    assert found["step"] == 1
    assert len(found["samples"]) == 4
    assert all(one["ids"] == list(stretches[one["sample"]].ids) for one in found["samples"])
    assert all(torch.equal(one, start[name]) for name, one in backbone.model.state_dict().items())
    lines = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    assert lines[-1]["value"] == ("nan" if kind == "loss" else 0.0)


def test_a_reward_that_is_not_finite_stops_and_leaves_its_contexts(tmp_path):
    backbone = world.backbone()
    stage = world.stage(backbone)
    few = world.samples(stage)
    start = {name: one.clone() for name, one in backbone.model.state_dict().items()}
    stage.reward = lambda items, gts, fps, logs: torch.full(items.shape, math.nan)
    config = GrpoConfig(group_size=4, batch_size=2, evaluations=1)
    with pytest.raises(TrainingError, match=r"batch\.json"):
        train_stage(
            backbone,
            None,
            stage,
            few,
            few.select(np.arange(0)),
            config,
            GrpoStageConfig(context="both"),
            3,
            "",
            checkpoints=Checkpoints(tmp_path),
        )
    found = read_json(tmp_path / "batch.json")["samples"]
    assert len(found) == 2
    known = [(int(user), int(when)) for user, when in zip(few.user, few.timestamp, strict=True)]
    assert all((one["user"], one["timestamp"]) in known for one in found)
    assert all(torch.equal(one, start[name]) for name, one in backbone.model.state_dict().items())


def test_gradients_are_scaled_as_torch_does():
    ones = [torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(2))]
    for one in ones:
        one.grad = torch.full_like(one, 2.0)
    clip_gradients(ones, 1.0, 1)
    norm = math.sqrt(sum(float((one.grad**2).sum()) for one in ones))
    assert norm == pytest.approx(1.0, rel=1e-4)
