"""One stage of GRPO: rollouts, judgement and update step by step, in micro-batches and over several processes.

A rollout runs with gradient, so that its own pass through the model is the policy's in the first update on it: nothing
is read twice. Neither micro-batches nor processes change what is drawn, since the chance of a sample hangs on its
place in the stage's order alone, nor, up to rounding, what is learned, since the losses of a step are added up before
they are divided by the number of contexts.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from conrec.arrays import Array
from conrec.config import GrpoConfig, GrpoStageConfig
from conrec.items.eligible import EligibleTrie
from conrec.llm.adapters import adapted
from conrec.llm.backbone import Backbone
from conrec.llm.checkpoints import Checkpoints, Running
from conrec.llm.course import Best, Curve, clip_gradients
from conrec.llm.curriculum import RewardSamples, Stage
from conrec.llm.grpo import Judgement, grpo_loss, judge
from conrec.llm.policy import log_probabilities
from conrec.llm.rollouts import Rollouts, beams, sample
from conrec.llm.sft import cosine_schedule
from conrec.llm.watch import KL_WEIGHT, Watch
from conrec.processes import ALONE, Processes
from conrec.progress import console, meter
from conrec.seeds import derive, generator

__all__ = ["StepRecord", "mean_reward", "rollout_seeds", "train_stage", "train_step"]

LONGEST_GRADIENT = 1.0
"""Gradients are scaled down to this norm."""


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What a step was like: means over those of its contexts, in all processes, that have an eligible item.

    Attributes:
        reward: mean of a group.
        reward_std: standard deviation of a group.
        flat_groups: share of groups whose rewards are all but equal.
        kl: of the policy from the reference, per code, in the last update.
        loss: of the last update, over the contexts that count.
        distinct_first_codes: distinct first codes in a group.
        distinct_items: distinct items in a group.
    """

    reward: float
    reward_std: float
    flat_groups: float
    kl: float
    loss: float
    distinct_first_codes: float
    distinct_items: float


@dataclass(frozen=True, slots=True)
class _Drawn:
    """The rollouts of a micro-batch and all that an update on them needs."""

    prompts: list[list[int]]
    trie: EligibleTrie
    rollouts: Rollouts
    judgement: Judgement
    reference: Tensor


def rollout_seeds(seed: int, purpose: str, places: Array) -> Int64[Tensor, " n"]:
    """Seeds of the samples that stand at the given places of an order, int64 [n]."""
    return torch.tensor([derive(seed, purpose, int(place)) for place in places], dtype=torch.int64)


def train_step(
    backbone: Backbone,
    reference: Backbone,
    stage: Stage,
    samples: RewardSamples,
    seeds: Int64[Tensor, " n"],
    config: GrpoConfig,
    kl_weight: float,
    optimiser: torch.optim.Optimizer,
    *,
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
    processes: Processes = ALONE,
    step: int = 1,
) -> StepRecord:
    """Rollouts of n contexts and the updates on them, in place.

    A context without an eligible item teaches nothing and counts nowhere.

    Args:
        backbone: the policy, in evaluation mode.
        reference: the model that KL is measured against.
        stage: log, prompts, trie, reward and context.
        samples: the n contexts of the step; with several processes, the same in each, which takes its share of them.
        seeds: of each context's rollouts.
        config: group, loss, clipping, micro-batches and updates.
        kl_weight: beta.
        optimiser: of the policy's parameters.
        schedule: its learning rate, a step each update.
        processes: those that work on this step.
        step: its number, for the message where something is not finite.

    Raises:
        TrainingError: the gradient is not finite.
    """
    places = processes.share(np.arange(len(samples)))
    size = config.micro_batch_size or max(1, len(samples))
    parts = [places[begin : begin + size] for begin in range(0, len(places), size)]
    parameters = [one for one in backbone.model.parameters() if one.requires_grad]
    table = torch.zeros(len(samples), len(fields(StepRecord)) + 2, dtype=torch.float64, device=backbone.device)
    drawn: list[_Drawn] = []
    for update in range(config.updates_per_rollout):
        optimiser.zero_grad(set_to_none=True)
        table[:, LEARNED] = 0.0
        for number, rows in enumerate(parts):
            if update == 0:
                batch = samples.select(rows)
                policy, found = _draw(backbone, reference, stage, batch, seeds[torch.from_numpy(rows)], config)
                table[rows] = _described(found)
                if config.updates_per_rollout > 1:
                    drawn.append(found)
            else:
                found = drawn[number]
                with backbone.autocast():
                    policy = log_probabilities(backbone, found.prompts, found.trie, found.rollouts.codes)
            logs = found.rollouts.log_probability
            loss, kl = grpo_loss(policy, logs, found.reference, found.judgement, config, kl_weight)
            loss.sum().backward()
            table[rows, LOSS], table[rows, KL] = loss.detach().double(), kl.double()
        whole = processes.all_reduce(table.clone())
        counted = int(whole[:, COUNTED].sum())
        processes.sum_gradients(parameters, 1.0 / max(1, counted))
        if counted:
            clip_gradients(parameters, LONGEST_GRADIENT, step)
            optimiser.step()
        if schedule is not None:
            schedule.step()
    sums = whole.sum(0)
    means = (sums / sums[PRESENT].clamp(min=1)).tolist()
    means[LOSS] = float(sums[LOSS]) / max(1, counted)
    return StepRecord(*means[: len(NAMES)])


