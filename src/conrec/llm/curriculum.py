"""Progressive GRPO: one stage of growing context, and the cleaning of its data by the stage before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from conrec.arrays import Array, Ragged
from conrec.config import Context, GrpoConfig, GrpoStageConfig
from conrec.errors import ConrecError
from conrec.items.eligible import EligibleTrie
from conrec.items.trie import Trie
from conrec.llm.backbone import Backbone
from conrec.llm.generation import beam_search, log_probabilities, sample
from conrec.llm.grpo import advantages, grpo_loss
from conrec.llm.prompts import PromptBuilder
from conrec.llm.rewards import FutureReward
from conrec.llm.sft import Curve, cosine_schedule
from conrec.logs.anchors import Anchors
from conrec.logs.log import Log
from conrec.progress import meter
from conrec.seeds import derive, generator

__all__ = ["RewardSamples", "Stage", "blocked_items", "clean", "draw_samples", "mean_reward", "train_stage"]

CLEAN_BEAMS = 8
"""Generations of the earlier model that are compared with what the user will like."""


@dataclass(frozen=True, slots=True)
class RewardSamples:
    """Contexts with what makes a rollout good or bad.

    Attributes:
        user: int32 [n].
        timestamp: int64 [n].
        gts: ragged items, future negatives with their Swing neighbours.
        fps: ragged items, future positives (and what cleaning added).
    """

    user: Array
    timestamp: Array
    gts: Ragged
    fps: Ragged

    def __len__(self) -> int:
        return len(self.user)

    def select(self, rows: Array) -> RewardSamples:
        """The samples at the given rows."""
        return RewardSamples(self.user[rows], self.timestamp[rows], self.gts.take(rows), self.fps.take(rows))


def blocked_items(log: Log, users: Array, timestamps: Array, history_eligible: bool) -> Bool[Tensor, "B items"]:
    """The items of each user's history, which may not be returned."""
    blocked = torch.zeros(len(users), log.n_items, dtype=torch.bool)
    if history_eligible:
        return blocked
    for row, (user, timestamp) in enumerate(zip(users.tolist(), timestamps.tolist(), strict=True)):
        blocked[row, torch.from_numpy(log.item[log.history(user, timestamp)].astype(np.int64))] = True
    return blocked


def draw_samples(
    anchors: Anchors, gts: Ragged, prompts: PromptBuilder, log: Log, context: Context, n: int, seed: int
) -> RewardSamples:
    """At most n anchors whose context shows at least one event, drawn without replacement."""
    order = generator(seed, "grpo samples", context).permutation(len(anchors))
    rows: list[int] = []
    for row in order.tolist():
        if len(rows) == n:
            break
        if len(prompts.select(log, int(anchors.user[row]), int(anchors.timestamp[row]), context)):
            rows.append(row)
    if not rows:
        raise ConrecError(f"no training anchor has an event in the context {context!r}", where="grpo.stages")
    keep = np.asarray(rows)
    return RewardSamples(
        anchors.user[keep], anchors.timestamp[keep], gts.take(keep), anchors.future_positives.take(keep)
    )


@dataclass
class Stage:
    """What all steps of one stage share."""

    log: Log
    prompts: PromptBuilder
    trie: Trie
    reward: FutureReward
    context: Context
    history_eligible: bool

    def inputs(self, samples: RewardSamples, device: torch.device) -> tuple[list[list[int]], EligibleTrie]:
        """Prompts of the samples, and what each may return."""
        prompts = [
            self.prompts.next_negative(self.log, user, timestamp, self.context)
            for user, timestamp in zip(samples.user.tolist(), samples.timestamp.tolist(), strict=True)
        ]
        blocked = blocked_items(self.log, samples.user, samples.timestamp, self.history_eligible)
        return prompts, EligibleTrie(self.trie, blocked.to(device))


def clean(
    backbone: Backbone, stage: Stage, samples: RewardSamples, similarity: float, batch_size: int
) -> tuple[RewardSamples, int]:
    """Augment the samples on which the earlier model generates what the user will like.

    The paper cleans later data with the earlier model and augments a sample whose generation is too
    similar to a future positive, without saying how. Here the generations that are too similar, and are
    not themselves future negatives, join the sample's FPS, so that the penalty reaches them at full
    strength, and the sample is seen twice.

    Returns:
        The samples, augmented ones last, and how many were augmented.
    """
    extra: list[int] = []
    fps = list(samples.fps)
    backbone.model.eval()
    with meter("cleaning", len(samples)) as tick:
        for begin in range(0, len(samples), batch_size):
            rows = np.arange(begin, min(begin + batch_size, len(samples)))
            batch = samples.select(rows)
            prompts, trie = stage.inputs(batch, backbone.device)
            items, _ = beam_search(backbone, prompts, trie, CLEAN_BEAMS)
            near = stage.reward.nearest(items.clamp(min=0), list(batch.fps)) > similarity
            for row, found, close in zip(rows.tolist(), items.cpu().numpy(), near.cpu().numpy(), strict=True):
                offending = np.setdiff1d(found[close & (found >= 0)], samples.gts[row]).astype(np.int32)
                if len(offending):
                    fps[row] = np.concatenate([fps[row], offending])
                    extra.append(row)
            tick(len(rows))
    cleaned = RewardSamples(samples.user, samples.timestamp, samples.gts, Ragged.from_rows(fps))
    order = np.concatenate([np.arange(len(samples)), np.asarray(extra, dtype=np.int64)])
    return cleaned.select(order), len(extra)


