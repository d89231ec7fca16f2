"""TALLRec (arXiv 2305.00447): a language model tuned to answer "will this user dislike the item?" with Yes or No.

A prompt shows the latest titles that the user disliked and those that he liked, and the title of one item; its score
is the log-odds of Yes against No, read off the first token of the answer as the authors do. Departures:

* the target is turned around: Yes means a dislike;
* an item answered with No is one that was exposed to the user the same day and not disliked, drawn as candidates are,
  and some are drawn from the whole catalogue without his history and without what he disliked in the window, so that
  the model has met what it is asked to rank; the paper takes what the user rated well;
* the items of an anchor are read behind one reading of its prompt, in training as in prediction, and the loss compares
  Yes with No alone: ``-log sigmoid(+-(logit(Yes) - logit(No)))``, the mean over all items of a batch, where Yes and
  No weigh the same;
* it starts from the translation stage, as the other language models here do, and all of its weights are trained; the
  paper adapts a pretrained LLaMA by LoRA on instructions of general use and then on few samples;
* the state with the best AUC on the candidates of validation anchors is kept: there may be no ranking to choose by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from conrec.baselines.language.exposed import draw_exposed
from conrec.baselines.language.title_model import TitleModel
from conrec.baselines.language.title_tree import Branches, last_states, merged, token_logits
from conrec.llm.backbone import Backbone
from conrec.llm.tree import TokenTree
from conrec.logs.log import Log
from conrec.protocol import CANDIDATES, DAY
from conrec.seeds import generator
from conrec.workspace import Workspace

__all__ = ["SPACE", "Judged", "TallRec"]

SPACE: dict[str, tuple[float | int, ...]] = {
    "samples": (4_000, 8_000, 16_000),
    "history": (5, 10, 20),
    "learning_rate": (3e-4, 1e-3),
}
"""The grid that `conrec baselines search` searches."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A prompt, and titles behind it of which the first is answered with Yes and the others with No.

    Attributes:
        ids: tokens of the prompt.
        titles: tokens of each title.
    """

    ids: list[int]
    titles: list[list[int]]


@dataclass(frozen=True)
class TallRec(TitleModel):
    """A fitted TALLRec."""

    section: ClassVar[str] = "tallrec"
    judges: ClassVar[bool] = True

    @property
    def loss_of(self) -> Callable[[Backbone, Sequence[Judged]], Tensor]:
        """See `judged_loss`."""
        return lambda backbone, batch: judged_loss(backbone, batch, self.prompts.yes, self.prompts.no)

    def samples(self, space: Workspace, name: str) -> list[Judged]:
        """One pass over training anchors, drawn where there are more than `TitleSettings.samples`."""
        settings, config = space.config.baselines.tallrec, space.config
        rng = generator(config.run.seed, name, "samples")
        anchors = space.prepared.anchors.of_split("train")
        anchors = anchors.select(rng.permutation(len(anchors))[: settings.samples])
        horizon = config.protocol.horizon_days * DAY
        exposed = draw_exposed(space.training_log, anchors, horizon, CANDIDATES - 1, rng)
        trained, found = space.trained_items, []
        for row in range(len(exposed)):
            user, time, item = int(exposed.user[row]), int(exposed.timestamp[row]), int(exposed.item[row])
            others = exposed.others[row][: settings.exposed].tolist()
            free = trained.copy()
            free[space.training_log.item[space.training_log.history(user, time)]] = False
            free[anchors.future_negatives[row]] = False
            free[others] = False
            drawn = np.flatnonzero(free)
            others += rng.choice(drawn, min(settings.uniform, len(drawn)), replace=False).tolist()
            titles = [self.prompts.title(one) for one in (item, *others)]
            found.append(Judged(self.prompts.pointwise(space.training_log, user, time), titles))
        return found

    def candidate_prompts(self, log: Log, user: int, timestamp: int, candidates: Sequence[int]) -> list[list[int]]:
        """The one prompt of the history; it does not say what the candidates are."""
        return [self.prompts.pointwise(log, user, timestamp)]

    def catalogue_prompt(self, log: Log, user: int, timestamp: int) -> list[int]:
        """The same prompt: an item's score is the same among candidates and in the catalogue."""
        return self.prompts.pointwise(log, user, timestamp)

    def sequence(self, item: int) -> list[int]:
        """The whole title."""
        return self.prompts.title(item)

    def title_scores(self, tree: TokenTree, branches: Branches, *, listed: bool) -> Float[Tensor, "B C"]:
        """Log-odds of Yes against No behind each title."""
        return odds(self.backbone, tree, branches, self.prompts.yes, self.prompts.no)


def odds(backbone: Backbone, tree: TokenTree, branches: Branches, yes: int, no: int) -> Float[Tensor, "B C"]:
    """``logit(Yes) - logit(No)`` behind each title behind each prompt."""
    logits = token_logits(backbone, last_states(tree, branches), (yes, no)).float()
    return logits[..., 0] - logits[..., 1]


def judged_loss(backbone: Backbone, batch: Sequence[Judged], yes: int, no: int) -> Float[Tensor, ""]:
    """Mean over the batch of ``-log P(Yes)`` of the first titles and ``-log P(No)`` of the others, half each."""
    tree = TokenTree(backbone, [one.ids for one in batch])
    branches = merged([one.titles for one in batch]).to(backbone.device)
    found = odds(backbone, tree, branches, yes, no)
    real = torch.zeros_like(found, dtype=torch.bool)
    for row, one in enumerate(batch):
        real[row, 1 : len(one.titles)] = True
    of_yes = -torch.nn.functional.logsigmoid(found[:, 0]).mean()
    of_no = -torch.nn.functional.logsigmoid(-found[real])
    return (of_yes + of_no.sum() / real.sum().clamp(min=1)) / 2