NAMES = tuple(one.name for one in fields(StepRecord))
KL, LOSS, COUNTED, PRESENT = NAMES.index("kl"), NAMES.index("loss"), len(NAMES), len(NAMES) + 1
LEARNED = [KL, LOSS]
"""Columns of a step's table: a row for each context, the fields of `StepRecord`, whether the context counts in the
loss, and whether it has an eligible item."""


def _draw(
    backbone: Backbone,
    reference: Backbone,
    stage: Stage,
    samples: RewardSamples,
    seeds: Int64[Tensor, " B"],
    config: GrpoConfig,
) -> tuple[Float[Tensor, "B G levels"], _Drawn]:
    """The policy's log-probabilities of its rollouts, with gradient, and what they are judged by."""
    prompts, trie = stage.inputs(samples)
    with backbone.autocast():
        if config.rollouts == "beams":
            fresh = beams(backbone, prompts, trie, config.group_size)
        else:
            fresh = sample(backbone, prompts, trie, config.group_size, seeds, replacement=config.rollouts == "sample")
    policy = fresh.log_probability
    rollouts = Rollouts(fresh.item, fresh.codes, policy.detach(), fresh.weight)
    with torch.no_grad(), reference.autocast():
        anchor = log_probabilities(reference, prompts, trie, rollouts.codes)
    judgement = judge(_rewards(stage, samples, rollouts), rollouts.weight, config)
    return policy, _Drawn(prompts, trie, rollouts, judgement, anchor)


def _rewards(stage: Stage, samples: RewardSamples, rollouts: Rollouts) -> Float[Tensor, "B G"]:
    """What the stage's reward says about the rollouts."""
    logs = rollouts.log_probability.detach().sum(-1).masked_fill(rollouts.item < 0, -torch.inf)
    return stage.reward(rollouts.item.clamp(min=0), list(samples.gts), list(samples.fps), logs)


def _described(found: _Drawn) -> Float[Tensor, "B columns"]:
    """The rows of a step's table, all but what is known after the update."""
    judgement, rollouts = found.judgement, found.rollouts
    columns = {
        "reward": judgement.mean,
        "reward_std": judgement.spread,
        "flat_groups": judgement.flat,
        "distinct_first_codes": _distinct(rollouts.codes[..., 0].masked_fill(rollouts.item < 0, -1)),
        "distinct_items": _distinct(rollouts.item),
    }
    unknown = torch.zeros_like(judgement.mean)
    values = [*(columns.get(name, unknown) for name in NAMES), judgement.counted, judgement.drawn]
    return torch.stack([one.double() for one in values], dim=1)


