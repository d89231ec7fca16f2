"""The lists that a model in training gives for dislikes of the validation period, context by context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from conrec.config import Context
from conrec.evaluation.metrics import fhr, hr
from conrec.llm.backbone import Backbone
from conrec.llm.curriculum import showing
from conrec.logs.anchors import Anchors
from conrec.seeds import generator
from conrec.workspace import Workspace

__all__ = ["Watched"]

LONGER = 50
"""Length of the longer lists."""


class Watched:
    """Asked a few times in a training: hit rates and how many items are recommended at all.

    One anchor for every dislike (`Workspace.dislikes`), since those of the table tile a user's weeks and all but never
    show a dislike of the last days. The lists are those of plain beams; their proof would cost more than it tells here.

    Args:
        space: the run.
        contexts: what the prompts show.
        n: anchors of each context at most, the same for every model of the run.
    """

    def __init__(self, space: Workspace, contexts: Sequence[Context], n: int) -> None:
        self.space, self.contexts, self.n = space, tuple(contexts), n
        self._drawn: dict[Context, Anchors] = {}

    def __call__(self, backbone: Backbone) -> dict[str, float]:
        """For each context HR@K, HR@50 and FHR@K, K being ``evaluation.top_k``, and the distinct items of the top K."""
        space, k = self.space, self.space.config.evaluation.top_k
        log, eligible = space.prepared.log, space.config.protocol.history_eligible
        values: dict[str, float] = {}
        for context in self.contexts:
            anchors = self._anchors(backbone, context)
            model = replace(space.generative(backbone, context), certified=False)
            lists = model.predict(log, anchors.queries, max(k, LONGER), history_eligible=eligible).item
            top = lists[:, :k]
            values[f"validation_hr@{k} {context}"] = float(hr(top, anchors.next_item).mean())
            values[f"validation_hr@{LONGER} {context}"] = float(hr(lists[:, :LONGER], anchors.next_item).mean())
            values[f"validation_fhr@{k} {context}"] = float(fhr(top, anchors.future_negatives).mean())
            values[f"items_in_lists {context}"] = float(len(np.unique(top[top >= 0])))
        return values

    def _anchors(self, backbone: Backbone, context: Context) -> Anchors:
        if context not in self._drawn:
            space = self.space
            anchors = space.dislikes("validation", space.config.protocol.horizon_days)
            rng = generator(space.config.run.seed, "watched", context)
            drawn = showing(anchors, space.prompts(backbone), space.prepared.log, context, self.n, rng)
            self._drawn[context] = drawn
        return self._drawn[context]
