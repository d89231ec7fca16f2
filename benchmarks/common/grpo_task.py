"""One optimiser step of GRPO on made-up prompts: ours, the plain form with one row a rollout, and the bound.

The reward is the same everywhere: the cosine between an item's vector and the vector of the prompt's target item.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from common.catalogue import draw_blocked, draw_codes
from common.models import Sizes, qwen3, random_prompts
from conrec.arrays import Ragged
from conrec.config import GrpoConfig
from conrec.items.eligible import EligibleTrie
from conrec.items.trie import Trie
from conrec.llm.backbone import Backbone
from conrec.llm.curriculum import RewardSamples, Stage
from conrec.llm.grpo_stage import rollout_seeds, train_step
from conrec.llm.rewards import FutureReward, Similarity
from conrec.llm.rollouts import Rollouts, sample

__all__ = ["Bound", "Ours", "Task", "distinct_nodes", "plain_gradient", "tree_gradient"]

KL_WEIGHT = 0.04
LEARNING_RATE = 1e-6
"""So small that the policy stays as peaked as it is and every timed step does the same work."""


@dataclass(frozen=True, slots=True)
class Task:
    """The configuration of a step.

    Attributes:
        prompts: contexts of the step.
        prompt: tokens of each.
        group: rollouts of each.
        items: of the catalogue.
        blocked: items that no rollout of a prompt may be, as its user's history is.
        sizes: of the model.
        device, dtype: where and in which numbers.
    """

    prompts: int = 8
    prompt: int = 240
    group: int = 16
    items: int = 3000
    blocked: int = 50
    sizes: Sizes = field(default_factory=Sizes)
    device: str = "cpu"
    dtype: torch.dtype = torch.float32

    def model(self, *, reference: bool = False) -> Backbone:
        """The policy, or a reference that has moved away from it a little, so that KL has a gradient."""
        # As in training: weights stay float32 where products are bfloat16.
        mixed = self.dtype == torch.bfloat16
        backbone = qwen3(self.sizes, device=self.device, dtype=torch.float32 if mixed else self.dtype)
        backbone = replace(backbone, precision="bfloat16" if mixed else "float32")
        if reference:
            chance = torch.Generator().manual_seed(7)
            with torch.no_grad():
                for one in backbone.model.parameters():
                    noise = torch.randn(one.shape, generator=chance).to(one.device, one.dtype)
                    one.add_(0.02 * one.std() * noise if one.ndim > 1 else 0.0)
            backbone.model.requires_grad_(False)
        return backbone

    def codes(self) -> Tensor:
        """Semantic IDs, int64 [items, 3]."""
        return draw_codes(self.items, self.sizes.codebook, seed=0)

    def gone(self) -> Tensor:
        """Blocked items of each prompt, int64 [prompts, blocked]."""
        return draw_blocked(self.prompts, self.items, self.blocked)

    def vectors(self) -> Tensor:
        """A unit vector for each item: the mean of one for each of its codes, float32 [items, 64]."""
        chance = torch.Generator().manual_seed(3)
        books = torch.randn(3, self.sizes.codebook, 64, generator=chance)
        codes = self.codes()
        return torch.nn.functional.normalize(sum(books[level][codes[:, level]] for level in range(3)), dim=1)

    def targets(self) -> list[int]:
        """The item that each prompt's rollouts should come near to."""
        chance = torch.Generator().manual_seed(5)
        return torch.randint(self.items, (self.prompts,), generator=chance).tolist()

    def config(self, rollouts: str = "sample") -> GrpoConfig:
        """The settings of a step: one update a rollout, every prompt at once."""
        return GrpoConfig(
            group_size=self.group,
            batch_size=self.prompts,
            learning_rate=LEARNING_RATE,
            rollouts=rollouts,  # type: ignore[arg-type]
            penalty=0.0,
        )


@dataclass
class _GivenPrompts(Stage):
    """A stage whose samples are numbers of ready prompts, with blocked items of their own."""

    token_ids: list[list[int]] = field(default_factory=list)
    gone: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.int64))

    def inputs(self, samples: RewardSamples) -> tuple[list[list[int]], EligibleTrie]:
        """The prompts as they are."""
        prompts = [self.token_ids[number] for number in samples.user.tolist()]
        return prompts, EligibleTrie(self.trie, self.gone[torch.from_numpy(samples.user).long()])


class Ours:
    """`conrec.llm.grpo_stage.train_step`: rollouts, reference, backward and update."""

    def __init__(self, task: Task, *, optimiser: torch.optim.Optimizer | None = None, rollouts: str = "sample") -> None:
        self.task, self.config = task, task.config(rollouts)
        self.policy, self.reference = task.model(), task.model(reference=True)
        self.trie = Trie.from_codes(task.codes(), task.sizes.codebook).to(task.device)
        self.prompts = random_prompts(self.policy, task.prompts, task.prompt, seed=1)
        targets = Ragged.from_rows([np.asarray([one], dtype=np.int32) for one in task.targets()])
        none = Ragged.from_rows([np.zeros(0, dtype=np.int32) for _ in range(task.prompts)])
        numbers = np.arange(task.prompts, dtype=np.int32)
        self.samples = RewardSamples(numbers, numbers.astype(np.int64), targets, none)
        vectors = task.vectors().to(task.device)
        self.stage = _GivenPrompts(
            log=None,  # type: ignore[arg-type]
            prompts=None,  # type: ignore[arg-type]
            trie=self.trie,
            reward=FutureReward(Similarity(vectors), 0.0),
            context="negatives",
            history_eligible=True,
            token_ids=self.prompts.tolist(),
            gone=task.gone(),
        )
        parameters = list(self.policy.model.parameters())
        self.optimiser = optimiser or torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.0)
        self.steps = 0

    def seeds(self) -> Tensor:
        """Other rollouts in every step."""
        return rollout_seeds(self.steps, "rollout", np.arange(self.task.prompts))

    def __call__(self) -> None:
        """One step."""
        train_step(
            self.policy, self.reference, self.stage, self.samples, self.seeds(), self.config, KL_WEIGHT, self.optimiser
        )
        self.steps += 1

    @torch.no_grad()
    def rollouts(self) -> Rollouts:
        """What the next step will draw."""
        prompts, trie = self.stage.inputs(self.samples)
        replacement = self.config.rollouts == "sample"
        with self.policy.autocast():
            return sample(self.policy, prompts, trie, self.task.group, self.seeds(), replacement=replacement)