@torch.no_grad()
def mean_reward(backbone: Backbone, stage: Stage, samples: RewardSamples, config: GrpoConfig, seed: int) -> float:
    """Mean reward of G rollouts a sample; the same draw of chance at every call."""
    chance = torch.Generator(device=backbone.device).manual_seed(seed)
    total, count = 0.0, 0
    for begin in range(0, len(samples), config.batch_size):
        batch = samples.select(np.arange(begin, min(begin + config.batch_size, len(samples))))
        prompts, trie = stage.inputs(batch, backbone.device)
        items = sample(backbone, prompts, trie, config.group_size, chance).item
        rewards = stage.reward(items, list(batch.gts), list(batch.fps))
        total += float(rewards.sum())
        count += rewards.numel()
    return total / count


def train_stage(
    backbone: Backbone,
    reference: Backbone,
    stage: Stage,
    samples: RewardSamples,
    validation: RewardSamples,
    config: GrpoConfig,
    stage_config: GrpoStageConfig,
    seed: int,
    description: str,
) -> Curve:
    """One stage of GRPO, in place.

    Args:
        backbone: the policy.
        reference: the model at the start of the stage; KL is measured against it.
        stage: log, prompts, trie, reward and context.
        samples: training samples, each seen once.
        validation: samples of the validation period, for the curve "validation_reward".
        config, stage_config: settings.
        seed: of order and rollouts.
        description: for the progress bar.

    Returns:
        The series reward, reward_std, kl, loss, distinct_first_codes, distinct_items (a step each) and
        validation_reward.
    """
    order = generator(seed, "order").permutation(len(samples))
    batches = [order[begin : begin + config.batch_size] for begin in range(0, len(order), config.batch_size)]
    optimiser = torch.optim.AdamW(backbone.model.parameters(), lr=config.learning_rate, weight_decay=0.0)
    schedule = cosine_schedule(optimiser, len(batches) * config.updates_per_rollout)
    chance = torch.Generator(device=backbone.device).manual_seed(derive(seed, "rollouts"))
    curve = Curve()
    checks = {round(len(batches) * one / max(1, config.evaluations - 1)) for one in range(config.evaluations)}

    def check(step: int) -> None:
        if step in checks and len(validation):
            value = mean_reward(backbone, stage, validation, config, derive(seed, "validation"))
            curve.add("validation_reward", step, value)

    backbone.model.eval()  # no dropout: rollout and update see the same policy
    check(0)
    with meter(description, len(batches)) as tick:
        for step, rows in enumerate(batches, start=1):
            _step(
                backbone,
                reference,
                stage,
                samples.select(rows),
                config,
                stage_config,
                optimiser,
                schedule,
                chance,
                curve,
                step,
            )
            check(step)
            tick(note=f"reward {curve.series['reward'][-1][1]:.3f}")
    return curve


def _step(
    backbone: Backbone,
    reference: Backbone,
    stage: Stage,
    batch: RewardSamples,
    config: GrpoConfig,
    stage_config: GrpoStageConfig,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
    chance: torch.Generator,
    curve: Curve,
    step: int,
) -> None:
    """Rollouts of one batch and the updates on them."""
    prompts, trie = stage.inputs(batch, backbone.device)
    rollouts = sample(backbone, prompts, trie, config.group_size, chance)
    rewards = stage.reward(rollouts.item, list(batch.gts), list(batch.fps))
    advantage = advantages(rewards, config.std_floor, config.flat)
    with torch.no_grad():
        anchor = log_probabilities(reference, prompts, trie, rollouts.codes)
    for _ in range(config.updates_per_rollout):
        policy = log_probabilities(backbone, prompts, trie, rollouts.codes)
        loss, kl = grpo_loss(policy, rollouts.log_probability, anchor, advantage, config.clip, stage_config.kl_weight)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(backbone.model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    curve.add("loss", step, loss.item())
    curve.add("kl", step, kl.item())
    curve.add("reward", step, rewards.mean().item())
    curve.add("reward_std", step, rewards.std(1, correction=0).mean().item())
    curve.add("distinct_first_codes", step, _distinct(rollouts.codes[..., 0]))
    curve.add("distinct_items", step, _distinct(rollouts.item))


def _distinct(values: Int64[Tensor, "B G"]) -> float:
    """Mean number of distinct values in a group."""
    return sum(len(set(row)) for row in values.tolist()) / len(values)
