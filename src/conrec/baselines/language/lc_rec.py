"""LC-Rec (arXiv 2311.09049): a language model over semantic IDs, tuned on sequences and on the meaning of the IDs.

It starts from the same translation stage as CoNRec and is then tuned on next items, translations and the paper's other
alignment tasks together (`conrec.baselines.language.alignment`). Departures: a stretch of history trains all of its
next items at once; each task has one wording, where the paper draws among up to nineteen; the tasks whose texts the
paper lets GPT write are made from descriptions and categories; where no item has a title, tasks with titles are left
out. Two rows of CoNRec's Table 1:

* on negatives only: histories of dislikes, the next dislike is the target;
* on negatives and positives: histories of both signs, the next item of either sign is a target; at
  prediction it is asked for the next dislike.
"""

from __future__ import annotations

import numpy as np

from conrec.baselines.language.alignment import AlignmentTasks
from conrec.baselines.language.titles import has_titles
from conrec.baselines.language.tuned import TunedModel, tuned_on
from conrec.baselines.registry import REGISTRY, context_of
from conrec.llm.prompts import PromptBuilder, Stretch
from conrec.llm.samples import history_stretches, translation_stretches
from conrec.protocol import NEGATIVE, POSITIVE
from conrec.seeds import generator
from conrec.settings.baselines.language import LcRecConfig
from conrec.workspace import Workspace

__all__ = ["SPACE", "LcRec"]

SPACE: dict[str, tuple[float | int, ...]] = {
    "epochs": (3, 5, 8, 12),
    "asymmetric_share": (0.0, 0.25, 0.5),
    "intention_share": (0.0, 0.25, 0.5),
}
"""The grid that `conrec baselines search` searches."""


class LcRec(TunedModel):
    """A fitted LC-Rec."""

    @classmethod
    def fit(cls, space: Workspace, name: str) -> LcRec:
        """Tune the backbone of the translation stage, and keep the state with the best validation FHR@20."""
        settings = _settings(space, name)
        backbone = space.backbone(REGISTRY[name].start)
        prompts = space.prompts(backbone)
        stretches: list[Stretch] = []
        for epoch in range(settings.epochs):
            rng = generator(space.config.run.seed, name, "pass", epoch)
            stretches += _one_pass(space, prompts, name, rng)
        curve = tuned_on(space, name, backbone, stretches, context_of(name, space.config))
        return cls.of(space, backbone, name, curve.lists())


def _settings(space: Workspace, name: str) -> LcRecConfig:
    """The section of a row."""
    found: LcRecConfig = getattr(space.config.baselines, name.replace("-", "_"))
    return found


def _one_pass(space: Workspace, prompts: PromptBuilder, name: str, rng: np.random.Generator) -> list[Stretch]:
    """One pass over the training samples of a row: all sequences, all titles, and some samples of the other tasks.

    Args:
        space: the run.
        prompts: builds them.
        name: of the row.
        rng: draws the order of events of the same second, and the samples of the other tasks.
    """
    signs = (NEGATIVE, POSITIVE) if name == "lc-rec-both" else (NEGATIVE,)
    data = space.prepared
    context = context_of(name, space.config)
    sequences = history_stretches(prompts, data.log, data.periods.validation, context, rng, signs)
    titles: list[Stretch] = []
    if has_titles(space):
        titles = translation_stretches(prompts, space.titles, np.flatnonzero(space.trained_items))
    tasks = AlignmentTasks(space, prompts, context, signs, _settings(space, name))
    return [*sequences, *titles, *tasks.samples(len(sequences), rng)]