def distinct_nodes(ours: Ours) -> int:
    """How many distinct first and second codes the next rollouts of a prompt have, on average, rounded up."""
    size = ours.task.sizes.codebook
    codes = ours.rollouts().codes
    distinct = [len(torch.unique(row[:, 0])) + len(torch.unique(row[:, 0] * size + row[:, 1])) for row in codes]
    return -(-sum(distinct) // len(distinct))


class Bound:
    """What no step can do without: the prompt and the distinct nodes once, as a plain causal row each.

    A forward pass without gradient for the rollouts, one for the reference, one with its backward pass for the policy.
    The nodes that predict something are multiplied with the head of one level. There is no sampling, no trie, no reward
    and no update.

    Args:
        ours: the step.
        nodes: distinct nodes of a prompt; those that the next rollouts of ``ours`` have by default.
    """

    def __init__(self, ours: Ours, nodes: int | None = None) -> None:
        self.nodes = distinct_nodes(ours) if nodes is None else nodes
        self.policy, self.reference = ours.policy, ours.reference
        extra = random_prompts(ours.policy, ours.task.prompts, self.nodes, seed=2)
        self.ids = torch.cat([ours.prompts, extra], dim=1)

    def __call__(self) -> None:
        """Three passes."""
        with torch.no_grad():
            self._forward(self.policy)
            self._forward(self.reference)
        self.policy.model.zero_grad(set_to_none=True)
        self._forward(self.policy).sum().backward()

    def _forward(self, backbone: Backbone) -> Tensor:
        with backbone.autocast():
            hidden = backbone.model.get_decoder()(input_ids=self.ids, use_cache=False).last_hidden_state
            return torch.logsumexp(backbone.head(hidden[:, -self.nodes - 1 :], 1).float(), dim=-1)


def tree_gradient(ours: Ours) -> list[Tensor]:
    """The gradient of one of our steps; the optimiser of ``ours`` must not move the policy."""
    ours()
    return [one.grad.clone() for one in ours.policy.model.parameters()]


def plain_gradient(ours: Ours) -> list[Tensor]:
    """The gradient of the same step by the formulas: a row a rollout, plain causal attention, no tree and no trie.

    `ours` must be about to do that step: what it will draw is drawn here too.
    """
    codes = ours.rollouts().codes
    task, policy = ours.task, ours.policy
    rows, group, _ = codes.shape
    catalogue = task.codes().to(codes.device)
    offsets = torch.tensor(policy.code_offset, device=codes.device)
    ids = torch.cat([ours.prompts.repeat_interleave(group, 0), (codes + offsets)[..., :2].flatten(0, 1)], dim=1)

    left = torch.ones(rows, task.items, device=codes.device)
    left.scatter_(1, task.gone().to(codes.device), 0.0)
    left = left.repeat_interleave(group, 0)

    def log_probabilities(backbone: Backbone) -> Tensor:
        logits = backbone.model(ids, logits_to_keep=3).logits
        columns = []
        for level in range(3):
            prefix = codes.flatten(0, 1)[:, :level]
            same = (catalogue[None, :, :level] == prefix[:, None]).all(-1)  # items that begin so, [rollouts, items]
            allowed = torch.zeros(len(prefix), task.sizes.codebook, device=codes.device)
            allowed.index_add_(1, catalogue[:, level], left * same)
            begin = policy.code_offset[level]
            part = logits[:, level, begin : begin + task.sizes.codebook].masked_fill(allowed == 0, -torch.inf)
            columns.append(part.log_softmax(-1).gather(1, codes.flatten(0, 1)[:, level, None])[:, 0])
        return torch.stack(columns, -1).view(rows, group, 3)

    item = (codes[..., None, :] == catalogue).all(-1).int().argmax(-1)
    vectors = task.vectors().to(codes.device)
    rewards = (vectors[item] * vectors[ours.task.targets()][:, None]).sum(-1)
    centred = rewards - rewards.mean(1, keepdim=True)
    spread = rewards.std(1, keepdim=True, correction=0)
    advantage = (centred / spread.clamp(min=ours.config.std_floor)).masked_fill(spread < ours.config.flat, 0.0)
    with torch.no_grad():
        reference = log_probabilities(ours.reference)
    logs = log_probabilities(policy)
    ratio = (logs - logs.detach()).exp()
    difference = reference - logs
    kl = difference.exp() - difference - 1
    clipped = ratio.clamp(1 - ours.config.clip, 1 + ours.config.clip)
    surrogate = torch.minimum(ratio * advantage[..., None], clipped * advantage[..., None])
    policy.model.zero_grad(set_to_none=True)
    (-(surrogate - KL_WEIGHT * kl).mean()).backward()
    torch.nn.utils.clip_grad_norm_(policy.model.parameters(), 1.0)
    return [one.grad.clone() for one in policy.model.parameters()]