def _distinct(values: Int64[Tensor, "B G"]) -> Int64[Tensor, " B"]:
    """Number of distinct values of each row, -1 not counted."""
    ordered = values.sort(1).values
    changed = (ordered[:, 1:] != ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    return changed.sum(1) + (ordered[:, 0] >= 0)


@torch.no_grad()
def mean_reward(
    backbone: Backbone,
    stage: Stage,
    samples: RewardSamples,
    config: GrpoConfig,
    seed: int,
    processes: Processes = ALONE,
) -> float:
    """Mean reward of G independent rollouts a sample; the same draw of chance at every call.

    Neither the batch size nor the number of processes changes it, but for rounding within the model. Samples without an
    eligible item are left out; where no other is there, it is 0.
    """
    own = processes.share(np.arange(len(samples)))
    table = torch.zeros(len(samples), 2, dtype=torch.float64, device=backbone.device)
    size = config.micro_batch_size or config.batch_size
    for begin in range(0, len(own), size):
        rows = own[begin : begin + size]
        batch = samples.select(rows)
        prompts, trie = stage.inputs(batch)
        with backbone.autocast():
            drawn = sample(backbone, prompts, trie, config.group_size, rollout_seeds(seed, "rollout", rows))
        judgement = judge(_rewards(stage, batch, drawn), drawn.weight, config)
        table[rows] = torch.stack([judgement.mean, judgement.drawn.double()], dim=1)
    total, present = processes.all_reduce(table).sum(0).tolist()
    return float(total) / max(1.0, float(present))


def train_stage(
    backbone: Backbone,
    reference: Backbone | None,
    stage: Stage,
    samples: RewardSamples,
    validation: RewardSamples,
    config: GrpoConfig,
    stage_config: GrpoStageConfig,
    seed: int,
    description: str,
    processes: Processes = ALONE,
    *,
    watch: Watch | None = None,
    checkpoints: Checkpoints | None = None,
) -> Curve:
    """One stage of GRPO, in place; of a backbone with `Backbone.lora`, by adapters.

    Args:
        backbone: the policy.
        reference: KL is measured against it; None: against the policy at the start of the stage, in a copy that shares
            what is frozen.
        stage: log, prompts, trie, reward and context.
        samples: training samples, each seen once.
        validation: samples of the validation period, for the curve "validation_reward".
        config, stage_config: settings.
        seed: of order and rollouts.
        description: for the progress bar.
        processes: those that train together; all end with the same weights and the same curve. The first one alone
            asks ``watch``.
        watch: what is measured beside the reward, as often, and what follows from it: the state that is kept, the
            weight of KL, an early end. Without it the last state is kept, and KL weighs what ``stage_config`` says.
        checkpoints: what a killed stage goes on from, and where the contexts of a broken step are left.

    Returns:
        The series of `StepRecord` (a point each step), validation_reward, and those of ``watch`` with kl_weight.

    Raises:
        TrainingError: a reward, a loss or a gradient is not finite.
    """
    checkpoints = checkpoints or Checkpoints(None)
    order = generator(seed, "order").permutation(len(samples))
    steps = range(0, len(order), config.batch_size)
    with adapted(backbone, backbone.lora, derive(seed, "adapters")):
        anchor = reference or backbone.clone()
        optimiser = torch.optim.AdamW(backbone.model.parameters(), lr=config.learning_rate, weight_decay=0.0)
        schedule = cosine_schedule(optimiser, len(steps) * config.updates_per_rollout)
        curve, best = Curve(told=checkpoints.note), Best()
        checks = _evenly(len(steps), config.evaluations)

        def check(step: int) -> None:
            if step in checks and len(validation):
                value = mean_reward(backbone, stage, validation, config, derive(seed, "validation"), processes)
                curve.add("validation_reward", step, value)
            if step in checks and watch is not None:
                values: dict[str, float] = processes.decide(dict(watch.measure()) if processes.first else None)
                for name, value in values.items():
                    curve.add(name, step, value)
                if watch.held:
                    curve.add(KL_WEIGHT, step, watch.kl_weight(curve, stage_config.kl_weight))
                worth = watch.worth(curve)
                if worth is not None:
                    best.offer(backbone.model, worth)

        backbone.model.eval()  # no dropout: rollout and update see the same policy
        running = Running(backbone.model, optimiser, schedule, curve, best, backbone.device)
        done = checkpoints.resume(running)
        if done == 0:
            check(0)
        with meter(description, len(steps)) as tick:
            tick(done)
            for step, begin in enumerate(steps[done:], start=done + 1):
                if watch is not None and watch.narrowed(curve):
                    console.print(
                        f"        {description} ends after step {step - 1} of {len(steps)}: its lists hold few items",
                        markup=False,
                        highlight=False,
                    )
                    break
                betas = curve.series.get(KL_WEIGHT)
                places = np.arange(begin, min(begin + config.batch_size, len(order)))
                batch = samples.select(order[places])
                with checkpoints.explaining(step, partial(_as_text, batch)):
                    record = train_step(
                        backbone,
                        anchor,
                        stage,
                        batch,
                        rollout_seeds(seed, "rollout", places),
                        config,
                        betas[-1][1] if betas else stage_config.kl_weight,
                        optimiser,
                        schedule=schedule,
                        processes=processes,
                        step=step,
                    )
                    for name in NAMES:
                        curve.add(name, step, getattr(record, name))
                check(step)
                checkpoints.keep(running, step)
                tick(note=f"reward {record.reward:.3f}")
        best.restore(backbone.model)
    return curve


def _as_text(samples: RewardSamples) -> list[dict[str, object]]:
    """The contexts of a step as JSON: who, when, and what makes a rollout good or bad."""
    return [
        {"user": user, "timestamp": timestamp, "gts": list(map(int, gts)), "fps": list(map(int, fps))}
        for user, timestamp, gts, fps in zip(
            samples.user.tolist(), samples.timestamp.tolist(), samples.gts, samples.fps, strict=True
        )
    ]


def _evenly(steps: int, evaluations: int) -> set[int]:
    """Steps after which something is measured, from 0 to the last."""
    return {round(steps * one / max(1, evaluations - 1)) for one in range(evaluations)}
