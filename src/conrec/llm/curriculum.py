"""Progressive GRPO: the contexts that a stage learns from, and their cleaning by the model of the stage before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from conrec.arrays import Array, Ragged
from conrec.config import Context
from conrec.errors import ConrecError
from conrec.items.eligible import EligibleTrie
from conrec.items.trie import Trie
from conrec.llm.backbone import Backbone
from conrec.llm.generation import beam_search
from conrec.llm.prompts import PromptBuilder
from conrec.llm.rewards import Reward, Similarity
from conrec.logs.anchors import Anchors
from conrec.logs.log import Log
from conrec.processes import ALONE, Processes
from conrec.progress import meter
from conrec.seeds import generator

__all__ = ["RewardSamples", "Stage", "blocked_items", "clean", "draw_samples", "showing"]

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


def blocked_items(log: Log, users: Array, timestamps: Array, history_eligible: bool) -> Int64[Tensor, "B M"]:
    """The items of each user's history, which may not be returned; filled up with -1."""
    histories = [
        log.item[log.history(user, timestamp)] if not history_eligible else log.item[:0]
        for user, timestamp in zip(users.tolist(), timestamps.tolist(), strict=True)
    ]
    blocked = np.full((len(histories), max((len(one) for one in histories), default=0)), -1, dtype=np.int64)
    for row, one in enumerate(histories):
        blocked[row, : len(one)] = one
    return torch.from_numpy(blocked)


def draw_samples(
    anchors: Anchors,
    gts: Callable[[Anchors], Ragged],
    prompts: PromptBuilder,
    log: Log,
    context: Context,
    n: int,
    seed: int,
) -> RewardSamples:
    """At most n anchors whose context shows at least one event, drawn without replacement.

    Args:
        anchors: to draw from.
        gts: what some anchors are to meet, asked of those that were drawn alone.
        prompts, log, context: what a prompt would show.
        n: samples.
        seed: of the draw.

    Raises:
        ConrecError: no anchor shows anything.
    """
    drawn = showing(anchors, prompts, log, context, n, generator(seed, "grpo samples", context))
    return RewardSamples(drawn.user, drawn.timestamp, gts(drawn), drawn.future_positives)


def showing(
    anchors: Anchors, prompts: PromptBuilder, log: Log, context: Context, n: int, rng: np.random.Generator
) -> Anchors:
    """At most n anchors whose context shows at least one event, in random order.

    Raises:
        ConrecError: no anchor shows anything.
    """
    order = rng.permutation(len(anchors))
    rows: list[int] = []
    for row in order.tolist():
        if len(rows) == n:
            break
        if len(prompts.select(log, int(anchors.user[row]), int(anchors.timestamp[row]), context)):
            rows.append(row)
    if not rows:
        raise ConrecError(
            f"no training anchor has an event in the context {context!r}",
            where="grpo.stages",
            mend="Raise prompts.recent_days, where times are coarse, or leave this stage out."
            if context == "recent"
            else "Leave this stage out.",
        )
    return anchors.select(np.asarray(rows))


@dataclass
class Stage:
    """What all steps of one stage share."""

    log: Log
    prompts: PromptBuilder
    trie: Trie
    reward: Reward
    context: Context
    history_eligible: bool

    def inputs(self, samples: RewardSamples) -> tuple[list[list[int]], EligibleTrie]:
        """Prompts of the samples, and what each may return, on the device of the trie."""
        prompts = [
            self.prompts.next_negative(self.log, user, timestamp, self.context)
            for user, timestamp in zip(samples.user.tolist(), samples.timestamp.tolist(), strict=True)
        ]
        blocked = blocked_items(self.log, samples.user, samples.timestamp, self.history_eligible)
        return prompts, EligibleTrie(self.trie, blocked)


def clean(
    backbone: Backbone,
    stage: Stage,
    samples: RewardSamples,
    cosine: Similarity,
    similarity: float,
    batch_size: int,
    processes: Processes = ALONE,
) -> tuple[RewardSamples, int]:
    """Augment the samples on which the earlier model generates what the user will like.

    The paper cleans later data with the earlier model and augments a sample whose generation is too
    similar to a future positive, without saying how. Here the generations that are too similar, and are
    not themselves future negatives, join the sample's FPS, so that the penalty reaches them at full
    strength, and the sample is seen twice. (A generation is a future negative where its semantic ID is one's.)
    A reward that does not ask for FPS learns of it only that the sample comes twice.

    Args:
        backbone: the earlier model.
        stage: log, prompts, trie, reward and context of the stage that the samples are for.
        samples: to clean; the same in all processes, each of which asks the model about its share.
        cosine: by which generations and future positives are compared, whatever the reward is.
        similarity: above this, a generation is too similar.
        batch_size: samples read at a time.
        processes: those that clean together; all are given the whole result.

    Returns:
        The samples, augmented ones last, and how many were augmented.
    """
    own = processes.share(np.arange(len(samples)))
    found: dict[int, list[int]] = {}
    backbone.model.eval()
    with meter("cleaning", len(own)) as tick:
        for begin in range(0, len(own), batch_size):
            rows = own[begin : begin + batch_size]
            batch = samples.select(rows)
            prompts, trie = stage.inputs(batch)
            items = beam_search(backbone, prompts, trie, CLEAN_BEAMS, certified=False).item
            near = cosine.nearest(items.clamp(min=0), list(batch.fps)) > similarity
            for row, beams, close in zip(rows.tolist(), items.cpu().numpy(), near.cpu().numpy(), strict=True):
                wanted = stage.trie.first_of(torch.from_numpy(samples.gts[row].astype(np.int64)).to(items.device))
                offending = np.setdiff1d(beams[close & (beams >= 0)], wanted.cpu().numpy())
                if len(offending):
                    found[row] = offending.tolist()
            tick(len(rows))
    offences = sorted((int(row), items) for part in processes.gather(list(found.items())) for row, items in part)
    fps = list(samples.fps)
    for row, items in offences:
        fps[row] = np.concatenate([fps[row], np.asarray(items, dtype=np.int32)])
    cleaned = RewardSamples(samples.user, samples.timestamp, samples.gts, Ragged.from_rows(fps))
    order = np.concatenate([np.arange(len(samples)), np.asarray([row for row, _ in offences], dtype=np.int64)])
    return cleaned.select(order), len(offences)
