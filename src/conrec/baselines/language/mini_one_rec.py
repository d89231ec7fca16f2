"""MiniOneRec (arXiv 2510.24431): a generative recommender on semantic IDs, tuned by plain GRPO on hits and ranks.

Supervised tuning on semantic IDs comes first: it is LC-Rec on negatives, where this row starts. Then, for each
training anchor, the G most probable items under the trie are judged by whether they are the next dislike, and wrong
ones the more severely the more probable they were (`conrec.llm.rewards.HitRankReward`), and the policy is moved by GRPO
with a KL term towards its start. Departures:

* the target is the next dislike;
* prompts of the main task alone; the authors also reward answers to titles;
* optimiser, schedule, loss, clipping, updates on a batch, floor of the standard deviation and renormalised
  probabilities are those of CoNRec's stages (`conrec.llm.grpo_stage`, and `grpo` of the configuration where the row's
  own section says nothing), so that the two differ in reward, rollouts and curriculum and in nothing else;
* the state with the best validation FHR@20 is kept, the start among them.
"""

from __future__ import annotations

import numpy as np

from conrec.arrays import Ragged
from conrec.baselines.language.tuned import TunedModel
from conrec.baselines.registry import REGISTRY, context_of
from conrec.config import GrpoStageConfig
from conrec.llm.curriculum import Stage, draw_samples
from conrec.llm.grpo_stage import train_stage
from conrec.llm.rewards import HitRankReward
from conrec.llm.watch import Watch
from conrec.logs.anchors import Anchors
from conrec.workspace import Workspace

__all__ = ["SPACE", "MiniOneRec"]

SPACE: dict[str, tuple[float | int | str, ...]] = {
    "samples": (1_280, 2_560, 5_120),
    "learning_rate": (3e-5, 1e-4, 3e-4),
    "rollouts": ("beams", "gumbel"),
}
"""The grid that `conrec baselines search` searches."""


class MiniOneRec(TunedModel):
    """A fitted MiniOneRec."""

    @classmethod
    def fit(cls, space: Workspace, name: str) -> MiniOneRec:
        """GRPO on the training anchors, from LC-Rec on negatives.

        Raises:
            ConrecError: no training anchor has a dislike in its history.
        """
        settings, log = space.config.baselines.mini_one_rec, space.prepared.log
        backbone = space.backbone(REGISTRY[name].start)
        context, seed = context_of(name, space.config), space.seed(name)
        stage = Stage(
            log,
            space.prompts(backbone),
            space.trie,
            HitRankReward(space.trie),
            context,
            space.config.protocol.history_eligible,
        )
        train = space.prepared.anchors.of_split("train")
        samples = draw_samples(train, _next, stage.prompts, log, context, settings.samples, seed)
        stage_config = GrpoStageConfig(context=context, kl_weight=settings.kl_weight, samples=settings.samples)
        own = ("group_size", "batch_size", "rollouts", "learning_rate", "evaluations")
        update = {"stages": (stage_config,), **{field: getattr(settings, field) for field in own}}
        config = space.config.grpo.model_copy(update=update)
        series = f"validation_fhr@{space.config.evaluation.top_k}"
        curve = train_stage(
            backbone,
            None,
            stage,
            samples,
            samples.select(np.arange(0)),  # no reward is followed: that of a group is 1 - 1 with a hit, and 0 without
            config,
            stage_config,
            seed,
            name,
            watch=Watch(lambda: {series: space.validation_fhr(backbone, context)}, kept=(series,)),
        )
        return cls.of(space, backbone, name, curve.lists())


def _next(anchors: Anchors) -> Ragged:
    """The next item of each anchor, and nothing else."""
    return Ragged(np.arange(len(anchors) + 1, dtype=np.int64), anchors.next_item)
