"""A tuned language model over semantic IDs as a row of the table: it answers as CoNRec does, over the same trie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from conrec.arrays import Array
from conrec.baselines.base import Curve
from conrec.baselines.registry import context_of
from conrec.config import Context
from conrec.llm.backbone import Backbone
from conrec.llm.checkpoints import Checkpoints
from conrec.llm.course import Curve as Series
from conrec.llm.prompts import Stretch
from conrec.llm.recommender import GenerativeRecommender
from conrec.llm.sft import train_supervised
from conrec.logs.log import Log
from conrec.recommender import Queries, Ranking
from conrec.workspace import Workspace

__all__ = ["TunedModel", "tuned_on"]

_Tuned = TypeVar("_Tuned", bound="TunedModel")


@dataclass(frozen=True)
class TunedModel:
    """A row that is a backbone with CoNRec's prompts and trie, tuned in its own way.

    Attributes:
        recommender: what answers.
        curve: series of the training by name, each of [step, value] pairs.
    """

    recommender: GenerativeRecommender
    curve: Curve = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """Learned numbers of the backbone."""
        return self.recommender.parameters

    def predict(self, log: Log, queries: Queries, k: int, *, history_eligible: bool = False) -> Ranking:
        """See `conrec.llm.recommender.GenerativeRecommender.predict`."""
        return self.recommender.predict(log, queries, k, history_eligible=history_eligible)

    def score(self, log: Log, queries: Queries, candidates: Array) -> Array:
        """See `conrec.llm.recommender.GenerativeRecommender.score`."""
        return self.recommender.score(log, queries, candidates)

    def save(self, folder: Path) -> None:
        """Write the backbone into ``folder``."""
        self.recommender.backbone.save(folder)

    @classmethod
    def load(cls: type[_Tuned], folder: Path, space: Workspace, name: str) -> _Tuned:
        """Read what `save` wrote.

        Raises:
            ArtefactError: a file is missing or damaged.
        """
        return cls.of(space, space.backbone_in(folder), name)

    @classmethod
    def of(
        cls: type[_Tuned],
        space: Workspace,
        backbone: Backbone,
        name: str,
        curve: Curve | None = None,
    ) -> _Tuned:
        """A row from its tuned backbone."""
        return cls(space.generative(backbone, context_of(name, space.config)), curve or {})


def tuned_on(
    space: Workspace,
    name: str,
    backbone: Backbone,
    stretches: Sequence[Stretch],
    context: Context,
    checkpoints: Checkpoints | None = None,
) -> Series:
    """Train a row's backbone in place, as ``sft`` of the configuration says, and keep the best state on validation.

    Args:
        space: the run.
        name: of the row; its seed hangs on it.
        backbone: where it starts.
        stretches: of all epochs.
        context: what its prompts show when FHR is measured on the validation anchors.
        checkpoints: see `train_supervised`.

    Returns:
        The series "loss" and "validation_fhr@K".
    """
    config = space.config.sft
    return train_supervised(
        backbone,
        stretches,
        epochs=1,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        seed=space.seed(name),
        description=name,
        evaluations=config.evaluations,
        evaluate=lambda: space.validation_fhr(backbone, context),
        series=f"validation_fhr@{space.config.evaluation.top_k}",
        checkpoints=checkpoints,
    )
